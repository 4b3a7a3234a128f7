//! Whether a replica may answer a read, and whether a client may believe the answer.

use std::time::Duration;

pub use evermint_core::bundle::{OlderBundle, SeenGeneration};
use evermint_core::id::Position;
use evermint_core::time::MonoMs;

/// When a replica knew itself caught up with a leader last, on a clock that goes on while the
/// machine is suspended (boot time): the monotonic clock would call a replica fresh that slept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// After so long without a word it was out of touch.
    lost_after: Duration,
    caught_up: Option<MonoMs>,
    /// When it was in touch first, without a break since, and last.
    contact: Option<(MonoMs, MonoMs)>,
}

impl Freshness {
    /// A replica that was not in touch yet, and is out of touch `lost_after` its newest contact.
    pub fn new(lost_after: Duration) -> Self {
        Self {
            lost_after,
            caught_up: None,
            contact: None,
        }
    }

    /// This replica knows `now` that it has applied everything that was committed at `as_of`. That
    /// is when it *asked* a leader with a quorum, not when the answer came; both by its own clock.
    pub fn caught_up(&mut self, as_of: MonoMs, now: MonoMs) {
        self.caught_up = self.caught_up.max(Some(as_of));
        let unbroken = self.contact.filter(|(_, last)| self.is_near(*last, now));
        let since = unbroken.map_or(now, |(since, _)| since);
        self.contact = Some((since, now));
    }

    /// Time since then; `None` if it never was.
    pub fn staleness(&self, now: MonoMs) -> Option<Duration> {
        self.caught_up.map(|as_of| now.since(as_of))
    }

    /// For how long it has been in touch without a break; zero if it is out of touch.
    pub fn in_touch(&self, now: MonoMs) -> Duration {
        let unbroken = self.contact.filter(|(_, last)| self.is_near(*last, now));
        unbroken.map_or(Duration::ZERO, |(since, _)| now.since(since))
    }

    fn is_near(&self, last: MonoMs, now: MonoMs) -> bool {
        now.since(last) < self.lost_after
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
        let mut freshness = Freshness::new(MINUTE);
        assert_eq!(freshness.staleness(MonoMs(5)), None);
        freshness.caught_up(MonoMs(100), MonoMs(110));
        freshness.caught_up(MonoMs(40), MonoMs(120));
        assert_eq!(
            freshness.staleness(MonoMs(130)),
            Some(Duration::from_millis(30))
        );
    }

    #[test]
    fn a_break_begins_the_time_in_touch_anew() {
        let mut freshness = Freshness::new(Duration::from_millis(100));
        assert_eq!(freshness.in_touch(MonoMs(5)), Duration::ZERO);
        for (contact, at, expected) in [
            (1_000, 1_000, 0),
            (1_090, 1_180, 180),
            (1_180, 1_280, 0),
            (1_279, 1_280, 280),
            (1_379, 1_380, 1),
            (1_400, 1_401, 22),
        ] {
            // However old the question: what counts here is when the answer came.
            freshness.caught_up(MonoMs(contact - 50), MonoMs(contact));
            let expected = Duration::from_millis(expected);
            assert_eq!(freshness.in_touch(MonoMs(at)), expected, "{contact}");
        }
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
