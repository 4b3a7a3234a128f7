//! The clock by which tokens end.

use evermint_core::port::Clock;
use evermint_core::time::{Clocks, MonoMs, UnixMs};
use rustix::time::{ClockId, clock_gettime};

/// Reads the system's clocks. This crate uses `boot` alone: it goes on while the machine is
/// suspended, and nobody can set it.
///
/// What no clock of the machine tells is that a hypervisor stopped it, or started it again from an
/// image: the time that passed is learned from the cluster's next word.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// The clock that goes on while the machine is suspended.
#[cfg(target_os = "linux")]
const BOOT: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const BOOT: ClockId = ClockId::Monotonic;

impl Clock for SystemClock {
    fn read(&self) -> Clocks {
        Clocks {
            mono: MonoMs(millis(ClockId::Monotonic)),
            boot: MonoMs(millis(BOOT)),
            wall: UnixMs(millis(ClockId::Realtime)),
        }
    }
}

/// Milliseconds on one clock; 0 before its beginning.
fn millis(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds
        .saturating_mul(1_000)
        .saturating_add(nanos / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_does_not_run_back_and_includes_monotonic_time() {
        let (a, b) = (SystemClock.read(), SystemClock.read());
        assert!(a.boot <= b.boot && a.boot >= a.mono);
    }
}
