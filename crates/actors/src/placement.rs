//! Follows the applied placement: keeps an actor for each shard that is owned here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use evermint_core::id::{CredentialId, ShardId};
use evermint_core::placement::shard_of;
use evermint_core::port::{Change, Touched};
use evermint_core::record::Key;
use evermint_core::state::State;
use futures::StreamExt;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use crate::room::Room;
use crate::shard::{ShardActor, ShardMsg};

pub(crate) struct PlacementActor;

pub(crate) enum PlacementMsg {
    /// Entries were applied.
    Changed(Change),
    /// Let everything in flight finish, then say so.
    Drain(oneshot::Sender<()>),
}

pub(crate) struct PlacementState {
    room: Arc<Room>,
    shards: BTreeMap<ShardId, ActorRef<ShardMsg>>,
    names: HashMap<ActorId, ShardId>,
    drained: Vec<oneshot::Sender<()>>,
    _feed: AbortOnDropHandle<()>,
}

impl Actor for PlacementActor {
    type Msg = PlacementMsg;
    type State = PlacementState;
    type Arguments = Arc<Room>;

    async fn pre_start(
        &self,
        myself: ActorRef<PlacementMsg>,
        room: Arc<Room>,
    ) -> Result<PlacementState, ActorProcessingErr> {
        let mut changes = room.view.changes();
        let feed = {
            let myself = myself.clone();
            tokio::spawn(async move {
                while let Some(change) = changes.next().await {
                    if myself.cast(PlacementMsg::Changed(change)).is_err() {
                        break;
                    }
                }
            })
        };
        // Whatever was applied before the feed began.
        myself.cast(PlacementMsg::Changed(Change {
            state: room.view.state(),
            touched: Touched::Everything,
        }))?;
        Ok(PlacementState {
            room,
            shards: BTreeMap::new(),
            names: HashMap::new(),
            drained: Vec::new(),
            _feed: AbortOnDropHandle::new(feed),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<PlacementMsg>,
        message: PlacementMsg,
        state: &mut PlacementState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            PlacementMsg::Changed(change) => state.changed(&myself, change).await?,
            PlacementMsg::Drain(done) => {
                state.drained.push(done);
                state.tell_all();
            }
        }
        state.report_drained();
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<PlacementMsg>,
        event: SupervisionEvent,
        state: &mut PlacementState,
    ) -> Result<(), ActorProcessingErr> {
        let gone = match event {
            SupervisionEvent::ActorTerminated(child, ..) => state.names.remove(&child.get_id()),
            SupervisionEvent::ActorFailed(child, error) => {
                let shard = state.names.remove(&child.get_id());
                tracing::error!(?shard, %error, "a shard's actor failed");
                shard
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => None,
        };
        if let Some(shard) = gone {
            state.shards.remove(&shard);
            // It may have been given back to this replica while it stopped.
            let applied = state.room.view.state();
            state.reconcile(&myself, &applied).await?;
        }
        state.report_drained();
        Ok(())
    }
}

impl PlacementState {
    async fn changed(
        &mut self,
        myself: &ActorRef<PlacementMsg>,
        change: Change,
    ) -> Result<(), ActorProcessingErr> {
        let Touched::Keys(keys) = change.touched else {
            self.reconcile(myself, &change.state).await?;
            self.look_at_everything(&change.state, |_| true);
            self.tell_all();
            return Ok(());
        };
        let moved: BTreeSet<ShardId> = keys
            .iter()
            .filter_map(|key| match key {
                Key::Shard(shard) => Some(*shard),
                _ => None,
            })
            .collect();
        if !moved.is_empty() {
            self.reconcile(myself, &change.state).await?;
            self.tell_all();
            // A shard that comes back while its actor still finishes a mint has let the others go.
            self.look_at_everything(&change.state, |shard| moved.contains(&shard));
        }
        let shards = change.state.settings().shards;
        for key in keys {
            if let Key::Credential(id) = key
                && let Some(shard) = self.shards.get(&shard_of(&id, shards))
            {
                drop(shard.cast(ShardMsg::Look(vec![id])));
            }
        }
        Ok(())
    }

    /// Starts what is owned here and does not run. What runs and is owned here no more stops by
    /// itself, once its mints in flight are over.
    async fn reconcile(
        &mut self,
        myself: &ActorRef<PlacementMsg>,
        state: &State,
    ) -> Result<(), ActorProcessingErr> {
        let mut started = Vec::new();
        for shard in state.shards.keys() {
            if !self.shards.contains_key(shard) && self.room.owns(state, *shard) {
                let arguments = (Arc::clone(&self.room), *shard);
                let cell = myself.get_cell();
                let (child, _) =
                    ShardActor::spawn_linked(None, ShardActor, arguments, cell).await?;
                self.names.insert(child.get_id(), *shard);
                self.shards.insert(*shard, child);
                started.push(*shard);
            }
        }
        if !started.is_empty() {
            tracing::info!(
                started = started.len(),
                owned = self.shards.len(),
                "took shards"
            );
            self.look_at_everything(state, |shard| started.contains(&shard));
        }
        Ok(())
    }

    fn look_at_everything(&self, state: &State, wanted: impl Fn(ShardId) -> bool) {
        let mut by_shard: BTreeMap<ShardId, Vec<CredentialId>> = BTreeMap::new();
        for credential in state.credentials.values().filter(|c| wanted(c.shard)) {
            by_shard
                .entry(credential.shard)
                .or_default()
                .push(credential.id.clone());
        }
        for (shard, ids) in by_shard {
            if let Some(shard) = self.shards.get(&shard) {
                drop(shard.cast(ShardMsg::Look(ids)));
            }
        }
    }

    fn tell_all(&self) {
        for shard in self.shards.values() {
            drop(shard.cast(ShardMsg::LookAll));
        }
    }

    fn report_drained(&mut self) {
        if self.shards.is_empty() {
            for done in self.drained.drain(..) {
                // Whoever waited has gone: nothing to tell.
                let _ = done.send(());
            }
        }
    }
}
