//! The gateway's ports, answered by the minter and by consensus.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use async_trait::async_trait;
use evermint_core::audit::Origin;
use evermint_core::command::Refusal;
use evermint_core::credential::RefreshConfig;
use evermint_core::id::ReplicaId;
use evermint_core::secret::Secret;
use evermint_core::strategy::Strategy;
use evermint_gateway::{
    ClusterControl, ControlError, FieldProblem, Peer, Post, RaftStatus, RefreshPolicy, Role,
};
use evermint_minter::{HttpMinter, refresher};
use evermint_replica::{Node, Status};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How old the status of the Raft group may be.
const STATUS_EVERY: Duration = Duration::from_millis(100);

/// The gateway's question what a refresh has to look like, answered by the minter.
pub(super) struct Policy(pub(super) Arc<HttpMinter>);

impl RefreshPolicy for Policy {
    fn is_secret(&self, strategy: Strategy, material: &str) -> bool {
        let mut fields = refresher(strategy).schema().fields();
        fields.any(|field| field.secret && field.name == material)
    }

    fn takes(&self, strategy: Strategy, material: &str) -> bool {
        let mut fields = refresher(strategy).schema().fields();
        fields.any(|field| field.name == material)
    }

    fn check(
        &self,
        config: &RefreshConfig,
        secrets: &BTreeMap<String, Secret>,
    ) -> Vec<FieldProblem> {
        let problems = self.0.validate(config, secrets).into_iter();
        problems
            .map(|error| FieldProblem {
                field: match error.field.as_str() {
                    "token_url" | "revoke_url" | "scopes" | "outputs" => error.field,
                    material => format!("material[{material:?}]"),
                },
                problem: error.problem,
            })
            .collect()
    }
}

/// The gateway's web, under the minter's rules.
pub(super) struct Web(pub(super) evermint_minter::Web);

#[async_trait]
impl evermint_gateway::Web for Web {
    async fn get(&self, url: &str) -> Result<Vec<u8>, String> {
        self.0.get(url).await
    }

    async fn post(&self, call: Post) -> Result<u16, String> {
        let Post {
            url,
            headers,
            body,
            time,
        } = call;
        self.0.post(&url, headers, &body, time).await
    }
}

/// The gateway's view of the Raft group.
pub(super) struct Control {
    pub(super) node: Node,
    pub(super) status: watch::Receiver<RaftStatus>,
}

#[async_trait]
impl ClusterControl for Control {
    fn status(&self) -> RaftStatus {
        self.status.borrow().clone()
    }

    async fn remove_replica(
        &self,
        by: Option<Origin>,
        replica: ReplicaId,
    ) -> Result<bool, ControlError> {
        use evermint_replica::Error;
        match self.node.remove_replica(by, replica).await {
            Ok(()) => Ok(true),
            Err(Error::Refused(Refusal::NotFound(_))) => Ok(false),
            Err(Error::Propose(error)) => Err(ControlError::Propose(error)),
            Err(error) => Err(ControlError::Refused(error.to_string())),
        }
    }
}

/// Keeps the status of the Raft group at hand, and fails when consensus has stopped for good.
pub(super) async fn keep_status(
    node: Node,
    tell: watch::Sender<RaftStatus>,
    stop: CancellationToken,
) -> Result<()> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(STATUS_EVERY) => {}
        }
        let status = node.status().await;
        if let Some(why) = status.stopped {
            return Err(anyhow!(why));
        }
        tell.send_replace(raft_status(status));
    }
}

/// In the gateway's words.
pub(super) fn raft_status(status: Status) -> RaftStatus {
    let mut peers: BTreeMap<ReplicaId, Peer> = BTreeMap::new();
    for (id, heard) in status.heard {
        let peer = peers.entry(id).or_default();
        peer.session = Some(heard.session);
        peer.last_heard = Some(heard.age);
        peer.erased = Some(heard.erased);
        peer.keks = heard.keks;
        peer.clock_ahead_ms = Some(heard.ahead_ms);
    }
    for (id, lag) in status.lag {
        peers.entry(id).or_default().lag = lag;
    }
    RaftStatus {
        role: match status.role {
            evermint_replica::Role::Leader => Role::Leader,
            evermint_replica::Role::Follower => Role::Follower,
            evermint_replica::Role::Candidate => Role::Candidate,
            evermint_replica::Role::Learner => Role::Learner,
            evermint_replica::Role::Stopped => Role::Down,
        },
        term: status.term,
        leader: status.leader,
        voters: status.voters.into_iter().collect(),
        last_log_index: status.log.last.unwrap_or(0),
        applied_index: status.log.applied.unwrap_or(0),
        snapshot_index: status.log.snapshot.unwrap_or(0),
        peers,
    }
}
