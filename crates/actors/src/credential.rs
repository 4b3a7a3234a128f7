//! The actor of one credential: owns its timer, and runs what its machine decides.

use std::sync::Arc;
use std::time::Duration;

use evermint_core::command::Command;
use evermint_core::id::{CredentialId, TicketId};
use evermint_failpoint::{Point, reach};
use evermint_protocol::journal::Progress;
use evermint_protocol::owner::{Action, Event, JournalFailed, Owner};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::mint;
use crate::room::Room;

/// A sleeping credential looks around this often: the cluster clock may have been pushed ahead
/// of what its timer was set by.
const LOOK_AROUND: Duration = Duration::from_secs(60);

pub(crate) struct CredentialActor;

/// Everything that a credential is told is an event of its machine.
pub(crate) type CredentialMsg = Event;

pub(crate) struct CredentialState {
    room: Arc<Room>,
    id: CredentialId,
    owner: Owner,
    timer: Option<AbortOnDropHandle<()>>,
    abort: Option<oneshot::Sender<()>>,
    /// Proposals and the mint; they end with the actor.
    tasks: JoinSet<()>,
}

impl Actor for CredentialActor {
    type Msg = CredentialMsg;
    type State = CredentialState;
    type Arguments = (Arc<Room>, CredentialId);

    async fn pre_start(
        &self,
        myself: ActorRef<CredentialMsg>,
        (room, id): Self::Arguments,
    ) -> Result<CredentialState, ActorProcessingErr> {
        // What a predecessor that failed left under way is over by then.
        let line = room.lines.hold(&id).await;
        let journal = room.journal.entry(&id);
        drop(line);
        let owner = Owner::new(id.clone(), room.me, journal);
        myself.cast(Event::Changed)?;
        Ok(CredentialState {
            room,
            id,
            owner,
            timer: None,
            abort: None,
            tasks: JoinSet::new(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<CredentialMsg>,
        event: Event,
        state: &mut CredentialState,
    ) -> Result<(), ActorProcessingErr> {
        state.step(&myself, event);
        Ok(())
    }
}

impl CredentialState {
    fn step(&mut self, myself: &ActorRef<CredentialMsg>, event: Event) {
        while self.tasks.try_join_next().is_some() {}
        let facts = self.room.facts(&self.room.view.state(), &self.id);
        let fresh = || TicketId(uuid::Uuid::new_v4().as_u128());
        for action in self.owner.step(event, self.room.now(), &facts, fresh) {
            self.run(myself, action);
        }
        if self.owner.is_done(&facts) {
            myself.stop(None);
        }
    }

    fn run(&mut self, myself: &ActorRef<CredentialMsg>, action: Action) {
        let room = Arc::clone(&self.room);
        let tell = {
            let myself = myself.clone();
            // An actor that has stopped meanwhile needs no answer.
            move |event| drop(myself.cast(event))
        };
        match action {
            Action::Propose(command) => {
                let key = self.id.key.clone();
                let points = points(&command);
                self.tasks.spawn(async move {
                    if let Some((before, _)) = points {
                        reach(before, key.as_str());
                    }
                    let proposed = room.proposer.propose(command).await;
                    if let Some((_, after)) = points
                        && proposed.as_ref().is_ok_and(|answer| answer.outcome.is_ok())
                    {
                        reach(after, key.as_str());
                    }
                    tell(Event::Proposed(proposed));
                });
            }
            Action::Journal(entry) => {
                // An answer of the issuer is written down even if this actor fails meanwhile.
                let line = room.lines.try_hold(&self.id);
                let key = self.id.key.clone();
                tokio::spawn(async move {
                    let _line = match line {
                        Some(line) => line,
                        None => room.lines.hold(&entry.credential).await,
                    };
                    let is_answer = matches!(entry.progress, Progress::Response(_));
                    let written = room.journal.write(entry).await.map_err(|error| {
                        tracing::error!(%error, "the mint journal could not be written");
                        JournalFailed
                    });
                    if is_answer {
                        reach(Point::AfterJournal, key.as_str());
                    }
                    tell(Event::Journalled(written));
                });
            }
            Action::Forget(ticket) => {
                let id = self.id.clone();
                self.tasks.spawn(async move {
                    if let Err(error) = room.journal.forget(id, ticket).await {
                        tracing::warn!(%error, "a settled journal entry could not be removed");
                    }
                });
            }
            Action::Mint(task) => {
                let (abort, aborted) = oneshot::channel();
                self.abort = Some(abort);
                self.tasks.spawn(async move {
                    tell(Event::Minted(mint::run(&room, task, aborted).await));
                });
            }
            Action::AbortMint => {
                if let Some(abort) = self.abort.take() {
                    // A mint that has just ended is not cut short any more.
                    let _ = abort.send(());
                }
            }
            Action::WakeAt(at) => {
                let delay = at.since(self.room.clock.read().mono).min(LOOK_AROUND);
                let timer = tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    tell(Event::Woken);
                });
                self.timer = Some(AbortOnDropHandle::new(timer));
            }
        }
    }
}

/// Where a test may stop a mint: before and after the proposals that it consists of.
const fn points(command: &Command) -> Option<(Point, Point)> {
    match command {
        Command::GrantTicket { .. } => Some((Point::BeforeTicket, Point::AfterTicket)),
        Command::CommitMint { .. } => Some((Point::BeforeCommit, Point::AfterCommit)),
        _ => None,
    }
}
