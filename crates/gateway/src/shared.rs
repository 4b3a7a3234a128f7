//! What all services have in hand, and the three things that all of them do: look at the state,
//! propose a command, and wait until this replica is where it should be.

use std::sync::Arc;
use std::time::Duration;

use evermint_core::command::{Command, Done, Kind, Refusal};
use evermint_core::id::{CredentialId, Name, Position, Workspace};
use evermint_core::port::{Prober, Proposer, StateView};
use evermint_core::profile::catalog::Catalog;
use evermint_core::provider::{Provider, Sandbox};
use evermint_core::secret::{Sealed, Secret};
use evermint_core::state::State;
use evermint_failpoint::{Bug, planted};
use evermint_protocol::reader::{Admission, admit};
use evermint_seal::{Context, Keyring};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;

use crate::bounds::Bounds;
use crate::fence::Fence;
use crate::logins::Logins;
use crate::others::Others;
use crate::passthrough::Passage;
use crate::port::{ClusterControl, RefreshPolicy, Web};
use crate::rates::Rates;
use crate::refusals::Refusals;
use crate::server::Limits;
use crate::token::TokenRules;
use crate::views::Views;
use crate::{origin, quota, status};

/// What the gateway stands on.
#[derive(Clone)]
pub struct Ports {
    /// Writes.
    pub proposer: Arc<dyn Proposer>,
    /// Reads.
    pub view: Arc<dyn StateView>,
    /// Seals what comes in, opens what goes out.
    pub keyring: Arc<Keyring>,
    /// The built-in profiles.
    pub catalog: Arc<Catalog>,
    /// Checks configurations of refreshes.
    pub policy: Arc<dyn RefreshPolicy>,
    /// Tries refreshes.
    pub prober: Arc<dyn Prober>,
    /// Shows and changes the Raft group.
    pub control: Arc<dyn ClusterControl>,
    /// Asks OpenID providers for their keys.
    pub web: Arc<dyn Web>,
}

/// A write that took effect and can be seen here.
pub(crate) struct Written {
    /// Where.
    pub(crate) position: Position,
    /// What it gave.
    pub(crate) done: Done,
    /// A state that holds it.
    pub(crate) state: Arc<State>,
}

/// Shared by all services.
pub(crate) struct Shared {
    pub(crate) ports: Ports,
    pub(crate) limits: Limits,
    pub(crate) bounds: Bounds,
    pub(crate) rates: Rates,
    pub(crate) logins: Logins,
    pub(crate) views: Arc<Views>,
    /// For readers that do not say what they have seen.
    pub(crate) fence: Arc<Fence>,
    /// The other replicas.
    pub(crate) others: Others,
    /// The gateway behind this one.
    pub(crate) passage: Option<Passage>,
    /// Whose tokens sandboxes may show.
    pub(crate) tokens: TokenRules,
    /// Refused calls that are to be recorded.
    pub(crate) refusals: Refusals,
    /// Turns of dry runs.
    pub(crate) trials: Semaphore,
    pub(crate) shutdown: CancellationToken,
}

impl Shared {
    /// The way to the gateway behind this one, for calls that are made here.
    pub(crate) fn behind(&self) -> Option<Channel> {
        self.passage.as_ref().map(Passage::channel)
    }

    /// The newest applied state.
    pub(crate) fn state(&self) -> Arc<State> {
        self.ports.view.state()
    }

    /// The state for a read: as it is, or as it was at the leader when the call began.
    pub(crate) async fn read(&self, consistent: bool) -> Result<Arc<State>, Status> {
        if consistent {
            self.catch_up().await?;
        }
        Ok(self.state())
    }

    /// Waits until this replica has applied everything that was committed when the call began.
    pub(crate) async fn catch_up(&self) -> Result<(), Status> {
        let position = self
            .ports
            .view
            .read_index()
            .await
            .map_err(|e| status::unanswered(&e))?;
        self.reach(position).await
    }

    /// Waits, within the bound, until `position` is applied here.
    pub(crate) async fn reach(&self, position: Position) -> Result<(), Status> {
        let bound = self.limits.catch_up;
        if self.ports.view.reached(position, bound).await {
            return Ok(());
        }
        Err(status::behind(self.state().meta.position, position))
    }

    /// Whether this replica may answer reads of secrets now, and how stale it is.
    pub(crate) fn fit(&self) -> Result<Duration, Status> {
        let view = &self.ports.view;
        let staleness = view.staleness();
        match admit(Position(0), staleness, None, self.limits.max_staleness) {
            Admission::Refuse(unfit) => Err(status::unfit(unfit)),
            Admission::Serve | Admission::WaitFor(_) => Ok(staleness.unwrap_or_default()),
        }
    }

    /// Admits a read of secrets by a reader that saw `min_generation` last.
    pub(crate) async fn admit(&self, min_generation: Position) -> Result<(), Status> {
        let view = &self.ports.view;
        let max = self.limits.max_staleness;
        let applied = view.state().meta.position;
        let seen = (!planted(Bug::NoFence)).then_some(min_generation);
        match admit(applied, view.staleness(), seen, max) {
            Admission::Serve => Ok(()),
            Admission::Refuse(unfit) => Err(status::unfit(unfit)),
            Admission::WaitFor(position) => {
                self.reach(position).await?;
                self.fit().map(drop)
            }
        }
    }

    /// Proposes a command, and waits until its effect can be seen here: whoever writes reads its
    /// own write.
    pub(crate) async fn propose(&self, command: Command) -> Result<Written, Status> {
        let decided = self.decide(command).await?;
        decided.map_err(|refusal| status::refused(&refusal))
    }

    /// The same, with a refusal for the caller to put into words.
    pub(crate) async fn decide(
        &self,
        command: Command,
    ) -> Result<Result<Written, Refusal>, Status> {
        quota::check(&self.bounds, &self.state(), &command)?;
        let answer = self
            .ports
            .proposer
            .propose_for(origin::current(), command)
            .await
            .map_err(|e| status::unanswered(&e))?;
        let done = match answer.outcome {
            Ok(done) => done,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let bound = self.limits.catch_up;
        if !self.ports.view.reached(answer.position, bound).await {
            return Err(status::done_elsewhere(answer.position));
        }
        Ok(Ok(Written {
            position: answer.position,
            done,
            state: self.state(),
        }))
    }

    /// Looks for something that a write is about. A replica that does not know it asks the leader
    /// before it says so: it may have been created a moment ago, at another replica.
    pub(crate) async fn find<T>(
        &self,
        look: impl Fn(&State) -> Option<T>,
    ) -> Result<Option<T>, Status> {
        if let Some(found) = look(&self.state()) {
            return Ok(Some(found));
        }
        self.catch_up().await?;
        Ok(look(&self.state()))
    }

    /// The provider that a write is about.
    pub(crate) async fn provider(
        &self,
        workspace: &Workspace,
        name: &Name,
    ) -> Result<Arc<Provider>, Status> {
        self.find(|state| state.provider_named(workspace, name).cloned())
            .await?
            .ok_or_else(|| status::not_found(Kind::Provider, name))
    }

    /// The sandbox that a write is about.
    pub(crate) async fn sandbox(
        &self,
        workspace: &Workspace,
        name: &Name,
    ) -> Result<Arc<Sandbox>, Status> {
        self.find(|state| state.sandbox_named(workspace, name).cloned())
            .await?
            .ok_or_else(|| status::not_found(Kind::Sandbox, name))
    }

    /// Seals the value of a static credential.
    pub(crate) fn seal_value(&self, id: &CredentialId, value: &Secret) -> Result<Sealed, Status> {
        self.seal(&Context::value(id, &id.key), value)
    }

    /// Seals one piece of material.
    pub(crate) fn seal_material(
        &self,
        id: &CredentialId,
        name: &str,
        value: &Secret,
    ) -> Result<Sealed, Status> {
        self.seal(&Context::material(id, name), value)
    }

    /// The keyring, with every data key of the newest state.
    pub(crate) fn keyring(&self) -> &Keyring {
        self.views.load_keys(&self.state());
        &self.ports.keyring
    }

    /// Opens something of the state.
    pub(crate) fn open(&self, context: &Context<'_>, sealed: &Sealed) -> Result<Secret, Status> {
        self.keyring().open(context, sealed).map_err(|error| {
            tracing::error!(%error, "a secret could not be opened");
            status::internal("this replica cannot open secrets; its log says why")
        })
    }

    pub(crate) fn seal(&self, context: &Context<'_>, secret: &Secret) -> Result<Sealed, Status> {
        self.keyring().seal(context, secret).map_err(|error| {
            tracing::error!(%error, "a secret could not be sealed");
            status::internal("this replica cannot seal secrets; its log says why")
        })
    }
}
