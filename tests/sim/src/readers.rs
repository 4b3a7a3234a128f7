//! Sandboxes: they read bundles from whichever replica answers, and never want to go back.

use std::collections::BTreeMap;
use std::time::Duration;

use evermint_core::bundle;
use evermint_core::id::{CredentialId, Generation, Position, SandboxId};
use evermint_protocol::reader::{Admission, SeenGeneration, admit};

use crate::config::Slot;
use crate::hardware::Time;
use crate::mutant::Mutant;
use crate::world::{Global, Message, What, World};

/// A bundle, as far as it matters here: its generation, and how new each credential is.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    generation: Position,
    values: Vec<(CredentialId, Position, Generation)>,
}

/// What a replica sees of how a read went, in the sandbox's time.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) sandbox: SandboxId,
    seen: SeenGeneration,
    /// How new each credential was, by its own books.
    values: BTreeMap<CredentialId, (Position, Generation)>,
    /// It wants values good for so long, in milliseconds, until then.
    pub(crate) wants: Option<(u64, Time)>,
    /// The number of the read that it waits for.
    serial: u64,
}

impl Reader {
    pub(crate) fn new(sandbox: SandboxId) -> Self {
        Self {
            sandbox,
            seen: SeenGeneration::default(),
            values: BTreeMap::new(),
            wants: None,
            serial: 0,
        }
    }

    /// The generation of a value that it saw last.
    pub(crate) fn generation(&self, credential: &CredentialId) -> Generation {
        let seen = self.values.get(credential);
        seen.map_or_else(Generation::default, |(_, generation)| *generation)
    }
}

impl World {
    /// A sandbox asks a replica.
    pub(crate) fn read(&mut self, reader: usize) {
        let pause = self.dice.range(100, 1_500);
        self.after(pause, What::Global(Global::Read(reader)));
        self.readers[reader].serial += 1;
        let message = Message::Read {
            reader,
            serial: self.readers[reader].serial,
            min_generation: self.readers[reader].seen.newest(),
            min_ttl: self.min_ttl(reader),
            tries: 0,
        };
        let slot = self.dice.below(self.replicas.len());
        let delay = self.dice.range(1, 20);
        self.after(delay, What::Message(slot, message));
    }

    /// A replica answers, waits, or sends the sandbox away.
    pub(crate) fn answer_read(
        &mut self,
        slot: Slot,
        reader: usize,
        serial: u64,
        (min_generation, min_ttl): (Option<Position>, u64),
        tries: u32,
    ) {
        let replica = &self.replicas[slot];
        let clocks = replica.hardware.read(self.now);
        let now = match self.mutant {
            Some(Mutant::StalenessByMonotonicClock) => clocks.mono,
            _ => clocks.boot,
        };
        let min = match self.mutant {
            Some(Mutant::IgnoreMinGeneration) => None,
            _ => min_generation,
        };
        let staleness = replica.freshness.staleness(now);
        let max = Duration::from_millis(self.config.max_staleness);
        let bundle = match admit(replica.state.meta.position, staleness, min, max) {
            Admission::WaitFor(_) if tries < 5 => {
                self.coverage.note("reads that waited for the log");
                let again = Message::Read {
                    reader,
                    serial,
                    min_generation,
                    min_ttl,
                    tries: tries + 1,
                };
                return self.after(100, What::Message(slot, again));
            }
            Admission::WaitFor(_) => {
                self.coverage.note("reads sent elsewhere");
                None
            }
            Admission::Refuse(_) => {
                self.coverage.note("reads refused as too stale");
                None
            }
            Admission::Serve => {
                self.check_fresh(slot);
                self.check_clock(slot, staleness.unwrap_or_default());
                if min_ttl > 0 {
                    self.want_longer(slot, reader, min_ttl);
                }
                let sandbox = self.readers[reader].sandbox;
                bundle::inputs(&self.replicas[slot].state, sandbox).map(|inputs| {
                    let attached = inputs.attached.iter().flat_map(|a| &a.credentials);
                    let values = attached.map(|c| (c.id.clone(), c.touched, c.generation));
                    Served {
                        generation: inputs.generation,
                        values: values.collect(),
                    }
                })
            }
        };
        let delay = match self.dice.chance(50) {
            true => self.dice.range(100, 2_000),
            false => self.dice.range(1, 20),
        };
        let answer = Global::Answer {
            reader,
            serial,
            bundle,
        };
        self.after(delay, What::Global(answer));
    }

    /// G6, at the sandbox.
    pub(crate) fn receive_bundle(&mut self, reader: usize, serial: u64, bundle: Option<Served>) {
        let Some(Served { generation, values }) = bundle else {
            return;
        };
        let reader = &mut self.readers[reader];
        if reader.serial != serial {
            return;
        }
        self.coverage.note("bundles read");
        if let Err(older) = reader.seen.accept(generation) {
            return self.broken("G6", older.to_string());
        }
        for (credential, value, generation) in values {
            let newest = reader.values.entry(credential.clone()).or_default();
            if value < newest.0 {
                let what = format!("{credential} at {value} after {}", newest.0);
                return self.broken("G6", what);
            }
            *newest = (value, generation);
        }
    }

    /// How long the values of its next read have to be good, in milliseconds.
    fn min_ttl(&self, reader: usize) -> u64 {
        let wants = self.readers[reader].wants;
        let wants = wants.filter(|(_, until)| self.now < *until && self.healed.is_none());
        wants.map_or(0, |(min_ttl, _)| min_ttl)
    }
}
