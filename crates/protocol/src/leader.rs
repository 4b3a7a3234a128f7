//! The duties of the Raft leader: ending tickets, and giving shards to live replicas.
//!
//! Both rest on nothing but the leader's own monotonic clock and its own observations since it
//! took office: no wall clock, no agreement between clocks. What it decides it proposes itself;
//! neither command is ever forwarded.

use std::collections::BTreeMap;
use std::time::Duration;

use evermint_core::command::Command;
use evermint_core::id::{CredentialId, ReplicaId, SessionId, ShardId, TicketId};
use evermint_core::placement::rendezvous;
use evermint_core::state::State;
use evermint_core::time::MonoMs;

/// The most shards that one command moves.
pub const MOVES_MAX: usize = 256;

/// The most tickets that one tick expires.
pub const EXPIRIES_MAX: usize = 256;

/// How long a proposal is given to take effect before it is made again.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// What a replica does while it is the Raft leader; idle while it is not.
#[derive(Clone, Debug)]
pub struct Leader {
    lost_after: Duration,
    office: Option<Office>,
}

/// What it knows since it took office.
#[derive(Clone, Debug, Default)]
struct Office {
    tickets: BTreeMap<CredentialId, Watched>,
    replicas: BTreeMap<ReplicaId, Member>,
    /// The newest placement version seen.
    placement: u64,
    /// The placement version that the newest assignment was based on, and when it was proposed.
    assigned: Option<(u64, MonoMs)>,
    wake: Option<MonoMs>,
}

/// A ticket that is out.
#[derive(Clone, Copy, Debug)]
struct Watched {
    ticket: TicketId,
    seen: MonoMs,
    proposed: Option<MonoMs>,
}

/// A replica as its heartbeats show it.
#[derive(Clone, Copy, Debug)]
struct Member {
    /// `None` until its first beat to this leader.
    session: Option<SessionId>,
    /// The life before that: a beat of it that comes late means nothing.
    former: Option<SessionId>,
    eligible: bool,
    /// The newest beat; before the first one, when it was first known of in this office.
    beat: MonoMs,
}

/// What the leader makes of a replica.
enum Judgement {
    /// May own shards, in this life.
    Fit(SessionId),
    /// Not heard of yet, and not yet given up: keeps what it has.
    Unheard,
    /// Lost, drained, or not caught up.
    Unfit,
}

impl Member {
    fn judge(&self, now: MonoMs, lost_after: Duration) -> Judgement {
        if now.since(self.beat) >= lost_after {
            return Judgement::Unfit;
        }
        match self.session {
            None => Judgement::Unheard,
            Some(session) if self.eligible => Judgement::Fit(session),
            Some(_) => Judgement::Unfit,
        }
    }
}

impl Leader {
    /// A replica that does not lead yet. Replicas count as lost after `lost_after` without a
    /// heartbeat.
    pub fn new(lost_after: Duration) -> Self {
        Self {
            lost_after,
            office: None,
        }
    }

    /// This replica became the leader. Every ticket and every replica starts afresh from here.
    pub fn took_office(&mut self, state: &State, now: MonoMs) {
        self.office = Some(Office::default());
        self.applied(state, now);
    }

    /// This replica leads no more.
    pub fn left_office(&mut self) {
        self.office = None;
    }

    /// A heartbeat of `replica` in its life `session` arrived; it is `eligible` to own shards
    /// if it is a voter or a caught-up learner and is not being drained. The leader beats too.
    pub fn beat(&mut self, replica: ReplicaId, session: SessionId, eligible: bool, now: MonoMs) {
        let Some(office) = &mut self.office else {
            return;
        };
        let known = office.replicas.get(&replica).copied();
        if known.is_some_and(|m| m.former == Some(session)) {
            return;
        }
        let former = match known {
            Some(m) if m.session == Some(session) => m.former,
            Some(m) => m.session,
            None => None,
        };
        let member = Member {
            session: Some(session),
            former,
            eligible,
            beat: now,
        };
        office.replicas.insert(replica, member);
        let news = known.is_none_or(|m| {
            m.session != Some(session)
                || m.eligible != eligible
                || now.since(m.beat) >= self.lost_after
        });
        if news {
            office.wake = Some(now);
        }
    }

    /// Entries were applied. Calls may be merged: a ticket that is noticed late lives longer.
    pub fn applied(&mut self, state: &State, now: MonoMs) {
        if let Some(office) = &mut self.office {
            office.applied(state, now);
        }
    }

    /// What to propose now. To be called at [`next_wake`](Self::next_wake) at the latest.
    pub fn tick(&mut self, state: &State, now: MonoMs) -> Vec<Command> {
        let Some(office) = &mut self.office else {
            return Vec::new();
        };
        office.applied(state, now);
        let (mut commands, tickets) = office.expire(state, now);
        let (moves, placement) = office.assign(state, now, self.lost_after);
        commands.extend(moves);
        office.wake = tickets.into_iter().chain(placement).min();
        commands
    }

    /// When [`tick`](Self::tick) has something to do, unless something happens before.
    pub fn next_wake(&self) -> Option<MonoMs> {
        self.office.as_ref()?.wake
    }
}

impl Office {
    /// Follows the state: which tickets are out, which replicas there are.
    fn applied(&mut self, state: &State, now: MonoMs) {
        let mut wake = self.wake;
        let mut wake_at = |at: MonoMs| wake = Some(wake.map_or(at, |w| w.min(at)));

        let mut tickets = BTreeMap::new();
        for credential in state.ticketed() {
            let Some(ticket) = credential.ticket() else {
                continue;
            };
            let watched = match self.tickets.get(&credential.id) {
                Some(known) if known.ticket == ticket.id => *known,
                _ => {
                    wake_at(now + Duration::from_millis(ticket.ttl_ms));
                    Watched {
                        ticket: ticket.id,
                        seen: now,
                        proposed: None,
                    }
                }
            };
            tickets.insert(credential.id.clone(), watched);
        }
        self.tickets = tickets;

        self.replicas
            .retain(|id, _| state.replicas.contains_key(id));
        let version = state.meta.placement_version;
        if self.placement != version || self.replicas.len() < state.replicas.len() {
            self.placement = version;
            wake_at(now);
        }
        for id in state.replicas.keys() {
            self.replicas.entry(*id).or_insert(Member {
                session: None,
                former: None,
                eligible: false,
                beat: now,
            });
        }
        self.wake = wake;
    }

    /// Ends every ticket whose time is up; says when the next one is.
    fn expire(&mut self, state: &State, now: MonoMs) -> (Vec<Command>, Option<MonoMs>) {
        let mut commands = Vec::new();
        let mut next = None;
        for (credential, watched) in &mut self.tickets {
            let ttl = state
                .credentials
                .get(credential)
                .and_then(|c| c.ticket())
                .map_or(Duration::ZERO, |t| Duration::from_millis(t.ttl_ms));
            let mut at = watched.seen + ttl;
            if let Some(proposed) = watched.proposed {
                at = at.max(proposed + PATIENCE);
            }
            if at <= now && commands.len() < EXPIRIES_MAX {
                watched.proposed = Some(now);
                at = now + PATIENCE;
                commands.push(Command::ExpireTicket {
                    credential: credential.clone(),
                    ticket: watched.ticket,
                });
            }
            next = Some(next.map_or(at, |n: MonoMs| n.min(at)));
        }
        (commands, next)
    }

    /// Moves the shards that stand with the wrong replica; says when to look again.
    fn assign(
        &mut self,
        state: &State,
        now: MonoMs,
        lost_after: Duration,
    ) -> (Option<Command>, Option<MonoMs>) {
        let version = state.meta.placement_version;
        let retry = match self.assigned {
            Some((based_on, at)) if based_on == version => Some(at + PATIENCE),
            _ => None,
        };
        if let Some(retry) = retry.filter(|retry| now < *retry) {
            return (None, Some(retry));
        }
        // Judging goes by time alone until the next beat, so the next verdict is foreseeable.
        let verdicts = self.replicas.values().map(|m| m.beat + lost_after);
        let next = verdicts.filter(|at| *at > now).min();

        let moves = self.moves(state, now, lost_after);
        if moves.is_empty() {
            return (None, next);
        }
        self.assigned = Some((version, now));
        let command = Command::AssignShards {
            based_on: version,
            moves,
        };
        (Some(command), Some(now + PATIENCE))
    }

    /// At most [`MOVES_MAX`] shards, each with its rightful owner. A shard that belongs to a
    /// replica not heard of yet stays where it is until that one beats or is given up: so a new
    /// leader moves nothing twice.
    fn moves(
        &self,
        state: &State,
        now: MonoMs,
        lost_after: Duration,
    ) -> Vec<(ShardId, ReplicaId, SessionId)> {
        let mut candidates = BTreeMap::new();
        let mut fit = BTreeMap::new();
        for (replica, member) in &self.replicas {
            match member.judge(now, lost_after) {
                Judgement::Fit(session) => {
                    fit.insert(*replica, session);
                    candidates.insert(*replica, session);
                }
                Judgement::Unheard => {
                    candidates.insert(*replica, SessionId(0));
                }
                Judgement::Unfit => {}
            }
        }
        if fit.is_empty() {
            return Vec::new();
        }
        (0..state.settings().shards)
            .map(ShardId)
            .filter_map(|shard| {
                let (replica, _) = rendezvous(shard, &candidates)?;
                let session = *fit.get(&replica)?;
                let stays = state
                    .shards
                    .get(&shard)
                    .is_some_and(|a| a.replica == replica && a.session == session);
                (!stays).then_some((shard, replica, session))
            })
            .take(MOVES_MAX)
            .collect()
    }
}
