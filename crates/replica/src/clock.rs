//! The clocks of this process, and the cluster clock that is reckoned from them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evermint_core::port::Clock;
use evermint_core::time::{Clocks, MonoMs, UnixMs};
use evermint_protocol::clock::ClusterClock;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// The clocks of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn read(&self) -> Clocks {
        Clocks {
            mono: MonoMs(millis(clock_gettime(ClockId::Monotonic))),
            boot: MonoMs(millis(clock_gettime(ClockId::Boottime))),
            wall: UnixMs(millis(clock_gettime(ClockId::Realtime))),
        }
    }
}

/// Whole milliseconds; 0 for a time before the clock's beginning.
fn millis(time: Timespec) -> u64 {
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    secs.saturating_mul(1_000).saturating_add(nanos / 1_000_000)
}

/// The cluster clock of this process, shared by all who read or advance it.
#[derive(Clone)]
pub(crate) struct Timekeeper {
    clock: Arc<dyn Clock>,
    cluster: Arc<Mutex<ClusterClock>>,
}

impl Timekeeper {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            cluster: Arc::default(),
        }
    }

    /// The monotonic clock: by it the leader waits out tickets, so that a suspended machine
    /// ends none too early.
    pub(crate) fn mono(&self) -> MonoMs {
        self.clock.read().mono
    }

    /// The time since boot: by it a replica reckons how old its knowledge is, so that one that
    /// slept knows that it did.
    pub(crate) fn boot(&self) -> MonoMs {
        self.clock.read().boot
    }

    /// The cluster clock.
    pub(crate) fn now(&self) -> UnixMs {
        let boot = self.boot();
        self.with(|cluster| cluster.read(boot))
    }

    /// Takes note of a leader's stamp, just seen. Says how far the clock was pushed.
    pub(crate) fn observe(&self, stamp: UnixMs) -> Duration {
        let boot = self.boot();
        self.with(|cluster| cluster.observe(stamp, boot))
    }

    /// The wall clock of this machine: one voice among those of a majority.
    pub(crate) fn wall(&self) -> UnixMs {
        self.clock.read().wall
    }

    /// The stamp for an entry, when the wall clocks of a majority show `wall`.
    pub(crate) fn stamp(&self, wall: UnixMs) -> UnixMs {
        let boot = self.boot();
        self.with(|cluster| cluster.stamp(wall, boot))
    }

    fn with<T>(&self, f: impl FnOnce(&mut ClusterClock) -> T) -> T {
        // The clock is valid after every single step, so a panic elsewhere does not spoil it.
        f(&mut self.cluster.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine that was suspended for an hour: its monotonic clock stood still.
    struct Slept;

    impl Clock for Slept {
        fn read(&self) -> Clocks {
            Clocks {
                mono: MonoMs(5_000),
                boot: MonoMs(3_605_000),
                wall: UnixMs(0),
            }
        }
    }

    #[test]
    fn a_machine_that_slept_knows_how_late_it_is() {
        let time = Timekeeper::new(Arc::new(Slept));
        time.with(|cluster| cluster.observe(UnixMs(1_000_000), MonoMs(5_000)));
        let slept = time.now().since(UnixMs(1_000_000));
        assert!(slept > Duration::from_secs(3_590), "{slept:?}");
        assert_eq!(time.stamp(time.wall()), time.now());
        assert_eq!(
            time.mono(),
            MonoMs(5_000),
            "tickets wait by the other clock"
        );
    }
}
