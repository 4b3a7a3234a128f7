//! Tokens that an upstream refused: reported once, then waited for.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use evermint_client::{Client, Report, Route};
use evermint_core::id::Generation;
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
    /// What was reported of each credential last.
    told: Mutex<HashMap<(String, String), Told>>,
    pub(crate) reports: Counter,
}

/// A report that was made.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    generation: u64,
    /// Whether another token may come soon.
    hopeful: bool,
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
        if !self.report(client, refused, deadline).await || !wait {
            return refused.is_past(client);
        }
        let until = deadline.min(Instant::now() + self.bound);
        while !refused.is_past(client) {
            if !matches!(timeout_at(until, changes.changed()).await, Ok(Ok(_))) {
                return refused.is_past(client);
            }
        }
        true
    }

    /// Tells the gateway of a refused token once, within the call's deadline. Says whether another
    /// one may come soon.
    async fn report(&self, client: &Client, refused: &Refused, deadline: Instant) -> bool {
        let credential = (refused.provider.clone(), refused.key.clone());
        let known = self.known(&credential);
        if known.generation >= refused.generation {
            return known.hopeful;
        }
        let mut told = Told {
            generation: refused.generation,
            hopeful: true,
        };
        self.note(&credential, told);
        self.reports.add();
        tracing::warn!(
            { names::PROVIDER } = refused.provider,
            { names::GENERATION } = refused.generation,
            "an upstream refused a token"
        );
        let generation = Generation(refused.generation);
        let report = client.report(&refused.provider, &refused.key, generation);
        match timeout_at(deadline, report).await {
            Ok(Ok(Report::Due | Report::Superseded)) => {}
            Ok(Ok(Report::NotYet { .. } | Report::Stuck)) => {
                told.hopeful = false;
                self.note(&credential, told);
            }
            // Whoever comes next tells it again; a new token may come of itself.
            Ok(Err(_)) | Err(_) => self.note(&credential, known),
        }
        told.hopeful
    }

    fn known(&self, credential: &(String, String)) -> Told {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.get(credential).copied().unwrap_or_default()
    }

    fn note(&self, credential: &(String, String), what: Told) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert(credential.clone(), what);
    }
}
