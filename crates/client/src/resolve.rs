//! Host names into addresses, again and again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use crate::dice::Dice;
use crate::names;
use crate::shared::Shared;

/// Resolves host names.
#[async_trait]
pub trait Resolve: Send + Sync + 'static {
    /// Every address of `host`, with `port`.
    ///
    /// # Errors
    /// If none is known; the addresses that were known before stay in use.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// Asks the system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }
}

/// The addresses of each endpoint's host, in the order of endpoints.
pub(crate) type Addresses = Vec<Vec<SocketAddr>>;

/// How long a name may take.
const BOUND: Duration = Duration::from_secs(5);
/// Names are not resolved more often than this, however badly addresses are needed.
const GAP: Duration = Duration::from_secs(1);
/// Most addresses of one name that are used.
const ADDRESSES_MAX: usize = 64;

/// Keeps the addresses of one host fresh.
pub(crate) struct Follow {
    /// The endpoint's place in the list.
    pub(crate) url: usize,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) every: Duration,
    pub(crate) resolver: Arc<dyn Resolve>,
    /// Somebody needs addresses now.
    pub(crate) wanted: Arc<Notify>,
    pub(crate) addresses: watch::Sender<Addresses>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) dice: Dice,
}

impl Follow {
    /// Runs until it is dropped.
    pub(crate) async fn run(mut self) {
        loop {
            self.once().await;
            let every = self.dice.around(self.every);
            sleep(GAP.min(every)).await;
            tokio::select! {
                () = sleep(every.saturating_sub(GAP)) => {}
                () = self.wanted.notified() => {}
            }
        }
    }

    async fn once(&self) {
        let answer = timeout(BOUND, self.resolver.resolve(&self.host, self.port)).await;
        let cause = match answer {
            Ok(Ok(found)) if !found.is_empty() => {
                self.shared.counters.resolutions.add();
                self.publish(found);
                return;
            }
            Ok(Ok(_)) => "it has no address".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        self.shared.counters.resolutions_failed.add();
        tracing::warn!(
            { names::HOST } = self.host,
            { names::CAUSE } = cause,
            "an endpoint's name cannot be resolved"
        );
    }

    fn publish(&self, mut found: Vec<SocketAddr>) {
        found.sort_unstable();
        found.dedup();
        found.truncate(ADDRESSES_MAX);
        self.addresses.send_if_modified(|addresses| {
            let known = &mut addresses[self.url];
            let changed = *known != found;
            *known = found;
            changed
        });
    }
}
