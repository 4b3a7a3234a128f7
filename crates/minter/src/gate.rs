//! What one issuer gets from this replica: so many requests at once, so many a minute, and none
//! while it is down. One slow or broken issuer delays nobody else's mints.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evermint_core::time::millis;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

use crate::breaker::{Breaker, BreakerRules, Entry};
use crate::config::Config;

/// Issuers that are remembered; quiet ones are forgotten beyond this number.
const ISSUERS_MAX: usize = 1024;

/// The gates of all issuers, by host and port.
#[derive(Debug)]
pub(crate) struct Gates {
    limits: Limits,
    gates: Mutex<HashMap<String, Arc<Gate>>>,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    concurrency: u32,
    pace: Pace,
    breaker: BreakerRules,
}

impl Gates {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            limits: Limits {
                concurrency: config.concurrency,
                pace: Pace::new(config.requests_per_minute),
                breaker: BreakerRules {
                    failures: config.breaker_failures,
                    pause: Duration::from_millis(config.breaker_pause_ms),
                    pause_max: Duration::from_millis(config.breaker_pause_max_ms),
                },
            },
            gates: Mutex::default(),
        }
    }

    /// The gate of one issuer.
    pub(crate) fn of(&self, authority: &str) -> Arc<Gate> {
        let mut gates = locked(&self.gates);
        if gates.len() >= ISSUERS_MAX && !gates.contains_key(authority) {
            gates.retain(|_, gate| Arc::strong_count(gate) > 1 || !gate.is_quiet());
        }
        let gate = gates
            .entry(authority.to_owned())
            .or_insert_with(|| Arc::new(Gate::new(authority, self.limits)));
        Arc::clone(gate)
    }
}

/// The gate of one issuer.
#[derive(Debug)]
pub(crate) struct Gate {
    issuer: String,
    turns: Arc<Semaphore>,
    pace: Mutex<Pace>,
    breaker: Mutex<Breaker>,
}

/// Why a request is not let through now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shut {
    /// The issuer does not answer; it is tried again after this time.
    Down(Duration),
    /// More requests than the rate allows are waiting; there is room after this time.
    Crowded(Duration),
    /// None of the requests that run at the same time came to its end.
    Busy,
}

impl Gate {
    fn new(issuer: &str, limits: Limits) -> Self {
        Self {
            issuer: issuer.to_owned(),
            turns: Arc::new(Semaphore::new(limits.concurrency as usize)),
            pace: Mutex::new(limits.pace),
            breaker: Mutex::new(Breaker::new(limits.breaker)),
        }
    }

    /// Waits for a turn, at most for `patience`.
    ///
    /// # Errors
    /// [`Shut`].
    pub(crate) async fn enter(self: Arc<Self>, patience: Duration) -> Result<Pass, Shut> {
        let deadline = Instant::now() + patience;
        let peeked = locked(&self.breaker).peek(Instant::now());
        peeked.map_err(Shut::Down)?;
        let turn = timeout_at(deadline, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn
            .map_err(|_| Shut::Busy)?
            .expect("the semaphore is never closed");
        let now = Instant::now();
        let wait = locked(&self.pace)
            .reserve(now, deadline - now)
            .map_err(Shut::Crowded)?;
        if !wait.is_zero() {
            sleep(wait).await;
        }
        let entered = locked(&self.breaker).enter(Instant::now());
        let entry = entered.map_err(Shut::Down)?;
        Ok(Pass {
            gate: self,
            entry: Some(entry),
            _turn: turn,
        })
    }

    fn is_quiet(&self) -> bool {
        locked(&self.breaker).is_quiet()
    }
}

/// One request's turn. Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    gate: Arc<Gate>,
    /// Taken when the end of the request is reported.
    entry: Option<Entry>,
    _turn: OwnedSemaphorePermit,
}

impl Pass {
    /// The issuer answered.
    pub(crate) fn succeeded(mut self) {
        self.entry = None;
        let is_back = locked(&self.gate.breaker).succeeded();
        if is_back {
            tracing::info!(issuer = self.gate.issuer, "issuer answers again");
        }
    }

    /// The issuer did not answer, or is broken.
    pub(crate) fn failed(mut self) {
        self.entry = None;
        let pause = locked(&self.gate.breaker).failed(Instant::now());
        if let Some(pause) = pause {
            let pause_ms = millis(pause);
            tracing::warn!(
                issuer = self.gate.issuer,
                pause_ms,
                "issuer does not answer, pausing"
            );
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            locked(&self.gate.breaker).abandoned(entry, Instant::now());
        }
    }
}

/// A rate, kept by the generic cell rate algorithm: one instant is all the state there is.
#[derive(Clone, Copy, Debug)]
struct Pace {
    interval: Duration,
    /// How far reservations may run ahead of the clock without waiting.
    burst: Duration,
    next: Option<Instant>,
}

impl Pace {
    fn new(per_minute: u32) -> Self {
        let interval = Duration::from_secs(60) / per_minute.max(1);
        Self {
            interval,
            burst: Duration::from_secs(1).saturating_sub(interval),
            next: None,
        }
    }

    /// Reserves the next slot and tells how long to wait for it.
    ///
    /// # Errors
    /// How long it would be, if that is more than `patience`; nothing is reserved then.
    fn reserve(&mut self, now: Instant, patience: Duration) -> Result<Duration, Duration> {
        let slot = self.next.map_or(now, |next| next.max(now));
        let wait = (slot - now).saturating_sub(self.burst);
        if wait > patience {
            return Err(wait);
        }
        self.next = Some(slot + self.interval);
        Ok(wait)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::join_all;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn gates(change: impl FnOnce(&mut Config)) -> Gates {
        let mut config = Config::default();
        change(&mut config);
        Gates::new(&config)
    }

    const PATIENT: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn no_more_than_the_limit_run_at_once_and_all_get_their_turn() {
        let gates = gates(|c| c.concurrency = 3);
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let began = Instant::now();
        join_all((0..12).map(|_| async {
            let pass = gates.of("a").enter(PATIENT).await.unwrap();
            let now = running.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(now, Ordering::SeqCst);
            sleep(Duration::from_secs(1)).await;
            running.fetch_sub(1, Ordering::SeqCst);
            pass.succeeded();
        }))
        .await;
        assert_eq!(most.load(Ordering::SeqCst), 3);
        assert_eq!(began.elapsed(), Duration::from_secs(4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_issuer_does_not_delay_another() {
        let gates = gates(|c| c.concurrency = 1);
        let _slow = gates.of("slow").enter(PATIENT).await.unwrap();
        let began = Instant::now();
        gates.of("fast").enter(PATIENT).await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_keep_the_rate_after_a_burst() {
        let gates = gates(|c| {
            c.requests_per_minute = 600;
            c.concurrency = 1000;
        });
        let began = Instant::now();
        for _ in 0..30 {
            gates.of("a").enter(PATIENT).await.unwrap().succeeded();
        }
        // Ten at once, then ten a second.
        assert_eq!(began.elapsed().as_millis() / 100, 20);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_beyond_the_tickets_end_is_not_waited_for() {
        let gates = gates(|c| c.requests_per_minute = 1);
        gates.of("a").enter(PATIENT).await.unwrap().succeeded();
        let began = Instant::now();
        let shut = gates
            .of("a")
            .enter(Duration::from_secs(5))
            .await
            .unwrap_err();
        assert!(
            matches!(shut, Shut::Crowded(wait) if wait > Duration::from_secs(50)),
            "{shut:?}"
        );
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_does_not_come_is_not_waited_for_any_longer() {
        let gates = gates(|c| c.concurrency = 1);
        let _slow = gates.of("a").enter(PATIENT).await.unwrap();
        let began = Instant::now();
        let shut = gates.of("a").enter(Duration::from_secs(5)).await;
        assert_eq!(shut.unwrap_err(), Shut::Busy);
        assert_eq!(began.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn an_issuer_that_is_down_is_left_alone_and_then_probed() {
        let gates = gates(|c| c.breaker_failures = 2);
        for _ in 0..2 {
            gates.of("a").enter(PATIENT).await.unwrap().failed();
        }
        let shut = gates.of("a").enter(PATIENT).await.unwrap_err();
        assert_eq!(shut, Shut::Down(Duration::from_secs(2)));
        sleep(Duration::from_secs(2)).await;
        let probe = gates.of("a").enter(PATIENT).await.unwrap();
        assert!(gates.of("a").enter(PATIENT).await.is_err());
        drop(probe);
        gates.of("a").enter(PATIENT).await.unwrap().succeeded();
        gates.of("a").enter(PATIENT).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_comes_back_when_its_request_is_dropped() {
        let gates = gates(|c| c.concurrency = 1);
        drop(gates.of("a").enter(PATIENT).await.unwrap());
        let held = gates.of("a").enter(PATIENT).await.unwrap();
        let gate = gates.of("a");
        let waiting = tokio::time::timeout(Duration::from_secs(1), gate.enter(PATIENT));
        assert!(waiting.await.is_err());
        drop(held);
        assert!(gates.of("a").enter(PATIENT).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn quiet_issuers_are_forgotten_and_those_that_are_down_are_not() {
        let gates = gates(|c| c.breaker_failures = 1);
        gates.of("down").enter(PATIENT).await.unwrap().failed();
        for n in 0..2 * ISSUERS_MAX {
            gates.of(&format!("host-{n}"));
        }
        assert!(locked(&gates.gates).len() <= ISSUERS_MAX);
        assert!(gates.of("down").enter(PATIENT).await.is_err());
    }
}
