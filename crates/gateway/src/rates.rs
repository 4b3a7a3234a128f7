//! How often each caller may call: a bucket of tokens for each, filled at a steady rate.

use std::num::NonZeroU32;
use std::time::Duration;

use evermint_core::id::SandboxId;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};
use tokio_util::sync::CancellationToken;

use crate::bounds::Bounds;
use crate::caller::{Caller, Way};

/// How often buckets that are full again are forgotten.
const SWEEP: Duration = Duration::from_secs(60);

/// Whose calls are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Identity {
    Sandbox(SandboxId),
    Operator(Way, String),
}

/// The buckets of one replica.
pub(crate) struct Rates {
    buckets: DefaultKeyedRateLimiter<Identity>,
    clock: DefaultClock,
}

impl Rates {
    pub(crate) fn new(bounds: &Bounds) -> Self {
        let at_least_one = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(bounds.calls_per_second));
        let quota = quota.allow_burst(at_least_one(bounds.calls_burst));
        Self {
            buckets: DefaultKeyedRateLimiter::keyed(quota),
            clock: DefaultClock::default(),
        }
    }

    /// Counts a call; when it is one too many, how long to wait. Where nobody shows who they are,
    /// nobody is counted.
    pub(crate) fn count(&self, caller: &Caller) -> Result<(), Duration> {
        let identity = match caller {
            Caller::Anyone => return Ok(()),
            Caller::Sandbox(pass) => Identity::Sandbox(pass.sandbox),
            Caller::Operator(operator) => {
                Identity::Operator(operator.way, operator.subject.clone())
            }
        };
        let counted = self.buckets.check_key(&identity);
        counted.map_err(|late| late.wait_time_from(self.clock.now()))
    }

    /// Keeps the buckets few.
    pub(crate) async fn sweep(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(SWEEP) => self.buckets.retain_recent(),
            }
        }
    }
}
