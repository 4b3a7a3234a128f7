//! The actor of one shard: keeps an actor for each of its credentials that is to be refreshed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use evermint_core::credential::Credential;
use evermint_core::id::{CredentialId, ShardId};
use evermint_protocol::owner::Event;
use evermint_protocol::recovery;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::task::JoinSet;

use crate::credential::{CredentialActor, CredentialMsg};
use crate::room::Room;

/// First pause before a credential whose actor failed is started again; it doubles each time.
const RESTART_MIN: Duration = Duration::from_secs(1);
/// Longest such pause.
const RESTART_MAX: Duration = Duration::from_secs(60);

pub(crate) struct ShardActor;

pub(crate) enum ShardMsg {
    /// These credentials belong to the shard; look at each.
    Look(Vec<CredentialId>),
    /// The owner may have changed; everyone looks.
    LookAll,
    /// The pause after a failure is over.
    Restart(CredentialId),
}

pub(crate) struct ShardState {
    room: Arc<Room>,
    shard: ShardId,
    children: BTreeMap<CredentialId, ActorRef<CredentialMsg>>,
    names: HashMap<ActorId, CredentialId>,
    /// Failures so far of those whose actor failed.
    failures: BTreeMap<CredentialId, u32>,
    /// Those that pause after a failure.
    resting: BTreeSet<CredentialId>,
    restarts: JoinSet<()>,
}

impl Actor for ShardActor {
    type Msg = ShardMsg;
    type State = ShardState;
    type Arguments = (Arc<Room>, ShardId);

    async fn pre_start(
        &self,
        _: ActorRef<ShardMsg>,
        (room, shard): Self::Arguments,
    ) -> Result<ShardState, ActorProcessingErr> {
        Ok(ShardState {
            room,
            shard,
            children: BTreeMap::new(),
            names: HashMap::new(),
            failures: BTreeMap::new(),
            resting: BTreeSet::new(),
            restarts: JoinSet::new(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<ShardMsg>,
        message: ShardMsg,
        state: &mut ShardState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ShardMsg::Look(ids) => {
                for id in ids {
                    state.look(&myself, id).await?;
                }
            }
            ShardMsg::Restart(id) => {
                state.resting.remove(&id);
                state.look(&myself, id).await?;
            }
            ShardMsg::LookAll => {
                for child in state.children.values() {
                    drop(child.cast(Event::Changed));
                }
            }
        }
        state.stop_if_idle(&myself);
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<ShardMsg>,
        event: SupervisionEvent,
        state: &mut ShardState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(child, ..) => {
                if let Some(id) = state.gone(child.get_id()) {
                    // It may have been given back to this replica while it stopped.
                    state.look(&myself, id).await?;
                }
            }
            SupervisionEvent::ActorFailed(child, error) => {
                if let Some(id) = state.gone(child.get_id()) {
                    tracing::error!(credential = %id, %error, "the credential's actor failed");
                    state.restart_later(&myself, id);
                }
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        state.stop_if_idle(&myself);
        Ok(())
    }
}

impl ShardState {
    /// Tells the credential to look, or gives it an actor if it needs one and has none.
    async fn look(
        &mut self,
        myself: &ActorRef<ShardMsg>,
        id: CredentialId,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(child) = self.children.get(&id) {
            drop(child.cast(Event::Changed));
            return Ok(());
        }
        let state = self.room.view.state();
        let wanted = !self.resting.contains(&id)
            && state.credentials.get(&id).is_some_and(|credential| {
                // An actor that failed may have left a ticket behind.
                let entry = self.room.journal.entry(&id);
                recovery::owes(credential, entry.as_ref(), self.room.me)
                    || self.room.owns(&state, self.shard) && needs_actor(credential)
            });
        if wanted {
            let arguments = (Arc::clone(&self.room), id.clone());
            let cell = myself.get_cell();
            let (child, _) =
                CredentialActor::spawn_linked(None, CredentialActor, arguments, cell).await?;
            self.names.insert(child.get_id(), id.clone());
            self.children.insert(id, child);
        }
        Ok(())
    }

    fn gone(&mut self, child: ActorId) -> Option<CredentialId> {
        let id = self.names.remove(&child)?;
        self.children.remove(&id);
        Some(id)
    }

    fn restart_later(&mut self, myself: &ActorRef<ShardMsg>, id: CredentialId) {
        let failures = self.failures.entry(id.clone()).or_default();
        let delay = (RESTART_MIN * (1 << (*failures).min(6))).min(RESTART_MAX);
        *failures += 1;
        self.resting.insert(id.clone());
        let myself = myself.clone();
        while self.restarts.try_join_next().is_some() {}
        self.restarts.spawn(async move {
            tokio::time::sleep(delay).await;
            drop(myself.cast(ShardMsg::Restart(id)));
        });
    }

    /// Once the shard is owned elsewhere and the last mint in flight is over, nothing is left.
    fn stop_if_idle(&self, myself: &ActorRef<ShardMsg>) {
        let at_rest = self.children.is_empty() && self.resting.is_empty();
        if at_rest && !self.room.owns(&self.room.view.state(), self.shard) {
            myself.stop(None);
        }
    }
}

/// A static credential has nothing to do, unless a ticket of its former refresh is still out.
fn needs_actor(credential: &Credential) -> bool {
    credential.refresh.is_some() || credential.ticket().is_some()
}
