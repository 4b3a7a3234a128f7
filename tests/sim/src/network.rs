//! Messages between replicas: delayed, reordered, doubled and lost; and the proposer, which lives
//! with that.

use evermint_core::command::{Answer, Command, Proposal};
use evermint_core::id::{CredentialId, RequestId};
use evermint_core::port::ProposeError;
use evermint_core::revocation::RevocationId;
use evermint_core::time::MonoMs;
use evermint_protocol::owner::Event;
use evermint_protocol::revoker;

use crate::config::Slot;
use crate::world::{Local, Message, What, World};

/// When the proposer sends again, in milliseconds.
const RESEND: u64 = 700;

/// When it gives up.
const GIVE_UP: u64 = 2_500;

/// A proposal whose proposer waits for the answer.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) who: Who,
    pub(crate) proposal: Proposal,
    sent: u32,
}

/// Who wants to know.
#[derive(Clone, Debug)]
pub(crate) enum Who {
    Owner(CredentialId),
    Revoker(RevocationId),
    Operator(u64),
    Nobody,
}

impl World {
    /// Sends a message; to itself it always arrives.
    pub(crate) fn send(&mut self, from: Slot, to: Slot, message: Message) {
        if from == to {
            self.after(0, What::Message(to, message));
            return;
        }
        let copies = match self.healed.is_none() && self.dice.chance(self.config.doubled) {
            true => 2,
            false => 1,
        };
        for _ in 0..copies {
            let lost = self.healed.is_none() && self.dice.chance(self.config.lost);
            if lost || self.cuts.contains_key(&(from, to)) {
                self.coverage.note("messages lost");
                continue;
            }
            let late = self.healed.is_none() && self.dice.chance(self.config.late);
            let delay = match late {
                true => self.dice.range(1_000, 20_000),
                false => self.dice.range(1, 12),
            };
            self.after(delay, What::Message(to, message.clone()));
        }
    }

    pub(crate) fn receive(&mut self, slot: Slot, message: Message) {
        match message {
            Message::Propose(from, proposal) => {
                if self.replicas[slot].leading.is_some() {
                    self.append(slot, from, *proposal);
                } else {
                    self.send(slot, from, Message::NotLeader(proposal.request));
                }
            }
            Message::Answered(request, answer) => self.answered(slot, request, Ok(answer)),
            Message::NotLeader(request) => {
                let outgoing = self.replicas[slot].outgoing.get(&request);
                if outgoing.is_some_and(|o| o.sent <= 1) {
                    self.unavailable(slot, request);
                }
            }
            Message::Append { term, leader, upto } => {
                self.follow(slot, term, leader);
                if self.replicas[slot].term == term {
                    self.replicas[slot].durable = self.replicas[slot].durable.max(upto);
                    self.advance(slot, upto);
                }
            }
            Message::Beat {
                from,
                life,
                me,
                as_of,
                wall,
            } => {
                let boot = self.replicas[slot].hardware.read(self.now).boot;
                self.replicas[slot].walls.insert(from, (wall, boot));
                let mono = self.leader_time(slot);
                if let Some(me) = me {
                    self.replicas[slot]
                        .leader
                        .beat(me.replica, me.session, true, mono);
                    self.arm_leader(slot);
                }
                if self.truly_leads(slot) && self.has_quorum(slot) {
                    self.confirm(slot, from, life, as_of);
                }
            }
            Message::Confirmed {
                life,
                as_of,
                upto,
                clock,
                walls,
            } => {
                let boot = self.replicas[slot].hardware.read(self.now).boot;
                let replica = &mut self.replicas[slot];
                if replica.life != life {
                    return;
                }
                let push = replica.clock.observe(clock, boot);
                if replica.leading.is_none() {
                    let heard = walls.into_iter().map(|(from, wall)| (from, (wall, boot)));
                    replica.walls = heard.collect();
                }
                if replica.applied >= upto {
                    replica.freshness.caught_up(as_of, boot);
                } else if replica.awaited.is_none() {
                    replica.awaited = Some((as_of, upto));
                }
                // Timers were set by the clock as it was.
                if push.as_millis() > 1_000 {
                    self.reconcile(slot, None);
                }
            }
            Message::Read {
                reader,
                serial,
                min_generation,
                min_ttl,
                tries,
            } => self.answer_read(slot, reader, serial, (min_generation, min_ttl), tries),
            Message::Report(credential, generation) => {
                self.take_report(slot, &credential, generation);
            }
        }
    }

    /// The leader tells a replica how far the history is, and what time it is; nothing while it
    /// does not know that itself.
    fn confirm(&mut self, slot: Slot, to: Slot, life: u64, as_of: MonoMs) {
        let Some(clock) = self.stamp(slot) else {
            return self.coverage.note("leaders that did not know the time yet");
        };
        let leader = &self.replicas[slot];
        let own = (slot, leader.hardware.read(self.now).wall);
        let others = leader.walls(self.now).filter(|(other, _)| *other != slot);
        let confirmed = Message::Confirmed {
            life,
            as_of,
            upto: self.consensus.log.len(),
            clock,
            walls: others.chain([own]).collect(),
        };
        self.send(slot, to, confirmed);
    }

    /// Proposes on behalf of `who`, through the replica in `slot`.
    pub(crate) fn propose(&mut self, slot: Slot, who: Who, request: RequestId, command: Command) {
        let proposal = Proposal {
            request,
            by: None,
            command,
        };
        let outgoing = Outgoing {
            who,
            proposal,
            sent: 0,
        };
        self.replicas[slot].outgoing.insert(request, outgoing);
        self.resend(slot, request);
        let sent = self.replicas[slot]
            .outgoing
            .get(&request)
            .is_some_and(|o| o.sent > 0);
        if sent {
            self.later(slot, RESEND, Local::Resend(request));
            self.later(slot, GIVE_UP, Local::GiveUp(request));
        } else {
            self.later(slot, 50, Local::Unavailable(request));
        }
    }

    /// Sends a proposal to the leader, as far as that is known.
    pub(crate) fn resend(&mut self, slot: Slot, request: RequestId) {
        let replica = &mut self.replicas[slot];
        let (leading, hint) = (replica.leading, replica.hint);
        let Some(outgoing) = replica.outgoing.get_mut(&request) else {
            return;
        };
        let proposal = outgoing.proposal.clone();
        if leading.is_some() {
            outgoing.sent += 1;
            self.append(slot, slot, proposal);
        } else if let Some(hint) = hint.filter(|hint| *hint != slot) {
            outgoing.sent += 1;
            self.send(slot, hint, Message::Propose(slot, Box::new(proposal)));
        }
    }

    pub(crate) fn unavailable(&mut self, slot: Slot, request: RequestId) {
        self.coverage.note("proposals without a leader");
        let error = ProposeError::Unavailable(String::new());
        self.answered(slot, request, Err(error));
    }

    pub(crate) fn give_up(&mut self, slot: Slot, request: RequestId) {
        if self.replicas[slot].outgoing.contains_key(&request) {
            self.coverage.note("proposals of unknown outcome");
            let error = ProposeError::Unknown(String::new());
            self.answered(slot, request, Err(error));
        }
    }

    fn answered(&mut self, slot: Slot, request: RequestId, answer: Result<Answer, ProposeError>) {
        let Some(outgoing) = self.replicas[slot].outgoing.remove(&request) else {
            return;
        };
        match outgoing.who {
            Who::Owner(credential) => {
                self.after_proposal(slot, &outgoing.proposal.command, &answer);
                self.step(slot, &credential, Event::Proposed(answer));
            }
            Who::Revoker(id) => {
                self.revoke_step(slot, &id, revoker::Event::Proposed(answer));
            }
            Who::Operator(script) => self.operated(script, request, answer),
            Who::Nobody => {}
        }
    }

    /// Follows whoever leads the newest term that was heard of.
    fn follow(&mut self, slot: Slot, term: u64, leader: Slot) {
        let replica = &mut self.replicas[slot];
        if term < replica.term {
            return;
        }
        if term > replica.term && replica.leading.take().is_some() {
            replica.leader.left_office();
        }
        replica.term = term;
        replica.hint = Some(leader);
    }
}
