//! Revocation at the issuer: the machine of each revocation in each process, what the issuer makes
//! of it, and what must hold of both.

use std::sync::Arc;

use evermint_core::command::{Answer, Command};
use evermint_core::id::RequestId;
use evermint_core::mint::{Failure, FailureClass};
use evermint_core::revocation::{End, Revocation, RevocationId, Stage, TRIES_MAX, Target};
use evermint_core::state::State;
use evermint_protocol::owner::Now;
use evermint_protocol::revoker::{Action, Event, Facts, RevokeTask, Revoker};

use crate::config::Slot;
use crate::issuer::RefreshToken;
use crate::network::Who;
use crate::shell::failure;
use crate::world::{Global, Local, What, World};

/// The machine of one revocation in one process.
pub(crate) struct RevokeShell {
    revoker: Revoker,
    timer: u64,
    running: Option<Running>,
}

/// A try that runs.
struct Running {
    number: u64,
    task: RevokeTask,
    sent: bool,
}

/// What happens to a revocation in one process.
#[derive(Clone, Debug)]
pub(crate) enum Revoking {
    /// Something changed about it.
    Look,
    Wake(u64),
    /// The connection is made: send.
    Connected(u64),
    Fence(u64),
    /// What the issuer said is here.
    Reply(u64, Result<(), Failure>),
}

/// A request to revoke, on its way.
#[derive(Clone, Debug)]
pub(crate) struct Word {
    slot: Slot,
    life: u64,
    number: u64,
    tries: u32,
    revocation: Arc<Revocation>,
}

impl World {
    pub(crate) fn revoking(&mut self, slot: Slot, id: &RevocationId, what: Revoking) {
        match what {
            Revoking::Look => self.revoke_step(slot, id, Event::Changed),
            Revoking::Wake(timer) => {
                let shell = self.replicas[slot].revokers.get(id);
                if shell.is_some_and(|shell| shell.timer == timer) {
                    self.revoke_step(slot, id, Event::Woken);
                }
            }
            Revoking::Connected(number) => self.revoke_connected(slot, id, number),
            Revoking::Fence(number) => self.revoke_fence(slot, id, number),
            Revoking::Reply(number, result) => self.revoke_reply(slot, id, number, result),
        }
    }

    /// Gives the machine an event and does what it says; makes it if there is work here.
    pub(crate) fn revoke_step(&mut self, slot: Slot, id: &RevocationId, event: Event) {
        let replica = &mut self.replicas[slot];
        let Some(me) = replica.me() else {
            return;
        };
        let facts = Facts::of(&replica.state, id, me);
        let clocks = replica.hardware.read(self.now);
        let now = Now {
            clocks,
            cluster: replica.clock.read(clocks.boot),
            in_touch: replica.freshness.in_touch(clocks.boot),
        };
        let fresh = Revoker::new(id.clone(), me);
        if !replica.revokers.contains_key(id) && fresh.is_done(&facts) {
            return;
        }
        let shell = replica.revokers.entry(id.clone()).or_insert(RevokeShell {
            revoker: fresh,
            timer: 0,
            running: None,
        });
        let actions = shell.revoker.step(event, now, &facts, true);
        if shell.revoker.is_done(&facts) {
            replica.revokers.remove(id);
        }
        for action in actions {
            self.revoke_act(slot, id, action);
        }
    }

    fn revoke_act(&mut self, slot: Slot, id: &RevocationId, action: Action) {
        match action {
            Action::Propose(command) => {
                let request = RequestId(self.dice.id());
                self.propose(slot, Who::Revoker(id.clone()), request, *command);
            }
            Action::Revoke(task) => {
                let number = self.dice.roll();
                if let Some(shell) = self.replicas[slot].revokers.get_mut(id) {
                    shell.running = Some(Running {
                        number,
                        task,
                        sent: false,
                    });
                }
                let latency = self.dice.range(1, 30);
                let connected = Revoking::Connected(number);
                self.later(slot, latency, Local::Revoking(id.clone(), connected));
                self.revoke_fence(slot, id, number);
            }
            Action::WakeAt(mono) => {
                let now = self.now;
                let replica = &mut self.replicas[slot];
                let delay = replica.hardware.when(mono, now) - now;
                let Some(shell) = replica.revokers.get_mut(id) else {
                    return;
                };
                shell.timer += 1;
                let wake = Revoking::Wake(shell.timer);
                self.later(slot, delay, Local::Revoking(id.clone(), wake));
            }
        }
    }

    fn running_try(&mut self, slot: Slot, id: &RevocationId, number: u64) -> Option<&mut Running> {
        let shell = self.replicas[slot].revokers.get_mut(id)?;
        shell.running.as_mut().filter(|run| run.number == number)
    }

    fn revoke_connected(&mut self, slot: Slot, id: &RevocationId, number: u64) {
        let clocks = self.replicas[slot].hardware.read(self.now);
        let down = self.issuer.down_until > self.now;
        let life = self.replicas[slot].life;
        let Some(run) = self.running_try(slot, id, number) else {
            return;
        };
        let task = run.task.clone();
        if down || task.deadline.passed(clocks) {
            return self.revoke_reply(slot, id, number, Err(failure(FailureClass::Unsent)));
        }
        run.sent = true;
        self.note(|| format!("replica {slot} has {id:?} revoked, try {}", task.tries));
        self.check_word(id, &task);
        let word = Word {
            slot,
            life,
            number,
            tries: task.tries,
            revocation: task.revocation,
        };
        let latency = self.latency();
        self.after(latency, What::Global(Global::Revoke(word)));
    }

    /// The issuer is told.
    pub(crate) fn hear(&mut self, word: Word) {
        let wrong =
            |world: &mut Self, permille| world.healed.is_none() && world.dice.chance(permille);
        if wrong(self, self.config.hung) {
            return;
        }
        let result = if wrong(self, self.config.failed) {
            Err(failure(FailureClass::Transient))
        } else {
            self.revoke_at_issuer(&word);
            if wrong(self, self.config.unheard) {
                self.coverage.note("revocations whose answer was lost");
                return;
            }
            Ok(())
        };
        let Word {
            slot, life, number, ..
        } = word;
        let latency = self.latency();
        let id = word.revocation.id.clone();
        let reply = Local::Revoking(id, Revoking::Reply(number, result));
        self.after(latency, What::Local(slot, life, reply));
    }

    fn revoke_at_issuer(&mut self, word: &Word) {
        let Some(work) = word.revocation.work() else {
            return;
        };
        let state = self.consensus.state();
        let credentials = state.credentials.values();
        let live: Vec<_> = credentials.filter_map(|c| c.value.as_ref()).collect();
        let token_lives = work.tokens.iter().any(|token| {
            let mut outputs = live.iter().flat_map(|value| value.outputs.values());
            outputs.any(|output| output == token)
        });
        let material = work.material.get("refresh_token");
        let family = material
            .filter(|_| word.revocation.target == Target::Grant)
            .and_then(|sealed| RefreshToken::parse(&sealed.ciphertext))
            .map(|token| token.family);
        let mut refreshes = state
            .credentials
            .values()
            .filter_map(|c| c.refresh.as_ref());
        let grant_lives = family.is_some_and(|family| {
            refreshes.any(|refresh| {
                let token = refresh.material.get("refresh_token");
                let token = token.and_then(|sealed| RefreshToken::parse(&sealed.ciphertext));
                token.is_some_and(|token| token.family == family)
            })
        });
        if token_lives || grant_lives {
            let what = format!("{:?} revokes what is live", word.revocation.id);
            return self.broken("revocation", what);
        }
        if let Some(chain) = family.and_then(|family| self.issuer.chains.get_mut(&family)) {
            chain.revoked = true;
        }
        let told = (word.revocation.id.clone(), word.tries);
        self.issuer.told.insert(told);
    }

    fn revoke_fence(&mut self, slot: Slot, id: &RevocationId, number: u64) {
        let now = self.now;
        let hardware = self.replicas[slot].hardware.clone();
        let clocks = hardware.read(now);
        let Some(run) = self.running_try(slot, id, number) else {
            return;
        };
        let deadline = run.task.deadline;
        let class = match run.sent {
            true => FailureClass::Unclear,
            false => FailureClass::Unsent,
        };
        if deadline.passed(clocks) {
            self.coverage.note("revocations cut off at the deadline");
            self.revoke_reply(slot, id, number, Err(failure(class)));
        } else {
            let delay = hardware.when(clocks.mono + deadline.remaining(clocks), now) - now;
            let fence = Local::Revoking(id.clone(), Revoking::Fence(number));
            self.later(slot, delay, fence);
        }
    }

    fn revoke_reply(
        &mut self,
        slot: Slot,
        id: &RevocationId,
        number: u64,
        result: Result<(), Failure>,
    ) {
        if self.running_try(slot, id, number).is_none() {
            return;
        }
        if let Some(shell) = self.replicas[slot].revokers.get_mut(id) {
            shell.running = None;
        }
        self.revoke_step(slot, id, Event::Revoked(result));
    }

    /// The process in `slot` dies.
    pub(crate) fn drop_revokers(&mut self, slot: Slot) {
        let dropped = std::mem::take(&mut self.replicas[slot].revokers);
        if dropped.values().any(|shell| shell.running.is_some()) {
            self.coverage
                .note("revocations whose try died with its replica");
        }
    }

    /// Each try is made once, by whoever claimed it, and there are few.
    fn check_word(&mut self, id: &RevocationId, task: &RevokeTask) {
        let is_new = self.issuer.words.insert((id.clone(), task.tries));
        if !is_new || task.tries > TRIES_MAX {
            let what = format!(
                "try {} of {id:?} was made twice, or is too many",
                task.tries
            );
            self.broken("revocation", what);
        }
    }

    /// After every entry of the history.
    pub(crate) fn check_revocations(
        &mut self,
        before: &State,
        after: &State,
        command: &Command,
        answer: &Answer,
    ) {
        for (id, is) in &after.revocations {
            let was = before.revocations.get(id);
            match (was.and_then(|r| r.work()), &is.stage) {
                (None, Stage::Open(_)) => self.coverage.note("revocations opened"),
                (Some(was), Stage::Open(work))
                    if was.awaits.is_some()
                        && work.awaits.is_none()
                        && matches!(command, Command::CommitMint { .. }) =>
                {
                    self.coverage.note("late answers that are revoked");
                }
                (Some(was), Stage::Ended(ended)) => match &ended.end {
                    End::Told => {
                        self.coverage.note("revocations that were told");
                        if !self.issuer.told.contains(&(id.clone(), was.tries)) {
                            let what = format!("{id:?} is said to be told, and was not");
                            self.broken("revocation", what);
                        }
                    }
                    End::NotTold(_) => self.coverage.note("revocations given up"),
                    End::Needless => self.coverage.note("revocations that were needless"),
                },
                _ => {}
            }
        }
        if matches!(command, Command::ClaimRevocation { .. }) && answer.outcome.is_err() {
            self.coverage.note("claims refused");
        }
    }
}
