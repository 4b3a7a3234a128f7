//! The mint cycle of one credential, at the replica that owns it: the heart of Evermint.
//!
//! [`Owner::step`] takes an event, the time and the newest facts of the replicated state, and
//! returns what to do. It is *level-triggered*: events say where to look, facts say what is so.
//! One match over (stage, event) is the whole specification; the promises that it keeps:
//!
//! - The budget starts before the ticket is asked for. Nothing is sent unless the ticket is
//!   granted to exactly this attempt, *and* `sending` is durably journalled, *and* half of the
//!   budget is left on every clock, *and* the configuration is still the same (DESIGN §3, G2).
//! - The answer of the issuer is journalled before it is proposed (G5), and proposed until it
//!   lands or is refused. The request is never repeated under a ticket.
//! - What certainly sent nothing is abandoned, so that nobody has to wait for its expiry.
//! - Whoever loses the shard finishes what is in flight and starts nothing new.
//! - A token that may be spent is not tried again at the moment in which a majority comes back:
//!   the replica that has the answer may come back with it, and is heard first ([`HEARING`]).
//!
//! # What the shell owes
//! - Every [`Action`] in order. One [`Event::Proposed`] for each [`Action::Propose`], one
//!   [`Event::Journalled`] for each [`Action::Journal`], one [`Event::Minted`] for each
//!   [`Action::Mint`], whatever happens. The machine never has two of one kind under way.
//! - [`Event::Changed`] after the credential's or its shard's record changed, and
//!   [`Event::Woken`] when the newest [`Action::WakeAt`] comes, or when the cluster clock is
//!   pushed ahead. Either may come at any time: a look too many does no harm.
//! - Facts of this replica's own applied state, never older than those of the step before.
//! - At most one machine for a credential in a process: made when the shard is owned here, or
//!   when a ticket of this session is open (a machine that panicked may have left one), and kept
//!   until [`Owner::is_done`]. A machine that dies takes its request with it: before a new one is
//!   made, the connection is closed and journal writes under way are over; it starts with what the
//!   journal then says.

use std::sync::Arc;
use std::time::Duration;

use evermint_core::command::{Answer, Command, Done};
use evermint_core::credential::{Credential, Phase, Reason};
use evermint_core::id::{
    Attempt, AuthorizationEpoch, CredentialId, Generation, Position, ReplicaId, SessionId,
    ShardEpoch, TicketId,
};
use evermint_core::mint::Failure;
use evermint_core::port::ProposeError;
use evermint_core::state::State;
use evermint_core::time::{Clocks, MonoMs, UnixMs};

use crate::deadline::Deadline;
use crate::journal::{JournalEntry, Progress, SealedMint};
use crate::recovery;

/// How long a replica that comes back together with a majority has to hand in what its journal
/// holds, before a mint in doubt is tried again; less if the doubt itself waits less.
pub const HEARING: Duration = Duration::from_secs(10);

/// First pause after a local trouble (no leader, a refusal, a full disk); it doubles each time.
pub const PAUSE_MIN: Duration = Duration::from_millis(200);

/// Longest such pause.
pub const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Longest pause before an answer of the issuer is offered again: while it is not committed, its
/// doubt may run out, and another owner try the spent token.
pub const COMMIT_PAUSE_MAX: Duration = Duration::from_secs(2);

/// How often the facts are looked at again while they are behind an answer.
pub const LAG_POLL: Duration = Duration::from_millis(250);

/// A replica in one of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The replica; one data directory.
    pub replica: ReplicaId,
    /// Its process start.
    pub session: SessionId,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The replicated state changed; look at the facts.
    Changed,
    /// Time has come.
    Woken,
    /// The proposal came to this end. A refusal is an answer.
    Proposed(Result<Answer, ProposeError>),
    /// The journal entry is on disk, fsynced; or it may not be.
    Journalled(Result<(), JournalFailed>),
    /// The mint came to this end, and its connection is closed.
    Minted(Result<SealedMint, Failure>),
}

/// The journal could not be written: the disk is full or broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal could not be written")]
pub struct JournalFailed;

/// What to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Propose it; the answer comes back as [`Event::Proposed`].
    Propose(Command),
    /// Write it over the credential's entry, fsync, then [`Event::Journalled`].
    Journal(JournalEntry),
    /// Remove the credential's entry if it is still this ticket's. Nothing comes back; an entry
    /// that stays by accident does no harm.
    Forget(TicketId),
    /// Run the mint within the deadline, then [`Event::Minted`].
    Mint(MintTask),
    /// Cut the running mint short. [`Event::Minted`] still comes, with whatever is known.
    AbortMint,
    /// Send [`Event::Woken`] then; the newest call counts alone.
    WakeAt(MonoMs),
}

/// One mint to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MintTask {
    /// Under which ticket.
    pub ticket: TicketId,
    /// When its connection has to be closed; checked again directly before the request is written.
    pub deadline: Deadline,
    /// The credential as the ticket was granted for it: configuration and sealed material.
    pub credential: Arc<Credential>,
}

/// The time of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// All clocks of this process.
    pub clocks: Clocks,
    /// The cluster clock.
    pub cluster: UnixMs,
    /// For how long this replica has been in touch with a majority, without a break.
    pub in_touch: Duration,
}

/// What this replica's applied state says about the credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// How far the state is.
    pub position: Position,
    /// The credential; `None` if it does not exist.
    pub credential: Option<Arc<Credential>>,
    /// The epoch under which this process owns the shard; `None` if it does not.
    pub owned: Option<ShardEpoch>,
    /// How long a mint may take.
    pub budget: Duration,
    /// How long this replica has to be in touch with a majority before it asks for a ticket.
    pub hearing: Duration,
    /// The mints whose answers revocations wait for, although their refresh is gone.
    pub revoked: Vec<TicketId>,
}

impl Facts {
    /// The facts about the credential `id` for the process `me`.
    pub fn of(state: &State, id: &CredentialId, me: Identity) -> Self {
        let credential = state.credentials.get(id).cloned();
        let owned = credential
            .as_ref()
            .and_then(|c| state.shards.get(&c.shard))
            .filter(|a| a.replica == me.replica && a.session == me.session)
            .map(|a| a.epoch);
        let settings = state.settings();
        let hearing = match credential.as_ref().map(|c| &c.phase) {
            Some(Phase::InDoubt(doubt)) if doubt.waits() => {
                HEARING.min(Duration::from_millis(settings.doubt_wait_ms))
            }
            _ => Duration::ZERO,
        };
        Self {
            position: state.meta.position,
            credential,
            owned,
            budget: settings.mint_budget(),
            hearing,
            revoked: awaited(state, id).collect(),
        }
    }

    /// Whether `flight` was asked for under a configuration that is no longer in force.
    fn reconfigured(&self, flight: &Flight) -> bool {
        let refresh = self.credential.as_ref().and_then(|c| c.refresh.as_ref());
        refresh.is_none_or(|r| r.epoch != flight.epoch)
    }

    /// Whether the credential's current ticket is `ticket`.
    fn is_current(&self, ticket: TicketId) -> bool {
        let current = self.credential.as_ref().and_then(|c| c.ticket());
        current.is_some_and(|t| t.id == ticket)
    }

    /// How far ahead of the leader's stamp the cluster clock was read when `flight` began, if its
    /// ticket is to be seen.
    fn lead(&self, flight: &Flight) -> Option<Duration> {
        let current = self.credential.as_ref().and_then(|c| c.ticket())?;
        (current.id == flight.ticket).then(|| flight.asked_at.since(current.granted_at))
    }

    /// Whether the cluster still waits for the outcome of `ticket`.
    fn is_open(&self, ticket: TicketId) -> bool {
        let open = self.credential.as_deref().and_then(recovery::open_ticket);
        open.is_some_and(|t| t.id == ticket)
    }
}

/// The mints of a credential whose answers open revocations wait for.
pub(crate) fn awaited<'a>(
    state: &'a State,
    id: &'a CredentialId,
) -> impl Iterator<Item = TicketId> + 'a {
    let open = state.revocations_of(id).filter_map(|r| r.work());
    open.filter_map(|work| work.awaits)
}

/// One attempt, from before its ticket is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Flight {
    ticket: TicketId,
    attempt: Attempt,
    shard_epoch: ShardEpoch,
    epoch: AuthorizationEpoch,
    generation: Generation,
    reason: Reason,
    /// The cluster clock as read here.
    asked_at: UnixMs,
    deadline: Deadline,
}

/// Where the cycle stands. Backoff, doubt and a stopped refresh are not here: they are replicated,
/// and reach the machine through [`Credential::due`].
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing under way; the next mint falls due, or a ticket of the past is to be settled.
    Waiting,
    /// The grant is proposed.
    Requesting(Flight),
    /// The grant's outcome is unknown; after a pause the same grant is proposed again.
    Unsure(Flight),
    /// The ticket is granted; `sending` is being journalled.
    Announcing(Flight),
    /// The issuer is being asked.
    Minting { flight: Flight, aborted: bool },
    /// The issuer's answer is being journalled.
    Recording(Flight, SealedMint),
    /// The ticket's end is proposed.
    Settling(TicketId, Command),
    /// No answer came; after a pause the end is proposed again.
    Unsettled(TicketId, Command),
}

impl Stage {
    /// The attempt that has a ticket, or asks for one.
    fn flight(&self) -> Option<&Flight> {
        match self {
            Self::Requesting(flight)
            | Self::Unsure(flight)
            | Self::Announcing(flight)
            | Self::Minting { flight, .. }
            | Self::Recording(flight, _) => Some(flight),
            Self::Waiting | Self::Settling(..) | Self::Unsettled(..) => None,
        }
    }
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Owner {
    credential: CredentialId,
    me: Identity,
    /// What the journal holds for the credential, or will hold once it is written.
    journal: Option<JournalEntry>,
    stage: Stage,
    /// Facts older than this are behind what the machine was told.
    told: Position,
    /// How far the cluster clock, as read here, was ahead of the stamp of the newest grant. A
    /// leader whose clock lost time dates what it stamps back; without this, every value would
    /// seem due as soon as it is there (simulation seed 13530).
    lead: Duration,
    /// Local troubles in a row.
    strikes: u32,
    /// Nothing is proposed before.
    pause_until: MonoMs,
    wake: Option<MonoMs>,
}

impl Owner {
    /// The machine of `credential`, starting from what this replica's journal holds for it.
    /// Give it an [`Event::Changed`] first.
    pub fn new(credential: CredentialId, me: Identity, journal: Option<JournalEntry>) -> Self {
        Self {
            credential,
            me,
            journal,
            stage: Stage::Waiting,
            told: Position(0),
            lead: Duration::ZERO,
            strikes: 0,
            pause_until: MonoMs(0),
            wake: None,
        }
    }

    /// Whether the machine may be dropped: its shard is owned elsewhere, and it has nothing more
    /// to do or to say.
    pub fn is_done(&self, facts: &Facts) -> bool {
        self.stage == Stage::Waiting
            && facts.owned.is_none()
            && facts.position >= self.told
            && self.overdue(facts).is_none()
    }

    /// Takes one step. `fresh` gives a random ticket id; it is called at most once.
    pub fn step(
        &mut self,
        event: Event,
        now: Now,
        facts: &Facts,
        fresh: impl FnOnce() -> TicketId,
    ) -> Vec<Action> {
        let mut out = Vec::new();
        let mono = now.clocks.mono;
        if event == Event::Woken {
            self.wake = None;
        }
        if let Some(lead) = self.stage.flight().and_then(|flight| facts.lead(flight)) {
            self.lead = lead;
        }
        let stage = std::mem::replace(&mut self.stage, Stage::Waiting);
        self.stage = match (stage, event) {
            // The ticket. If a grant works after all once it was given up, it is found, and
            // abandoned, while waiting: nothing was journalled under it.
            (Stage::Requesting(flight), Event::Proposed(Ok(answer))) => {
                self.told = self.told.max(answer.position);
                match answer.outcome {
                    Ok(Done::Granted { attempt }) if attempt == flight.attempt => {
                        self.announce(flight, now, facts, &mut out)
                    }
                    Ok(_) | Err(_) => self.strike(mono, flight.ticket, Stage::Waiting),
                }
            }
            (Stage::Requesting(flight), Event::Proposed(Err(ProposeError::Unavailable(_)))) => {
                self.strike(mono, flight.ticket, Stage::Waiting)
            }
            (Stage::Requesting(flight), Event::Proposed(Err(ProposeError::Unknown(_)))) => {
                self.strike(mono, flight.ticket, Stage::Unsure(flight))
            }
            (Stage::Unsure(flight), Event::Changed | Event::Woken) => {
                if facts.is_current(flight.ticket) {
                    self.told = self.told.max(facts.position);
                    self.announce(flight, now, facts, &mut out)
                } else if flight.is_over(now, facts) {
                    Stage::Waiting
                } else if mono >= self.pause_until {
                    self.request(flight, &mut out)
                } else {
                    Stage::Unsure(flight)
                }
            }

            // The mint.
            (Stage::Announcing(flight), Event::Journalled(Ok(()))) => {
                match self.ready(&flight, now, facts) {
                    Some(credential) => {
                        self.strikes = 0;
                        out.push(Action::Mint(MintTask {
                            ticket: flight.ticket,
                            deadline: flight.deadline,
                            credential,
                        }));
                        let aborted = false;
                        Stage::Minting { flight, aborted }
                    }
                    None => self.abandon(flight.ticket, &mut out),
                }
            }
            (Stage::Announcing(flight), Event::Journalled(Err(JournalFailed))) => {
                let next = self.abandon(flight.ticket, &mut out);
                self.strike(mono, flight.ticket, next)
            }
            (
                Stage::Minting {
                    flight,
                    aborted: false,
                },
                Event::Changed | Event::Woken,
            ) if facts.reconfigured(&flight) && !facts.revoked.contains(&flight.ticket) => {
                out.push(Action::AbortMint);
                let aborted = true;
                Stage::Minting { flight, aborted }
            }
            (Stage::Minting { flight, .. }, Event::Minted(Err(failure))) => {
                let credential = self.credential.clone();
                let ticket = flight.ticket;
                let end = Command::FailMint {
                    credential,
                    ticket,
                    failure,
                };
                self.settle(ticket, end, &mut out)
            }
            (Stage::Minting { flight, .. }, Event::Minted(Ok(mint))) => {
                self.record(flight.ticket, Progress::Response(mint.clone()), &mut out);
                Stage::Recording(flight, mint)
            }

            // The outcome. If the disk fails now, memory is the only place that has it.
            (Stage::Recording(flight, mint), Event::Journalled(_)) => {
                let end = mint.commit(self.credential.clone(), flight.ticket);
                self.settle(flight.ticket, end, &mut out)
            }
            (Stage::Settling(ticket, _), Event::Proposed(Ok(answer))) => {
                self.told = self.told.max(answer.position);
                match answer.outcome {
                    Ok(_) => Stage::Waiting,
                    Err(_) => self.strike(mono, ticket, Stage::Waiting),
                }
            }
            (Stage::Settling(ticket, end), Event::Proposed(Err(_))) => {
                self.strike(mono, ticket, Stage::Unsettled(ticket, end))
            }
            (Stage::Unsettled(ticket, end), Event::Changed | Event::Woken) => {
                if facts.position >= self.told && !facts.is_open(ticket) {
                    Stage::Waiting
                } else if mono >= self.pause_until {
                    self.settle(ticket, end, &mut out)
                } else {
                    Stage::Unsettled(ticket, end)
                }
            }

            // Nothing to see yet.
            (stage, _) => stage,
        };
        if self.stage == Stage::Waiting {
            self.look(now, facts, fresh, &mut out);
        }
        self.arm(now, facts, &mut out);
        out
    }

    /// While waiting: forgets what is settled, settles what is open, and starts what is due.
    fn look(
        &mut self,
        now: Now,
        facts: &Facts,
        fresh: impl FnOnce() -> TicketId,
        out: &mut Vec<Action>,
    ) {
        if facts.position < self.told {
            return;
        }
        let credential = facts.credential.as_deref();
        let settled =
            |entry: &mut JournalEntry| recovery::is_settled(facts.position, credential, entry);
        if let Some(entry) = self.journal.take_if(settled) {
            out.push(Action::Forget(entry.ticket));
        }
        if now.clocks.mono < self.pause_until {
            return;
        }
        if let Some((ticket, end)) = self.overdue(facts) {
            self.stage = self.settle(ticket, end, out);
        } else if let Some(flight) = Flight::due(now, self.lead, facts, fresh) {
            self.stage = self.request(flight, out);
        }
    }

    /// What there is to say about a ticket of this replica that no mint of this machine runs
    /// under.
    fn overdue(&self, facts: &Facts) -> Option<(TicketId, Command)> {
        let credential = facts.credential.as_deref()?;
        let ticket = recovery::open_ticket(credential)?.id;
        let end = recovery::settle(credential, self.journal.as_ref(), self.me)?;
        Some((ticket, end))
    }

    /// Asks for the flight's ticket.
    fn request(&self, flight: Flight, out: &mut Vec<Action>) -> Stage {
        out.push(Action::Propose(Command::GrantTicket {
            credential: self.credential.clone(),
            ticket: flight.ticket,
            owner: self.me.replica,
            session: self.me.session,
            shard_epoch: flight.shard_epoch,
            epoch: flight.epoch,
            expected_generation: flight.generation,
            expected_attempt: Attempt(flight.attempt.0 - 1),
            reason: flight.reason,
        }));
        Stage::Requesting(flight)
    }

    /// The ticket is granted: writes down that its request may be sent from now on.
    fn announce(
        &mut self,
        flight: Flight,
        now: Now,
        facts: &Facts,
        out: &mut Vec<Action>,
    ) -> Stage {
        if self.ready(&flight, now, facts).is_none() {
            return self.abandon(flight.ticket, out);
        }
        self.record(flight.ticket, Progress::Sending, out);
        Stage::Announcing(flight)
    }

    /// The credential to mint for, if the request may still be sent.
    fn ready(&self, flight: &Flight, now: Now, facts: &Facts) -> Option<Arc<Credential>> {
        let ended = facts.position >= self.told && !facts.is_current(flight.ticket);
        let stays = !ended && flight.deadline.has_room(now.clocks) && !facts.reconfigured(flight);
        facts.credential.clone().filter(|_| stays)
    }

    /// Ends a ticket under which nothing was sent.
    fn abandon(&self, ticket: TicketId, out: &mut Vec<Action>) -> Stage {
        let credential = self.credential.clone();
        self.settle(ticket, Command::AbandonTicket { credential, ticket }, out)
    }

    fn settle(&self, ticket: TicketId, end: Command, out: &mut Vec<Action>) -> Stage {
        out.push(Action::Propose(end.clone()));
        Stage::Settling(ticket, end)
    }

    fn record(&mut self, ticket: TicketId, progress: Progress, out: &mut Vec<Action>) {
        let entry = JournalEntry {
            credential: self.credential.clone(),
            ticket,
            granted: self.told,
            progress,
        };
        self.journal = Some(entry.clone());
        out.push(Action::Journal(entry));
    }

    /// Waits for a while before the next proposal: longer each time in a row, and by a half that
    /// is spread by the ticket's random id, so that owners that failed together come back apart.
    fn strike(&mut self, now: MonoMs, ticket: TicketId, next: Stage) -> Stage {
        let longest = match &next {
            Stage::Unsettled(_, Command::CommitMint { .. }) => COMMIT_PAUSE_MAX,
            _ => PAUSE_MAX,
        };
        let full = PAUSE_MIN
            .saturating_mul(1 << self.strikes.min(16))
            .min(longest);
        let spread = u32::try_from(ticket.0 % 1024).unwrap_or(0);
        self.strikes = self.strikes.saturating_add(1);
        self.pause_until = now + full / 2 + full / 2 * spread / 1024;
        next
    }

    /// Sets the timer to the next time at which something may be to do without any other event.
    fn arm(&mut self, now: Now, facts: &Facts, out: &mut Vec<Action>) {
        let mono = now.clocks.mono;
        let wake = match &self.stage {
            Stage::Waiting if facts.position < self.told => Some(mono + LAG_POLL),
            Stage::Waiting if self.overdue(facts).is_some() => Some(self.pause_until),
            Stage::Waiting => facts
                .owned
                .and(facts.credential.as_ref())
                .and_then(|c| c.due())
                .map(|(due, _)| (due + self.lead).since(now.cluster))
                .map(|left| left.max(facts.hearing.saturating_sub(now.in_touch)))
                .map(|left| self.pause_until.max(mono + left)),
            Stage::Unsure(flight) => {
                let end = mono + flight.deadline.remaining(now.clocks);
                Some(self.pause_until.min(end))
            }
            Stage::Unsettled(..) => Some(self.pause_until),
            Stage::Requesting(_)
            | Stage::Announcing(_)
            | Stage::Minting { .. }
            | Stage::Recording(..)
            | Stage::Settling(..) => None,
        };
        if let Some(at) = wake.filter(|_| wake != self.wake) {
            out.push(Action::WakeAt(at));
        }
        self.wake = wake;
    }
}

impl Flight {
    /// A new attempt, if one is due here. Its budget starts now.
    fn due(
        now: Now,
        lead: Duration,
        facts: &Facts,
        fresh: impl FnOnce() -> TicketId,
    ) -> Option<Self> {
        let credential = facts.credential.as_deref()?;
        let shard_epoch = facts.owned?;
        let refresh = credential.refresh.as_ref()?;
        let (due, reason) = credential.due()?;
        let is_due = due + lead <= now.cluster && facts.hearing <= now.in_touch;
        is_due.then(|| Self {
            ticket: fresh(),
            attempt: credential.attempt.next(),
            shard_epoch,
            epoch: refresh.epoch,
            generation: credential.generation,
            reason,
            asked_at: now.cluster,
            deadline: Deadline {
                started: now.clocks,
                budget: facts.budget,
            },
        })
    }

    /// Whether its ticket is not worth asking for any more.
    fn is_over(&self, now: Now, facts: &Facts) -> bool {
        self.deadline.passed(now.clocks)
            || facts.owned != Some(self.shard_epoch)
            || facts.reconfigured(self)
    }
}
