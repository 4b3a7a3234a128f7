//! Tells issuers what they shall honour no more: one actor for all open revocations whose shards
//! are owned here, each with its machine of [`evermint_protocol::revoker`].

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use evermint_core::mint::{Failure, FailureClass, RevokeOrder};
use evermint_core::port::{Change, Touched};
use evermint_core::record::Key;
use evermint_core::revocation::{RevocationId, Target};
use evermint_core::secret::Secret;
use evermint_protocol::revoker::{Action, Event, Facts, RevokeTask, Revoker};
use evermint_seal::{Context, Error};
use futures::{FutureExt, StreamExt};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::fence::ClockFence;
use crate::room::Room;
use crate::trace;

/// Most tries of this replica at a time.
const BUSY_MAX: usize = 8;

/// A sleeping machine looks around this often: the cluster clock may have been pushed ahead.
const LOOK_AROUND: std::time::Duration = std::time::Duration::from_secs(60);

pub(crate) struct RevocationActor;

pub(crate) enum RevocationMsg {
    /// The state changed.
    Look(Change),
    /// Something happened to one of them.
    Happened(RevocationId, Event),
}

pub(crate) struct RevocationState {
    room: Arc<Room>,
    machines: BTreeMap<RevocationId, Machine>,
    /// Proposals and tries; they end with the actor.
    tasks: JoinSet<()>,
    _feed: AbortOnDropHandle<()>,
}

struct Machine {
    revoker: Revoker,
    timer: Option<AbortOnDropHandle<()>>,
}

impl Actor for RevocationActor {
    type Msg = RevocationMsg;
    type State = RevocationState;
    type Arguments = Arc<Room>;

    async fn pre_start(
        &self,
        myself: ActorRef<RevocationMsg>,
        room: Arc<Room>,
    ) -> Result<RevocationState, ActorProcessingErr> {
        let mut changes = room.view.changes();
        let feed = {
            let myself = myself.clone();
            tokio::spawn(async move {
                while let Some(change) = changes.next().await {
                    if concerns(&change) && myself.cast(RevocationMsg::Look(change)).is_err() {
                        break;
                    }
                }
            })
        };
        myself.cast(RevocationMsg::Look(Change {
            state: room.view.state(),
            touched: Touched::Everything,
        }))?;
        Ok(RevocationState {
            room,
            machines: BTreeMap::new(),
            tasks: JoinSet::new(),
            _feed: AbortOnDropHandle::new(feed),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<RevocationMsg>,
        message: RevocationMsg,
        state: &mut RevocationState,
    ) -> Result<(), ActorProcessingErr> {
        while state.tasks.try_join_next().is_some() {}
        match message {
            RevocationMsg::Look(change) => state.look(&myself, &change),
            RevocationMsg::Happened(id, event) => {
                state.step(&myself, &id, event);
                // Whoever waited for a free place may take it.
                let waiting = state.machines.iter().filter(|(_, m)| !m.revoker.is_busy());
                let waiting: Vec<_> = waiting.map(|(id, _)| id.clone()).collect();
                for id in waiting {
                    state.step(&myself, &id, Event::Changed);
                }
            }
        }
        Ok(())
    }
}

/// Whether a change may give something to do.
fn concerns(change: &Change) -> bool {
    match &change.touched {
        Touched::Everything => true,
        Touched::Keys(keys) => keys
            .iter()
            .any(|key| matches!(key, Key::Revocation(_) | Key::Shard(_))),
    }
}

impl RevocationState {
    fn look(&mut self, myself: &ActorRef<RevocationMsg>, change: &Change) {
        let moved = match &change.touched {
            Touched::Everything => true,
            Touched::Keys(keys) => keys.iter().any(|key| matches!(key, Key::Shard(_))),
        };
        let ids: BTreeSet<RevocationId> = match &change.touched {
            Touched::Keys(keys) if !moved => {
                let named = keys.iter().filter_map(|key| match key {
                    Key::Revocation(id) => Some(id.clone()),
                    _ => None,
                });
                named.collect()
            }
            Touched::Keys(_) | Touched::Everything => {
                let open = change.state.revocations.iter();
                let open = open.filter(|(_, r)| r.work().is_some());
                open.map(|(id, _)| id.clone())
                    .chain(self.machines.keys().cloned())
                    .collect()
            }
        };
        for id in ids {
            self.step(myself, &id, Event::Changed);
        }
    }

    fn facts(&self, id: &RevocationId) -> Facts {
        let mut facts = Facts::of(&self.room.view.state(), id, self.room.me);
        if self.room.is_draining() {
            facts.owned = None;
        }
        facts
    }

    /// Gives a machine an event and does what it says; makes it first if there is work here.
    fn step(&mut self, myself: &ActorRef<RevocationMsg>, id: &RevocationId, event: Event) {
        let facts = self.facts(id);
        let busy = self.machines.values().filter(|m| m.revoker.is_busy());
        let may_start = busy.count() < BUSY_MAX;
        let fresh = Revoker::new(id.clone(), self.room.me);
        if !self.machines.contains_key(id) && fresh.is_done(&facts) {
            return;
        }
        let machine = self.machines.entry(id.clone()).or_insert(Machine {
            revoker: fresh,
            timer: None,
        });
        let actions = machine
            .revoker
            .step(event, self.room.now(), &facts, may_start);
        if machine.revoker.is_done(&facts) {
            self.machines.remove(id);
        }
        for action in actions {
            self.run(myself, id, action);
        }
    }

    fn run(&mut self, myself: &ActorRef<RevocationMsg>, id: &RevocationId, action: Action) {
        let room = Arc::clone(&self.room);
        let tell = {
            let (myself, id) = (myself.clone(), id.clone());
            // An actor that has stopped meanwhile needs no answer.
            move |event| drop(myself.cast(RevocationMsg::Happened(id, event)))
        };
        match action {
            Action::Propose(command) => {
                self.tasks.spawn(async move {
                    tell(Event::Proposed(room.proposer.propose(*command).await));
                });
            }
            Action::Revoke(task) => {
                self.tasks.spawn(async move {
                    tell(Event::Revoked(run(&room, &task).await));
                });
            }
            Action::WakeAt(at) => {
                let delay = at.since(self.room.clock.read().mono).min(LOOK_AROUND);
                let timer = tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    tell(Event::Woken);
                });
                if let Some(machine) = self.machines.get_mut(id) {
                    machine.timer = Some(AbortOnDropHandle::new(timer));
                }
            }
        }
    }
}

/// Tells the issuer, once.
async fn run(room: &Room, task: &RevokeTask) -> Result<(), Failure> {
    let id = &task.revocation.id;
    let result = match AssertUnwindSafe(revoke(room, task)).catch_unwind().await {
        Ok(result) => result,
        Err(_) => Err(failure(
            FailureClass::Transient,
            "the strategy panicked; this is a defect of evermint".to_owned(),
        )),
    };
    match &result {
        Ok(()) => tracing::info!({ trace::CREDENTIAL } = %id.credential, "revoked at the issuer"),
        Err(failure) => tracing::warn!(
            { trace::CREDENTIAL } = %id.credential,
            tries = task.tries,
            class = ?failure.class,
            cause = failure.cause,
            "the issuer could not be told of a revocation"
        ),
    }
    result
}

async fn revoke(room: &Room, task: &RevokeTask) -> Result<(), Failure> {
    room.minter.revoke(order(room, task)?).await
}

fn order(room: &Room, task: &RevokeTask) -> Result<RevokeOrder, Failure> {
    let revocation = &task.revocation;
    let credential = &revocation.id.credential;
    let work = revocation
        .work()
        .ok_or_else(|| failure(FailureClass::Unsent, "the revocation has ended".to_owned()))?;
    let opened = |what: &str, opened: Result<Secret, Error>| {
        opened.map_err(|e| {
            failure(
                FailureClass::Unsent,
                format!("{what} could not be opened: {e}"),
            )
        })
    };
    let mut secrets = BTreeMap::new();
    for (name, sealed) in &work.material {
        let context = Context::material(credential, name);
        let secret = opened(name, room.keyring.open(&context, sealed))?;
        secrets.insert(name.clone(), secret);
    }
    let value = Context::value(credential, &credential.key);
    let tokens = work.tokens.iter();
    let tokens = tokens.map(|sealed| opened("the token", room.keyring.open(&value, sealed)));
    Ok(RevokeOrder {
        credential: credential.clone(),
        config: work.config.clone(),
        secrets,
        tokens: tokens.collect::<Result<_, _>>()?,
        with_grant: revocation.target == Target::Grant,
        fence: Arc::new(ClockFence::new(task.deadline, Arc::clone(&room.clock))),
    })
}

fn failure(class: FailureClass, cause: String) -> Failure {
    Failure {
        class,
        cause,
        remedy: String::new(),
        retry_after_ms: None,
    }
}
