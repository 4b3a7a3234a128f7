//! What all parts of a running agent share.

use evermint_client::Client;

use crate::ca::Ca;
use crate::config::Unbound;
use crate::metrics::Counters;
use crate::rotation::Rotations;
use crate::upstream::{Limits, Upstream};

pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) upstream: Upstream,
    pub(crate) ca: Ca,
    pub(crate) limits: Limits,
    pub(crate) unbound: Unbound,
    pub(crate) rotations: Rotations,
    pub(crate) counters: Counters,
}
