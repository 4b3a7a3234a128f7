//! The end of a ticket as its owner counts it.

use std::time::Duration;

use evermint_core::time::Clocks;

/// A span of time that is over as soon as *any* clock says so.
///
/// The monotonic clock stands still while a machine is suspended, so boot time counts too, and
/// so does a wall clock that jumps ahead. A wall clock that is set back extends nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// All clocks when the span began.
    pub started: Clocks,
    /// Its length.
    pub budget: Duration,
}

impl Deadline {
    /// Whether the time is up.
    pub fn passed(&self, now: Clocks) -> bool {
        self.remaining(now).is_zero()
    }

    /// Whether there is time to begin: at least half of the span is left. A request that is sent
    /// later spends a single-use token for an answer that may come after the end.
    pub fn has_room(&self, now: Clocks) -> bool {
        self.remaining(now) >= self.budget / 2 && !self.passed(now)
    }

    /// Time left by the clock that says least; zero once passed.
    pub fn remaining(&self, now: Clocks) -> Duration {
        let spent = now
            .mono
            .since(self.started.mono)
            .max(now.boot.since(self.started.boot))
            .max(now.wall.since(self.started.wall));
        self.budget.saturating_sub(spent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evermint_core::time::{MonoMs, UnixMs};

    #[test]
    fn it_has_passed_as_soon_as_any_clock_says_so() {
        let clocks = |mono, boot, wall| Clocks {
            mono: MonoMs(mono),
            boot: MonoMs(boot),
            wall: UnixMs(wall),
        };
        let deadline = Deadline {
            started: clocks(100, 200, 1_000_000),
            budget: Duration::from_millis(50),
        };
        for (what, now, left) in [
            ("nothing has passed", clocks(100, 200, 1_000_000), 50),
            ("all run alike", clocks(149, 249, 1_000_049), 1),
            ("the monotonic clock", clocks(150, 200, 1_000_000), 0),
            ("suspended", clocks(100, 250, 1_000_000), 0),
            ("the wall clock jumps ahead", clocks(101, 201, 1_000_050), 0),
            ("the wall clock is set back", clocks(110, 210, 10), 40),
            ("set back, but time is up", clocks(150, 250, 10), 0),
        ] {
            assert_eq!(
                deadline.remaining(now),
                Duration::from_millis(left),
                "{what}"
            );
            assert_eq!(deadline.passed(now), left == 0, "{what}");
            assert_eq!(deadline.has_room(now), left >= 25, "{what}");
        }
    }
}
