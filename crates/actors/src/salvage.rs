//! Settles what former lives of this replica left open, from its journal: answers that were
//! received are handed in, tickets under which nothing was sent are given back.

use std::sync::Arc;
use std::time::Duration;

use evermint_core::command::{Command, Done};
use evermint_core::credential::Phase;
use evermint_core::port::{Change, Touched};
use evermint_core::record::Key;
use evermint_core::state::State;
use evermint_protocol::recovery::{self, Recovery};
use futures::StreamExt;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio_util::task::AbortOnDropHandle;

use crate::room::Room;

/// Pause before a proposal that found no leader is made again.
const RETRY: Duration = Duration::from_secs(1);

pub(crate) struct SalvageActor;

pub(crate) enum SalvageMsg {
    /// Compare the state with the journal.
    Look,
}

pub(crate) struct SalvageState {
    room: Arc<Room>,
    retry: Option<AbortOnDropHandle<()>>,
    _feed: AbortOnDropHandle<()>,
}

impl Actor for SalvageActor {
    type Msg = SalvageMsg;
    type State = SalvageState;
    type Arguments = Arc<Room>;

    async fn pre_start(
        &self,
        myself: ActorRef<SalvageMsg>,
        room: Arc<Room>,
    ) -> Result<SalvageState, ActorProcessingErr> {
        let mut changes = room.view.changes();
        let feed = {
            let (myself, room) = (myself.clone(), Arc::clone(&room));
            tokio::spawn(async move {
                while let Some(change) = changes.next().await {
                    if concerns_the_past(&room, &change) && myself.cast(SalvageMsg::Look).is_err() {
                        break;
                    }
                }
            })
        };
        myself.cast(SalvageMsg::Look)?;
        Ok(SalvageState {
            room,
            retry: None,
            _feed: AbortOnDropHandle::new(feed),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<SalvageMsg>,
        SalvageMsg::Look: SalvageMsg,
        state: &mut SalvageState,
    ) -> Result<(), ActorProcessingErr> {
        let room = Arc::clone(&state.room);
        if !settle(&room, &room.view.state()).await {
            let retry = tokio::spawn(async move {
                tokio::time::sleep(RETRY).await;
                drop(myself.cast(SalvageMsg::Look));
            });
            state.retry = Some(AbortOnDropHandle::new(retry));
        }
        Ok(())
    }
}

/// Whether the change touches a ticket of a former life, or a credential that the journal names.
fn concerns_the_past(room: &Room, change: &Change) -> bool {
    let Touched::Keys(keys) = &change.touched else {
        return true;
    };
    keys.iter().any(|key| {
        let Key::Credential(id) = key else {
            return false;
        };
        let former = change.state.credentials.get(id).is_some_and(|credential| {
            let open = match &credential.phase {
                Phase::Idle => None,
                Phase::Ticketed(ticket) => Some(ticket),
                Phase::InDoubt(doubt) => Some(&doubt.ticket),
            };
            open.is_some_and(|t| t.owner == room.me.replica && t.session != room.me.session)
        });
        former || room.journal.entry(id).is_some()
    })
}

/// Whether everything there was to propose has its outcome.
async fn settle(room: &Room, state: &State) -> bool {
    let Recovery { propose, forget } = recovery::recover(state, &room.journal.entries(), room.me);
    let mut settled = true;
    for command in propose {
        let what = match &command {
            Command::CommitMint {
                credential, ticket, ..
            } => {
                format!("answer of mint {ticket} for {credential}")
            }
            Command::AbandonTicket { credential, ticket } => {
                format!("unused ticket {ticket} for {credential}")
            }
            other => other.name().to_owned(),
        };
        match room.proposer.propose(command).await {
            Ok(answer) => match answer.outcome {
                Ok(Done::Committed(generation)) => {
                    tracing::info!(%generation, "salvaged the {what}");
                }
                Ok(_) => tracing::info!("gave back the {what}"),
                Err(refusal) => tracing::info!(%refusal, "could not use the {what}"),
            },
            Err(error) => {
                tracing::warn!(%error, "could not hand in the {what} yet");
                settled = false;
            }
        }
    }
    for ticket in forget {
        let entry = room
            .journal
            .entries()
            .into_iter()
            .find(|e| e.ticket == ticket);
        if let Some(entry) = entry
            && let Err(error) = room.journal.forget(entry.credential, ticket).await
        {
            tracing::warn!(%error, "a settled journal entry could not be removed");
        }
    }
    settled
}
