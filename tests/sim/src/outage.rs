//! Times without a majority, and what must not happen directly after.

use std::time::Duration;

use evermint_core::id::TicketId;
use evermint_protocol::owner::HEARING;

use crate::hardware::Time;
use crate::world::World;

/// How long a contact may be on its way, in milliseconds.
const ON_ITS_WAY: u64 = 1_000;

/// The newest time without a majority.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    /// Since when fewer than a majority run.
    since: Option<Time>,
    /// The newest one that was long enough to be noticed: from when to when.
    last: Option<(Time, Time)>,
}

impl World {
    /// After every event: does a majority run?
    pub(crate) fn watch_majority(&mut self) {
        let running = self.replicas.iter().filter(|r| r.up && !r.paused).count();
        let majority = 2 * running > self.replicas.len();
        let outage = &mut self.outage;
        match outage.since {
            None if !majority => outage.since = Some(self.now),
            Some(from) if majority => {
                outage.since = None;
                if self.now - from > self.noticed_after() {
                    self.coverage.note("majorities that came back");
                    self.outage.last = Some((from, self.now));
                }
            }
            None | Some(_) => {}
        }
    }

    /// G5: who may have an answer, and comes back as a majority does, is heard before a mint in
    /// doubt is tried again.
    pub(crate) fn check_hearing(&mut self, ticket: TicketId) {
        let Some((from, to)) = self.outage.last else {
            return;
        };
        let asked = self.asked.get(&ticket).copied().unwrap_or(self.now);
        let wait = Duration::from_millis(self.config.settings.doubt_wait_ms);
        let hearing = u64::try_from(HEARING.min(wait).as_millis()).unwrap_or(u64::MAX);
        // Clocks run at different speeds.
        let heard = to + hearing * 9 / 10;
        if asked > from + self.noticed_after() && asked < heard {
            let after = asked.saturating_sub(to);
            let what = format!("{ticket} was asked for {after} ms after a majority was back");
            self.broken("G5", what);
        }
    }

    /// After how long an owner certainly knows itself out of touch.
    fn noticed_after(&self) -> Time {
        self.config.lost_after * 11 / 10 + ON_ITS_WAY
    }
}
