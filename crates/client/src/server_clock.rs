//! What this process knows of the cluster clock.
//!
//! A message carries the cluster's time, stamped at some moment between the sending of the request
//! and the receipt of the message. So that the clock stands, at receipt, *at least* at the stamp,
//! and *at most* at the stamp plus the time since the request was sent. Tokens end by the latter:
//! the error is at most one round trip, and always on the side of ending early.

use evermint_core::time::{MonoMs, UnixMs};

/// An estimate of the cluster clock, as offsets to this machine's clock in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerClock {
    /// What was proven: the clock stands there or later. Never falls, as the cluster clock never
    /// runs back; a replica whose own clock is behind cannot undo an end that has passed.
    floor: i64,
    /// What is assumed: the clock stands there or earlier.
    latest: i64,
}

/// Both clocks are read in whole milliseconds.
const ROUNDING_MS: i64 = 1;

impl ServerClock {
    /// After an answer stamped `server`.
    pub(crate) fn answered(
        before: Option<Self>,
        sent: MonoMs,
        received: MonoMs,
        server: UnixMs,
    ) -> Self {
        let proven = offset(server, received);
        let floor = before.map_or(proven, |b| b.floor.max(proven));
        let latest = offset(server, sent).saturating_add(ROUNDING_MS);
        Self {
            floor,
            latest: latest.max(floor),
        }
    }

    /// After a message of a stream stamped `server`: it answers no request, so that it can raise
    /// the estimate only. If it does, the cluster clock was set ahead, and the estimate is short by
    /// the message's travel until the next answer.
    pub(crate) fn heard(self, received: MonoMs, server: UnixMs) -> Self {
        let floor = self.floor.max(offset(server, received));
        Self {
            floor,
            latest: self.latest.max(floor),
        }
    }

    /// The latest that the cluster clock can show at `now`.
    pub(crate) fn at(self, now: MonoMs) -> UnixMs {
        UnixMs(
            signed(now.0)
                .saturating_add(self.latest)
                .max(0)
                .unsigned_abs(),
        )
    }
}

fn offset(server: UnixMs, here: MonoMs) -> i64 {
    signed(server.0).saturating_sub(signed(here.0))
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_800_000_000_000;

    /// What the estimate is at 100 s of this machine's clock, where the truth is `START` + 100 s.
    fn check(what: &str, steps: &[Step], expected_after_truth_ms: i64) {
        let mut clock = None;
        for step in steps {
            clock = Some(match *step {
                Answer(sent, received, server) => ServerClock::answered(
                    clock,
                    MonoMs(sent),
                    MonoMs(received),
                    UnixMs(START + server),
                ),
                Message(received, server) => clock
                    .unwrap()
                    .heard(MonoMs(received), UnixMs(START + server)),
            });
        }
        let estimate = clock.unwrap().at(MonoMs(100_000)).0;
        let truth = START + 100_000;
        assert_eq!(
            signed(estimate) - signed(truth),
            expected_after_truth_ms + ROUNDING_MS,
            "{what}"
        );
    }

    enum Step {
        Answer(u64, u64, u64),
        Message(u64, u64),
    }
    use Step::{Answer, Message};

    #[test]
    fn the_estimate_is_never_early_and_late_by_a_round_trip_at_most() {
        check("stamped when sent", &[Answer(10, 10, 10)], 0);
        check("stamped on receipt", &[Answer(10, 60, 60)], 50);
        check("stamped between", &[Answer(10, 60, 30)], 20);
        check(
            "a quicker answer is better",
            &[Answer(10, 3_010, 3_010), Answer(4_000, 4_010, 4_010)],
            10,
        );
        check(
            "a message late by a minute changes nothing",
            &[Answer(10, 20, 15), Message(70_000, 10_000)],
            5,
        );
        check(
            "after a slower answer the estimate is later, and still true",
            &[Answer(10, 11, 10), Answer(20, 2_020, 2_020)],
            2_000,
        );
    }

    #[test]
    fn a_replica_whose_clock_is_behind_cannot_take_time_back() {
        check(
            "by an answer",
            &[Answer(10, 10, 10), Answer(20_000, 20_010, 5_000)],
            -ROUNDING_MS,
        );
        check(
            "by a message",
            &[Answer(10, 10, 10), Message(20_000, 5_000)],
            0,
        );
    }

    #[test]
    fn a_clock_that_was_set_ahead_is_followed_by_answer_and_message() {
        let hour = 3_600_000;
        check(
            "by an answer",
            &[Answer(10, 10, 10), Answer(20, 30, 25 + hour)],
            signed(hour) + 5,
        );
        check(
            "by a message",
            &[Answer(10, 10, 10), Message(30, 25 + hour)],
            signed(hour) - 5 - ROUNDING_MS,
        );
    }

    #[test]
    fn absurd_times_do_not_overflow() {
        let clock = ServerClock::answered(None, MonoMs(0), MonoMs(u64::MAX), UnixMs(u64::MAX));
        let clock = clock.heard(MonoMs(0), UnixMs(u64::MAX));
        assert!(clock.at(MonoMs(u64::MAX)).0 >= START);
        let clock = ServerClock::answered(None, MonoMs(u64::MAX), MonoMs(u64::MAX), UnixMs(0));
        assert_eq!(clock.at(MonoMs(0)), UnixMs(0));
    }
}
