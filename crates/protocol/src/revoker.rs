//! The revocation of one credential's tokens, at the replica that owns its shard.
//!
//! A smaller sister of the [mint cycle](crate::owner), and level-triggered like it: a try is
//! claimed in the log, made within a deadline that began before, and settled. Nothing is journalled:
//! the claim itself is the word that the issuer may have been told, and to tell it again does no
//! harm. A machine that dies leaves its claim to run out.
//!
//! # What the shell owes
//! Every [`Action`] in order; one [`Event::Proposed`] for each [`Action::Propose`], one
//! [`Event::Revoked`] for each [`Action::Revoke`]; [`Event::Changed`] when the revocation or its
//! shard changed or a try may be started again, and [`Event::Woken`] when the newest
//! [`Action::WakeAt`] comes.

use std::sync::Arc;
use std::time::Duration;

use evermint_core::command::{Answer, Command, Done};
use evermint_core::id::{Position, ShardEpoch};
use evermint_core::mint::Failure;
use evermint_core::port::ProposeError;
use evermint_core::revocation::{Revocation, RevocationId, Work};
use evermint_core::state::State;
use evermint_core::time::MonoMs;

use crate::deadline::Deadline;
use crate::owner::{Identity, LAG_POLL, Now, PAUSE_MAX, PAUSE_MIN};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The replicated state changed; look at the facts.
    Changed,
    /// Time has come.
    Woken,
    /// The proposal came to this end. A refusal is an answer.
    Proposed(Result<Answer, ProposeError>),
    /// The try came to this end, and its connection is closed.
    Revoked(Result<(), Failure>),
}

/// What to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Propose it; the answer comes back as [`Event::Proposed`].
    Propose(Box<Command>),
    /// Tell the issuer within the deadline, then [`Event::Revoked`].
    Revoke(RevokeTask),
    /// Send [`Event::Woken`] then; the newest call counts alone.
    WakeAt(MonoMs),
}

/// One try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokeTask {
    /// The revocation as it was claimed.
    pub revocation: Arc<Revocation>,
    /// Which try.
    pub tries: u32,
    /// When its connection has to be closed.
    pub deadline: Deadline,
}

/// What this replica's applied state says about the revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// How far the state is.
    pub position: Position,
    /// The revocation; `None` if it does not exist.
    pub revocation: Option<Arc<Revocation>>,
    /// The epoch under which this process owns the shard; `None` if it does not.
    pub owned: Option<ShardEpoch>,
    /// How long a try may take.
    pub budget: Duration,
}

impl Facts {
    /// The facts about the revocation `id` for the process `me`.
    pub fn of(state: &State, id: &RevocationId, me: Identity) -> Self {
        let revocation = state.revocations.get(id).cloned();
        let owned = revocation
            .as_ref()
            .and_then(|r| state.shards.get(&r.shard))
            .filter(|a| a.replica == me.replica && a.session == me.session)
            .map(|a| a.epoch);
        Self {
            position: state.meta.position,
            revocation,
            owned,
            budget: state.settings().mint_budget(),
        }
    }

    fn work(&self) -> Option<&Work> {
        self.revocation.as_ref()?.work()
    }

    /// Whether the try of that number is the current one.
    fn is_current(&self, tries: u32) -> bool {
        let work = self.work();
        work.is_some_and(|w| w.tries == tries && w.claim.is_some())
    }
}

/// One try, from before it is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Try {
    number: u32,
    deadline: Deadline,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing under way.
    Waiting,
    /// The claim is proposed.
    Claiming(Try),
    /// The claim's outcome is unknown; the state will tell, or the deadline ends it.
    Unsure(Try),
    /// The issuer is being told.
    Revoking(Try),
    /// The end of the try is proposed.
    Settling(u32, Command),
    /// No answer came; after a pause it is proposed again.
    Unsettled(u32, Command),
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Revoker {
    id: RevocationId,
    me: Identity,
    stage: Stage,
    /// Facts older than this are behind what the machine was told.
    told: Position,
    /// Local troubles in a row.
    strikes: u32,
    /// Nothing is proposed before.
    pause_until: MonoMs,
    wake: Option<MonoMs>,
}

impl Revoker {
    /// The machine of a revocation. Give it an [`Event::Changed`] first.
    pub fn new(id: RevocationId, me: Identity) -> Self {
        Self {
            id,
            me,
            stage: Stage::Waiting,
            told: Position(0),
            strikes: 0,
            pause_until: MonoMs(0),
            wake: None,
        }
    }

    /// Whether the machine may be dropped: nothing is under way, and nothing is left to do here.
    pub fn is_done(&self, facts: &Facts) -> bool {
        let is_idle = facts.owned.is_none() || facts.work().is_none();
        self.stage == Stage::Waiting && facts.position >= self.told && is_idle
    }

    /// Whether a try is under way.
    pub fn is_busy(&self) -> bool {
        self.stage != Stage::Waiting
    }

    /// Takes one step. Starts no try unless `may_start`.
    pub fn step(&mut self, event: Event, now: Now, facts: &Facts, may_start: bool) -> Vec<Action> {
        let mut out = Vec::new();
        let mono = now.clocks.mono;
        if event == Event::Woken {
            self.wake = None;
        }
        let stage = std::mem::replace(&mut self.stage, Stage::Waiting);
        self.stage = match (stage, event) {
            (Stage::Claiming(this), Event::Proposed(Ok(answer))) => {
                self.told = self.told.max(answer.position);
                match answer.outcome {
                    Ok(Done::Granted { attempt }) if attempt.0 == u64::from(this.number) => {
                        self.begin(this, now, facts, &mut out)
                    }
                    // Given up in its place, or ended.
                    Ok(_) => Stage::Waiting,
                    Err(_) => self.strike(mono, Stage::Waiting),
                }
            }
            (Stage::Claiming(_), Event::Proposed(Err(ProposeError::Unavailable(_)))) => {
                self.strike(mono, Stage::Waiting)
            }
            (Stage::Claiming(this), Event::Proposed(Err(ProposeError::Unknown(_)))) => {
                self.strike(mono, Stage::Unsure(this))
            }
            (Stage::Unsure(this), Event::Changed | Event::Woken) => {
                let claim = facts.work().and_then(|w| w.claim.as_ref());
                let is_mine = claim.is_some_and(|c| c.session == self.me.session);
                if facts.is_current(this.number) && is_mine {
                    self.begin(this, now, facts, &mut out)
                } else if this.deadline.passed(now.clocks) {
                    Stage::Waiting
                } else {
                    Stage::Unsure(this)
                }
            }
            (Stage::Revoking(this), Event::Revoked(result)) => {
                self.strikes = 0;
                let end = Command::SettleRevocation {
                    revocation: self.id.clone(),
                    tries: this.number,
                    failure: result.err(),
                };
                settle(this.number, end, &mut out)
            }
            (Stage::Settling(..), Event::Proposed(Ok(answer))) => {
                self.told = self.told.max(answer.position);
                Stage::Waiting
            }
            (Stage::Settling(tries, end), Event::Proposed(Err(_))) => {
                self.strike(mono, Stage::Unsettled(tries, end))
            }
            (Stage::Unsettled(tries, end), Event::Changed | Event::Woken) => {
                if facts.position >= self.told && !facts.is_current(tries) {
                    Stage::Waiting
                } else if mono >= self.pause_until {
                    settle(tries, end, &mut out)
                } else {
                    Stage::Unsettled(tries, end)
                }
            }
            (stage, _) => stage,
        };
        if self.stage == Stage::Waiting && may_start {
            self.look(now, facts, &mut out);
        }
        self.arm(now, facts, may_start, &mut out);
        out
    }

    /// While waiting: claims a try that is due here.
    fn look(&mut self, now: Now, facts: &Facts, out: &mut Vec<Action>) {
        if facts.position < self.told || now.clocks.mono < self.pause_until {
            return;
        }
        let (Some(work), Some(shard_epoch)) = (facts.work(), facts.owned) else {
            return;
        };
        if work.next_at() > now.cluster {
            return;
        }
        out.push(Action::Propose(Box::new(Command::ClaimRevocation {
            revocation: self.id.clone(),
            owner: self.me.replica,
            session: self.me.session,
            shard_epoch,
            expected_tries: work.tries,
        })));
        self.stage = Stage::Claiming(Try {
            number: work.tries + 1,
            deadline: Deadline {
                started: now.clocks,
                budget: facts.budget,
            },
        });
    }

    /// The try is claimed. What is to be revoked is looked up in the facts, which may be behind.
    fn begin(&mut self, this: Try, now: Now, facts: &Facts, out: &mut Vec<Action>) -> Stage {
        if facts.position < self.told {
            return Stage::Unsure(this);
        }
        let claimed = facts
            .revocation
            .as_ref()
            .filter(|_| facts.is_current(this.number));
        match claimed {
            Some(revocation) if this.deadline.has_room(now.clocks) => {
                out.push(Action::Revoke(RevokeTask {
                    revocation: Arc::clone(revocation),
                    tries: this.number,
                    deadline: this.deadline,
                }));
                Stage::Revoking(this)
            }
            Some(_) | None => Stage::Waiting,
        }
    }

    fn strike(&mut self, now: MonoMs, next: Stage) -> Stage {
        let pause = PAUSE_MIN.saturating_mul(1 << self.strikes.min(16));
        self.strikes = self.strikes.saturating_add(1);
        self.pause_until = now + pause.min(PAUSE_MAX);
        next
    }

    fn arm(&mut self, now: Now, facts: &Facts, may_start: bool, out: &mut Vec<Action>) {
        let mono = now.clocks.mono;
        let wake = match &self.stage {
            Stage::Waiting if facts.position < self.told => Some(mono + LAG_POLL),
            // Whoever lacks the room to start says when there is some.
            Stage::Waiting if !may_start => None,
            Stage::Waiting => facts
                .owned
                .and(facts.work())
                .map(|work| work.next_at().since(now.cluster))
                .map(|left| self.pause_until.max(mono + left)),
            Stage::Unsure(this) => Some(mono + this.deadline.remaining(now.clocks).min(LAG_POLL)),
            Stage::Unsettled(..) => Some(self.pause_until),
            Stage::Claiming(_) | Stage::Revoking(_) | Stage::Settling(..) => None,
        };
        if let Some(at) = wake.filter(|_| wake != self.wake) {
            out.push(Action::WakeAt(at));
        }
        self.wake = wake;
    }
}

fn settle(tries: u32, end: Command, out: &mut Vec<Action>) -> Stage {
    out.push(Action::Propose(Box::new(end.clone())));
    Stage::Settling(tries, end)
}
