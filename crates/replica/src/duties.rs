//! The shell around the leader's duties: it feeds [`Leader`] and proposes what it decides, into
//! the local log only.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evermint_core::command::{Command, Proposal};
use evermint_core::id::{ReplicaId, RequestId, SessionId};
use evermint_core::state::State;
use evermint_core::time::MonoMs;
use evermint_failpoint::{Bug, Point, planted, reach};
use evermint_protocol::leader::Leader;
use openraft::ServerState;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::local::Local;

/// The duties of the leader, idle on the others.
pub(crate) struct Duties {
    leader: Mutex<Leader>,
    beats: Notify,
}

impl Duties {
    pub(crate) fn new(lost_after: Duration) -> Self {
        Self {
            leader: Mutex::new(Leader::new(lost_after)),
            beats: Notify::new(),
        }
    }

    /// A replica is alive.
    pub(crate) fn beat(&self, replica: ReplicaId, session: SessionId, eligible: bool, now: MonoMs) {
        self.with(|leader| leader.beat(replica, session, eligible, now));
        self.beats.notify_one();
    }

    fn with<T>(&self, f: impl FnOnce(&mut Leader) -> T) -> T {
        // A machine that panicked half-way would decide on half a picture.
        f(&mut self.leader.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Does the leader's duties while this replica leads, until it stops.
pub(crate) async fn run(local: Arc<Local>) {
    let mut metrics = local.raft.server_metrics();
    let mut applied = local.views.watch();
    // The term of its office: one that was lost and won again in between is another one.
    let mut office: Option<u64> = None;
    loop {
        let now = local.clock.mono();
        let state: Arc<State> = applied.borrow_and_update().state.clone();
        let term = {
            let metrics = metrics.borrow_and_update();
            let leads = metrics.state == ServerState::Leader;
            leads.then_some(metrics.vote.leader_id.term)
        };
        if term != office {
            tracing::info!(replica = %local.me.replica, ?term, "office");
            local.duties.with(|leader| match term {
                Some(_) => leader.took_office(&state, now),
                None => leader.left_office(),
            });
            office = term;
        }
        let (mut commands, wake) = local.duties.with(|leader| {
            leader.applied(&state, now);
            (leader.tick(&state, now), leader.next_wake())
        });
        if planted(Bug::NoTicketCheck) && office.is_some() {
            commands.extend(tickets_elsewhere(&state));
        }
        for command in commands {
            let local = local.clone();
            let request = RequestId(Uuid::new_v4().as_u128());
            tokio::spawn(async move {
                let name = command.name();
                let points = points(&command);
                if let Some((before, _, subject)) = &points {
                    reach(*before, subject);
                }
                let proposal = Proposal {
                    request,
                    by: None,
                    command,
                };
                // It decides again when this has no effect.
                match (local.batcher.submit(proposal).await, points) {
                    (Ok(_), Some((_, after, subject))) => reach(after, &subject),
                    (Ok(_), None) => {}
                    (Err(error), _) => {
                        tracing::warn!(command = name, %error, "a duty of the leader was not done");
                    }
                }
            });
        }
        let sleep = async {
            match wake {
                Some(at) => tokio::time::sleep(at.since(local.clock.mono())).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {}
            () = local.duties.beats.notified() => {}
            changed = applied.changed(), if office.is_some() => if changed.is_err() { return },
            changed = metrics.changed() => if changed.is_err() { return },
        }
    }
}

/// Where a test may stop a duty: before it, after it, and whom it concerns.
fn points(command: &Command) -> Option<(Point, Point, String)> {
    match command {
        Command::ExpireTicket { credential, .. } => {
            let subject = credential.key.to_string();
            Some((Point::BeforeExpire, Point::AfterExpire, subject))
        }
        Command::AssignShards { .. } => {
            Some((Point::BeforeAssign, Point::AfterAssign, String::new()))
        }
        _ => None,
    }
}

/// [`Bug::NoTicketCheck`]: ends every ticket whose shard has gone to another replica, at once.
fn tickets_elsewhere(state: &State) -> Vec<Command> {
    let elsewhere = state.ticketed().filter_map(|credential| {
        let ticket = credential.ticket()?;
        let owner = state.shards.get(&credential.shard)?;
        ((ticket.owner, ticket.session) != (owner.replica, owner.session)).then(|| {
            Command::ExpireTicket {
                credential: credential.id.clone(),
                ticket: ticket.id,
            }
        })
    });
    elsewhere.collect()
}
