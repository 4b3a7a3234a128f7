//! A clock that goes with tokio's, paused or not.

use std::sync::atomic::{AtomicU64, Ordering};

use evermint_core::port::Clock;
use evermint_core::time::{Clocks, MonoMs, UnixMs};
use tokio::time::Instant;

/// All clocks run with tokio's; each can be pushed ahead by itself.
#[derive(Debug)]
pub struct TokioClock {
    start: Instant,
    boot_ahead: AtomicU64,
    wall_ahead: AtomicU64,
}

/// Where the wall clock starts, in milliseconds since 1970.
const WALL_START: u64 = 1_800_000_000_000;

impl Default for TokioClock {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            boot_ahead: AtomicU64::new(0),
            wall_ahead: AtomicU64::new(0),
        }
    }
}

impl TokioClock {
    /// The machine was suspended for `ms`: only boot time knows.
    pub fn suspend(&self, ms: u64) {
        self.boot_ahead.fetch_add(ms, Ordering::Relaxed);
    }

    /// Somebody set the wall clock ahead by `ms`.
    pub fn set_wall_ahead(&self, ms: u64) {
        self.wall_ahead.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for TokioClock {
    fn read(&self) -> Clocks {
        let ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Clocks {
            mono: MonoMs(ms),
            boot: MonoMs(ms + self.boot_ahead.load(Ordering::Relaxed)),
            wall: UnixMs(WALL_START + ms + self.wall_ahead.load(Ordering::Relaxed)),
        }
    }
}
