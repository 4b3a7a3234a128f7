//! The end of a ticket, as the issuer client sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use evermint_core::mint::Fence;
use evermint_core::port::Clock;
use evermint_protocol::deadline::Deadline;

/// A [`Deadline`] on the clocks of this process; it never opens again once it has closed.
pub(crate) struct ClockFence {
    deadline: Deadline,
    clock: Arc<dyn Clock>,
    closed: AtomicBool,
}

impl ClockFence {
    pub(crate) fn new(deadline: Deadline, clock: Arc<dyn Clock>) -> Self {
        Self {
            deadline,
            clock,
            closed: AtomicBool::new(false),
        }
    }
}

impl Fence for ClockFence {
    fn passed(&self) -> bool {
        if self.closed.load(Ordering::Relaxed) {
            return true;
        }
        let passed = self.deadline.passed(self.clock.read());
        if passed {
            self.closed.store(true, Ordering::Relaxed);
        }
        passed
    }

    fn remaining(&self) -> Duration {
        if self.passed() {
            return Duration::ZERO;
        }
        self.deadline.remaining(self.clock.read())
    }
}
