//! Sandboxes: they read bundles from whichever replica answers, and never want to go back.

use std::collections::BTreeMap;
use std::time::Duration;

use evermint_core::bundle;
use evermint_core::id::{CredentialId, Position, SandboxId};
use evermint_protocol::reader::{Admission, SeenGeneration, admit};

use crate::config::Slot;
use crate::mutant::Mutant;
use crate::world::{Global, Message, What, World};

/// What a replica sees of how a read went, in the sandbox's time.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) sandbox: SandboxId,
    seen: SeenGeneration,
    /// How new each credential was, by its own books.
    values: BTreeMap<CredentialId, Position>,
    /// The number of the read that it waits for.
    serial: u64,
}

impl Reader {
    pub(crate) fn new(sandbox: SandboxId) -> Self {
        Self {
            sandbox,
            seen: SeenGeneration::default(),
            values: BTreeMap::new(),
            serial: 0,
        }
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
        min_generation: Option<Position>,
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
                let sandbox = self.readers[reader].sandbox;
                bundle::inputs(&self.replicas[slot].state, sandbox).map(|inputs| {
                    let attached = inputs.attached.iter().flat_map(|a| &a.credentials);
                    let values = attached.map(|c| (c.id.clone(), c.touched));
                    (inputs.generation, values.collect())
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
    pub(crate) fn receive_bundle(
        &mut self,
        reader: usize,
        serial: u64,
        bundle: Option<(Position, Vec<(CredentialId, Position)>)>,
    ) {
        let Some((generation, values)) = bundle else {
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
        for (credential, value) in values {
            let newest = reader.values.entry(credential.clone()).or_default();
            if value < *newest {
                let what = format!("{credential} at {value} after {newest}");
                return self.broken("G6", what);
            }
            *newest = value;
        }
    }
}
