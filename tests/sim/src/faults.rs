//! Faults strike, and end.

use evermint_core::command::Command;
use evermint_core::id::InstallationId;
use evermint_core::state::State;
use std::sync::Arc;

use crate::config::{Fault, Slot};
use crate::issuer::Fate;
use crate::world::{Global, Healed, What, World};

impl Fault {
    /// The same fault at another replica.
    pub(crate) fn aimed_at(self, slot: Slot) -> Self {
        match self {
            Self::Crash { down, .. } => Self::Crash { slot, down },
            Self::LoseDisk { down, .. } => Self::LoseDisk { slot, down },
            Self::Pause {
                length, suspended, ..
            } => Self::Pause {
                slot,
                length,
                suspended,
            },
            Self::StepWall { by, .. } => Self::StepWall { slot, by },
            Self::Cut { ways, length } => {
                let one = ways.first().map_or(0, |(a, _)| *a);
                let swap = |s: Slot| match s {
                    s if s == one => slot,
                    s if s == slot => one,
                    s => s,
                };
                let ways = ways.into_iter().map(|(a, b)| (swap(a), swap(b)));
                Self::Cut {
                    ways: ways.collect(),
                    length,
                }
            }
            other => other,
        }
    }
}

impl World {
    /// Whether one more wall clock may be wrong; remembers it then.
    fn may_set(&mut self, slot: Slot) -> bool {
        let known = self.set.contains(&slot);
        let may = known || self.set.len() < self.config.walls_set;
        may && (known || self.set.insert(slot))
    }

    pub(crate) fn strike(&mut self, fault: Fault) {
        if self.healed.is_some() {
            return;
        }
        self.note(|| format!("FAULT {fault:?}"));
        match fault {
            Fault::Crash { slot, down } if self.replicas[slot].up => {
                self.coverage.note("crashes");
                self.kill(slot);
                self.after(down, What::Global(Global::Restart(slot)));
            }
            Fault::LoseDisk { slot, down } if self.may_lose_disk(slot) => {
                self.coverage.note("disks lost");
                self.lose_disk(slot);
                self.after(down, What::Global(Global::Restart(slot)));
            }
            Fault::Pause {
                slot,
                length,
                suspended,
            } if self.replicas[slot].up && !self.replicas[slot].paused => {
                self.coverage
                    .note(match length > self.config.settings.ticket_ttl_ms {
                        true => "pauses beyond a ticket",
                        false => "pauses within a ticket",
                    });
                let now = self.now;
                let replica = &mut self.replicas[slot];
                replica.paused = true;
                replica.paused_at = replica.hardware.read(now);
                if suspended {
                    self.coverage.note("machines suspended");
                    self.replicas[slot].hardware.suspended += length;
                }
                self.after(length, What::Global(Global::Resume(slot)));
            }
            Fault::Crash { .. } | Fault::LoseDisk { .. } | Fault::Pause { .. } => {}
            Fault::Cut { ways, length } => {
                self.coverage.note("partitions");
                for way in &ways {
                    *self.cuts.entry(*way).or_default() += 1;
                }
                self.after(length, What::Global(Global::Heal(ways)));
            }
            Fault::StepWall { slot, by } if self.may_set(slot) => {
                self.coverage.note("wall clocks set");
                self.replicas[slot].hardware.wall_off += by;
            }
            Fault::StepWall { .. } => {}
            Fault::Elect => self.elect(),
            Fault::DiskFull { slot, length } => {
                self.coverage.note("disks full");
                self.replicas[slot].full_until = self.now + length;
            }
            Fault::Outage { length } => {
                self.coverage.note("issuer outages");
                self.issuer.down_until = self.now + length;
            }
            Fault::Panic { credential } => {
                let id = self.ids[credential].clone();
                for slot in 0..self.replicas.len() {
                    let replica = &self.replicas[slot];
                    if !replica.paused && replica.shells.contains_key(&id) {
                        self.panic(slot, &id);
                    }
                }
            }
            Fault::At { step, then } => self.traps.push((step, *then)),
            Fault::Leader { then } => {
                if let Some(slot) = self.consensus.leader {
                    self.strike(then.aimed_at(slot));
                }
            }
            Fault::Rotate { credential } => {
                let command = self.rotate(credential);
                self.perform(vec![command], 1);
            }
            Fault::Reconfigure { credential } => {
                self.coverage.note("reconfigurations");
                let command = self.configure(credential);
                self.perform(vec![command], 1);
            }
            Fault::DeleteRefresh { credential, pause } => {
                let id = self.ids[credential].clone();
                let command = self.configure(credential);
                let delete = self.delete_refresh(&id);
                self.perform(vec![delete], 1);
                self.perform(vec![command], pause);
            }
            Fault::Recreate { credential } => self.recreate(credential),
            Fault::Rekey { credential } => self.rekey(credential),
            Fault::Detach {
                sandbox,
                credential,
            } => self.detach_and_attach(sandbox % self.readers.len(), credential),
            Fault::Report {
                sandbox,
                credential,
            } => self.report(sandbox % self.readers.len(), credential),
            Fault::Nag { sandbox, length } => {
                self.coverage.note("sandboxes that ask in a loop");
                let reader = sandbox % self.readers.len();
                self.ask_in_a_loop(reader, self.now + length);
            }
            Fault::Want {
                sandbox,
                min_ttl,
                length,
            } => {
                let reader = sandbox % self.readers.len();
                self.readers[reader].wants = Some((min_ttl, self.now + length));
            }
        }
    }

    /// A committed entry survives the loss of a disk only if a majority of the others has it:
    /// one disk is lost at a time.
    fn may_lose_disk(&self, slot: Slot) -> bool {
        let len = self.consensus.log.len();
        let others = (self.replicas.iter().enumerate())
            .filter(|(s, r)| *s != slot && r.durable == len)
            .count();
        self.replicas[slot].up && 2 * others > self.replicas.len()
    }

    fn lose_disk(&mut self, slot: Slot) {
        self.kill(slot);
        self.lose(Fate::Journalled(slot), "its disk was lost");
        let former = self.replicas[slot].me();
        let installation = InstallationId(self.dice.id());
        let replica = &mut self.replicas[slot];
        replica.installation = installation;
        replica.journal.clear();
        replica.durable = 0;
        replica.applied = 0;
        replica.state = Arc::new(State::default());
        let mut commands = vec![self.register(slot)];
        if let Some(former) = former {
            commands.push(Command::RemoveReplica {
                replica: former.replica,
            });
        }
        self.perform(commands, 1_000);
    }

    pub(crate) fn restart(&mut self, slot: Slot) {
        if !self.replicas[slot].up {
            self.start(slot);
        }
    }

    /// A process goes on. What its clocks say about its requests comes before anything else.
    pub(crate) fn resume(&mut self, slot: Slot) {
        let replica = &mut self.replicas[slot];
        if !replica.paused {
            return;
        }
        replica.paused = false;
        replica.well_since = self.now;
        let deferred = std::mem::take(&mut replica.deferred);
        self.note(|| format!("replica {slot} goes on"));
        for what in deferred {
            self.after(0, what);
        }
        if !self.config.answer_first {
            self.fence_all(slot);
        }
    }

    pub(crate) fn mend(&mut self, ways: &[(Slot, Slot)]) {
        for way in ways {
            if let Some(count) = self.cuts.get_mut(way) {
                *count -= 1;
                if *count == 0 {
                    self.cuts.remove(way);
                }
            }
        }
        for (from, to) in ways {
            self.replicas[*from].well_since = self.now;
            self.replicas[*to].well_since = self.now;
        }
    }

    /// The faults end; what has to recover by itself now has to.
    pub(crate) fn heal_all(&mut self) {
        self.traps.clear();
        self.cuts.clear();
        self.issuer.down_until = 0;
        for slot in 0..self.replicas.len() {
            self.replicas[slot].full_until = 0;
            self.replicas[slot].well_since = self.now;
            self.resume(slot);
            self.restart(slot);
        }
        let state = self.consensus.state();
        let credentials = state.credentials.values();
        let newest = credentials.map(|c| (c.id.clone(), c.touched)).collect();
        let at = self.now;
        self.healed = Some(Healed { at, newest });
        self.note(|| "everything is healed".to_owned());
        self.after(2_000, What::Global(Global::Finish));
    }
}
