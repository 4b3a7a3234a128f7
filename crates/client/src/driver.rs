//! The one task that asks, takes what is given, and publishes what is believed.

use std::sync::Arc;
use std::time::Duration;

use evermint_core::port::Clock;
use evermint_core::time::{MonoMs, millis};
use evermint_proto::v1;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tonic::{Code, Streaming};

use crate::cache::{Cache, Given, Heard, Taken, Unbelievable};
use crate::endpoints::{Endpoints, Pick, Target};
use crate::failure::{Failure, Kind};
use crate::names;
use crate::pace::{Pace, Step};
use crate::placeholder::Placeholders;
use crate::report::Giver;
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
    /// When the preferred endpoint is tried again, if another one serves.
    pub(crate) next_failback: Instant,
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
            self.fail_back().await;
            match (self.endpoints.pick(self.now()), self.pace.step(self.now())) {
                (Pick::Nobody, _) => self.nobody().await,
                (Pick::Wait(pause), _) => self.blackout(pause).await,
                (Pick::Use(_), Step::Pause(pause)) => sleep(pause).await,
                (Pick::Use(target), Step::Call) => self.call(target).await,
                (Pick::Use(target), Step::Watch) => self.watch(target).await,
            }
        }
    }

    /// Goes back to the preferred endpoint once it answers; whether it was gone back to.
    async fn fail_back(&mut self) -> bool {
        if Instant::now() < self.next_failback {
            return false;
        }
        self.next_failback = Instant::now() + self.wire.timing.failback;
        let Some(target) = self.endpoints.better(self.now()) else {
            return false;
        };
        match self.ask(target).await {
            Ok(()) => {
                self.shared.counters.calls_answered.add();
                self.shared.counters.failbacks.add();
                self.endpoints.succeeded(target);
                true
            }
            Err(failure) => {
                self.shared.counters.calls_failed.add();
                tracing::debug!(
                    { names::ENDPOINT } = self.name(target),
                    { names::CAUSE } = %failure.kind,
                    "the preferred endpoint does not serve yet"
                );
                let now = self.now();
                self.endpoints.failed(target, now, None, failure.pushback);
                false
            }
        }
    }

    /// Asks once, and takes what is given.
    async fn ask(&mut self, target: Target) -> Result<(), Failure> {
        let request = v1::GetBundleRequest {
            sandbox: self.sandbox.clone(),
            workspace: self.workspace.clone(),
            min_generation: self.cache.seen().0,
            ..v1::GetBundleRequest::default()
        };
        let answer = self.wire.call(target, request).await?;
        let given = Given::answer(answer.message);
        let given = given.ok_or_else(|| Failure::passing(Unbelievable::NoBundle))?;
        self.take(target, given, Some(answer.sent))
    }

    async fn call(&mut self, target: Target) {
        match self.ask(target).await {
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
                    Ok(()) => match self.follow(target, stream).await {
                        Some(failure) => failure,
                        None => return self.pace.ended(began.elapsed()),
                    },
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

    /// Follows a stream to its end, which a failure is, unless its token has come to its own; or until
    /// the preferred endpoint serves.
    async fn follow(
        &mut self,
        target: Target,
        mut stream: Streaming<v1::WatchBundleResponse>,
    ) -> Option<Failure> {
        self.shared.counters.streams_begun.add();
        self.endpoints.serves(target);
        let silence = self.wire.timing.silence;
        let mut heard = Instant::now();
        loop {
            let left = silence.saturating_sub(heard.elapsed());
            let message = tokio::select! {
                message = wire::next(&mut stream, left) => message,
                () = sleep_until(self.next_failback) => {
                    if self.fail_back().await {
                        return None;
                    }
                    continue;
                }
            };
            let message = match message {
                Ok(message) => message,
                Err(failure) if matches!(failure.kind, Kind::Silent(_)) => {
                    return Some(Failure::silent(silence));
                }
                // The token of now opens the next one, or is refused.
                Err(failure) if failure.kind.is_end_of_token() => return None,
                Err(failure) => return Some(failure),
            };
            heard = Instant::now();
            if let Err(failure) = self.take(target, Given::message(message), None) {
                return Some(failure);
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
            if let Unbelievable::Older(_) = unbelievable {
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
            let channel = self.wire.channel(target)?;
            self.shared.giver.store(Some(Arc::new(Giver {
                channel,
                source: self.wire.source.clone(),
                sandbox: self.sandbox.clone(),
                workspace: self.workspace.clone(),
                bound: self.wire.timing.attempt,
            })));
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
            Kind::Refused(refusal) => {
                if let (Code::Unauthenticated, Some(source)) = (refusal.code, &self.wire.source) {
                    source.refused();
                }
                Some(refusal)
            }
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
