//! `evermint.v1.Bundles`: reads of secrets, fenced (DESIGN §5).

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use evermint_core::bundle;
use evermint_core::command::{Command, Kind};
use evermint_core::credential::{Credential, Early, NotEarly};
use evermint_core::id::{CredentialId, CredentialKey, Generation, Name, Position, SandboxId};
use evermint_core::provider::Provider;
use evermint_core::state::State;
use evermint_core::time::{UnixMs, millis};
use evermint_proto::v1;
use evermint_proto::v1::ready;
use evermint_proto::v1::ready::bundles_server::Bundles;
use evermint_proto::v1::report_token_response::Outcome;
use futures::Stream;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::Services;
use crate::bundle::Ready;
use crate::caller::Caller;
use crate::rim::Rim;
use crate::token::Pass;
use crate::views::Watch;
use crate::{names, origin, status};

#[tonic::async_trait]
impl Bundles for Services {
    async fn get_bundle(
        &self,
        request: Request<v1::GetBundleRequest>,
    ) -> Result<Response<ready::GetBundleResponse>, Status> {
        let pass = pass(&caller(&request));
        let request = request.into_inner();
        let sandbox = Reader::parse(pass, &request.sandbox, &request.workspace)?;
        if request.consistent {
            self.catch_up().await?;
        }
        self.admit(Position(request.min_generation)).await?;
        let id = sandbox.find(self)?;
        let ready = self.views.current(id).ok_or_else(|| sandbox.unknown())?;
        // Asked after the bundle was looked at: a replica that fell out of touch meanwhile says so.
        let staleness = self.fit()?;
        let now = self.ports.view.now();
        let good_until = now + Duration::from_millis(request.min_ttl_ms);
        if request.min_ttl_ms > 0 {
            self.renew_before(id, good_until);
        }
        Ok(Response::new(ready::GetBundleResponse {
            bundle: Some(ready.bytes.clone()),
            staleness_ms: millis(staleness),
            server_time_ms: now.0,
            expiring: ready
                .ends
                .iter()
                .filter(|(_, end)| *end < good_until)
                .map(|(credential, _)| credential.clone())
                .collect(),
        }))
    }

    async fn report_token(
        &self,
        request: Request<v1::ReportTokenRequest>,
    ) -> Result<Response<v1::ReportTokenResponse>, Status> {
        let pass = pass(&caller(&request));
        let request = request.into_inner();
        let sandbox = Reader::parse(pass, &request.sandbox, &request.workspace)?;
        let mut rim = Rim::default();
        let provider = rim.parse::<Name>("provider", &request.provider);
        let key = rim.parse::<CredentialKey>("credential_key", &request.credential_key);
        let (provider, key) = rim.finish(|| Some((provider?, key?)))?;
        let generation = Generation(request.generation);

        let id = sandbox.find(self)?;
        let unknown = || status::not_found(Kind::Credential, &key);
        let used = |state: &State| {
            let inputs = bundle::inputs(state, id)?;
            let named = |p: &Provider| p.name == provider;
            let of_routes = inputs.routes.into_iter().filter(|r| named(&r.provider));
            let attached = inputs.attached.into_iter().filter(|a| named(&a.provider));
            let all = of_routes
                .filter_map(|r| r.credential)
                .chain(attached.flat_map(|a| a.credentials));
            all.into_iter().find(|c| c.id.key == key)
        };
        // The sandbox may know of a mint that this replica does not: then it is behind.
        let known = |state: &State| used(state).filter(|c| c.generation >= generation);
        let credential = self.find(known).await?.ok_or_else(unknown)?;
        let now = self.ports.view.now();
        let answer = |outcome, credential: &Credential, not_before: Option<UnixMs>| {
            Ok(Response::new(v1::ReportTokenResponse {
                outcome: outcome as i32,
                generation: credential.generation.0,
                not_before_ms: not_before.map(|at| at.0),
            }))
        };
        match credential.may_be_early(generation, Early::Rejected, now) {
            Ok(()) => {}
            Err(NotEarly::UnderWay) => return answer(Outcome::Due, &credential, None),
            Err(NotEarly::Superseded) => return answer(Outcome::Superseded, &credential, None),
            Err(NotEarly::Static | NotEarly::Stopped) => {
                return answer(Outcome::Stuck, &credential, None);
            }
            Err(NotEarly::NotBefore(at)) => return answer(Outcome::NotYet, &credential, Some(at)),
        }
        self.propose(Command::MintEarly {
            credential: credential.id.clone(),
            generation,
            early: Early::Rejected,
        })
        .await?;
        answer(Outcome::Due, &credential, None)
    }

    type WatchBundleStream = BundleStream;

    async fn watch_bundle(
        &self,
        request: Request<v1::WatchBundleRequest>,
    ) -> Result<Response<BundleStream>, Status> {
        let caller = caller(&request);
        let request = request.into_inner();
        let sandbox = Reader::parse(pass(&caller), &request.sandbox, &request.workspace)?;
        self.admit(Position(request.min_generation)).await?;
        let id = sandbox.find(self)?;
        let watch = self.views.watch(id).ok_or_else(|| sandbox.unknown())?;
        let watching = Watching {
            services: self.clone(),
            id,
            caller,
            watch,
            held: Held::Revision(request.known_revision),
            next_beat: Instant::now(),
        };
        let stream = futures::stream::unfold(Some(watching), |watching| async {
            let mut watching = watching?;
            match watching.next().await {
                Ok(message) => Some((Ok(message), Some(watching))),
                Err(status) => {
                    tracing::debug!(
                        { names::SANDBOX } = %watching.id,
                        { names::CODE } = ?status.code(),
                        "a watch ended"
                    );
                    Some((Err(status), None))
                }
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

impl Services {
    /// Makes due what the sandbox uses and is not good until `good_until`, as far as it may be; the
    /// read that asks for it does not wait.
    fn renew_before(&self, id: SandboxId, good_until: UnixMs) {
        let Some(inputs) = bundle::inputs(&self.state(), id) else {
            return;
        };
        let now = self.ports.view.now();
        let due: BTreeMap<&CredentialId, Generation> = inputs
            .credentials()
            .filter(|c| {
                let end = c.value.as_ref().and_then(|v| v.expires_at);
                end.is_some_and(|end| end < good_until)
                    && c.may_be_early(c.generation, Early::ShortLived, now).is_ok()
            })
            .map(|c| (&c.id, c.generation))
            .collect();
        for (credential, generation) in due {
            let command = Command::MintEarly {
                credential: credential.clone(),
                generation,
                early: Early::ShortLived,
            };
            let services = self.clone();
            tokio::spawn(origin::carried(async move {
                if let Err(status) = services.propose(command).await {
                    tracing::debug!({ names::CODE } = ?status.code(), "a mint was not made due");
                }
            }));
        }
    }
}

/// What a watcher receives.
pub(crate) type BundleStream =
    Pin<Box<dyn Stream<Item = Result<ready::WatchBundleResponse, Status>> + Send>>;

fn caller<T>(request: &Request<T>) -> Caller {
    let caller = request.extensions().get::<Caller>();
    caller.cloned().unwrap_or(Caller::Anyone)
}

/// The token that the caller showed, if it is a sandbox.
fn pass(caller: &Caller) -> Option<Pass> {
    match caller {
        Caller::Sandbox(pass) => Some(*pass),
        Caller::Operator(_) | Caller::Anyone => None,
    }
}

/// The sandbox that a request names, by id or by name; the one that calls, if it names none.
struct Reader {
    pass: Option<Pass>,
    id: Option<SandboxId>,
    place: (evermint_core::id::Workspace, Name),
}

impl Reader {
    fn parse(pass: Option<Pass>, sandbox: &str, workspace: &str) -> Result<Self, Status> {
        let own = pass.map(|pass| pass.sandbox.to_string());
        let sandbox = match (sandbox, &own) {
            ("", Some(own)) => own,
            (sandbox, _) => sandbox,
        };
        let mut rim = Rim::default();
        let workspace = rim.workspace(workspace);
        let name = rim.parse::<Name>("sandbox", sandbox);
        let place = rim.finish(|| Some((workspace?, name?)))?;
        Ok(Self {
            pass,
            id: sandbox.parse().ok(),
            place,
        })
    }

    /// A sandbox that asks for another one does not even learn whether that is there.
    fn find(&self, services: &Services) -> Result<SandboxId, Status> {
        let state = services.state();
        let by_id = self.id.filter(|id| state.sandboxes.contains_key(id));
        let named = || Some(state.sandbox_named(&self.place.0, &self.place.1)?.id);
        let found = by_id.or_else(named);
        match self.pass {
            Some(pass) if found != Some(pass.sandbox) => Err(status::denied(
                "a sandbox may read its own bundle, and no other",
            )),
            _ => found.ok_or_else(|| self.unknown()),
        }
    }

    fn unknown(&self) -> Status {
        status::not_found(Kind::Sandbox, &self.place.1)
    }
}

/// One watcher. It has no queue: whenever its reader is ready for more, it is given the newest
/// bundle.
struct Watching {
    services: Services,
    id: SandboxId,
    /// Looked at again and again: a stream does not outlive the token that opened it.
    caller: Caller,
    watch: Watch,
    held: Held,
    next_beat: Instant,
}

/// The bundle that the reader holds.
enum Held {
    /// One of this revision, from an earlier stream; perhaps empty.
    Revision(String),
    /// This one.
    Sent(Position, String),
}

impl Held {
    fn is(&self, ready: &Ready) -> bool {
        match self {
            Self::Revision(revision) => *revision == ready.revision,
            Self::Sent(generation, revision) => {
                (*generation, revision) == (ready.generation, &ready.revision)
            }
        }
    }
}

impl Watching {
    /// The next message.
    async fn next(&mut self) -> Result<ready::WatchBundleResponse, Status> {
        loop {
            if self.services.shutdown.is_cancelled() {
                return Err(status::shutting_down());
            }
            let now = self.services.ports.view.now();
            self.caller.check(&self.services.state(), now)?;
            let staleness = self.services.fit()?;
            let Some(ready) = self.watch.current() else {
                return Err(status::not_found(Kind::Sandbox, self.id));
            };
            let held = self.held.is(&ready);
            if !held || self.next_beat <= Instant::now() {
                return Ok(self.message(&ready, held, staleness));
            }
            let max_staleness = self.services.limits.max_staleness;
            let until_unfit = max_staleness.saturating_sub(staleness) + Duration::from_millis(1);
            let left = self
                .caller
                .until()
                .map_or(until_unfit, |end| end.since(now));
            let wake = self.next_beat.min(Instant::now() + until_unfit.min(left));
            tokio::select! {
                () = self.watch.changed() => {}
                () = tokio::time::sleep_until(wake) => {}
                () = self.services.shutdown.cancelled() => {}
            }
        }
    }

    fn message(
        &mut self,
        ready: &Arc<Ready>,
        held: bool,
        staleness: Duration,
    ) -> ready::WatchBundleResponse {
        self.held = Held::Sent(ready.generation, ready.revision.clone());
        self.next_beat = Instant::now() + self.services.limits.heartbeat;
        ready::WatchBundleResponse {
            bundle: (!held).then(|| ready.bytes.clone()),
            staleness_ms: millis(staleness),
            server_time_ms: self.services.ports.view.now().0,
            generation: ready.generation.0,
        }
    }
}

#[cfg(test)]
mod tests;
