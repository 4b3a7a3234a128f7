//! The clocks of one machine, as they differ from the time that really passes.

use evermint_core::time::{Clocks, MonoMs, UnixMs};

/// Simulated real time in milliseconds. No machine can read it.
pub type Time = u64;

/// What a right wall clock shows at time 0.
pub const EPOCH: u64 = 1_700_000_000_000;

/// Further ahead no timer is set, in milliseconds.
const NEVER: u64 = 1 << 40;

/// One machine's clocks.
#[derive(Clone, Debug)]
pub struct Hardware {
    /// How much faster than time its oscillator runs, in millionths.
    pub drift_ppm: i64,
    /// What its clocks showed at time 0.
    pub booted: u64,
    /// For how long it was suspended so far: its monotonic clock stood still.
    pub suspended: u64,
    /// How far its wall clock is off.
    pub wall_off: i64,
}

impl Hardware {
    /// Every clock at `now`.
    pub fn read(&self, now: Time) -> Clocks {
        Clocks {
            mono: MonoMs(self.ticks(now.saturating_sub(self.suspended))),
            boot: MonoMs(self.ticks(now)),
            wall: UnixMs((EPOCH + now).saturating_add_signed(self.wall_off)),
        }
    }

    /// When its monotonic clock will show `mono`, if it is not suspended before.
    pub fn when(&self, mono: MonoMs, now: Time) -> Time {
        let left = mono.0.saturating_sub(self.read(now).mono.0).min(NEVER);
        let rate = u64::try_from(1_000_000 + self.drift_ppm).expect("clocks run forward");
        let mut then = now + left * 1_000_000 / rate;
        while left < NEVER && self.read(then).mono < mono {
            then += 1;
        }
        then
    }

    fn ticks(&self, time: u64) -> u64 {
        let rate = u64::try_from(1_000_000 + self.drift_ppm).expect("clocks run forward");
        self.booted + time * rate / 1_000_000
    }
}
