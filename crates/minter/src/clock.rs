//! The clocks of this process.

use evermint_core::port::Clock;
use evermint_core::time::{Clocks, MonoMs, UnixMs};
use rustix::time::{ClockId, clock_gettime};

/// Reads the system's clocks. The two monotonic ones may start anywhere.
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

/// Milliseconds on one clock; 0 for a wall clock set before 1970.
fn millis(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * 1_000 + nanos / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_do_not_run_back_and_the_wall_clock_is_in_this_century() {
        let (a, b) = (SystemClock.read(), SystemClock.read());
        assert!(a.mono <= b.mono && a.boot <= b.boot);
        assert!(
            a.boot >= a.mono,
            "boot time includes what monotonic time does"
        );
        assert!((1_700_000_000_000..4_100_000_000_000).contains(&a.wall.0));
    }
}
