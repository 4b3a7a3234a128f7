//! The types with which openraft is used.

use evermint_core::command::Answer;
use serde::{Deserialize, Serialize};

use crate::snapshot::SnapshotData;
use crate::stored::EncodedBatch;

openraft::declare_raft_types!(
    /// Batches of proposals go in, their answers come out.
    pub(crate) TypeConfig:
        D = EncodedBatch,
        R = Vec<Answer>,
        NodeId = u64,
        Node = Peer,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = SnapshotData,
);

pub(crate) type Raft = openraft::Raft<TypeConfig>;
pub(crate) type Entry = openraft::Entry<TypeConfig>;
pub(crate) type Metrics = openraft::RaftMetrics<u64, Peer>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<u64, Peer>;
pub(crate) type StoredMembership = openraft::StoredMembership<u64, Peer>;

/// A member of the Raft cluster, as its membership records it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    /// Where other replicas reached it when it became a member. The replicated state may know a
    /// newer address.
    pub(crate) address: String,
}

impl Peer {
    pub(crate) fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
        }
    }
}
