//! What the driver and the readers share.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::error::Refusal;
use crate::metrics::Counters;
use crate::report::Giver;
use crate::snapshot::Snapshot;

/// Written by the driver alone, as a whole; read by everyone, without waiting.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) snapshot: ArcSwap<Snapshot>,
    pub(crate) counters: Counters,
    /// `None` before anybody gave something.
    pub(crate) giver: ArcSwapOption<Giver>,
}

impl Shared {
    pub(crate) fn new(empty: Snapshot) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(empty),
            counters: Counters::default(),
            giver: ArcSwapOption::empty(),
        }
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }
}

/// What wakes those who wait.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// Counts the contents.
    pub(crate) version: u64,
    /// Counts the rounds in which no endpoint served and one refused.
    pub(crate) refusals: u64,
    /// The refusal of the last such round.
    pub(crate) refusal: Option<Refusal>,
}
