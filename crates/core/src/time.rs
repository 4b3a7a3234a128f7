//! Time as the domain knows it: numbers that arrive from outside.

use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::Position;

/// Milliseconds since 1970-01-01T00:00:00Z on the *cluster clock*: the leader's stamps, which
/// never run back (see `evermint_protocol::clock`).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct UnixMs(pub u64);

impl UnixMs {
    /// The time from `earlier` to this one; zero if it is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// This time less `d`, not below zero.
    pub fn minus(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(millis(d)))
    }
}

impl Add<Duration> for UnixMs {
    type Output = Self;
    fn add(self, d: Duration) -> Self {
        Self(self.0.saturating_add(millis(d)))
    }
}

/// Milliseconds on one process's monotonic clock. Meaningless in any other process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonoMs(pub u64);

impl MonoMs {
    /// The time from `earlier` to this one; zero if it is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for MonoMs {
    type Output = Self;
    fn add(self, d: Duration) -> Self {
        Self(self.0.saturating_add(millis(d)))
    }
}

impl Sub<Duration> for MonoMs {
    type Output = Self;
    fn sub(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(millis(d)))
    }
}

/// Whole milliseconds of `d`, saturating.
pub fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// When a command takes its place in history: what `apply` knows of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The command's number.
    pub position: Position,
    /// The leader's clock, clamped so that it never runs back.
    pub at: UnixMs,
}

/// One reading of every clock that a process has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    /// Monotonic; stands still while the machine is suspended.
    pub mono: MonoMs,
    /// Since boot; goes on while the machine is suspended.
    pub boot: MonoMs,
    /// The wall clock, which a person or NTP may set.
    pub wall: UnixMs,
}
