//! Sandboxes that want another value before its time: because the one they hold is refused where
//! they use it, or because it does not last long enough for what they are about to do. Some mean no
//! good: they ask in a loop, for values that are superseded or never were, and wherever they like.

use std::time::Duration;

use evermint_core::bundle;
use evermint_core::command::{Answer, Command, Done};
use evermint_core::credential::{Early, NotEarly};
use evermint_core::id::{CredentialId, Generation, RequestId};
use evermint_core::state::State;
use evermint_core::time::UnixMs;

use crate::config::Slot;
use crate::network::Who;
use crate::world::{Global, Message, What, World};

/// How often a sandbox that means no good asks, in milliseconds.
const LOOP: (u64, u64) = (20, 300);

/// The shortest time between two early mints of a credential, whatever its values live.
const GAP_LEAST: Duration = Duration::from_secs(60);

/// The last early mint of a credential, in the words of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastEarly {
    at: UnixMs,
    gap: Duration,
}

impl World {
    /// A sandbox asks in a loop, until then.
    pub(crate) fn ask_in_a_loop(&mut self, reader: usize, until: u64) {
        if self.healed.is_some() || self.now >= until {
            return;
        }
        let pause = self.dice.range(LOOP.0, LOOP.1);
        self.after(pause, What::Global(Global::Nag { reader, until }));
        let index = self.dice.below(self.ids.len());
        self.report(reader, index);
    }

    /// A sandbox says that a value is refused: the one that it saw last, as a rule.
    pub(crate) fn report(&mut self, reader: usize, index: usize) {
        let credential = self.ids[index].clone();
        let seen = self.readers[reader].generation(&credential);
        let generation = match self.dice.below(8) {
            0 => Generation(seen.0.saturating_sub(1)),
            1 => seen.next(),
            _ => seen,
        };
        let twice = self.dice.chance(self.config.doubled);
        for _ in 0..=u8::from(twice) {
            let slot = self.dice.below(self.replicas.len());
            let delay = match self.dice.chance(50) {
                true => self.dice.range(1_000, 20_000),
                false => self.dice.range(1, 20),
            };
            let credential = credential.clone();
            let message = Message::Report(credential, generation);
            self.after(delay, What::Message(slot, message));
        }
    }

    /// A replica is told: it looks at what it knows, and asks the log if that speaks for it.
    pub(crate) fn take_report(&mut self, slot: Slot, id: &CredentialId, generation: Generation) {
        let now = self.cluster_time(slot);
        let known = self.replicas[slot].state.credentials.get(id);
        let Some(known) = known.filter(|c| c.generation >= generation) else {
            return self.coverage.note("reports at a replica that is behind");
        };
        match known.may_be_early(generation, Early::Rejected, now) {
            Ok(()) => self.ask_early(slot, id, generation, Early::Rejected),
            Err(NotEarly::Superseded) => self.coverage.note("reports of a superseded value"),
            Err(NotEarly::NotBefore(_)) => self.coverage.note("reports that came too early"),
            Err(NotEarly::UnderWay) => self.coverage.note("reports while a mint is due"),
            Err(NotEarly::Static | NotEarly::Stopped) => {}
        }
    }

    /// A replica served a read that wants values good for so long, in milliseconds.
    pub(crate) fn want_longer(&mut self, slot: Slot, reader: usize, min_ttl: u64) {
        let now = self.cluster_time(slot);
        let good_until = now + Duration::from_millis(min_ttl);
        let sandbox = self.readers[reader].sandbox;
        let Some(inputs) = bundle::inputs(&self.replicas[slot].state, sandbox) else {
            return;
        };
        let attached = inputs.attached.iter().flat_map(|a| &a.credentials);
        let short: Vec<_> = attached
            .filter(|c| {
                let end = c.value.as_ref().and_then(|v| v.expires_at);
                let early = c.may_be_early(c.generation, Early::ShortLived, now);
                end.is_some_and(|end| end < good_until) && early.is_ok()
            })
            .map(|c| (c.id.clone(), c.generation))
            .collect();
        for (id, generation) in short {
            self.ask_early(slot, &id, generation, Early::ShortLived);
        }
    }

    fn ask_early(&mut self, slot: Slot, id: &CredentialId, generation: Generation, early: Early) {
        let request = RequestId(self.dice.id());
        let command = Command::MintEarly {
            credential: id.clone(),
            generation,
            early,
        };
        self.propose(slot, Who::Nobody, request, command);
    }

    fn cluster_time(&self, slot: Slot) -> UnixMs {
        let replica = &self.replicas[slot];
        replica.clock.read(replica.hardware.read(self.now).boot)
    }

    /// I10, where sandboxes ask: whatever they do, two early mints of a credential are a quarter of
    /// its value's lifetime apart, and a minute. What operators set up anew begins anew.
    pub(crate) fn check_early(
        &mut self,
        before: &State,
        after: &State,
        command: &Command,
        answer: &Answer,
    ) {
        let (credential, early) = match command {
            Command::DeleteRefresh { credential } | Command::RevokeRefresh { credential }
                if answer.outcome.is_ok() =>
            {
                self.last_early.remove(credential);
                return;
            }
            Command::DeleteProvider { id } | Command::RevokeProvider { id }
                if answer.outcome.is_ok() =>
            {
                self.last_early.retain(|of, _| of.provider != *id);
                return;
            }
            Command::MintEarly {
                credential, early, ..
            } => (credential, early),
            _ => return,
        };
        if answer.outcome != Ok(Done::Changed(true)) {
            return self.coverage.note("early mints refused in the log");
        }
        self.coverage.note(match early {
            Early::Rejected => "early mints for a report",
            Early::ShortLived => "early mints for a value that is short-lived",
        });
        let value = before
            .credentials
            .get(credential)
            .and_then(|c| c.value.as_ref());
        let lifetime = value.and_then(|v| Some(v.expires_at?.since(v.issued_at)));
        let at = after.meta.clock;
        let gap = lifetime.map_or(GAP_LEAST, |lifetime| (lifetime / 4).max(GAP_LEAST));
        let last = self
            .last_early
            .insert(credential.clone(), LastEarly { at, gap });
        if let Some(last) = last
            && at.since(last.at) < last.gap
        {
            let what = format!("{credential}: early at {at:?} after {last:?}");
            self.broken("I10", what);
        }
    }
}
