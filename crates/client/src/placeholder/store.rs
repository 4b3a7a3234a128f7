//! What was given out, and what it stands for now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use evermint_core::id::Generation;
use evermint_core::profile::binding::Binding;
use evermint_core::secret::Secret;
use evermint_core::time::UnixMs;

use super::pattern::Destination;
use super::resolver::{Refused, Resolver, redacted};
use super::token::{self, Form};

/// Values of one static credential that go on resolving after they were replaced, the newest
/// included.
pub const RETAINED_MAX: usize = 8;

/// Revisions under which one static credential was given out that are remembered: as many values.
const ISSUED_MAX: usize = 1024;

/// One secret variable, as a bundle gives it.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// The variable's name.
    pub key: &'a str,
    /// Who gives the value.
    pub identity: &'a str,
    /// 64 hex digits for a minted value; `None` for a static one.
    pub handle: Option<&'a str>,
    /// Where the value may be sent.
    pub bindings: &'a [Binding],
    /// The value, if the cluster serves one now.
    pub value: Option<(&'a Secret, Generation)>,
    /// When the value ends, on the cluster clock.
    pub expires_at: Option<UnixMs>,
}

/// Every placeholder that may be given out now, and what it stands for. A value of its own for each
/// bundle; making one costs no copy of the values that stay.
#[derive(Clone, Debug, Default)]
pub struct Placeholders {
    /// Every variable that ever was secret; never shrinks, so that no name of one becomes free.
    known: BTreeSet<Arc<str>>,
    entries: BTreeMap<Arc<str>, Entry>,
    plain: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
struct Entry {
    identity: Arc<str>,
    /// `None` for a static value.
    handle: Option<Arc<str>>,
    bindings: Arc<[Binding]>,
    /// Whether the cluster serves a value now. If not, none of the values resolves.
    live: bool,
    /// The newest last; of a minted value the newest alone.
    values: Vec<Arc<Value>>,
    /// The revisions under which this identity was given out, the newest last.
    issued: Vec<u64>,
}

#[derive(Debug)]
struct Value {
    /// The revision under which it came first.
    revision: u64,
    generation: Generation,
    secret: Secret,
    expires_at: Option<UnixMs>,
}

impl Placeholders {
    /// What stands after a bundle whose environment has this revision.
    ///
    /// A variable whose name could be mistaken for another placeholder is left out, and so is the
    /// second one of a name.
    #[must_use]
    pub fn installed<'a>(
        &self,
        revision: u64,
        given: impl IntoIterator<Item = Given<'a>>,
        plain: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let mut entries: BTreeMap<Arc<str>, Entry> = BTreeMap::new();
        for given in given {
            let handle_fits = given.handle.is_none_or(token::is_handle);
            if token::is_usable_name(given.key) && handle_fits && !entries.contains_key(given.key) {
                let before = self.entries.get(given.key);
                entries.insert(given.key.into(), Entry::new(before, revision, given));
            }
        }
        let identities = |entries: &BTreeMap<Arc<str>, Entry>| -> Vec<_> {
            let each = entries.iter();
            each.map(|(key, e)| (key.clone(), e.identity.clone()))
                .collect()
        };
        if identities(&entries) != identities(&self.entries) {
            // Somebody was granted something, or lost it: nothing of before counts any more.
            for entry in entries.values_mut() {
                entry.values.drain(..entry.values.len().saturating_sub(1));
            }
        }
        let mut known = self.known.clone();
        known.extend(entries.keys().cloned());
        let plain = plain
            .into_iter()
            .filter(|(key, _)| token::is_usable_name(key) && !known.contains(*key))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Self {
            known,
            entries,
            plain,
        }
    }

    /// What stands when the sandbox has nothing any more. Names that were secret stay so.
    #[must_use]
    pub fn revoked(&self) -> Self {
        Self {
            known: self.known.clone(),
            ..Self::default()
        }
    }

    /// The environment of a child process: placeholders for secrets, and plain values as they are.
    /// A secret without a value now has its placeholder, too; it resolves once there is one.
    pub fn child_environment(&self) -> BTreeMap<String, String> {
        let secret = self
            .entries
            .iter()
            .map(|(key, entry)| (key.to_string(), entry.placeholder(key)));
        secret.chain(self.plain.clone()).collect()
    }

    /// Whether any secret is bound to this host and port, under whatever path: whether a proxy has to
    /// look into what goes there.
    pub fn binds(&self, host: &str, port: u16) -> bool {
        let destination = Destination::new(host, port, String::new());
        let mut bindings = self.entries.values().flat_map(|e| e.bindings.iter());
        bindings.any(|binding| destination.is_host_of(binding))
    }

    /// What rewrites a request to `target` (path and query) at `host` and `port`, at `now` on the
    /// cluster clock; without a time nothing resolves.
    ///
    /// # Errors
    /// [`Refused::Misplaced`] if a placeholder in the path is no whole one.
    pub fn resolver(
        &self,
        host: &str,
        port: u16,
        target: &str,
        now: Option<UnixMs>,
    ) -> Result<Resolver<'_>, Refused> {
        let destination = Destination::new(host, port, redacted(target)?);
        Ok(Resolver::new(self, destination, now))
    }

    /// The bindings of `key` that are meant by `destination`. `None` for a name that is not secret.
    pub(super) fn admits(&self, key: &str, destination: &Destination) -> Option<Admitted> {
        if !self.known.contains(key) {
            return None;
        }
        let entry = self.entries.get(key);
        let bindings = entry.into_iter().flat_map(|e| e.bindings.iter());
        let mut meant = bindings.filter(|b| destination.is(b)).peekable();
        Some(match meant.peek() {
            None => Admitted::Nowhere,
            Some(_) => Admitted::Here {
                body: meant.any(|b| b.body_rewrite),
            },
        })
    }

    /// Whether any value may stand in the body of a request to `destination`.
    pub(super) fn rewrites_bodies_of(&self, destination: &Destination) -> bool {
        let mut keys = self.entries.keys();
        keys.any(|key| self.admits(key, destination) == Some(Admitted::Here { body: true }))
    }

    /// What a placeholder of a secret stands for at `now`; its bindings are not looked at here.
    pub(super) fn secret(&self, form: Form<'_>, now: UnixMs) -> Option<&Secret> {
        let entry = self.entries.get(form.key()).filter(|entry| entry.live)?;
        let value = match (form, &entry.handle) {
            (Form::Stable { handle, .. }, Some(own)) if handle == &**own => entry.values.last()?,
            (Form::Revisioned { revision, .. }, None) if entry.issued.contains(&revision) => {
                let own = entry.values.iter().find(|v| v.revision == revision);
                own.or(entry.values.last())?
            }
            // A name alone, or with another's handle or revision, tells nothing of who asks.
            _ => return None,
        };
        let ended = value.expires_at.is_some_and(|end| end <= now);
        (!ended).then_some(&value.secret)
    }

    /// A plain value.
    pub(super) fn plain(&self, form: Form<'_>) -> Option<&str> {
        match form {
            Form::Canonical { key } | Form::Revisioned { key, .. } | Form::Alias { key } => {
                self.plain.get(key).map(String::as_str)
            }
            Form::Stable { .. } => None,
        }
    }
}

/// Where a secret may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// Not where the request goes.
    Nowhere,
    /// There, and into its body or not.
    Here { body: bool },
}

impl Entry {
    fn new(before: Option<&Self>, revision: u64, given: Given<'_>) -> Self {
        let same = before.filter(|before| {
            *before.identity == *given.identity && before.handle.as_deref() == given.handle
        });
        let mut values = same.map(|before| before.values.clone()).unwrap_or_default();
        let mut issued = same.map(|before| before.issued.clone()).unwrap_or_default();
        if let Some((secret, generation)) = given.value {
            let newest = values.last().filter(|newest| {
                newest.generation == generation && newest.secret.expose() == secret.expose()
            });
            let first = newest.map_or(revision, |newest| newest.revision);
            let value = Arc::new(Value {
                revision: first,
                generation,
                secret: secret.clone(),
                expires_at: given.expires_at,
            });
            values.retain(|v| v.revision != first);
            values.push(value);
            let kept = if given.handle.is_some() {
                1
            } else {
                RETAINED_MAX
            };
            values.drain(..values.len().saturating_sub(kept));
        }
        let named = values.last().map_or(revision, |newest| newest.revision);
        if given.handle.is_none() && !issued.contains(&named) {
            issued.push(named);
            issued.drain(..issued.len().saturating_sub(ISSUED_MAX));
        }
        Self {
            identity: given.identity.into(),
            handle: given.handle.map(Into::into),
            bindings: given.bindings.into(),
            live: given.value.is_some(),
            values,
            issued,
        }
    }

    fn placeholder(&self, key: &str) -> String {
        match &self.handle {
            Some(handle) => token::of_handle(handle, key),
            None => token::of_revision(self.issued.last().copied().unwrap_or_default(), key),
        }
    }
}
