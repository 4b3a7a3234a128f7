//! How a replica sees itself and its cluster, for operators.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use evermint_core::id::{Position, ReplicaId, SessionId};
use evermint_core::state::State;
use openraft::ServerState;

use crate::error::Error;
use crate::hearsay::Heard;
use crate::local::Local;
use crate::members;

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
    /// What is known of the members: on the leader what it heard, on others what it told them.
    pub heard: BTreeMap<ReplicaId, Heard>,
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

/// Asks the parts of a replica.
pub(crate) async fn of(local: &Local, disk_bytes: u64) -> Status {
    let metrics = local.metrics();
    let state = local.views.state();
    let membership = metrics.membership_config.membership();
    let mut shards = BTreeMap::new();
    for assignment in state.shards.values() {
        *shards.entry(assignment.replica).or_insert(0) += 1;
    }
    let committed = local.raft.with_raft_state(|s| s.committed).await;
    let removed = local.removed.load(Ordering::Relaxed);
    let ids = |ids: Vec<u64>| ids.into_iter().map(ReplicaId).collect();
    Status {
        replica: local.me.replica,
        session: local.session,
        role: match (&metrics.running_state, metrics.state) {
            (Err(_), _) | (_, ServerState::Shutdown) => Role::Stopped,
            (_, ServerState::Leader) => Role::Leader,
            (_, ServerState::Follower) => Role::Follower,
            (_, ServerState::Candidate) => Role::Candidate,
            (_, ServerState::Learner) => Role::Learner,
        },
        term: metrics.current_term,
        leader: metrics.current_leader.map(ReplicaId),
        position: state.meta.position,
        log: LogStatus {
            last: metrics.last_log_index,
            committed: committed.ok().flatten().map(|id| id.index),
            applied: metrics.last_applied.map(|id| id.index),
            snapshot: metrics.snapshot.map(|id| id.index),
            purged: metrics.purged.map(|id| id.index),
        },
        voters: ids(membership.voter_ids().collect()),
        learners: ids(membership.learner_ids().collect()),
        shards,
        lag: members::lag(&metrics),
        heard: heard(local, &state),
        staleness: local.staleness(),
        disk_bytes,
        stopped: match metrics.running_state {
            Err(e) => Some(e.to_string()),
            Ok(()) => removed.then(|| Error::Removed.to_string()),
        },
    }
}

/// What was heard of the members, and of this replica what it knows itself.
fn heard(local: &Local, state: &State) -> BTreeMap<ReplicaId, Heard> {
    local.hearsay.hear(local.me.replica, local.word());
    let now = local.clock.boot();
    let cluster = local.clock.now();
    local
        .hearsay
        .of(now, cluster, |id| state.replicas.contains_key(&id))
}
