//! The time that a leader writes into the log: by the wall clocks of a majority of the voters, as
//! it knows them from beats. One clock that is wrong, its own included, moves nothing.

use std::sync::Arc;

use evermint_core::id::ReplicaId;
use evermint_core::time::UnixMs;
use evermint_protocol::clock::majority;

use crate::clock::Timekeeper;
use crate::hearsay::Hearsay;
use crate::raft::Raft;
use crate::view::Views;

/// What makes stamps.
#[derive(Clone)]
pub(crate) struct Stamper {
    pub(crate) me: ReplicaId,
    pub(crate) raft: Raft,
    pub(crate) views: Arc<Views>,
    pub(crate) clock: Timekeeper,
    pub(crate) hearsay: Arc<Hearsay>,
}

impl Stamper {
    /// The stamp for an entry that this replica appends as the leader; `None` until it has heard
    /// of a majority in this life. It hears of them through the leaders before it, too.
    pub(crate) fn stamp(&self) -> Option<UnixMs> {
        let membership = self
            .raft
            .server_metrics()
            .borrow()
            .membership_config
            .clone();
        let state = self.views.state();
        // One that is being removed has no say any more. Before the bootstrap nobody is registered.
        let counts =
            |voter: &ReplicaId| state.replicas.is_empty() || state.replicas.contains_key(voter);
        let voters = membership.membership().voter_ids().map(ReplicaId);
        let voters: Vec<_> = voters.filter(counts).collect();
        let now = self.clock.boot();
        let known = voters.iter().filter_map(|voter| match *voter == self.me {
            true => Some(self.clock.wall()),
            false => self.hearsay.wall(*voter, now),
        });
        Some(self.clock.stamp(majority(known, voters.len())?))
    }
}
