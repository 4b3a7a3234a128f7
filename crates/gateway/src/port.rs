//! What the gateway needs from outside beside the domain's ports; the binary wires both to the
//! crates that know issuers and Raft, of which this crate knows nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::HeaderMap;
use evermint_core::audit::Origin;
use evermint_core::credential::RefreshConfig;
use evermint_core::id::{Position, ReplicaId, SessionId};
use evermint_core::port::ProposeError;
use evermint_core::secret::Secret;
use evermint_core::strategy::Strategy;

/// Something wrong with one field of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldProblem {
    /// The field, as the request names it: `token_url`, `material["client_id"]`.
    pub field: String,
    /// What is wrong and what is allowed, as the rest of a sentence; never a value that may be
    /// secret.
    pub problem: String,
}

/// What a refresh has to look like before it may be stored: known to those who talk to issuers.
pub trait RefreshPolicy: Send + Sync + 'static {
    /// Whether `strategy` counts this material as secret. It is sealed then, wherever the request
    /// put it.
    fn is_secret(&self, strategy: Strategy, material: &str) -> bool;

    /// Whether `strategy` knows this material.
    fn takes(&self, strategy: Strategy, material: &str) -> bool;

    /// Every problem of a configuration, in the order of its fields: material that is missing,
    /// malformed or unknown, and a token endpoint that is not allowed. Fields are named as in
    /// `evermint.v1`; material is `material["name"]` whether it is secret or not.
    fn check(
        &self,
        config: &RefreshConfig,
        secrets: &BTreeMap<String, Secret>,
    ) -> Vec<FieldProblem>;
}

/// The web, as far as this replica may reach it.
#[async_trait]
pub trait Web: Send + Sync + 'static {
    /// The body of what is at `url`, of at most 1 MiB, within a few seconds.
    ///
    /// # Errors
    /// Why there is none, for the log.
    async fn get(&self, url: &str) -> Result<Vec<u8>, String>;

    /// The HTTP status that is answered to a call. It is made once, follows no redirect, and its body
    /// is not read.
    ///
    /// # Errors
    /// Why there is none, as a sentence for an operator that holds no secret.
    async fn post(&self, call: Post) -> Result<u16, String>;
}

/// A call that carries a credential.
pub struct Post {
    /// Where to; `https`, but for loopback where that is allowed.
    pub url: String,
    /// Its headers; those that are secret are marked sensitive.
    pub headers: HeaderMap,
    /// Its body.
    pub body: serde_json::Value,
    /// How long it may take.
    pub time: Duration,
}

/// The Raft group, as far as operators see and change it.
#[async_trait]
pub trait ClusterControl: Send + Sync + 'static {
    /// The group as this replica sees it now.
    fn status(&self) -> RaftStatus;

    /// Takes a replica out, at the wish of `by`: its vote first, then its record. `false` if there
    /// is no such member.
    ///
    /// # Errors
    /// [`ControlError`].
    async fn remove_replica(
        &self,
        by: Option<Origin>,
        replica: ReplicaId,
    ) -> Result<bool, ControlError>;
}

/// Why the group was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The change would do harm, for this reason.
    #[error("{0}")]
    Refused(String),
    /// No outcome is known.
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

/// The Raft group as one replica sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftStatus {
    /// What this replica is.
    pub role: Role,
    /// The term.
    pub term: u64,
    /// The leader, if it knows one.
    pub leader: Option<ReplicaId>,
    /// Who votes.
    pub voters: BTreeSet<ReplicaId>,
    /// The newest index in its log.
    pub last_log_index: u64,
    /// The newest index that it has applied.
    pub applied_index: u64,
    /// The index of its newest snapshot; 0 without one.
    pub snapshot_index: u64,
    /// What it knows of the members, from itself and from what the leader tells.
    pub peers: BTreeMap<ReplicaId, Peer>,
}

/// What is known of one member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its life.
    pub session: Option<SessionId>,
    /// Log entries that it lacks.
    pub lag: Option<u64>,
    /// Time since the leader heard of it.
    pub last_heard: Option<Duration>,
    /// Nothing of the history up to here is left in its log.
    pub erased: Option<Position>,
    /// The names of the key-encryption keys that it has; first the one that it wants to wrap all
    /// data keys.
    pub keks: Vec<String>,
    /// By how many milliseconds its wall clock is ahead of the cluster clock.
    pub clock_ahead_ms: Option<i64>,
}

/// What a replica is to the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words of Raft")]
pub enum Role {
    Leader,
    Follower,
    Candidate,
    Learner,
    /// Shut down, or no member yet.
    Down,
}
