//! The shell around one owner: it does what the machine says, on a disk, a network and an issuer
//! that fail.

use std::time::Duration;

use evermint_core::command::{Answer, Command};
use evermint_core::credential::Phase;
use evermint_core::id::{CredentialId, RequestId, TicketId};
use evermint_core::mint::{Failure, FailureClass};
use evermint_core::port::ProposeError;
use evermint_core::secret::{DataKeyId, Sealed};
use evermint_protocol::journal::{JournalEntry, Progress, SealedMint};
use evermint_protocol::owner::{Action, Event, Facts, JournalFailed, MintTask, Now, Owner};

use crate::config::{Slot, Step};
use crate::issuer::{Fate, RefreshToken, Request, Verdict};
use crate::mutant::Mutant;
use crate::network::Who;
use crate::operators::further_outputs;
use crate::world::{Global, Local, What, World};

/// How long an issuer may work on for a client that has hung up, in milliseconds.
const UNNOTICED: u64 = 1_000;

/// The machine of one credential in one process.
pub(crate) struct Shell {
    pub(crate) owner: Owner,
    timer: u64,
    mint: Option<Running>,
}

/// A mint that runs.
struct Running {
    number: u64,
    task: MintTask,
    /// Its request, once it is sent.
    request: Option<usize>,
}

/// A sealed text; in the simulation the seal is made of glass.
pub(crate) fn sealed(text: String) -> Sealed {
    Sealed {
        key: DataKeyId(1),
        nonce: [0; 12],
        ciphertext: text.into_bytes(),
    }
}

/// A failure of that class.
pub(crate) fn failure(class: FailureClass) -> Failure {
    Failure {
        class,
        cause: format!("{class:?}"),
        remedy: String::new(),
        retry_after_ms: match class {
            FailureClass::Throttled => Some(3_000),
            _ => None,
        },
    }
}

impl World {
    /// Makes the machine of a credential, unless it is there: if this replica owns it, or if this
    /// process has a ticket open for it (a machine that panicked may have left one).
    pub(crate) fn ensure_shell(&mut self, slot: Slot, id: &CredentialId) {
        let replica = &mut self.replicas[slot];
        let Some(me) = replica.me() else {
            return;
        };
        let facts = Facts::of(&replica.state, id, me);
        let open = match facts.credential.as_ref().map(|c| &c.phase) {
            Some(Phase::Ticketed(ticket)) => Some(ticket),
            Some(Phase::InDoubt(doubt)) => Some(&doubt.ticket),
            Some(Phase::Idle) | None => None,
        };
        let needed = facts.owned.is_some() || open.is_some_and(|t| t.session == me.session);
        let writing = replica.writes.iter().any(|e| e.credential == *id);
        if needed && !writing && !replica.shells.contains_key(id) {
            let journal = replica.journal.get(id).cloned();
            let shell = Shell {
                owner: Owner::new(id.clone(), me, journal),
                timer: 0,
                mint: None,
            };
            replica.shells.insert(id.clone(), shell);
        }
    }

    /// Gives the machine an event and does what it says.
    pub(crate) fn step(&mut self, slot: Slot, id: &CredentialId, event: Event) {
        let fresh = TicketId(self.dice.id());
        let replica = &mut self.replicas[slot];
        let Some(me) = replica.me() else {
            return;
        };
        let mut facts = Facts::of(&replica.state, id, me);
        if self.mutant == Some(Mutant::SkipDeadline) {
            facts.budget = Duration::from_secs(365 * 86_400);
        }
        let clocks = replica.hardware.read(self.now);
        let now = Now {
            clocks,
            cluster: replica.clock.read(clocks.boot),
            in_touch: match self.mutant {
                Some(Mutant::GambleAtOnce) => Duration::MAX,
                _ => replica.freshness.in_touch(clocks.boot),
            },
        };
        let Some(shell) = replica.shells.get_mut(id) else {
            return;
        };
        let actions = shell.owner.step(event, now, &facts, || fresh);
        if shell.owner.is_done(&facts) {
            replica.shells.remove(id);
        }
        for action in actions {
            self.act(slot, id, action);
        }
    }

    fn act(&mut self, slot: Slot, id: &CredentialId, action: Action) {
        match action {
            Action::Propose(command) => {
                let step = match &command {
                    Command::GrantTicket { .. } => Some(Step::Asked),
                    Command::CommitMint { .. } => Some(Step::Recorded),
                    _ => None,
                };
                if let Command::GrantTicket { ticket, .. } = &command {
                    self.asked.entry(*ticket).or_insert(self.now);
                }
                let request = RequestId(self.dice.id());
                self.propose(slot, Who::Owner(id.clone()), request, command);
                step.into_iter()
                    .for_each(|step| self.reach_step(slot, step));
            }
            Action::Journal(entry) => {
                let step = match &entry.progress {
                    Progress::Sending => Step::Granted,
                    Progress::Response(_) => Step::Answered,
                };
                let good = self.replicas[slot].full_until <= self.now;
                if !good {
                    self.coverage.note("journal writes that failed");
                }
                let latency = match self.dice.chance(50) {
                    true => self.dice.range(100, 1_000),
                    false => self.dice.range(1, 10),
                };
                self.replicas[slot].writes.push(entry.clone());
                self.later(slot, latency, Local::Written(entry, good));
                self.reach_step(slot, step);
            }
            Action::Forget(ticket) => {
                let replica = &mut self.replicas[slot];
                if replica.journal.get(id).is_some_and(|e| e.ticket == ticket) {
                    replica.removed.extend(replica.journal.remove(id));
                }
            }
            Action::Mint(task) => {
                let number = self.dice.roll();
                if let Some(shell) = self.replicas[slot].shells.get_mut(id) {
                    shell.mint = Some(Running {
                        number,
                        task,
                        request: None,
                    });
                }
                let latency = self.dice.range(1, 30);
                self.later(slot, latency, Local::Connected(id.clone(), number));
                self.reach_step(slot, Step::Announced);
            }
            Action::AbortMint => {
                self.coverage.note("mints cut short by a reconfiguration");
                self.end_without_answer(slot, id);
            }
            Action::WakeAt(mono) => {
                let now = self.now;
                let replica = &mut self.replicas[slot];
                let delay = replica.hardware.when(mono, now) - now;
                let Some(shell) = replica.shells.get_mut(id) else {
                    return;
                };
                shell.timer += 1;
                let timer = shell.timer;
                self.later(slot, delay, Local::Wake(id.clone(), timer));
            }
        }
    }

    pub(crate) fn wake(&mut self, slot: Slot, id: &CredentialId, timer: u64) {
        let shell = self.replicas[slot].shells.get(id);
        if shell.is_some_and(|shell| shell.timer == timer) {
            self.step(slot, id, Event::Woken);
        }
    }

    /// A journal write came to its end.
    pub(crate) fn written(&mut self, slot: Slot, entry: JournalEntry, good: bool) {
        let replica = &mut self.replicas[slot];
        replica.writes.retain(|e| *e != entry);
        let id = entry.credential.clone();
        // A write that failed may be on the disk all the same.
        if good || self.dice.chance(500) {
            self.write(slot, entry);
        }
        let result = if good { Ok(()) } else { Err(JournalFailed) };
        self.ensure_shell(slot, &id);
        self.step(slot, &id, Event::Journalled(result));
    }

    /// Puts an entry on the disk.
    pub(crate) fn write(&mut self, slot: Slot, entry: JournalEntry) {
        match (&entry.progress, self.mutant) {
            (Progress::Sending, Some(Mutant::SendUnannounced)) => return,
            (Progress::Response(_), Some(Mutant::CommitUnjournalled)) => {
                // Claimed to be on the disk.
                if self.issuer.fate(entry.ticket) == Some(&Fate::Delivered(slot)) {
                    self.issuer.mark(entry.ticket, Fate::Journalled(slot));
                }
                return;
            }
            _ => {}
        }
        if matches!(entry.progress, Progress::Response(_))
            && self.issuer.fate(entry.ticket) == Some(&Fate::Delivered(slot))
        {
            self.issuer.mark(entry.ticket, Fate::Journalled(slot));
        }
        let replica = &mut self.replicas[slot];
        replica.removed.retain(|e| e.credential != entry.credential);
        replica.journal.insert(entry.credential.clone(), entry);
    }

    /// The mint of that number, if it still runs.
    fn running(&mut self, slot: Slot, id: &CredentialId, number: u64) -> Option<&mut Running> {
        let shell = self.replicas[slot].shells.get_mut(id)?;
        shell.mint.as_mut().filter(|mint| mint.number == number)
    }

    /// The mint that runs for a credential.
    pub(crate) fn mint_number(&self, slot: Slot, id: &CredentialId) -> Option<u64> {
        let shell = self.replicas[slot].shells.get(id)?;
        Some(shell.mint.as_ref()?.number)
    }

    /// The connection is made: the deadline is checked once more, and the request is sent.
    pub(crate) fn connected(&mut self, slot: Slot, id: &CredentialId, number: u64) {
        let now = self.now;
        let clocks = self.replicas[slot].hardware.read(now);
        let down = self.issuer.down_until > now;
        let Some(mint) = self.running(slot, id, number) else {
            return;
        };
        let task = mint.task.clone();
        if down || task.deadline.passed(clocks) {
            self.coverage.note(match down {
                true => "connections refused",
                false => "deadlines that passed before the request was sent",
            });
            let unsent = failure(FailureClass::Unsent);
            self.minted(slot, id, Err(unsent));
            return;
        }
        let refresh = task.credential.refresh.as_ref();
        let token = refresh
            .and_then(|r| r.material.get("refresh_token"))
            .and_then(|sealed| RefreshToken::parse(&sealed.ciphertext));
        let request = Request {
            credential: id.clone(),
            ticket: task.ticket,
            slot,
            deadline: task.deadline,
            token,
            open: true,
            closed_at: 0,
            heard: false,
        };
        self.note(|| format!("replica {slot} sends {:?} under {}", token, task.ticket));
        self.check_send(&request);
        self.coverage.note("requests sent");
        let request_number = self.issuer.requests.len();
        self.issuer.requests.push(request);
        if let Some(mint) = self.running(slot, id, number) {
            mint.request = Some(request_number);
        }
        self.fence(slot, id, number);
        let latency = self.latency();
        self.after(
            latency,
            What::Global(Global::Handle(request_number, number)),
        );
        self.reach_step(slot, Step::Sent);
    }

    /// How long the issuer takes, or the way to it.
    pub(crate) fn latency(&mut self) -> u64 {
        match self.healed.is_some() || self.dice.chance(800) {
            true => self.dice.range(5, 60),
            false => self.dice.range(5, self.config.slowest),
        }
    }

    /// The issuer handles a request. It need not notice at once that the connection is closed.
    pub(crate) fn handle_request(&mut self, request: usize, number: u64) {
        let wrong =
            |world: &mut Self, permille| world.healed.is_none() && world.dice.chance(permille);
        let Request {
            open, closed_at, ..
        } = self.issuer.requests[request];
        let unnoticed = self.now < closed_at + UNNOTICED && self.dice.chance(500);
        if wrong(self, self.config.hung) || !(open || unnoticed) {
            self.coverage.note("requests that the issuer never handled");
            return;
        }
        let result = if wrong(self, self.config.failed) {
            Err(failure(FailureClass::Transient))
        } else if wrong(self, self.config.throttled) {
            Err(failure(FailureClass::Throttled))
        } else {
            match self.issuer.exchange(request, self.now) {
                Verdict::Refused { reuse } => {
                    let ticket = self.issuer.requests[request].ticket;
                    self.note(|| format!("the issuer refuses {ticket}, reuse: {reuse}"));
                    if reuse {
                        self.check_reuse(request);
                    }
                    Err(failure(FailureClass::GrantRefused))
                }
                Verdict::Token(token, rotated) => {
                    self.note(|| format!("the issuer gives token {token}, {rotated:?}"));
                    if !self.issuer.requests[request].open || wrong(self, self.config.unheard) {
                        self.coverage.note("answers that were lost after rotating");
                        self.issuer.close(request, self.now);
                        Err(failure(FailureClass::Unclear))
                    } else {
                        Ok(self.mint_result(request, token, rotated))
                    }
                }
            }
        };
        let latency = self.latency();
        let deliver = Global::Deliver(request, number, result);
        self.after(latency, What::Global(deliver));
    }

    fn mint_result(
        &mut self,
        request: usize,
        token: u64,
        rotated: Option<RefreshToken>,
    ) -> SealedMint {
        let credential = &self.issuer.requests[request].credential;
        // By its key: two operators at once may have left a provider that nobody remembers.
        let mut ids = self.ids.iter();
        let index = ids.position(|id| id.key == credential.key);
        let grant = self.config.credentials[index.unwrap_or(0)];
        let further = further_outputs(grant.strategy, credential).into_values();
        let output = sealed(format!("at-{token}"));
        let material = rotated.map(|t| ("refresh_token".to_owned(), sealed(t.text())));
        SealedMint {
            outputs: std::iter::once(credential.key.clone())
                .chain(further)
                .map(|key| (key, output.clone()))
                .collect(),
            lifetime_ms: (!self.dice.chance(100)).then_some(grant.lifetime),
            new_material: material.into_iter().collect(),
            material_lifetimes_ms: Default::default(),
        }
    }

    /// The answer has crossed the wire; whether anybody is awake to read it is another matter.
    pub(crate) fn deliver_answer(
        &mut self,
        request: usize,
        number: u64,
        result: Result<SealedMint, Failure>,
    ) {
        let Request {
            slot,
            credential,
            open,
            ..
        } = self.issuer.requests[request].clone();
        if !open {
            return self.issuer.close(request, self.now);
        }
        self.issuer.requests[request].open = false;
        let life = self.replicas[slot].life;
        let reply = Local::Reply(credential, number, result);
        self.after(0, What::Local(slot, life, reply));
    }

    /// The answer is read.
    pub(crate) fn reply(
        &mut self,
        slot: Slot,
        id: &CredentialId,
        number: u64,
        result: Result<SealedMint, Failure>,
    ) {
        let clocks = self.replicas[slot].hardware.read(self.now);
        let Some(mint) = self.running(slot, id, number) else {
            return;
        };
        let request = mint.request;
        let passed = mint.task.deadline.passed(clocks);
        if passed && !self.config.answer_first {
            self.coverage.note("answers dropped at the deadline");
            return self.end_without_answer(slot, id);
        }
        if passed {
            self.coverage.note("answers read after the deadline");
        }
        if let Some(request) = request {
            self.issuer.requests[request].heard = true;
            let ticket = self.issuer.requests[request].ticket;
            if result.is_ok() && self.issuer.fate(ticket) == Some(&Fate::Issued) {
                self.issuer.mark(ticket, Fate::Delivered(slot));
            }
        }
        self.minted(slot, id, result);
    }

    /// The deadline of a running mint may have come. A wall clock that was set back meanwhile makes
    /// it come later than it was foreseen.
    pub(crate) fn fence(&mut self, slot: Slot, id: &CredentialId, number: u64) {
        let now = self.now;
        let hardware = self.replicas[slot].hardware.clone();
        let clocks = hardware.read(now);
        let Some(mint) = self.running(slot, id, number) else {
            return;
        };
        let deadline = mint.task.deadline;
        if deadline.passed(clocks) {
            self.coverage.note("requests cut off at the deadline");
            self.end_without_answer(slot, id);
        } else {
            let delay = hardware.when(clocks.mono + deadline.remaining(clocks), now) - now;
            self.later(slot, delay, Local::Fence(id.clone(), number));
        }
    }

    /// Closes the connection and says what can be said.
    fn end_without_answer(&mut self, slot: Slot, id: &CredentialId) {
        let Some(shell) = self.replicas[slot].shells.get_mut(id) else {
            return;
        };
        let Some(mint) = &shell.mint else {
            return;
        };
        let class = match mint.request {
            Some(_) => FailureClass::Unclear,
            None => FailureClass::Unsent,
        };
        self.close(slot, id);
        self.minted(slot, id, Err(failure(class)));
    }

    /// Closes the connection of the running mint.
    pub(crate) fn close(&mut self, slot: Slot, id: &CredentialId) {
        let shell = self.replicas[slot].shells.get_mut(id);
        let mint = shell.and_then(|shell| shell.mint.as_mut());
        if let Some(request) = mint.and_then(|mint| mint.request.take()) {
            self.issuer.close(request, self.now);
        }
    }

    fn minted(&mut self, slot: Slot, id: &CredentialId, result: Result<SealedMint, Failure>) {
        if let Some(shell) = self.replicas[slot].shells.get_mut(id) {
            shell.mint = None;
        }
        self.note(|| format!("replica {slot} minted {:?}", result.as_ref().map(|_| ())));
        self.step(slot, id, Event::Minted(result));
    }

    /// The actor of a credential panics. Its supervisor makes it anew.
    pub(crate) fn panic(&mut self, slot: Slot, id: &CredentialId) {
        self.coverage.note("panics");
        self.close(slot, id);
        let replica = &mut self.replicas[slot];
        replica.shells.remove(id);
        replica
            .outgoing
            .retain(|_, o| !matches!(&o.who, Who::Owner(owner) if owner == id));
        let writing: Vec<TicketId> = replica.writes.iter().map(|e| e.ticket).collect();
        let tickets: Vec<TicketId> = (self.issuer.requests.iter())
            .filter(|r| r.credential == *id && !writing.contains(&r.ticket))
            .map(|r| r.ticket)
            .collect();
        for rotation in self.issuer.rotations.values_mut() {
            if rotation.fate == Fate::Delivered(slot) && tickets.contains(&rotation.ticket) {
                rotation.fate = Fate::Lost("its actor died between answer and journal");
            }
        }
        self.later(slot, 100, Local::Reborn(id.clone()));
    }

    /// Whether some credential's mint is in flight at `slot`: who wants to strike one looks here.
    pub(crate) fn reach_step(&mut self, slot: Slot, step: Step) {
        if let Some(at) = self.traps.iter().position(|(s, _)| *s == step) {
            let (_, fault) = self.traps.remove(at);
            self.after(0, What::Global(Global::Fault(fault.aimed_at(slot))));
        }
    }

    /// Coverage of what an owner was told.
    pub(crate) fn after_proposal(
        &mut self,
        slot: Slot,
        command: &Command,
        answer: &Result<Answer, ProposeError>,
    ) {
        let Ok(answer) = answer else {
            return;
        };
        if matches!(command, Command::CommitMint { .. }) && answer.outcome.is_ok() {
            self.reach_step(slot, Step::Committed);
        }
        if Self::is_granted(answer) && self.position(slot) < answer.position {
            self.coverage
                .note("grants known before they were applied here");
        }
    }
}
