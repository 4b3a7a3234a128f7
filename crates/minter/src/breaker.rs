//! A circuit breaker: an issuer that does not answer is left alone for a while, then probed with
//! a single request.

use std::time::Duration;

use tokio::time::Instant;

/// What other requests are told while a probe is out.
const PROBE_HINT: Duration = Duration::from_secs(1);

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BreakerRules {
    /// Failures in a row that open it.
    pub(crate) failures: u32,
    /// The first pause.
    pub(crate) pause: Duration,
    /// The longest pause.
    pub(crate) pause_max: Duration,
}

/// The breaker of one issuer. Pure: time comes in as an argument.
#[derive(Debug)]
pub(crate) struct Breaker {
    rules: BreakerRules,
    state: State,
}

#[derive(Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, pause: Duration },
    Probing { pause: Duration },
}

/// What a request is to the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// One of many.
    Plain,
    /// The one that finds out whether the issuer is back.
    Probe,
}

impl Breaker {
    pub(crate) fn new(rules: BreakerRules) -> Self {
        Self {
            rules,
            state: State::Closed { failures: 0 },
        }
    }

    /// Asks whether a request would be let through, without letting it through.
    ///
    /// # Errors
    /// How long to wait before asking again.
    pub(crate) fn peek(&self, now: Instant) -> Result<(), Duration> {
        match self.state {
            State::Closed { .. } => Ok(()),
            State::Open { until, .. } if until <= now => Ok(()),
            State::Open { until, .. } => Err(until - now),
            State::Probing { .. } => Err(PROBE_HINT),
        }
    }

    /// Lets a request through.
    ///
    /// # Errors
    /// How long to wait before asking again.
    pub(crate) fn enter(&mut self, now: Instant) -> Result<Entry, Duration> {
        self.peek(now)?;
        match self.state {
            State::Closed { .. } => Ok(Entry::Plain),
            State::Open { pause, .. } | State::Probing { pause } => {
                self.state = State::Probing { pause };
                Ok(Entry::Probe)
            }
        }
    }

    /// A request got an answer. Whether that ends a pause.
    pub(crate) fn succeeded(&mut self) -> bool {
        let was_open = !matches!(self.state, State::Closed { .. });
        self.state = State::Closed { failures: 0 };
        was_open
    }

    /// A request got no answer, or one that says that the issuer is broken. The pause, if one
    /// begins.
    pub(crate) fn failed(&mut self, now: Instant) -> Option<Duration> {
        let pause = match &mut self.state {
            State::Closed { failures } => {
                *failures += 1;
                if *failures < self.rules.failures {
                    return None;
                }
                self.rules.pause
            }
            State::Probing { pause } => (*pause * 2).min(self.rules.pause_max),
            // One that was under way when the breaker opened.
            State::Open { .. } => return None,
        };
        let until = now + pause;
        self.state = State::Open { until, pause };
        Some(pause)
    }

    /// A request ended without telling anything about the issuer.
    pub(crate) fn abandoned(&mut self, entry: Entry, now: Instant) {
        if let (Entry::Probe, State::Probing { pause }) = (entry, &self.state) {
            self.state = State::Open {
                until: now,
                pause: *pause,
            };
        }
    }

    /// Whether forgetting it would change nothing.
    pub(crate) fn is_quiet(&self) -> bool {
        matches!(self.state, State::Closed { failures: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: BreakerRules = BreakerRules {
        failures: 3,
        pause: Duration::from_secs(2),
        pause_max: Duration::from_secs(5),
    };

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(RULES);
        for _ in 0..3 {
            assert_eq!(breaker.enter(now), Ok(Entry::Plain));
            breaker.failed(now);
        }
        breaker
    }

    fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let now = Instant::now();
        let mut breaker = Breaker::new(RULES);
        for _ in 0..5 {
            breaker.failed(now);
            breaker.failed(now);
            breaker.succeeded();
        }
        assert!(breaker.is_quiet());
        assert_eq!(opened(now).enter(now), Err(secs(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn one_probe_goes_out_after_the_pause() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.enter(now + secs(1)), Err(secs(1)));
        let later = now + secs(2);
        assert_eq!(breaker.peek(later), Ok(()));
        assert_eq!(breaker.enter(later), Ok(Entry::Probe));
        assert_eq!(breaker.enter(later), Err(PROBE_HINT));
        breaker.succeeded();
        assert_eq!(breaker.enter(later), Ok(Entry::Plain));
    }

    #[tokio::test(start_paused = true)]
    async fn the_pause_doubles_with_every_failed_probe_up_to_its_limit() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        for pause in [2, 4, 5, 5] {
            assert_eq!(breaker.enter(now), Err(secs(pause)));
            now += secs(pause);
            assert_eq!(breaker.enter(now), Ok(Entry::Probe));
            breaker.failed(now);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_was_given_up_makes_room_for_another() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let now = now + secs(2);
        assert_eq!(breaker.enter(now), Ok(Entry::Probe));
        breaker.abandoned(Entry::Plain, now);
        assert_eq!(breaker.enter(now), Err(PROBE_HINT));
        breaker.abandoned(Entry::Probe, now);
        assert_eq!(breaker.enter(now), Ok(Entry::Probe));
    }

    #[tokio::test(start_paused = true)]
    async fn late_failures_do_not_prolong_the_pause() {
        let now = Instant::now();
        let mut breaker = opened(now);
        breaker.failed(now + secs(1));
        assert_eq!(breaker.enter(now + secs(2)), Ok(Entry::Probe));
    }
}
