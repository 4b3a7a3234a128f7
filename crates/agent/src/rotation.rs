//! Tokens that an upstream refused: reported once, then waited for.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use evermint_client::{Client, Route};
use tokio::time::{Instant, timeout_at};

use crate::metrics::Counter;
use crate::names;

/// A route's token that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    route: String,
    provider: String,
    key: String,
    generation: u64,
}

impl Refused {
    /// The token that a route has now.
    pub(crate) fn of(route: Route<'_>) -> Self {
        let token = route.token();
        Self {
            route: route.name().to_owned(),
            provider: route.provider().to_owned(),
            key: token.key().to_owned(),
            generation: token.generation().map_or(0, |g| g.0),
        }
    }

    /// Whether the route has another token now.
    fn is_past(&self, client: &Client) -> bool {
        let snapshot = client.snapshot();
        snapshot.route(&self.route).is_some_and(|route| {
            let now = Self::of(route);
            let same = now.provider == self.provider && now.key == self.key;
            (!same || now.generation > self.generation) && route.token().is_usable_now()
        })
    }
}

/// What was reported.
#[derive(Debug, Default)]
pub(crate) struct Rotations {
    bound: Duration,
    /// The newest generation of each credential that was reported.
    reported: Mutex<HashMap<(String, String), u64>>,
    pub(crate) reports: Counter,
}

impl Rotations {
    pub(crate) fn new(bound: Duration) -> Self {
        Self {
            bound,
            ..Self::default()
        }
    }

    /// Reports a refused token, unless it is past already, or was reported; then waits for another
    /// one if asked to, no longer than its bound and the call's deadline. Says whether there is one.
    pub(crate) async fn newer(
        &self,
        client: &Client,
        refused: &Refused,
        wait: bool,
        deadline: Instant,
    ) -> bool {
        let mut changes = client.subscribe();
        if refused.is_past(client) {
            return true;
        }
        if !self.report(client, refused).await || !wait {
            return false;
        }
        let until = deadline.min(Instant::now() + self.bound);
        while !refused.is_past(client) {
            if !matches!(timeout_at(until, changes.changed()).await, Ok(Ok(_))) {
                return refused.is_past(client);
            }
        }
        true
    }

    /// Reports a refused token once. Says whether another one may come.
    async fn report(&self, client: &Client, refused: &Refused) -> bool {
        let _ = client;
        let credential = (refused.provider.clone(), refused.key.clone());
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = reported.entry(credential).or_default();
        if *newest < refused.generation {
            *newest = refused.generation;
            self.reports.add();
            tracing::warn!(
                { names::PROVIDER } = refused.provider,
                { names::GENERATION } = refused.generation,
                "an upstream refused a token"
            );
        }
        true
    }
}
