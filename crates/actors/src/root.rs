//! The root of the tree: starts it, keeps its branches alive, and ends it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use evermint_core::port::{Clock, Minter, Proposer, StateView};
use evermint_protocol::owner::Identity;
use evermint_seal::Keyring;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use crate::journal::{Journal, JournalError};
use crate::line::Lines;
use crate::placement::{PlacementActor, PlacementMsg};
use crate::revocation::RevocationActor;
use crate::room::Room;
use crate::salvage::SalvageActor;

/// Pause before a branch that failed is started again.
const RESTART: Duration = Duration::from_secs(1);

/// What a tree needs from outside.
pub struct Config {
    /// The replicated log.
    pub proposer: Arc<dyn Proposer>,
    /// The applied state.
    pub view: Arc<dyn StateView>,
    /// The issuers.
    pub minter: Arc<dyn Minter>,
    /// Opens material, seals results.
    pub keyring: Arc<Keyring>,
    /// The clocks of this process.
    pub clock: Arc<dyn Clock>,
    /// Where the mint journal stands: beside the replica's store, on the same disk.
    pub journal_dir: PathBuf,
}

/// Why a tree could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The actor system.
    #[error("the actors could not be started: {0}")]
    Actors(#[from] SpawnErr),
}

/// A running tree.
pub struct Tree {
    root: ActorRef<RootMsg>,
    ended: JoinHandle<()>,
    room: Arc<Room>,
}

impl Tree {
    /// Reads the journal and starts the actors.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let journal = Arc::new(Journal::open(config.journal_dir)?);
        let (replica, session) = config.view.identity();
        let room = Arc::new(Room {
            proposer: config.proposer,
            view: config.view,
            minter: config.minter,
            keyring: config.keyring,
            clock: config.clock,
            journal,
            lines: Lines::default(),
            me: Identity { replica, session },
            draining: AtomicBool::new(false),
        });
        let (root, ended) = RootActor::spawn(None, RootActor, Arc::clone(&room)).await?;
        Ok(Self { root, ended, room })
    }

    /// Starts nothing new, lets the mints in flight finish for at most `grace`, and stops.
    /// Whether all of them finished.
    pub async fn shutdown(self, grace: Duration) -> bool {
        self.room.draining.store(true, Ordering::Relaxed);
        let (done, drained) = oneshot::channel();
        let finished = self.root.cast(RootMsg::Drain(done)).is_ok()
            && tokio::time::timeout(grace, drained)
                .await
                .is_ok_and(|done| done.is_ok());
        self.root.stop(None);
        // A root that panicked has ended, too.
        let _ = self.ended.await;
        finished
    }
}

struct RootActor;

enum RootMsg {
    Start(Branch),
    Drain(oneshot::Sender<()>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Branch {
    Placement,
    Salvage,
    Revocation,
}

struct RootState {
    room: Arc<Room>,
    placement: Option<ActorRef<PlacementMsg>>,
    branches: Vec<(ActorId, Branch)>,
    restarts: JoinSet<()>,
}

impl Actor for RootActor {
    type Msg = RootMsg;
    type State = RootState;
    type Arguments = Arc<Room>;

    async fn pre_start(
        &self,
        myself: ActorRef<RootMsg>,
        room: Arc<Room>,
    ) -> Result<RootState, ActorProcessingErr> {
        // The past first: what it settles, the present need not wait for.
        myself.cast(RootMsg::Start(Branch::Salvage))?;
        myself.cast(RootMsg::Start(Branch::Placement))?;
        myself.cast(RootMsg::Start(Branch::Revocation))?;
        Ok(RootState {
            room,
            placement: None,
            branches: Vec::new(),
            restarts: JoinSet::new(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<RootMsg>,
        message: RootMsg,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RootMsg::Start(branch) => state.start(&myself, branch).await?,
            RootMsg::Drain(done) => {
                // Without a placement nothing is in flight; dropping `done` tells so.
                if let Some(placement) = &state.placement {
                    placement.cast(PlacementMsg::Drain(done))?;
                }
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<RootMsg>,
        event: SupervisionEvent,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        let (child, error) = match event {
            SupervisionEvent::ActorTerminated(child, ..) => (child, None),
            SupervisionEvent::ActorFailed(child, error) => (child, Some(error)),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {
                return Ok(());
            }
        };
        let Some(at) = state
            .branches
            .iter()
            .position(|(id, _)| *id == child.get_id())
        else {
            return Ok(());
        };
        let (_, branch) = state.branches.swap_remove(at);
        tracing::error!(
            ?branch,
            error = error.map(|e| e.to_string()),
            "a branch ended"
        );
        state.restarts.spawn(async move {
            tokio::time::sleep(RESTART).await;
            drop(myself.cast(RootMsg::Start(branch)));
        });
        Ok(())
    }
}

impl RootState {
    async fn start(
        &mut self,
        myself: &ActorRef<RootMsg>,
        branch: Branch,
    ) -> Result<(), ActorProcessingErr> {
        let room = Arc::clone(&self.room);
        let cell = myself.get_cell();
        let id = match branch {
            Branch::Placement => {
                let (child, _) =
                    PlacementActor::spawn_linked(None, PlacementActor, room, cell).await?;
                let id = child.get_id();
                self.placement = Some(child);
                id
            }
            Branch::Salvage => {
                let (child, _) = SalvageActor::spawn_linked(None, SalvageActor, room, cell).await?;
                child.get_id()
            }
            Branch::Revocation => {
                let (child, _) =
                    RevocationActor::spawn_linked(None, RevocationActor, room, cell).await?;
                child.get_id()
            }
        };
        self.branches.push((id, branch));
        Ok(())
    }
}
