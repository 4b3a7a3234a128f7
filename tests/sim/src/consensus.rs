//! Consensus as an oracle: one committed log, leaders that come and go, entries and answers that
//! get lost on the way. What Raft promises holds here by construction; everything that it does
//! not promise goes wrong.

use std::sync::Arc;

use evermint_core::apply::apply;
use evermint_core::command::{Answer, Command, Done, Proposal};
use evermint_core::id::RequestId;
use evermint_core::record::Key;
use evermint_core::state::State;
use evermint_core::time::UnixMs;

use crate::config::Slot;
use crate::hardware::Time;
use crate::mutant::Mutant;
use crate::world::{Global, Local, Message, What, World};

/// How long a majority waits for its leader, in milliseconds.
const ELECTION: (u64, u64) = (500, 2_000);

/// The committed history, and who may extend it.
#[derive(Default)]
pub(crate) struct Consensus {
    pub(crate) log: Vec<Arc<Entry>>,
    /// When each entry was committed.
    pub(crate) committed_at: Vec<Time>,
    /// The state after each prefix of the log; the empty one first.
    pub(crate) history: Vec<State>,
    pub(crate) term: u64,
    pub(crate) leader: Option<Slot>,
    /// Appended by the leader, not committed yet.
    pending: Vec<Pending>,
    next_entry: u64,
    /// When the leader was elected.
    pub(crate) elected_at: Time,
    /// When the leader had a majority last.
    fine_at: Time,
    patience: u64,
}

/// What is in the log.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) at: UnixMs,
    pub(crate) proposal: Proposal,
}

struct Pending {
    number: u64,
    entry: Entry,
    reply_to: Slot,
    /// Who got it so far, and so might carry it into the next term.
    seen_by: Vec<bool>,
}

impl Consensus {
    /// The newest state.
    pub(crate) fn state(&self) -> &State {
        self.history.last().expect("the empty state comes first")
    }
}

/// A command in a few words.
fn brief(command: &Command) -> String {
    match command {
        Command::GrantTicket {
            credential,
            ticket,
            owner,
            reason,
            ..
        } => {
            let (key, reason) = (&credential.key, reason.as_str());
            format!("grant {key} {ticket} to {owner}, {reason}")
        }
        Command::FailMint {
            credential,
            ticket,
            failure,
        } => format!("fail {} {ticket}: {:?}", credential.key, failure.class),
        Command::CommitMint {
            credential, ticket, ..
        }
        | Command::ExpireTicket { credential, ticket }
        | Command::AbandonTicket { credential, ticket } => {
            format!("{} {} {ticket}", command.name(), credential.key)
        }
        Command::AssignShards { moves, .. } => format!("assign {} shards", moves.len()),
        Command::ConfigureRefresh { credential, .. }
        | Command::RotateCredential { credential }
        | Command::DeleteRefresh { credential } => format!("{} {}", command.name(), credential.key),
        other => other.name().to_owned(),
    }
}

/// Applies one entry, as every replica does; the mutants of the state machine are here.
pub(crate) fn apply_entry(
    mutant: Option<Mutant>,
    state: &mut State,
    entry: &Entry,
) -> (Answer, Vec<Key>) {
    let mut proposal = entry.proposal.clone();
    match (mutant, &mut proposal.command) {
        (
            Some(Mutant::AcceptReplacedTicket),
            Command::CommitMint {
                credential, ticket, ..
            },
        ) => {
            let known = state.credentials.get(credential);
            if let Some(current) = known.and_then(|c| c.ticket()) {
                *ticket = current.id;
            }
        }
        (
            Some(Mutant::NoAttemptCheck),
            Command::GrantTicket {
                credential,
                expected_attempt,
                ..
            },
        ) => {
            if let Some(known) = state.credentials.get(credential) {
                *expected_attempt = known.attempt;
            }
        }
        _ => {}
    }
    let (answer, mut touched) = apply(state, &proposal, entry.at);
    if let (Some(Mutant::ReassignWithoutWaiting), Command::AssignShards { moves, .. }, Ok(_)) =
        (mutant, &proposal.command, &answer.outcome)
    {
        let freed: Vec<_> = state
            .ticketed()
            .filter(|c| moves.iter().any(|(shard, ..)| *shard == c.shard))
            .filter_map(|c| Some((c.id.clone(), c.ticket()?.id)))
            .collect();
        for (credential, ticket) in freed {
            let proposal = Proposal {
                by: None,
                request: RequestId(ticket.0),
                command: Command::AbandonTicket { credential, ticket },
            };
            touched.extend(apply(state, &proposal, entry.at).1);
        }
    }
    if let (Some(Mutant::ForgetEarly), Command::MintEarly { credential, .. }) =
        (mutant, &proposal.command)
        && let Some(known) = state.credentials.get_mut(credential)
        && let Some(refresh) = &mut Arc::make_mut(known).refresh
    {
        refresh.early_from = UnixMs(0);
    }
    (answer, touched)
}

impl World {
    /// Whether messages pass both ways.
    fn linked(&self, a: Slot, b: Slot) -> bool {
        a == b || (!self.cuts.contains_key(&(a, b)) && !self.cuts.contains_key(&(b, a)))
    }

    /// The replicas that work together with the one in `slot`.
    fn reach(&self, slot: Slot) -> Vec<bool> {
        let awake = |s: Slot| self.replicas[s].up && !self.replicas[s].paused;
        (0..self.replicas.len())
            .map(|s| awake(slot) && awake(s) && self.linked(slot, s))
            .collect()
    }

    /// Whether the replica in `slot` reaches a majority.
    pub(crate) fn has_quorum(&self, slot: Slot) -> bool {
        let reached = self.reach(slot).iter().filter(|r| **r).count();
        2 * reached > self.replicas.len()
    }

    /// Whether the replica in `slot` is the leader, and not only believes so.
    pub(crate) fn truly_leads(&self, slot: Slot) -> bool {
        self.consensus.leader == Some(slot)
            && self.replicas[slot].leading == Some(self.consensus.term)
    }

    /// The leader takes a proposal, or one that believes itself the leader does.
    pub(crate) fn append(&mut self, slot: Slot, reply_to: Slot, proposal: Proposal) {
        if !self.truly_leads(slot) {
            self.coverage.note("proposals to a deposed leader");
            return;
        }
        let Some(at) = self.stamp(slot) else {
            self.coverage.note("leaders that did not know the time yet");
            return self.send(slot, reply_to, Message::NotLeader(proposal.request));
        };
        self.consensus.next_entry += 1;
        let number = self.consensus.next_entry;
        let seen_by = self.reach(slot);
        self.consensus.pending.push(Pending {
            number,
            entry: Entry { at, proposal },
            reply_to,
            seen_by,
        });
        let latency = self.dice.range(1, 15);
        let term = self.consensus.term;
        self.later(slot, latency, Local::Committed(term, number));
    }

    /// A majority may have the entry by now.
    pub(crate) fn try_commit(&mut self, slot: Slot, term: u64, number: u64) {
        let pending = &self.consensus.pending;
        if !self.truly_leads(slot)
            || self.consensus.term != term
            || pending.iter().all(|p| p.number > number)
        {
            return;
        }
        if !self.has_quorum(slot) {
            self.later(slot, 100, Local::Committed(term, number));
            return;
        }
        let count = pending.iter().take_while(|p| p.number <= number).count();
        let ready: Vec<Pending> = self.consensus.pending.drain(..count).collect();
        for pending in ready {
            let request = pending.entry.proposal.request;
            let answer = self.commit(pending.entry);
            let upto = self.consensus.log.len();
            let reached = self.reach(slot);
            for (s, reached) in reached.into_iter().enumerate() {
                if reached {
                    self.replicas[s].durable = upto;
                }
            }
            self.advance(slot, upto);
            self.send(slot, pending.reply_to, Message::Answered(request, answer));
        }
        self.announce_commits(slot);
    }

    /// The leader tells the others how far the log is committed.
    pub(crate) fn announce_commits(&mut self, slot: Slot) {
        let Some(term) = self.replicas[slot].leading else {
            return;
        };
        let upto = match self.truly_leads(slot) {
            true => self.consensus.log.len(),
            false => self.replicas[slot].applied,
        };
        for other in (0..self.replicas.len()).filter(|s| *s != slot) {
            let leader = slot;
            self.send(slot, other, Message::Append { term, leader, upto });
        }
    }

    /// Adds an entry to history, and checks what it did.
    pub(crate) fn commit(&mut self, entry: Entry) -> Answer {
        let before = self.consensus.state().clone();
        let mut after = before.clone();
        let (answer, _) = apply_entry(self.mutant, &mut after, &entry);
        let passed = self.now - self.consensus.committed_at.last().copied().unwrap_or(0);
        let stamped = entry.at.since(before.meta.clock).as_millis();
        if stamped > u128::from(passed) + 1_000 && before.meta.clock.0 > 0 {
            self.pushed_at = Some(self.now);
        }
        self.note(|| {
            format!(
                "commit {} {} -> {:?}",
                answer.position,
                brief(&entry.proposal.command),
                answer.outcome
            )
        });
        self.check_step(&before, &after, &entry.proposal.command, &answer);
        self.consensus.log.push(Arc::new(entry));
        self.consensus.committed_at.push(self.now);
        self.consensus.history.push(after);
        answer
    }

    /// Now and then: is there a leader, and should there be another?
    pub(crate) fn consider_election(&mut self) {
        self.after(200, What::Global(Global::Election));
        let leader = self.consensus.leader;
        if leader.is_some_and(|l| self.truly_leads(l) && self.has_quorum(l)) {
            self.consensus.fine_at = self.now;
        } else if self.now > self.consensus.fine_at + self.consensus.patience {
            self.elect();
        }
    }

    /// Elects a replica that has every committed entry and reaches a majority, if there is one.
    pub(crate) fn elect(&mut self) {
        let len = self.consensus.log.len();
        let fit: Vec<Slot> = (0..self.replicas.len())
            .filter(|s| self.replicas[*s].durable == len && self.has_quorum(*s))
            .collect();
        if fit.is_empty() {
            return;
        }
        let slot = self.dice.pick(&fit);
        self.coverage.note("elections");
        self.consensus.term += 1;
        self.consensus.leader = Some(slot);
        self.consensus.elected_at = self.now;
        self.consensus.fine_at = self.now;
        self.consensus.patience = self.dice.range(ELECTION.0, ELECTION.1);
        let term = self.consensus.term;
        self.note(|| format!("replica {slot} leads term {term}"));

        // Entries that reached the new leader may be committed by it, in order; nobody is told.
        let pending = std::mem::take(&mut self.consensus.pending);
        let whole = pending.iter().take_while(|p| p.seen_by[slot]).count();
        let kept = self.dice.below(whole + 1);
        for pending in pending.into_iter().take(kept) {
            self.coverage.note("entries committed by the next leader");
            self.commit(pending.entry);
        }
        let upto = self.consensus.log.len();
        let reached = self.reach(slot);
        for (s, reached) in reached.into_iter().enumerate() {
            if reached {
                self.replicas[s].durable = upto;
            }
        }
        // Whether it has applied everything when it takes office makes no difference.
        let early = self.dice.chance(500);
        if !early {
            self.advance(slot, upto);
        }
        let mono = self.leader_time(slot);
        let replica = &mut self.replicas[slot];
        replica.term = term;
        replica.leading = Some(term);
        replica.hint = Some(slot);
        replica.leader.took_office(&replica.state, mono);
        if early {
            self.advance(slot, upto);
        }
        self.arm_leader(slot);
        self.announce_commits(slot);
    }

    /// Whether `request` was granted: for coverage.
    pub(crate) fn is_granted(answer: &Answer) -> bool {
        matches!(answer.outcome, Ok(Done::Granted { .. }))
    }
}
