//! The cluster clock: one time line for due times and expiry, reckoned alike by every replica.
//!
//! Wall clocks are set by people and by NTP; monotonic clocks mean nothing in another process.
//! So the leader stamps every log entry, and each replica runs on from the stamps that it applied,
//! by its own monotonic clock: one that counts the time that a machine is suspended (boot time).
//! A stamp is what the wall clocks of a majority say ([`majority`]), not what the leader's own does.

use std::time::Duration;

use evermint_core::time::{MonoMs, UnixMs};

/// Between stamps the clock runs slow by one part in so many. A fast oscillator would else run
/// ahead of the stamps for ever, a little more every day, since nothing sets the clock back.
const SLACK: u32 = 1_000;

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

    /// Takes note of the stamp of an entry that was applied at `mono`. An older one changes nothing.
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
        let passed = mono.since(self.seen);
        self.stamp + (passed - passed / SLACK)
    }

    /// The stamp that a leader writes into an entry at `mono`: the wall clocks' time, unless that
    /// is behind the cluster clock. The clock itself follows once the entry is applied: an entry
    /// that is never committed must not move it (simulation seed 2580: a deposed leader whose
    /// wall clock was wrong found every token due at once, for ever).
    pub fn stamp(&self, wall: UnixMs, mono: MonoMs) -> UnixMs {
        wall.max(self.read(mono))
    }
}

/// The time by the wall clocks of so many `voters`, of which some are known; `None` while those
/// of a majority are not.
///
/// It is the earliest time that a majority has not got beyond, a clock that is not known being
/// taken for later than any other. So while fewer than half are wrong, the time is never behind all
/// that are right: nothing is served past its end. And it is never ahead of all that are right,
/// unless so many of them are unknown that one word stands against another: then the later one
/// counts.
pub fn majority(known: impl IntoIterator<Item = UnixMs>, voters: usize) -> Option<UnixMs> {
    let mut known: Vec<_> = known.into_iter().collect();
    known.sort_unstable();
    known.get(voters / 2).copied()
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
    fn it_runs_on_with_the_monotonic_clock_a_little_slow() {
        assert_eq!(at(1_000, 50).read(MonoMs(50)), UnixMs(1_000));
        assert_eq!(at(1_000, 50).read(MonoMs(80)), UnixMs(1_029));
        assert_eq!(at(1_000, 50).read(MonoMs(10_050)), UnixMs(10_990));
    }

    #[test]
    fn a_fast_oscillator_does_not_run_ahead_of_the_stamps() {
        let mut clock = at(0, 0);
        for hour in 1..=1_000_u64 {
            let time = hour * 3_600_000;
            let mono = MonoMs(time + time / 2_000);
            clock.observe(UnixMs(time), mono);
            assert_eq!(clock.read(mono), UnixMs(time), "hour {hour}");
        }
    }

    #[test]
    fn the_wall_clocks_of_a_majority_count_and_one_that_is_not_known_is_late() {
        #[track_caller]
        fn check(known: &[u64], voters: usize, expected: Option<u64>) {
            let known = known.iter().copied().map(UnixMs);
            assert_eq!(majority(known, voters), expected.map(UnixMs));
        }
        check(&[70], 1, Some(70));
        check(&[70, 900], 2, Some(900));
        check(&[70, 900, 71], 3, Some(71));
        check(&[70, 1, 71], 3, Some(70));
        check(&[70, 900], 3, Some(900));
        check(&[70, 1], 3, Some(70));
        check(&[900], 3, None);
        check(&[70, 71, 72, 900, 901], 5, Some(72));
        check(&[1, 2, 72, 73, 74], 5, Some(72));
        check(&[70, 900, 901], 5, Some(901));
        check(&[], 0, None);
    }

    #[test]
    fn less_than_half_of_the_wall_clocks_do_not_hold_the_time_back_and_do_not_push_it() {
        // Every choice of three voters: wrong early, wrong late, right, or unknown.
        const KINDS: [Option<u64>; 4] = [Some(1), Some(900), Some(70), None];
        for all in (0..64).map(|n| [KINDS[n % 4], KINDS[n / 4 % 4], KINDS[n / 16]]) {
            let wrong = |w: &&Option<u64>| matches!(w, Some(1 | 900));
            let known = all.iter().copied().flatten().map(UnixMs);
            let Some(time) = majority(known, 3) else {
                continue;
            };
            // An unknown one is right, as far as it counts for this.
            if all.iter().filter(wrong).count() <= 1 {
                assert!(time >= UnixMs(70), "{all:?}");
                let unknown = all.contains(&None);
                assert!(time == UnixMs(70) || unknown, "{all:?}: {time:?}");
            }
        }
    }

    #[test]
    fn an_older_stamp_does_not_set_it_back() {
        let mut clock = at(1_000, 50);
        assert_eq!(clock.observe(UnixMs(1_010), MonoMs(80)), Duration::ZERO);
        assert_eq!(clock.read(MonoMs(80)), UnixMs(1_029));
    }

    #[test]
    fn a_newer_stamp_pushes_it_and_tells_how_far() {
        let mut clock = at(1_000, 50);
        assert_eq!(
            clock.observe(UnixMs(5_000), MonoMs(80)),
            Duration::from_millis(3_971)
        );
        assert_eq!(clock.read(MonoMs(180)), UnixMs(5_099));
    }

    #[test]
    fn a_leader_whose_wall_clock_is_behind_stamps_the_cluster_clock() {
        for (wall, stamp) in [(0, 1_029), (1_028, 1_029), (1_031, 1_031), (9_000, 9_000)] {
            let clock = at(1_000, 50);
            assert_eq!(clock.stamp(UnixMs(wall), MonoMs(80)), UnixMs(stamp));
            assert_eq!(clock.read(MonoMs(80)), UnixMs(1_029), "not yet applied");
        }
    }
}
