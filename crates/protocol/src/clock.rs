//! The cluster clock: one time line for due times and expiry, reckoned alike by every replica.
//!
//! Wall clocks are set by people and by NTP; monotonic clocks mean nothing in another process.
//! So the leader stamps every log entry, and each replica runs on from the newest stamp at the
//! rate of its own monotonic clock.

use std::time::Duration;

use evermint_core::time::{MonoMs, UnixMs};

/// The cluster clock as one process reckons it. It never runs back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterClock {
    stamp: UnixMs,
    seen: MonoMs,
}

impl ClusterClock {
    /// A clock that has seen no stamp yet: it starts at 1970.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes note of a leader's stamp that was seen at `mono`. An older one changes nothing.
    ///
    /// Returns how far the clock was pushed ahead. After a push of more than a moment, timers
    /// that were computed from the clock should be looked at again.
    pub fn observe(&mut self, stamp: UnixMs, mono: MonoMs) -> Duration {
        let push = stamp.since(self.read(mono));
        if push > Duration::ZERO {
            (self.stamp, self.seen) = (stamp, mono);
        }
        push
    }

    /// The time at `mono`.
    pub fn read(&self, mono: MonoMs) -> UnixMs {
        self.stamp + mono.since(self.seen)
    }

    /// The stamp that a leader writes into an entry at `mono`: its wall clock, unless that is
    /// behind the cluster clock.
    pub fn stamp(&mut self, wall: UnixMs, mono: MonoMs) -> UnixMs {
        self.observe(wall, mono);
        self.read(mono)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(stamp: u64, mono: u64) -> ClusterClock {
        let mut clock = ClusterClock::new();
        clock.observe(UnixMs(stamp), MonoMs(mono));
        clock
    }

    #[test]
    fn it_runs_on_at_the_monotonic_rate() {
        assert_eq!(at(1_000, 50).read(MonoMs(50)), UnixMs(1_000));
        assert_eq!(at(1_000, 50).read(MonoMs(80)), UnixMs(1_030));
    }

    #[test]
    fn an_older_stamp_does_not_set_it_back() {
        let mut clock = at(1_000, 50);
        assert_eq!(clock.observe(UnixMs(1_010), MonoMs(80)), Duration::ZERO);
        assert_eq!(clock.read(MonoMs(80)), UnixMs(1_030));
    }

    #[test]
    fn a_newer_stamp_pushes_it_and_tells_how_far() {
        let mut clock = at(1_000, 50);
        assert_eq!(
            clock.observe(UnixMs(5_000), MonoMs(80)),
            Duration::from_millis(3_970)
        );
        assert_eq!(clock.read(MonoMs(81)), UnixMs(5_001));
    }

    #[test]
    fn a_leader_whose_wall_clock_is_behind_stamps_the_cluster_clock() {
        for (wall, stamp) in [(0, 1_030), (1_029, 1_030), (1_031, 1_031), (9_000, 9_000)] {
            let mut clock = at(1_000, 50);
            assert_eq!(clock.stamp(UnixMs(wall), MonoMs(80)), UnixMs(stamp));
            assert_eq!(clock.read(MonoMs(90)), UnixMs(stamp + 10));
        }
    }
}
