//! Whether a replica may answer a read, and whether a client may believe the answer.

use std::time::Duration;

pub use evermint_core::bundle::{OlderBundle, SeenGeneration};
use evermint_core::id::Position;
use evermint_core::time::MonoMs;

/// When a replica knew itself caught up with a leader last, on a clock that goes on while the
/// machine is suspended (boot time): the monotonic clock would call a replica fresh that slept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    caught_up: Option<MonoMs>,
}

impl Freshness {
    /// This replica has applied everything that was committed at `as_of`. That is a time on its
    /// own clock: when it *asked* a leader with a quorum, not when the answer came.
    pub fn caught_up(&mut self, as_of: MonoMs) {
        self.caught_up = self.caught_up.max(Some(as_of));
    }

    /// Time since then; `None` if it never was.
    pub fn staleness(&self, now: MonoMs) -> Option<Duration> {
        self.caught_up.map(|as_of| now.since(as_of))
    }
}

/// What to do with a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Answer it now.
    Serve,
    /// Wait, within a bound, until this position is applied; the reader has seen it elsewhere.
    WaitFor(Position),
    /// Send the reader to another replica.
    Refuse(Unfit),
}

/// Why a replica may not answer reads now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It was never in touch with a leader since it started.
    #[error("this replica has not caught up with a leader yet")]
    NeverCaughtUp,
    /// It has been cut off for so long that what it knows may have been revoked.
    #[error("this replica was in touch with a leader {} ms ago, longer than allowed", .0.as_millis())]
    CutOff(Duration),
}

/// Decides on a read by a reader that saw `min_generation` last, at a replica that has applied
/// the history up to `applied`.
pub fn admit(
    applied: Position,
    staleness: Option<Duration>,
    min_generation: Option<Position>,
    max_staleness: Duration,
) -> Admission {
    match (staleness, min_generation) {
        (None, _) => Admission::Refuse(Unfit::NeverCaughtUp),
        (Some(stale), _) if stale > max_staleness => Admission::Refuse(Unfit::CutOff(stale)),
        (Some(_), Some(seen)) if seen > applied => Admission::WaitFor(seen),
        (Some(_), _) => Admission::Serve,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_read_is_served_awaited_or_refused() {
        let second = Some(Duration::from_secs(1));
        let at = |n| Some(Position(n));
        for (what, staleness, seen, admission) in [
            ("a first read", second, None, Admission::Serve),
            ("an older reader", second, at(6), Admission::Serve),
            ("an equal reader", second, at(7), Admission::Serve),
            (
                "a reader ahead",
                second,
                at(8),
                Admission::WaitFor(Position(8)),
            ),
            ("just in time", Some(MINUTE), at(7), Admission::Serve),
            (
                "cut off, even for a reader behind",
                Some(MINUTE * 2),
                at(1),
                Admission::Refuse(Unfit::CutOff(MINUTE * 2)),
            ),
            (
                "never in touch",
                None,
                None,
                Admission::Refuse(Unfit::NeverCaughtUp),
            ),
        ] {
            assert_eq!(
                admit(Position(7), staleness, seen, MINUTE),
                admission,
                "{what}"
            );
        }
    }

    #[test]
    fn staleness_counts_from_the_newest_contact() {
        let mut freshness = Freshness::default();
        assert_eq!(freshness.staleness(MonoMs(5)), None);
        freshness.caught_up(MonoMs(100));
        freshness.caught_up(MonoMs(40));
        assert_eq!(
            freshness.staleness(MonoMs(130)),
            Some(Duration::from_millis(30))
        );
    }

    #[test]
    fn a_client_refuses_a_bundle_older_than_one_it_has_seen() {
        let mut seen = SeenGeneration::default();
        for (given, believed) in [(5, true), (5, true), (9, true), (8, false), (9, true)] {
            assert_eq!(seen.accept(Position(given)).is_ok(), believed, "{given}");
        }
        assert_eq!(seen.newest(), Some(Position(9)));
    }
}
