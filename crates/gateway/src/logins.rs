//! Logins that failed, counted for each address: whoever guesses, or floods replicas with signatures
//! to check, waits for its turn, and nobody else does.
//!
//! An address with too many failures is not shut out, since others may be behind it: its tokens are
//! looked at one at a time, with a pause after each that is no good. A replica has one such line for
//! all of these addresses, and turns away whoever finds it full.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as Turn, MutexGuard};
use tokio::time::{Instant, sleep, timeout};

use crate::bounds::Bounds;

/// Most addresses that are counted by themselves.
const ADDRESSES_MAX: usize = 16_384;
/// Where those are counted that find no room.
const OTHERS: IpAddr = IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED);
/// Most calls in the line.
const LINE_MAX: usize = 64;
/// The longest time in the line.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// How long the line stands still after a token that is no good.
const PAUSE: Duration = Duration::from_millis(10);

/// The failures that one replica has seen.
pub(crate) struct Logins {
    failures: Mutex<Failures>,
    /// How many wait in the line.
    waiting: AtomicUsize,
    line: Turn<()>,
}

/// The line has no room, or does not get on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

/// The right to have a token looked at.
pub(crate) struct Look<'a>(Option<MutexGuard<'a, ()>>);

impl Logins {
    pub(crate) fn new(bounds: &Bounds) -> Self {
        let per_minute = bounds.failed_logins_per_minute.max(1);
        Self {
            failures: Mutex::new(Failures {
                each: Duration::from_secs(60) / per_minute,
                burst: bounds.failed_logins_burst,
                free_at: HashMap::new(),
            }),
            waiting: AtomicUsize::new(0),
            line: Turn::new(()),
        }
    }

    /// Waits until a token from `address` may be looked at: not at all, unless too many before it
    /// were no good.
    ///
    /// # Errors
    /// [`TooMany`] wait already.
    pub(crate) async fn turn(&self, address: IpAddr) -> Result<Look<'_>, TooMany> {
        if !self.failures().are_many(address, Instant::now()) {
            return Ok(Look(None));
        }
        let place = Place::take(&self.waiting)?;
        let turn = timeout(WAIT_MAX, self.line.lock()).await;
        drop(place);
        turn.map(|turn| Look(Some(turn))).map_err(|_| TooMany)
    }

    /// A token from `address` was no good.
    pub(crate) async fn failed(&self, address: IpAddr, look: Look<'_>) {
        let now = Instant::now();
        let (before, after) = {
            let mut failures = self.failures();
            let before = failures.are_many(address, now);
            failures.add(address, now);
            (before, failures.are_many(address, now))
        };
        if after && !before {
            tracing::warn!(%address, "many failed logins; this address has to wait");
        }
        if look.0.is_some() {
            sleep(PAUSE).await;
        }
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the line, free again when it is dropped.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Result<Self, TooMany> {
        let place = Self(waiting);
        match waiting.fetch_add(1, Ordering::Relaxed) < LINE_MAX {
            true => Ok(place),
            // Dropped, and so given back.
            false => Err(TooMany),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What each address has run up: when it will have run off
/// ([GCRA](https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm)). One that has run off is
/// forgotten when there is no room.
struct Failures {
    /// How long one failure counts.
    each: Duration,
    /// So many count for nothing.
    burst: u32,
    free_at: HashMap<IpAddr, Instant>,
}

impl Failures {
    /// Where failures of an address count.
    fn counted_at(&self, address: IpAddr) -> IpAddr {
        let has_room = self.free_at.len() < ADDRESSES_MAX;
        match has_room || self.free_at.contains_key(&address) {
            true => address,
            false => OTHERS,
        }
    }

    fn are_many(&self, address: IpAddr, now: Instant) -> bool {
        let free_at = self.free_at.get(&self.counted_at(address));
        free_at.is_some_and(|at| at.saturating_duration_since(now) > self.each * self.burst)
    }

    fn add(&mut self, address: IpAddr, now: Instant) {
        if self.free_at.len() >= ADDRESSES_MAX {
            self.free_at.retain(|_, at| *at > now);
        }
        // One more than the burst is as much as anyone has to wait for.
        let latest = now + self.each * (self.burst.saturating_add(1));
        let at = self.free_at.entry(self.counted_at(address)).or_insert(now);
        *at = ((*at).max(now) + self.each).min(latest);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(n))
    }

    fn failures() -> Failures {
        Failures {
            each: Duration::from_secs(1),
            burst: 3,
            free_at: HashMap::new(),
        }
    }

    #[test]
    fn failures_count_for_their_address_and_run_off() {
        let mut failures = failures();
        let now = Instant::now();
        for _ in 0..3 {
            failures.add(address(1), now);
            assert!(!failures.are_many(address(1), now));
        }
        for _ in 0..1_000 {
            failures.add(address(1), now);
        }
        assert!(failures.are_many(address(1), now));
        assert!(!failures.are_many(address(2), now));
        // However many there were.
        assert!(!failures.are_many(address(1), now + Duration::from_secs(1)));
    }

    #[test]
    fn more_addresses_than_there_is_room_for_are_counted_together() {
        let mut failures = failures();
        let now = Instant::now();
        for n in 0..2 * u32::try_from(ADDRESSES_MAX).unwrap() {
            failures.add(address(n), now);
        }
        assert_eq!(failures.free_at.len(), ADDRESSES_MAX + 1);
        assert!(failures.are_many(address(u32::MAX), now));
        assert!(!failures.are_many(address(0), now));
        // Those that have run off make room.
        let later = now + Duration::from_secs(60);
        failures.add(address(u32::MAX), later);
        assert_eq!(failures.free_at.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_failed_too_often_takes_turns_and_others_do_not() {
        let logins = Logins::new(&Bounds {
            failed_logins_per_minute: 60,
            failed_logins_burst: 3,
            ..Bounds::default()
        });
        let (bad, good) = (address(1), address(2));
        for _ in 0..4 {
            let look = logins.turn(bad).await.unwrap();
            assert!(look.0.is_none());
            logins.failed(bad, look).await;
        }
        let held = logins.turn(bad).await.unwrap();
        assert!(held.0.is_some());
        assert!(logins.turn(good).await.unwrap().0.is_none());
        let mut line = Vec::new();
        for _ in 0..LINE_MAX {
            let mut waiting = Box::pin(logins.turn(bad));
            assert!(futures::poll!(waiting.as_mut()).is_pending());
            line.push(waiting);
        }
        assert!(logins.turn(bad).await.is_err(), "the line is full");
        let began = Instant::now();
        logins.failed(bad, held).await;
        assert_eq!(began.elapsed(), PAUSE);
        line.remove(0).await.unwrap();
        // Those who leave give their place back.
        line.clear();
        assert!(logins.turn(bad).await.is_ok());
    }
}
