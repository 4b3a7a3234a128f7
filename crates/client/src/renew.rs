//! The sandbox's own token, renewed in time.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use evermint_core::port::Clock;
use evermint_core::secret::Secret;
use evermint_core::time::MonoMs;
use tokio::sync::Mutex;

use crate::auth::{BoxError, TokenSource};
use crate::clock::SystemClock;

/// A token as whoever issues it gives it.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The token, without the word `Bearer`.
    pub token: Secret,
    /// How long it is good for, from before it was asked for; `None` until it is refused.
    pub lifetime: Option<Duration>,
    /// When to fetch the next one; after four fifths of its life unless this says otherwise.
    pub renew_in: Option<Duration>,
}

/// A token that is fetched anew in time, and when it was refused. While the
/// next one cannot be had, it is used until its end. Time is this machine's boot time: the wall
/// clock is not read.
pub struct Renewing<F> {
    fetch: F,
    clock: Arc<dyn Clock>,
    held: Mutex<Option<Held>>,
    refused: AtomicBool,
}

#[derive(Clone)]
struct Held {
    token: Secret,
    ends: Option<MonoMs>,
    renew: Option<MonoMs>,
}

/// Pause after a token that could not be had.
const RETRY: Duration = Duration::from_secs(10);

impl<F, T> Renewing<F>
where
    F: Fn() -> T + Send + Sync + 'static,
    T: Future<Output = Result<Issued, BoxError>> + Send,
{
    /// Fetches with `fetch`, one at a time.
    pub fn new(fetch: F) -> Self {
        Self::with_clock(fetch, Arc::new(SystemClock))
    }

    /// The same with another clock, for tests; only `boot` is read.
    pub fn with_clock(fetch: F, clock: Arc<dyn Clock>) -> Self {
        Self {
            fetch,
            clock,
            held: Mutex::new(None),
            refused: AtomicBool::new(false),
        }
    }

    fn now(&self) -> MonoMs {
        self.clock.read().boot
    }
}

#[async_trait]
impl<F, T> TokenSource for Renewing<F>
where
    F: Fn() -> T + Send + Sync + 'static,
    T: Future<Output = Result<Issued, BoxError>> + Send,
{
    async fn token(&self) -> Result<Secret, BoxError> {
        let mut held = self.held.lock().await;
        let asked = self.now();
        let refused = self.refused.load(Ordering::Acquire);
        if let Some(held) = held.as_ref().filter(|_| !refused)
            && held.renew.is_none_or(|at| asked < at)
        {
            return Ok(held.token.clone());
        }
        match (self.fetch)().await {
            Ok(issued) => {
                self.refused.store(false, Ordering::Release);
                let usual = issued.lifetime.map(|lifetime| lifetime * 4 / 5);
                *held = Some(Held {
                    token: issued.token.clone(),
                    ends: issued.lifetime.map(|lifetime| asked + lifetime),
                    renew: issued.renew_in.or(usual).map(|after| asked + after),
                });
                Ok(issued.token)
            }
            Err(error) => {
                let now = self.now();
                let good = |held: &&mut Held| !refused && held.ends.is_none_or(|end| now < end);
                let old = held.as_mut().filter(good).ok_or(error)?;
                old.renew = Some(now + RETRY);
                Ok(old.token.clone())
            }
        }
    }

    fn refused(&self) {
        self.refused.store(true, Ordering::Release);
    }
}

impl<F> fmt::Debug for Renewing<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewing").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use evermint_core::time::{Clocks, UnixMs};

    use super::*;

    /// Boot time, set by hand; the wall clock is two hours off, now this way and now that.
    #[derive(Default)]
    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn read(&self) -> Clocks {
            let boot = self.0.load(Ordering::Relaxed);
            Clocks {
                mono: MonoMs(0),
                boot: MonoMs(boot),
                wall: UnixMs(if boot.is_multiple_of(2) { 0 } else { u64::MAX }),
            }
        }
    }

    #[tokio::test]
    async fn a_token_is_renewed_in_time_and_kept_while_it_cannot_be() {
        let clock = Arc::new(Hand::default());
        let fetches = Arc::new(AtomicU64::new(0));
        let works = Arc::new(AtomicBool::new(true));
        let source = {
            let (fetches, works) = (Arc::clone(&fetches), Arc::clone(&works));
            let fetch = move || {
                let n = fetches.fetch_add(1, Ordering::Relaxed);
                let works = works.load(Ordering::Relaxed);
                async move {
                    works.then_some(()).ok_or("no issuer")?;
                    Ok(Issued {
                        token: Secret::from(format!("t{n}")),
                        lifetime: Some(Duration::from_secs(100)),
                        renew_in: None,
                    })
                }
            };
            Renewing::with_clock(fetch, Arc::clone(&clock) as _)
        };
        // Seconds, whether the issuer answers, whether the token was refused; token and fetches.
        for (at, answers, refused, token, fetched) in [
            (0, true, false, Some("t0"), 1),
            (79, true, false, Some("t0"), 1),
            (80, false, false, Some("t0"), 2),
            (85, true, false, Some("t0"), 2),
            (90, true, false, Some("t2"), 3),
            (169, true, false, Some("t2"), 3),
            (170, true, false, Some("t3"), 4),
            (171, true, true, Some("t4"), 5),
            (172, false, true, None, 6),
            (173, true, false, Some("t6"), 7),
            (260, false, false, Some("t6"), 8),
            (273, false, false, None, 9),
        ] {
            clock.0.store(at * 1_000, Ordering::Relaxed);
            works.store(answers, Ordering::Relaxed);
            if refused {
                source.refused();
            }
            let found = source.token().await.ok();
            assert_eq!(found.as_ref().and_then(Secret::expose_str), token, "{at}");
            assert_eq!(fetches.load(Ordering::Relaxed), fetched, "{at}");
        }
    }
}
