//! The one task that asks, takes what is given, and publishes what is believed.

use std::sync::Arc;
use std::time::Duration;

use evermint_core::port::Clock;
use evermint_core::time::{MonoMs, millis};
use evermint_proto::v1;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};
use tonic::Streaming;

use crate::cache::{Cache, Given, Heard, Taken, Unbelievable};
use crate::endpoints::{Endpoints, Pick, Target};
use crate::failure::{Failure, Kind};
use crate::names;
use crate::pace::{Pace, Step};
use crate::placeholder::Placeholders;
use crate::resolve::Addresses;
use crate::shared::{Progress, Shared};
use crate::snapshot::Snapshot;
use crate::wire::{self, Wire};

/// Owns every machine, and moves them.
pub(crate) struct Driver {
    pub(crate) sandbox: String,
    pub(crate) workspace: String,
    pub(crate) max_staleness: Duration,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) cache: Cache,
    pub(crate) placeholders: Arc<Placeholders>,
    pub(crate) endpoints: Endpoints,
    pub(crate) pace: Pace,
    pub(crate) wire: Wire,
    pub(crate) addresses: watch::Receiver<Addresses>,
    pub(crate) addresses_wanted: Arc<Notify>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) since: Instant,
    /// Who gave something last; `None` before the first, and while nobody does.
    pub(crate) giver: Option<Target>,
    /// That nobody serves was logged, each for its own cause.
    pub(crate) reported: bool,
}

impl Driver {
    /// Runs until it is dropped.
    pub(crate) async fn run(mut self) {
        self.resolved();
        loop {
            if self.addresses.has_changed().unwrap_or(false) {
                self.resolved();
            }
            match (self.endpoints.pick(self.now()), self.pace.step(self.now())) {
                (Pick::Nobody, _) => self.nobody().await,
                (Pick::Wait(pause), _) => self.blackout(pause).await,
                (Pick::Use(_), Step::Pause(pause)) => sleep(pause).await,
                (Pick::Use(target), Step::Call) => self.call(target).await,
                (Pick::Use(target), Step::Watch) => self.watch(target).await,
            }
        }
    }

    async fn call(&mut self, target: Target) {
        let request = v1::GetBundleRequest {
            sandbox: self.sandbox.clone(),
            workspace: self.workspace.clone(),
            min_generation: self.cache.seen().0,
            ..v1::GetBundleRequest::default()
        };
        let taken = match self.wire.call(target, request).await {
            Ok(answer) => match Given::answer(answer.message) {
                Some(given) => self.take(target, given, Some(answer.sent)),
                None => Err(Failure::passing(Unbelievable::NoBundle)),
            },
            Err(failure) => Err(failure),
        };
        match taken {
            Ok(()) => {
                self.shared.counters.calls_answered.add();
                self.endpoints.succeeded(target);
                let polled = self.pace.is_polling();
                self.pace.answered(self.now());
                if self.pace.is_polling() && !polled {
                    self.shared.counters.fallbacks_to_polling.add();
                    tracing::warn!("streams are cut on their way: polling instead, for a while");
                }
            }
            Err(failure) => {
                self.shared.counters.calls_failed.add();
                self.pace.unanswered();
                self.leave(target, failure);
            }
        }
    }

    async fn watch(&mut self, target: Target) {
        let request = v1::WatchBundleRequest {
            sandbox: self.sandbox.clone(),
            workspace: self.workspace.clone(),
            min_generation: self.cache.seen().0,
            known_revision: self.cache.revision().to_owned(),
        };
        let begun = self.wire.watch(target, request).await;
        let began = Instant::now();
        let failure = match begun {
            Ok((first, stream)) => {
                let given = Given::message(first.message);
                match self.take(target, given, Some(first.sent)) {
                    Ok(()) => self.follow(target, stream).await,
                    Err(failure) => failure,
                }
            }
            Err(failure) => failure,
        };
        let lived = began.elapsed();
        let suspicious = match failure.kind {
            Kind::Cut(_) | Kind::Silent(_) => {
                self.shared.counters.streams_cut.add();
                self.pace.cut(lived)
            }
            Kind::Passing(_) | Kind::Refused(_) | Kind::NoSandbox(_) => {
                self.pace.ended(lived);
                false
            }
        };
        if suspicious && matches!(failure.kind, Kind::Cut(_)) {
            // Whether the stream is to blame or the endpoint, a call to it tells.
            tracing::debug!(
                { names::ENDPOINT } = self.name(target),
                { names::CAUSE } = %failure.kind,
                "a stream ended early"
            );
        } else {
            self.leave(target, failure);
        }
    }

    /// Follows a stream to its end.
    async fn follow(
        &mut self,
        target: Target,
        mut stream: Streaming<v1::WatchBundleResponse>,
    ) -> Failure {
        self.shared.counters.streams_begun.add();
        self.endpoints.serves(target);
        loop {
            let message = match wire::next(&mut stream, self.wire.timing.silence).await {
                Ok(message) => message,
                Err(failure) => return failure,
            };
            if let Err(failure) = self.take(target, Given::message(message), None) {
                return failure;
            }
            self.endpoints.succeeded(target);
        }
    }

    /// Takes what was given and publishes it, if it can be believed. `sent` is when the request
    /// that it answers was sent.
    fn take(&mut self, target: Target, given: Given, sent: Option<MonoMs>) -> Result<(), Failure> {
        let received = self.clock.read().boot;
        let heard = match sent {
            Some(sent) => Heard::Answer { sent, received },
            None => Heard::Message { received },
        };
        if given.content.is_none() {
            self.shared.counters.heartbeats.add();
        }
        let taken = self.cache.take(given, heard).map_err(|unbelievable| {
            if let Unbelievable::Older { .. } = unbelievable {
                self.shared.counters.older_refused.add();
            }
            Failure::passing(unbelievable)
        })?;
        if self.giver != Some(target) {
            if self.giver.is_some() {
                self.shared.counters.failovers.add();
            }
            tracing::info!(
                { names::ENDPOINT } = self.name(target),
                "an endpoint serves"
            );
            self.giver = Some(target);
            self.reported = false;
        }
        self.publish(taken);
        Ok(())
    }

    /// Publishes what is believed, as a whole; wakes those who wait if the content is another one.
    fn publish(&mut self, taken: Taken) {
        let held = self.cache.held().cloned();
        if taken == Taken::Changed {
            self.placeholders = Arc::new(match &held {
                Some(held) => held.content.placeholders(&self.placeholders),
                None => self.placeholders.revoked(),
            });
        }
        let snapshot = Snapshot::new(
            held,
            Arc::clone(&self.placeholders),
            Arc::clone(&self.clock),
            self.max_staleness,
        );
        if taken == Taken::Changed {
            tracing::info!(
                { names::GENERATION } = snapshot.generation().map(|g| g.0),
                { names::REVISION } = snapshot.revision(),
                "the bundle changed"
            );
        }
        self.shared.snapshot.store(Arc::new(snapshot));
        if taken == Taken::Changed {
            self.shared.counters.changes.add();
            self.progress.send_modify(|progress| progress.version += 1);
        }
    }

    /// Turns away from an endpoint that did not serve.
    fn leave(&mut self, target: Target, failure: Failure) {
        let (endpoint, cause) = (self.name(target), &failure.kind);
        if self.reported {
            tracing::debug!({ names::ENDPOINT } = endpoint, { names::CAUSE } = %cause, "an endpoint does not serve");
        } else {
            tracing::warn!({ names::ENDPOINT } = endpoint, { names::CAUSE } = %cause, "an endpoint does not serve");
        }
        let refusal = match failure.kind {
            Kind::Refused(refusal) => Some(refusal),
            Kind::NoSandbox(refusal) => {
                if self.cache.deleted() {
                    tracing::warn!("the sandbox was deleted");
                    self.publish(Taken::Changed);
                }
                Some(refusal)
            }
            Kind::Passing(_) | Kind::Cut(_) | Kind::Silent(_) => None,
        };
        if refusal.is_some() {
            self.shared.counters.refusals.add();
        }
        let now = self.now();
        self.endpoints
            .failed(target, now, refusal, failure.pushback);
    }

    /// No address is known yet.
    async fn nobody(&mut self) {
        self.addresses_wanted.notify_waiters();
        if self.addresses.changed().await.is_ok() {
            self.resolved();
        }
    }

    /// Nobody is left to ask for so long.
    async fn blackout(&mut self, pause: Duration) {
        self.shared.counters.blackouts.add();
        self.pace.unreachable();
        self.giver = None;
        if !self.reported {
            self.reported = true;
            tracing::warn!({ names::PAUSE_MS } = millis(pause), "no endpoint serves");
        }
        if let Some(refusal) = self.endpoints.refusal() {
            self.progress.send_modify(|progress| {
                progress.refusals += 1;
                progress.refusal = Some(refusal.clone());
            });
        }
        self.addresses_wanted.notify_waiters();
        tokio::select! {
            () = sleep(pause) => {}
            Ok(()) = self.addresses.changed() => self.resolved(),
        }
    }

    /// Takes over the addresses of now.
    fn resolved(&mut self) {
        let addresses = self.addresses.borrow_and_update().clone();
        for (url, addresses) in addresses.iter().enumerate() {
            self.endpoints.resolved(url, addresses);
        }
        self.wire.retain(|target| self.endpoints.knows(*target));
    }

    fn name(&self, target: Target) -> String {
        format!("{} at {}", self.wire.urls[target.url], target.address)
    }

    /// The time by which endpoints are left alone and polls fall due.
    fn now(&self) -> MonoMs {
        MonoMs(millis(self.since.elapsed()))
    }
}
