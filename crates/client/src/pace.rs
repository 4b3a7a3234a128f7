//! How to ask: by a stream, by a call, or after a pause.
//!
//! ```text
//!            answered                 ended early, without a word
//!   Call ───────────────▶ Watch ───────────────────────────────────▶ Call (suspect)
//!    ▲  third suspicion confirmed by an answer                        │
//!    │        ┌───────────────────────────────────────────────────────┘
//!    │        ▼
//!    └────── Poll ── after `rewatch` ──▶ a stream again
//!   no endpoint answers calls either
//! ```
//!
//! A stream is under suspicion of being cut by a proxy when it ends early and without a gateway's
//! word; the suspicion is confirmed when a call is answered right after it.

use std::time::Duration;

use evermint_core::time::MonoMs;

use crate::dice::Dice;
use crate::timing::Timing;

/// After so many streams that were cut in a row, streams are given up for a while.
const CUTS_MAX: u32 = 3;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask once.
    Call,
    /// Follow a stream.
    Watch,
    /// Nothing for so long.
    Pause(Duration),
}

/// The state of asking.
#[derive(Debug)]
pub(crate) struct Pace {
    state: State,
    /// The last stream ended early and without a word, and no call has followed yet.
    suspect: bool,
    /// Streams cut in a row.
    cuts: u32,
    timing: Timing,
    dice: Dice,
}

#[derive(Debug)]
enum State {
    Call,
    Watch,
    Poll { next: MonoMs, rewatch: MonoMs },
}

impl Pace {
    /// Begins with a call: it is answered wherever streams are not, and measures the clock best.
    pub(crate) fn new(timing: Timing, dice: Dice) -> Self {
        Self {
            state: State::Call,
            suspect: false,
            cuts: 0,
            timing,
            dice,
        }
    }

    /// What to do at `now`.
    pub(crate) fn step(&self, now: MonoMs) -> Step {
        match self.state {
            State::Call => Step::Call,
            State::Watch => Step::Watch,
            State::Poll { rewatch, .. } if rewatch <= now => Step::Watch,
            State::Poll { next, .. } if next <= now => Step::Call,
            State::Poll { next, rewatch } => Step::Pause(next.min(rewatch).since(now)),
        }
    }

    /// Whether streams are given up for now.
    pub(crate) fn is_polling(&self) -> bool {
        matches!(self.state, State::Poll { .. })
    }

    /// A call was answered.
    pub(crate) fn answered(&mut self, now: MonoMs) {
        if self.suspect {
            self.suspect = false;
            self.cuts = self.cuts.saturating_add(1);
        }
        if self.cuts < CUTS_MAX {
            self.state = State::Watch;
            return;
        }
        let rewatch = match self.state {
            State::Poll { rewatch, .. } => rewatch,
            State::Call | State::Watch => now + self.dice.around(self.timing.rewatch),
        };
        let next = now + self.dice.around(self.timing.poll);
        self.state = State::Poll { next, rewatch };
    }

    /// A call was not answered: so the endpoint is to blame, not its streams.
    pub(crate) fn unanswered(&mut self) {
        if self.suspect {
            self.suspect = false;
            self.state = State::Watch;
        }
    }

    /// A stream ended without a gateway's word after it had lived so long. Whether that is
    /// suspicious: then the same endpoint should be called.
    pub(crate) fn cut(&mut self, lived: Duration) -> bool {
        if lived >= self.timing.stream_min_life {
            self.cuts = 0;
            self.state = State::Watch;
            false
        } else {
            self.suspect = true;
            self.state = State::Call;
            true
        }
    }

    /// A stream ended with a gateway's word after it had lived so long.
    pub(crate) fn ended(&mut self, lived: Duration) {
        if lived >= self.timing.stream_min_life {
            self.cuts = 0;
            self.state = State::Watch;
        }
    }

    /// No endpoint is left to ask. Unless the last word on a stream is still to be spoken, nothing
    /// is proven against streams: calls fail as well.
    pub(crate) fn unreachable(&mut self) {
        if !self.suspect {
            self.cuts = 0;
        }
        self.state = State::Call;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);

    fn pace() -> Pace {
        Pace::new(Timing::default(), Dice::seeded(5))
    }

    /// Three streams cut, each while calls are answered.
    fn polling(at: MonoMs) -> Pace {
        let mut pace = pace();
        pace.answered(at);
        for _ in 0..3 {
            assert_eq!(pace.step(at), Step::Watch);
            assert!(pace.cut(SECOND));
            assert_eq!(pace.step(at), Step::Call);
            pace.answered(at);
        }
        pace
    }

    #[test]
    fn a_call_comes_first_then_a_stream() {
        let mut pace = pace();
        assert_eq!(pace.step(MonoMs(0)), Step::Call);
        pace.unanswered();
        assert_eq!(pace.step(MonoMs(0)), Step::Call);
        pace.answered(MonoMs(0));
        assert_eq!(pace.step(MonoMs(0)), Step::Watch);
    }

    #[test]
    fn three_streams_cut_while_calls_are_answered_lead_to_polling() {
        let at = MonoMs(1_000);
        let mut pace = polling(at);
        assert!(pace.is_polling());
        let Step::Pause(first) = pace.step(at) else {
            panic!("{:?}", pace.step(at));
        };
        assert!((SECOND * 22..SECOND * 38).contains(&first), "{first:?}");
        assert_eq!(pace.step(at + first), Step::Call);
        pace.answered(at + first);
        assert!(matches!(pace.step(at + first), Step::Pause(_)));
    }

    #[test]
    fn a_stream_is_tried_again_after_a_while_and_cut_once_is_enough_then() {
        let at = MonoMs(0);
        let mut pace = polling(at);
        let later = at + MINUTE * 7;
        assert_eq!(pace.step(later), Step::Watch);
        pace.cut(SECOND);
        assert_eq!(pace.step(later), Step::Call);
        pace.answered(later);
        assert!(matches!(pace.step(later), Step::Pause(_)));
    }

    #[test]
    fn a_stream_that_lives_clears_the_record() {
        let at = MonoMs(0);
        for cut in [true, false] {
            let mut pace = polling(at);
            let later = at + MINUTE * 7;
            if cut {
                assert!(!pace.cut(MINUTE));
            } else {
                pace.ended(MINUTE);
            }
            assert_eq!(pace.step(later), Step::Watch);
            pace.cut(SECOND);
            pace.answered(later);
            assert_eq!(pace.step(later), Step::Watch, "one cut is not enough again");
        }
    }

    #[test]
    fn an_endpoint_that_dies_is_no_proxy() {
        let mut pace = pace();
        pace.answered(MonoMs(0));
        for _ in 0..10 {
            pace.cut(SECOND);
            assert_eq!(pace.step(MonoMs(0)), Step::Call);
            pace.unanswered();
            assert_eq!(pace.step(MonoMs(0)), Step::Watch);
        }
    }

    #[test]
    fn a_gateways_word_is_no_cut() {
        let mut pace = pace();
        pace.answered(MonoMs(0));
        for _ in 0..10 {
            pace.ended(Duration::ZERO);
            assert_eq!(pace.step(MonoMs(0)), Step::Watch);
        }
    }

    #[test]
    fn when_calls_fail_too_streams_are_tried_again() {
        let mut pace = polling(MonoMs(0));
        pace.unreachable();
        assert_eq!(pace.step(MonoMs(0)), Step::Call);
        pace.answered(MonoMs(0));
        assert_eq!(pace.step(MonoMs(0)), Step::Watch);
    }

    #[test]
    fn the_only_endpoint_behind_a_proxy_that_holds_streams_back_is_polled() {
        let mut pace = pace();
        pace.answered(MonoMs(0));
        for _ in 0..3 {
            assert_eq!(pace.step(MonoMs(0)), Step::Watch);
            pace.cut(Duration::ZERO);
            // It is left alone for a moment, so that nobody is left to ask.
            pace.unreachable();
            assert_eq!(pace.step(MonoMs(0)), Step::Call);
            pace.answered(MonoMs(0));
        }
        assert!(pace.is_polling());
    }
}
