//! What readers see: one bundle, whole and unchanging, and whether its values may be used *now*.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use evermint_core::environment::{Plain, Problem, Variable};
use evermint_core::id::{Generation, Position};
use evermint_core::port::Clock;
use evermint_core::profile::binding::Binding;
use evermint_core::secret::Secret;
use evermint_core::time::UnixMs;

use crate::cache::Held;
use crate::content::{Auth, Content, CredentialContent, RouteContent, Slot, Unavailable};
use crate::placeholder::{Placeholders, Refused, Resolver};

/// One bundle. It does not change, but the time does: whether a value may be used is decided anew
/// at every access.
///
/// Take a new one for each use, it costs one atomic load: a snapshot that is kept knows nothing of
/// later bundles, and its values stop being usable when it is older than
/// [`Builder::max_staleness`](crate::Builder::max_staleness).
#[derive(Clone)]
pub struct Snapshot {
    held: Option<Held>,
    placeholders: Arc<Placeholders>,
    clock: Arc<dyn Clock>,
    max_staleness: Duration,
}

/// Why a value may not be used now. The caller fails closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The cluster has no value to serve, for this reason.
    #[error("{}", .0.cause)]
    Unavailable(Unavailable),
    /// Its time is over.
    #[error("the value has expired")]
    Expired,
    /// The cluster was not heard of for so long that the value may have been revoked.
    #[error("the cluster was last heard of {} ms ago, longer than allowed", .0.as_millis())]
    Stale(Duration),
}

impl Snapshot {
    pub(crate) fn new(
        held: Option<Held>,
        placeholders: Arc<Placeholders>,
        clock: Arc<dyn Clock>,
        max_staleness: Duration,
    ) -> Self {
        Self {
            held,
            placeholders,
            clock,
            max_staleness,
        }
    }

    /// Whether there is a bundle. There is none before the first one, and after the sandbox was
    /// deleted.
    pub fn is_ready(&self) -> bool {
        self.held.is_some()
    }

    /// The sandbox's id; empty without a bundle.
    pub fn sandbox(&self) -> &str {
        self.content().map_or("", |c| &c.sandbox)
    }

    /// The bundle's generation; `None` without a bundle. Never decreases from one snapshot of a
    /// client to the next.
    pub fn generation(&self) -> Option<Position> {
        self.held.as_ref().map(|h| h.generation)
    }

    /// Changes if and only if the content does; empty without a bundle.
    pub fn revision(&self) -> &str {
        self.content().map_or("", |c| &c.revision)
    }

    /// The workspace's routes, in the order of their names.
    pub fn routes(&self) -> impl Iterator<Item = Route<'_>> {
        let routes = self.content().map_or(&[][..], |c| &c.routes);
        routes.iter().map(|content| Route {
            content,
            snapshot: self,
        })
    }

    /// The route of this name.
    pub fn route(&self, name: &str) -> Option<Route<'_>> {
        self.routes().find(|r| r.name() == name)
    }

    /// The credentials of the attached providers, in the order of attachment, then of their keys.
    pub fn credentials(&self) -> impl Iterator<Item = Credential<'_>> {
        let credentials = self.content().map_or(&[][..], |c| &c.credentials);
        credentials.iter().map(|content| Credential {
            content,
            snapshot: self,
        })
    }

    /// The credential of this key; keys are unique among the attached providers.
    pub fn credential(&self, key: &str) -> Option<Credential<'_>> {
        self.credentials().find(|c| c.key() == key)
    }

    /// Every value that may be used now, by the name that sandboxes know. What may not be used is
    /// not in it.
    pub fn environment(&self) -> BTreeMap<&str, &Secret> {
        self.credentials()
            .flat_map(|c| c.token().outputs())
            .collect()
    }

    /// The variables whose values are not secret.
    pub fn plain(&self) -> &[Plain] {
        self.content().map_or(&[], |c| &c.plain)
    }

    /// Changes if and only if the environment does, with its plain variables; 0 without a bundle.
    pub fn environment_revision(&self) -> u64 {
        self.content().map_or(0, |c| c.environment_revision)
    }

    /// What the cluster does not deliver, and why.
    pub fn problems(&self) -> &[Problem] {
        self.content().map_or(&[], |c| &c.problems)
    }

    /// The environment of a child process: placeholders in place of secrets, and plain values.
    pub fn child_environment(&self) -> BTreeMap<String, String> {
        self.placeholders.child_environment()
    }

    /// Whether any secret is bound to this host and port, under whatever path: whether a proxy has to
    /// look into what goes there.
    pub fn binds(&self, host: &str, port: u16) -> bool {
        self.placeholders.binds(host, port)
    }

    /// What replaces the placeholders of one request to `target` (path and query) at `host` and
    /// `port`. Without a bundle, and with one that is too old, no placeholder resolves.
    ///
    /// # Errors
    /// [`Refused`]: the request must not be sent on.
    pub fn resolver(&self, host: &str, port: u16, target: &str) -> Result<Resolver<'_>, Refused> {
        let held = self.held.as_ref();
        let now = held
            .map(|h| self.now(h))
            .filter(|_| self.usable(None).is_ok());
        self.placeholders.resolver(host, port, target, now)
    }

    /// Time since the content was known to be the newest, by the cluster clock; `None` without a
    /// bundle.
    pub fn staleness(&self) -> Option<Duration> {
        let held = self.held.as_ref()?;
        Some(self.now(held).since(held.fresh_as_of))
    }

    fn content(&self) -> Option<&Content> {
        self.held.as_ref().map(|h| &*h.content)
    }

    /// The latest that the cluster clock can show.
    fn now(&self, held: &Held) -> UnixMs {
        held.clock.at(self.clock.read().boot)
    }

    /// The one place that decides whether a value may be used.
    fn usable(&self, expires_at: Option<UnixMs>) -> Result<Option<Duration>, Unusable> {
        let Some(held) = &self.held else {
            return Err(Unusable::Stale(Duration::MAX));
        };
        let now = self.now(held);
        let staleness = now.since(held.fresh_as_of);
        if expires_at.is_some_and(|end| end <= now) {
            Err(Unusable::Expired)
        } else if staleness > self.max_staleness {
            Err(Unusable::Stale(staleness))
        } else {
            Ok(expires_at.map(|end| end.since(now)))
        }
    }
}

impl fmt::Debug for Snapshot {
    /// Values are not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("held", &self.held)
            .field("max_staleness", &self.max_staleness)
            .finish_non_exhaustive()
    }
}

/// A route: where calls go, as which model, with which token.
#[derive(Clone, Copy)]
pub struct Route<'a> {
    content: &'a RouteContent,
    snapshot: &'a Snapshot,
}

impl<'a> Route<'a> {
    /// Its name, such as `inference.local`.
    pub fn name(self) -> &'a str {
        &self.content.name
    }

    /// The provider's name.
    pub fn provider(self) -> &'a str {
        &self.content.provider
    }

    /// The provider's type.
    pub fn provider_type(self) -> &'a str {
        &self.content.provider_type
    }

    /// The provider's plain settings.
    pub fn config(self) -> &'a BTreeMap<String, String> {
        &self.content.config
    }

    /// The model that calls are sent to.
    pub fn model(self) -> &'a str {
        &self.content.model
    }

    /// Time limit of one call; `None` leaves it to the sandbox.
    pub fn timeout(self) -> Option<Duration> {
        self.content.timeout
    }

    /// The upstream: an http(s) URL without a trailing slash, to which the path of a call is
    /// appended; empty if nobody told the cluster.
    pub fn base_url(self) -> &'a str {
        &self.content.upstream.base_url
    }

    /// The APIs that the upstream speaks, such as `openai_chat_completions`; empty if unknown.
    pub fn protocols(self) -> &'a [String] {
        &self.content.upstream.protocols
    }

    /// How the token goes into a call.
    pub fn auth(self) -> &'a Auth {
        &self.content.upstream.auth
    }

    /// Whether the model stands in the path of a call, not in its body.
    pub fn model_in_path(self) -> bool {
        self.content.upstream.model_in_path
    }

    /// What comes after the base URL, and after the model if that stands in the path, instead of
    /// the path of the call; an empty one means that nothing does.
    pub fn request_path_override(self) -> Option<&'a str> {
        self.content.upstream.request_path_override.as_deref()
    }

    /// Headers that every call gets.
    pub fn headers(self) -> &'a BTreeMap<String, String> {
        &self.content.upstream.headers
    }

    /// Headers of the caller that are passed on, beside those that every API needs.
    pub fn passthrough_headers(self) -> &'a [String] {
        &self.content.upstream.passthrough_headers
    }

    /// Its token, live or not.
    pub fn token(self) -> Token<'a> {
        Token {
            key: &self.content.credential_key,
            slot: &self.content.slot,
            snapshot: self.snapshot,
        }
    }
}

impl fmt::Debug for Route<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.content.fmt(f)
    }
}

/// A credential of an attached provider.
#[derive(Clone, Copy)]
pub struct Credential<'a> {
    content: &'a CredentialContent,
    snapshot: &'a Snapshot,
}

impl<'a> Credential<'a> {
    /// The provider's name.
    pub fn provider(self) -> &'a str {
        &self.content.provider
    }

    /// Its key: the name of an environment variable.
    pub fn key(self) -> &'a str {
        &self.content.key
    }

    /// The variables that it fills, with or without a value.
    pub fn variables(self) -> &'a [Variable] {
        &self.content.variables
    }

    /// Where its values may be sent.
    pub fn endpoints(self) -> &'a [Binding] {
        &self.content.endpoints
    }

    /// Its token, live or not.
    pub fn token(self) -> Token<'a> {
        Token {
            key: &self.content.key,
            slot: &self.content.slot,
            snapshot: self.snapshot,
        }
    }
}

impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.content.fmt(f)
    }
}

/// The place of a token: every access looks at the clock, and gives the value only while it may be
/// used.
#[derive(Clone, Copy)]
pub struct Token<'a> {
    key: &'a str,
    slot: &'a Slot,
    snapshot: &'a Snapshot,
}

impl<'a> Token<'a> {
    /// The key of its credential; empty for a route without one.
    pub fn key(self) -> &'a str {
        self.key
    }

    /// Whether it may be used now.
    ///
    /// # Errors
    /// [`Unusable`] says why not.
    pub fn usable(self) -> Result<(), Unusable> {
        self.lifetime().map(|_| ())
    }

    /// Whether it may be used now.
    pub fn is_usable_now(self) -> bool {
        self.usable().is_ok()
    }

    /// How much longer it may be used; `None` if it may not be, or has no end.
    pub fn good_for(self) -> Option<Duration> {
        self.lifetime().ok().flatten()
    }

    /// The value, if it may be used now: the output that is named like the key, or the only one.
    pub fn value(self) -> Option<&'a Secret> {
        let token = self.live()?;
        token.values.get(self.key).or_else(|| {
            let mut values = token.values.values();
            values.next().filter(|_| values.next().is_none())
        })
    }

    /// One output by its name, if it may be used now. An STS session has three.
    pub fn output(self, name: &str) -> Option<&'a Secret> {
        self.live()?.values.get(name)
    }

    /// Every output that may be used now, by the name that sandboxes know.
    pub fn outputs(self) -> impl Iterator<Item = (&'a str, &'a Secret)> {
        let values = self.live().map(|t| t.values.iter());
        values.into_iter().flatten().map(|(k, v)| (k.as_str(), v))
    }

    /// Counts the values that the credential had; `None` if the cluster has none to serve.
    pub fn generation(self) -> Option<Generation> {
        self.slot.as_ref().ok().map(|t| t.generation)
    }

    fn lifetime(self) -> Result<Option<Duration>, Unusable> {
        match self.slot {
            Ok(token) => self.snapshot.usable(token.expires_at),
            Err(unavailable) => Err(Unusable::Unavailable(unavailable.clone())),
        }
    }

    fn live(self) -> Option<&'a crate::content::TokenContent> {
        self.usable().ok()?;
        self.slot.as_ref().ok()
    }
}

impl fmt::Debug for Token<'_> {
    /// The value is not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("key", &self.key)
            .field("generation", &self.generation())
            .field("usable", &self.usable())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use evermint_core::time::{Clocks, MonoMs};
    use evermint_proto::v1;

    use super::*;
    use crate::cache::{Cache, Given, Heard};

    /// Boot time, set by hand; the other clocks are wrong.
    #[derive(Default)]
    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn read(&self) -> Clocks {
            Clocks {
                mono: MonoMs(0),
                boot: MonoMs(self.0.load(Ordering::Relaxed)),
                wall: UnixMs(7),
            }
        }
    }

    const MINUTE: u64 = 60_000;
    const HOUR: u64 = 60 * MINUTE;
    const START: u64 = 1_800_000_000_000;

    fn token(values: &[(&str, &str)], expires_at_ms: Option<u64>) -> Option<v1::Token> {
        Some(v1::Token {
            values: values
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            expires_at_ms,
            generation: 3,
        })
    }

    /// A bundle that was given at boot time 0, when the cluster clock stood at `START`.
    fn snapshot(max_staleness: Duration) -> (Arc<Hand>, Snapshot) {
        let credential = |key: &str, token, unavailable| v1::BundleCredential {
            provider: "p".to_owned(),
            key: key.to_owned(),
            token,
            unavailable,
            ..v1::BundleCredential::default()
        };
        let bundle = v1::Bundle {
            generation: 7,
            revision: "a".to_owned(),
            credentials: vec![
                credential(
                    "HOUR",
                    token(&[("HOUR", "hunter2")], Some(START + HOUR)),
                    None,
                ),
                credential("EVER", token(&[("EVER", "static")], None), None),
                credential(
                    "STS",
                    token(&[("ID", "i"), ("KEY", "k"), ("SESSION", "s")], None),
                    None,
                ),
                credential(
                    "GONE",
                    None,
                    Some(v1::Unavailable {
                        verdict: v1::Verdict::NeedsReauthorization as i32,
                        cause: "the grant is gone".to_owned(),
                    }),
                ),
            ],
            routes: vec![v1::ResolvedRoute {
                name: "inference.local".to_owned(),
                timeout_secs: 30,
                credential_key: "HOUR".to_owned(),
                token: token(&[("access", "hunter2")], Some(START + HOUR)),
                ..v1::ResolvedRoute::default()
            }],
            ..v1::Bundle::default()
        };
        let mut cache = Cache::default();
        let given = Given {
            content: Some(bundle.into()),
            generation: Position(7),
            server_time: UnixMs(START),
            staleness: Duration::ZERO,
        };
        let heard = Heard::Answer {
            sent: MonoMs(0),
            received: MonoMs(0),
        };
        cache.take(given, heard).unwrap();
        let hand = Arc::new(Hand::default());
        let clock: Arc<dyn Clock> = Arc::clone(&hand) as _;
        (
            hand,
            Snapshot::new(cache.held().cloned(), Arc::default(), clock, max_staleness),
        )
    }

    fn shown(secret: Option<&Secret>) -> Option<&str> {
        secret.and_then(Secret::expose_str)
    }

    #[test]
    fn a_value_is_given_until_its_end_on_the_cluster_clock_and_not_after() {
        let (clock, snapshot) = snapshot(Duration::MAX);
        for (at, given) in [
            (0, true),
            (HOUR - 2, true),
            (HOUR - 1, false), // Both clocks are read in whole milliseconds: one is lost.
            (HOUR, false),
            (u64::MAX, false),
        ] {
            clock.0.store(at, Ordering::Relaxed);
            let token = snapshot.credential("HOUR").unwrap().token();
            let route = snapshot.route("inference.local").unwrap().token();
            for token in [token, route] {
                assert_eq!(token.is_usable_now(), given, "{at}");
                assert_eq!(shown(token.value()), given.then_some("hunter2"), "{at}");
                assert_eq!(token.good_for().is_some(), given, "{at}");
                assert_eq!(token.outputs().count(), usize::from(given), "{at}");
            }
            assert_eq!(token.usable().err(), (!given).then_some(Unusable::Expired));
            assert_eq!(snapshot.environment().contains_key("HOUR"), given);
            assert!(snapshot.credential("EVER").unwrap().token().is_usable_now());
        }
    }

    #[test]
    fn no_value_is_given_when_the_cluster_was_not_heard_of_for_too_long() {
        let (clock, snapshot) = snapshot(Duration::from_millis(5 * MINUTE));
        for (at, given) in [(0, true), (5 * MINUTE - 1, true), (5 * MINUTE + 1, false)] {
            clock.0.store(at, Ordering::Relaxed);
            let token = snapshot.credential("EVER").unwrap().token();
            assert_eq!(token.value().is_some(), given, "{at}");
            assert_eq!(matches!(token.usable(), Err(Unusable::Stale(_))), !given);
            assert_eq!(snapshot.environment().is_empty(), !given);
        }
    }

    #[test]
    fn the_value_of_a_token_is_the_output_of_its_key_or_the_only_one() {
        let (_, snapshot) = snapshot(Duration::MAX);
        let sts = snapshot.credential("STS").unwrap().token();
        assert_eq!(shown(sts.value()), None);
        assert_eq!(shown(sts.output("SESSION")), Some("s"));
        let names: Vec<_> = snapshot.environment().into_keys().collect();
        assert_eq!(names, ["EVER", "HOUR", "ID", "KEY", "SESSION"]);
        let route = snapshot.route("inference.local").unwrap();
        assert_eq!(shown(route.token().value()), Some("hunter2"));
        assert_eq!(route.timeout(), Some(Duration::from_secs(30)));
    }

    #[test]
    fn what_the_cluster_does_not_serve_says_why() {
        let (_, snapshot) = snapshot(Duration::MAX);
        let gone = snapshot.credential("GONE").unwrap().token();
        assert_eq!(shown(gone.value()), None);
        assert_eq!(gone.usable().unwrap_err().to_string(), "the grant is gone");
        assert!(snapshot.credential("NONE").is_none());
    }

    #[test]
    fn no_value_is_shown_by_debug() {
        let (_, snapshot) = snapshot(Duration::MAX);
        let route = snapshot.route("inference.local").unwrap();
        let credential = snapshot.credential("HOUR").unwrap();
        let shown = format!("{snapshot:?} {route:?} {credential:?} {:?}", route.token());
        assert!(shown.contains("inference.local") && !shown.contains("hunter2"));
    }

    #[test]
    fn without_a_bundle_there_is_nothing() {
        let snapshot = Snapshot::new(
            None,
            Arc::default(),
            Arc::new(Hand::default()),
            Duration::MAX,
        );
        assert!(!snapshot.is_ready());
        assert_eq!((snapshot.sandbox(), snapshot.revision()), ("", ""));
        assert_eq!(snapshot.generation(), None);
        assert_eq!(snapshot.staleness(), None);
        assert_eq!(
            snapshot.routes().count() + snapshot.credentials().count(),
            0
        );
    }
}
