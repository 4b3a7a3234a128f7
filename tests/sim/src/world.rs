//! The simulated world: its time, its events, and the loop that lets them happen.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use evermint_core::command::{Answer, Proposal};
use evermint_core::id::{CredentialId, Generation, Position, RequestId, SessionId, TicketId};
use evermint_core::mint::Failure;
use evermint_core::revocation::RevocationId;
use evermint_core::time::{MonoMs, UnixMs};
use evermint_protocol::journal::{JournalEntry, SealedMint};
use evermint_protocol::owner::Identity;

use crate::config::{Config, Fault, Slot, Step};
use crate::consensus::Consensus;
use crate::dice::Dice;
use crate::hardware::Time;
use crate::issuer::{Family, Issuer};
use crate::mutant::Mutant;
use crate::operators::Script;
use crate::outage::Outage;
use crate::readers::{Reader, Served};
use crate::replica::Replica;
use crate::report::{Broken, Coverage, Passed};
use crate::reports::LastEarly;
use crate::revoking::{Revoking, Word};

/// Everything there is.
pub struct World {
    pub(crate) config: Config,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) dice: Dice,
    /// What decides whether operators have something revoked.
    pub(crate) whim: Dice,
    pub(crate) now: Time,
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    waiting: BTreeMap<u64, What>,
    next_event: u64,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) consensus: Consensus,
    pub(crate) issuer: Issuer,
    pub(crate) readers: Vec<Reader>,
    pub(crate) scripts: BTreeMap<u64, Script>,
    /// The identity of each configured credential; some operators change it.
    pub(crate) ids: Vec<CredentialId>,
    /// Ways that are cut, with the number of cuts.
    pub(crate) cuts: BTreeMap<(Slot, Slot), u32>,
    pub(crate) traps: Vec<(Step, Fault)>,
    /// Every ticket that was ever granted.
    pub(crate) granted: BTreeMap<TicketId, Granted>,
    /// Tickets that gamble on a doubt whose time had not run out in full.
    pub(crate) hasty: BTreeSet<TicketId>,
    /// Families that the issuer revoked for a request that it handled when all was over.
    pub(crate) spoiled: BTreeSet<Family>,
    /// Tickets that were granted well before their credential was due.
    pub(crate) early: u32,
    /// The last mint of each credential that a sandbox asked for.
    pub(crate) last_early: BTreeMap<CredentialId, LastEarly>,
    /// When the cluster clock was pushed ahead last.
    pub(crate) pushed_at: Option<Time>,
    /// When each ticket was asked for first.
    pub(crate) asked: BTreeMap<TicketId, Time>,
    pub(crate) outage: Outage,
    /// Machines whose wall clocks were set.
    pub(crate) set: BTreeSet<Slot>,
    /// From then on nothing goes wrong any more.
    pub(crate) healed: Option<Healed>,
    pub(crate) coverage: Coverage,
    broken: Option<Broken>,
    done: bool,
    hash: u64,
    trace: Vec<String>,
    /// Lines of the trace that are kept.
    tail: usize,
}

/// A ticket's grant.
pub(crate) struct Granted {
    pub(crate) credential: CredentialId,
    /// When it really was.
    pub(crate) at: Time,
    /// When the cluster clock said that it was.
    pub(crate) stamp: UnixMs,
}

/// The last phase: what the cluster has to show.
pub(crate) struct Healed {
    pub(crate) at: Time,
    /// When each credential was touched last before the faults ended.
    pub(crate) newest: BTreeMap<CredentialId, Position>,
}

/// An event.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// A message arrives.
    Message(Slot, Message),
    /// Something of one process's own; void in its next life.
    Local(Slot, u64, Local),
    /// Something of the world.
    Global(Global),
}

#[derive(Clone, Debug)]
pub(crate) enum Message {
    /// A proposal, forwarded to whom the sender takes for the leader.
    Propose(Slot, Box<Proposal>),
    Answered(RequestId, Answer),
    NotLeader(RequestId),
    /// The log is committed up to there.
    Append {
        term: u64,
        leader: Slot,
        upto: usize,
    },
    Beat {
        from: Slot,
        life: u64,
        me: Option<Identity>,
        as_of: MonoMs,
        wall: UnixMs,
    },
    /// At `as_of` of its own clock, the log was committed up to there.
    Confirmed {
        life: u64,
        as_of: MonoMs,
        upto: usize,
        /// The leader's stamp.
        clock: UnixMs,
        /// The wall clocks that the leader has heard of, as they go on since.
        walls: Vec<(Slot, UnixMs)>,
    },
    Read {
        reader: usize,
        serial: u64,
        min_generation: Option<Position>,
        /// Values good for less, in milliseconds, are not good enough; 0 if all are.
        min_ttl: u64,
        tries: u32,
    },
    /// A sandbox says that this value is refused.
    Report(CredentialId, Generation),
}

#[derive(Clone, Debug)]
pub(crate) enum Local {
    /// Something changed about the credential.
    Look(CredentialId),
    Wake(CredentialId, u64),
    Written(JournalEntry, bool),
    /// The connection of a mint is made: send.
    Connected(CredentialId, u64),
    Fence(CredentialId, u64),
    /// The answer of the issuer is in the kernel's buffer; the request has that number.
    Reply(CredentialId, u64, Result<SealedMint, Failure>),
    /// The proposer tries again.
    Resend(RequestId),
    /// The proposer gives up.
    GiveUp(RequestId),
    Unavailable(RequestId),
    /// The machine of the credential is made again after a panic.
    Reborn(CredentialId),
    /// Something about a revocation.
    Revoking(RevocationId, Revoking),
    Tick(u64),
    Heartbeat,
    Recover,
    /// A majority has the entry.
    Committed(u64, u64),
}

#[derive(Clone, Debug)]
pub(crate) enum Global {
    Fault(Fault),
    Restart(Slot),
    Resume(Slot),
    Heal(Vec<(Slot, Slot)>),
    Election,
    /// The issuer handles a request.
    Handle(usize, u64),
    /// The issuer's answer leaves the wire.
    Deliver(usize, u64, Result<SealedMint, Failure>),
    /// The issuer is told of a revocation.
    Revoke(Word),
    Read(usize),
    Answer {
        reader: usize,
        serial: u64,
        bundle: Option<Served>,
    },
    /// A sandbox goes on asking for other values.
    Nag {
        reader: usize,
        until: Time,
    },
    Operate(u64),
    HealAll,
    Finish,
}

impl World {
    /// The world of `config` at its beginning.
    pub fn new(config: Config, mutant: Option<Mutant>) -> Self {
        let dice = Dice::new(config.seed, 3);
        let whim = Dice::new(config.seed, 4);
        let mut world = Self {
            replicas: Vec::new(),
            consensus: Consensus::default(),
            issuer: Issuer::default(),
            readers: Vec::new(),
            scripts: BTreeMap::new(),
            ids: Vec::new(),
            cuts: BTreeMap::new(),
            traps: Vec::new(),
            granted: BTreeMap::new(),
            hasty: BTreeSet::new(),
            spoiled: BTreeSet::new(),
            early: 0,
            last_early: BTreeMap::new(),
            pushed_at: None,
            asked: BTreeMap::new(),
            outage: Outage::default(),
            set: BTreeSet::new(),
            healed: None,
            coverage: Coverage::default(),
            broken: None,
            done: false,
            hash: 0,
            trace: Vec::new(),
            tail: 0,
            now: 0,
            queue: BinaryHeap::new(),
            waiting: BTreeMap::new(),
            next_event: 0,
            config,
            mutant,
            dice,
            whim,
        };
        world.found();
        for (at, fault) in world.config.schedule.clone() {
            world.after(at, What::Global(Global::Fault(fault)));
        }
        world.after(world.config.horizon, What::Global(Global::HealAll));
        world.after(200, What::Global(Global::Election));
        for reader in 0..world.config.sandboxes {
            world.after(500, What::Global(Global::Read(reader)));
        }
        world
    }

    /// Keeps the last `tail` events, at least, for a report.
    pub fn with_trace(mut self, tail: usize) -> Self {
        self.tail = tail;
        self
    }

    /// Lets everything happen until the end.
    ///
    /// # Errors
    /// The first promise that did not hold, and the last events before it.
    pub fn run(mut self) -> Result<Passed, (Broken, Vec<String>)> {
        let mut events = 0;
        while let Some(Reverse((time, number))) = self.queue.pop() {
            let Some(what) = self.waiting.remove(&number) else {
                continue;
            };
            self.now = time;
            events += 1;
            self.stir(time ^ (number << 20));
            self.happen(what);
            self.watch_majority();
            if let Some(broken) = self.broken.take() {
                return Err((broken, self.trace));
            }
            if self.done {
                break;
            }
        }
        let state = self.consensus.state().hash();
        self.stir(state);
        Ok(Passed {
            hash: self.hash,
            events,
            coverage: self.coverage,
        })
    }

    fn stir(&mut self, word: u64) {
        self.hash = (self.hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Message(slot, _) | What::Local(slot, ..) if self.replicas[slot].paused => {
                self.replicas[slot].deferred.push(what);
            }
            What::Message(slot, message) => {
                if self.replicas[slot].up {
                    self.stir(slot as u64);
                    self.receive(slot, message);
                }
            }
            What::Local(slot, life, local) => {
                if self.replicas[slot].up && self.replicas[slot].life == life {
                    self.local(slot, local);
                }
            }
            What::Global(global) => self.global(global),
        }
    }

    fn global(&mut self, global: Global) {
        match global {
            Global::Fault(fault) => self.strike(fault),
            Global::Restart(slot) => self.restart(slot),
            Global::Resume(slot) => self.resume(slot),
            Global::Heal(ways) => self.mend(&ways),
            Global::Election => self.consider_election(),
            Global::Handle(request, mint) => self.handle_request(request, mint),
            Global::Deliver(request, mint, result) => self.deliver_answer(request, mint, result),
            Global::Revoke(word) => self.hear(word),
            Global::Read(reader) => self.read(reader),
            Global::Answer {
                reader,
                serial,
                bundle,
            } => self.receive_bundle(reader, serial, bundle),
            Global::Nag { reader, until } => self.ask_in_a_loop(reader, until),
            Global::Operate(script) => self.operate(script),
            Global::HealAll => self.heal_all(),
            Global::Finish => self.finish(),
        }
    }

    /// Lets `what` happen `delay` from now, after everything that was to happen then.
    pub(crate) fn after(&mut self, delay: u64, what: What) {
        self.next_event += 1;
        self.queue
            .push(Reverse((self.now + delay, self.next_event)));
        self.waiting.insert(self.next_event, what);
    }

    /// Lets something of the process in `slot` happen.
    pub(crate) fn later(&mut self, slot: Slot, delay: u64, local: Local) {
        let life = self.replicas[slot].life;
        self.after(delay, What::Local(slot, life, local));
    }

    /// A promise does not hold. The first one counts.
    pub(crate) fn broken(&mut self, promise: &'static str, what: String) {
        self.note(|| format!("BROKEN {promise}: {what}"));
        let at = self.now;
        self.broken.get_or_insert(Broken { promise, what, at });
    }

    /// The run is over.
    pub(crate) fn done(&mut self) {
        self.done = true;
    }

    /// Writes a line of the trace.
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if self.tail > 0 {
            if self.trace.len() >= 2 * self.tail {
                self.trace.drain(..self.tail);
            }
            self.trace.push(format!("{:>7} {}", self.now, line()));
        }
    }

    /// A new session id.
    pub(crate) fn session(&mut self) -> SessionId {
        SessionId(self.dice.id())
    }
}
