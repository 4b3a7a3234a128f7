//! How a client is set up.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evermint_core::id::{Name, Workspace};
use evermint_core::port::Clock;
use evermint_core::secret::Secret;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::transport::Certificate;

use crate::auth::TokenSource;
use crate::cache::Cache;
use crate::client::Client;
use crate::clock::SystemClock;
use crate::dice::Dice;
use crate::driver::Driver;
use crate::endpoints::{Endpoints, Penalty};
use crate::error::Error;
use crate::own::{Keeper, Origin, Renewals};
use crate::pace::Pace;
use crate::resolve::{Addresses, Follow, Resolve, SystemResolver};
use crate::shared::{Progress, Shared};
use crate::snapshot::Snapshot;
use crate::timing::Timing;
use crate::token_file::TokenFile;
use crate::url::Url;
use crate::wire::{Wire, check_ca};

/// Sets up a [`Client`]. Needed are endpoints and the sandbox.
#[must_use]
pub struct Builder {
    endpoints: Vec<String>,
    preferred: Option<String>,
    sandbox: String,
    workspace: String,
    source: Option<Arc<dyn TokenSource>>,
    own: Option<Origin>,
    ca: Option<Certificate>,
    plaintext: bool,
    max_staleness: Duration,
    timing: Timing,
    clock: Arc<dyn Clock>,
    resolver: Arc<dyn Resolve>,
}

/// The default of [`Builder::max_staleness`], the same as the gateway's.
const MAX_STALENESS: Duration = Duration::from_secs(300);

/// Most endpoints of one client.
const ENDPOINTS_MAX: usize = 64;

impl Default for Builder {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            preferred: None,
            sandbox: String::new(),
            workspace: String::new(),
            source: None,
            own: None,
            ca: None,
            plaintext: false,
            max_staleness: MAX_STALENESS,
            timing: Timing::default(),
            clock: Arc::new(SystemClock),
            resolver: Arc::new(SystemResolver),
        }
    }
}

impl Builder {
    /// The URLs of the replicas, at most 64: `https://host:port`, or `http://` on this machine. A
    /// host name may have several addresses; each counts as an endpoint.
    pub fn endpoints<I>(mut self, urls: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.endpoints = urls.into_iter().map(Into::into).collect();
        self
    }

    /// The endpoint that is asked rather than others, such as the one on this machine: first, and
    /// again as soon as it answers after a failure. One of the [`endpoints`](Self::endpoints).
    pub fn prefer(mut self, url: impl Into<String>) -> Self {
        self.preferred = Some(url.into());
        self
    }

    /// The sandbox's id, or its name in the workspace.
    pub fn sandbox(mut self, name_or_id: impl Into<String>) -> Self {
        self.sandbox = name_or_id.into();
        self
    }

    /// Where the sandbox's name is unique; `default` unless it is given.
    pub fn workspace(mut self, workspace: impl Into<String>) -> Self {
        self.workspace = workspace.into();
        self
    }

    /// Gives the bearer token of every call; without one, calls carry none.
    pub fn token_source(mut self, source: impl TokenSource) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// The token that the cluster issued to this sandbox. The client renews it at whichever endpoint
    /// serves, as long as it runs, and keeps the new ones in memory; a [token
    /// source](Self::token_source) counts rather than this.
    pub fn sandbox_token(mut self, token: impl Into<Secret>) -> Self {
        self.own = Some(Origin::Given(token.into()));
        self
    }

    /// The same, beginning with the token in a file. The file is read at the start, and again while
    /// the cluster refuses the token that is held, such as one that was revoked; it is written only
    /// if `renewals` says so, atomically and for its owner alone. A file that is not there yet is
    /// waited for.
    pub fn sandbox_token_file(mut self, path: impl Into<PathBuf>, renewals: Renewals) -> Self {
        self.own = Some(Origin::File(TokenFile::new(path), renewals));
        self
    }

    /// The authority, in PEM, that the replicas' certificates have to be issued by; without one,
    /// those that the system trusts.
    pub fn ca_certificate(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.ca = Some(Certificate::from_pem(pem));
        self
    }

    /// Allows `http://` beyond this machine, where something else encrypts, such as a service mesh.
    pub fn allow_plaintext(mut self) -> Self {
        self.plaintext = true;
        self
    }

    /// How long values may be used after the cluster was last heard of: what it revokes meanwhile
    /// is not learned. 5 minutes, as the gateway's; [`Duration::MAX`] trusts in expiry alone.
    pub fn max_staleness(mut self, max_staleness: Duration) -> Self {
        self.max_staleness = max_staleness;
        self
    }

    /// Bounds and intervals.
    pub fn timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// Another clock by which values end, for tests; only `boot` is read.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Another way to resolve host names.
    pub fn resolver(mut self, resolver: impl Resolve) -> Self {
        self.resolver = Arc::new(resolver);
        self
    }

    /// Starts to follow the bundle, on the runtime of the caller.
    ///
    /// # Errors
    /// [`Error::Setting`] for the first setting that is missing or wrong, and outside of a tokio
    /// runtime.
    pub fn build(self) -> Result<Client, Error> {
        let runtime = Handle::try_current().map_err(|e| Error::setting("runtime", e))?;
        let urls = self.check()?;
        let empty = Snapshot::new(
            None,
            Arc::default(),
            Arc::clone(&self.clock),
            self.max_staleness,
        );
        let shared = Arc::new(Shared::new(empty));
        let preferred = self
            .preferred
            .and_then(|url| self.endpoints.iter().position(|other| *other == url));
        let mut tasks = JoinSet::new();
        let mut seeds = Dice::seeded(RandomState::new().hash_one(0));
        let mut dice = || Dice::seeded(seeds.roll());
        let mut source = self.source;
        if let (None, Some(origin)) = (&source, self.own) {
            let (shared, clock) = (Arc::downgrade(&shared), Arc::clone(&self.clock));
            let (own, keeper) = Keeper::new(origin, shared, self.timing.attempt, clock, dice());
            tasks.spawn_on(keeper.run(), &runtime);
            source = Some(own);
        }
        let (progress_in, progress) = watch::channel(Progress::default());
        let known: Addresses = urls
            .iter()
            .map(|url| url.address().into_iter().collect())
            .collect();
        let (addresses_in, addresses) = watch::channel(known);
        let addresses_wanted = Arc::new(Notify::new());

        for (at, url) in urls.iter().enumerate() {
            if let Some((host, port)) = url.name() {
                let follow = Follow {
                    url: at,
                    host: host.to_owned(),
                    port,
                    every: self.timing.resolve,
                    resolver: Arc::clone(&self.resolver),
                    wanted: Arc::clone(&addresses_wanted),
                    addresses: addresses_in.clone(),
                    shared: Arc::clone(&shared),
                    dice: dice(),
                };
                tasks.spawn_on(follow.run(), &runtime);
            }
        }
        let penalty = Penalty {
            base: self.timing.penalty_base,
            cap: self.timing.penalty_cap,
        };
        let driver = Driver {
            sandbox: self.sandbox,
            workspace: self.workspace,
            max_staleness: self.max_staleness,
            clock: Arc::clone(&self.clock),
            cache: Cache::default(),
            placeholders: Arc::default(),
            endpoints: Endpoints::new(penalty, preferred, dice()),
            next_failback: Instant::now() + self.timing.failback,
            pace: Pace::new(self.timing.clone(), dice()),
            wire: Wire {
                urls,
                ca: self.ca,
                source,
                clock: self.clock,
                timing: self.timing,
                channels: HashMap::new(),
            },
            addresses,
            addresses_wanted,
            shared: Arc::clone(&shared),
            progress: progress_in,
            since: Instant::now(),
            giver: None,
            reported: false,
        };
        tasks.spawn_on(driver.run(), &runtime);
        Ok(Client::new(shared, progress, tasks))
    }

    fn check(&self) -> Result<Vec<Url>, Error> {
        if !(1..=ENDPOINTS_MAX).contains(&self.endpoints.len()) {
            return Err(Error::setting("endpoints", "must be 1 to 64 URLs"));
        }
        let urls = self.endpoints.iter();
        let urls: Vec<Url> = urls
            .map(|url| Url::parse(url, self.plaintext))
            .collect::<Result<_, _>>()?;
        if let Some(url) = &self.preferred
            && !self.endpoints.contains(url)
        {
            return Err(Error::setting("prefer", "must be one of the endpoints"));
        }
        Name::new(self.sandbox.as_str()).map_err(|e| Error::setting("sandbox", e))?;
        if !self.workspace.is_empty() {
            Workspace::new(self.workspace.as_str()).map_err(|e| Error::setting("workspace", e))?;
        }
        if let Some(name) = self.timing.zero() {
            return Err(Error::setting("timing", format!("{name} must not be zero")));
        }
        if let Some(ca) = &self.ca {
            check_ca(ca).map_err(|e| Error::setting("ca_certificate", e))?;
        }
        Ok(urls)
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("endpoints", &self.endpoints)
            .field("sandbox", &self.sandbox)
            .field("workspace", &self.workspace)
            .field("timing", &self.timing)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Builder {
        Client::builder()
            .endpoints(["http://127.0.0.1:1"])
            .sandbox("agent-7")
    }

    #[tokio::test]
    async fn a_wrong_setting_is_named() {
        let zero = Timing {
            poll: Duration::ZERO,
            ..Timing::default()
        };
        for (builder, named) in [
            (good(), None),
            (good().workspace("team-a"), None),
            (good().endpoints([""; 0]), Some("endpoints")),
            (good().endpoints(["http://10.0.0.1:1"]), Some("endpoints")),
            (good().prefer("http://127.0.0.1:1"), None),
            (good().prefer("http://127.0.0.1:2"), Some("prefer")),
            (good().sandbox(""), Some("sandbox")),
            (good().workspace("a b"), Some("workspace")),
            (good().timing(zero), Some("timing")),
            (good().ca_certificate("nonsense"), Some("ca_certificate")),
        ] {
            let found = match builder.build() {
                Ok(_) => None,
                Err(Error::Setting { setting, .. }) => Some(setting),
                Err(other) => panic!("{other}"),
            };
            assert_eq!(found, named);
        }
    }

    #[test]
    fn there_has_to_be_a_runtime() {
        assert!(matches!(
            good().build(),
            Err(Error::Setting {
                setting: "runtime",
                ..
            })
        ));
    }
}
