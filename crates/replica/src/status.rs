//! How a replica sees itself and its cluster, for operators.

use std::collections::BTreeMap;
use std::time::Duration;

use evermint_core::id::{Position, ReplicaId, SessionId};

/// How a replica sees itself and its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Who it is.
    pub replica: ReplicaId,
    /// In which life.
    pub session: SessionId,
    /// What it does in Raft.
    pub role: Role,
    /// Its Raft term.
    pub term: u64,
    /// Whom it follows.
    pub leader: Option<ReplicaId>,
    /// The newest position that it has applied.
    pub position: Position,
    /// Indices of its log.
    pub log: LogStatus,
    /// Those who vote.
    pub voters: Vec<ReplicaId>,
    /// Those who follow without a vote: they are on their way in.
    pub learners: Vec<ReplicaId>,
    /// Shards owned by each replica.
    pub shards: BTreeMap<ReplicaId, usize>,
    /// Only on the leader: by how many log entries each other replica is behind; `None` while
    /// nothing is known of it.
    pub lag: BTreeMap<ReplicaId, Option<u64>>,
    /// Time since it last knew itself caught up with a leader.
    pub staleness: Option<Duration>,
    /// Bytes of its store on disk.
    pub disk_bytes: u64,
    /// Why it has stopped, if it has.
    pub stopped: Option<String>,
}

/// What a replica does in Raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Role {
    Leader,
    Follower,
    Candidate,
    /// Not a voter: new, or removed.
    Learner,
    Stopped,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Learner => "learner",
            Self::Stopped => "stopped",
        })
    }
}

/// Indices of a Raft log; `None` before there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStatus {
    /// The newest entry stored.
    pub last: Option<u64>,
    /// The newest entry known to be committed.
    pub committed: Option<u64>,
    /// The newest entry applied.
    pub applied: Option<u64>,
    /// The newest entry that the snapshot contains.
    pub snapshot: Option<u64>,
    /// The newest entry that was cut off.
    pub purged: Option<u64>,
}
