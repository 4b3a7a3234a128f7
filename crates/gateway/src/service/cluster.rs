//! `evermint.v1.Cluster`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evermint_core::admission::{JOIN_TOKEN_LIFETIME_MAX, JoinTicket, JoinTokenId, sha256};
use evermint_core::command::Command;
use evermint_core::id::ReplicaId;
use evermint_core::secret::Secret;
use evermint_core::state::State;
use evermint_core::time::millis;
use evermint_proto::v1;
use evermint_proto::v1::cluster_server::Cluster;
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::Services;
use crate::rim::Rim;
use crate::{origin, show, status};

/// How long a join token is good for if nobody says.
const JOIN_TOKEN_LIFETIME: Duration = Duration::from_secs(15 * 60);

#[tonic::async_trait]
impl Cluster for Services {
    async fn get_cluster_status(
        &self,
        request: Request<v1::GetClusterStatusRequest>,
    ) -> Result<Response<v1::GetClusterStatusResponse>, Status> {
        let request = request.into_inner();
        let state = self.read(request.consistent).await?;
        let state_hash = match request.state_hash {
            true => hash(Arc::clone(&state)).await?,
            false => String::new(),
        };
        let view = &self.ports.view;
        let raft = self.ports.control.status();
        let (replica, session) = view.identity();

        let mut owned: BTreeMap<ReplicaId, u32> = BTreeMap::new();
        for assignment in state.shards.values() {
            *owned.entry(assignment.replica).or_default() += 1;
        }
        let replicas = state
            .replicas
            .values()
            .map(|member| {
                let peer = raft.peers.get(&member.id).cloned().unwrap_or_default();
                v1::Replica {
                    id: member.id.0,
                    peer_address: member.peer_address.clone(),
                    api_address: member.api_address.clone(),
                    joined_at_ms: member.joined_at.0,
                    voter: raft.voters.contains(&member.id),
                    session: peer.session.map(|s| s.to_string()).unwrap_or_default(),
                    lag: peer.lag,
                    last_heard_ms: peer.last_heard.map(millis),
                    shards: owned.get(&member.id).copied().unwrap_or_default(),
                    erased_position: peer.erased.map(|position| position.0),
                    clock_ahead_ms: peer.clock_ahead_ms,
                }
            })
            .collect();
        let settings = state.meta.settings.as_ref();
        let shards = settings.map_or(0, |s| u32::from(s.shards));
        Ok(Response::new(v1::GetClusterStatusResponse {
            replica: replica.0,
            session: session.to_string(),
            role: show::role(raft.role).into(),
            term: raft.term,
            leader: raft.leader.map(|id| id.0),
            replicas,
            position: state.meta.position.0,
            last_log_index: raft.last_log_index,
            applied_index: raft.applied_index,
            snapshot_index: raft.snapshot_index,
            staleness_ms: view.staleness().map(millis),
            server_time_ms: view.now().0,
            settings: settings.map(show::settings),
            placement_version: state.meta.placement_version,
            unowned_shards: shards.saturating_sub(owned.values().sum()),
            counts: Some(v1::Counts {
                providers: count(state.providers.len()),
                credentials: count(state.credentials.len()),
                tickets: count(state.ticketed().count()),
                routes: count(state.routes.len()),
                sandboxes: count(state.sandboxes.len()),
            }),
            version: self.limits.version.to_owned(),
            state_hash,
        }))
    }

    async fn remove_replica(
        &self,
        request: Request<v1::RemoveReplicaRequest>,
    ) -> Result<Response<v1::RemoveReplicaResponse>, Status> {
        let id = request.into_inner().replica;
        let mut rim = Rim::default();
        if id == 0 {
            rim.problem("replica", "must be the id of a replica, which starts at 1");
        }
        rim.finish(|| Some(()))?;
        let removed = self
            .ports
            .control
            .remove_replica(origin::current(), ReplicaId(id))
            .await
            .map_err(|e| status::uncontrolled(&e))?;
        Ok(Response::new(v1::RemoveReplicaResponse { removed }))
    }

    async fn create_join_token(
        &self,
        request: Request<v1::CreateJoinTokenRequest>,
    ) -> Result<Response<v1::CreateJoinTokenResponse>, Status> {
        let lifetime_secs = request.into_inner().lifetime_secs;
        let mut rim = Rim::default();
        if lifetime_secs > JOIN_TOKEN_LIFETIME_MAX.as_secs() {
            let most = JOIN_TOKEN_LIFETIME_MAX.as_secs();
            rim.problem("lifetime_secs", format!("must be at most {most}"));
        }
        rim.finish(|| Some(()))?;
        let lifetime = match lifetime_secs {
            0 => JOIN_TOKEN_LIFETIME,
            secs => Duration::from_secs(secs),
        };
        let mut token = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(&mut *token).map_err(|_| status::internal("no randomness"))?;
        let token = Secret::new(*token);
        let id = JoinTokenId(sha256(token.expose()));
        let lifetime_ms = millis(lifetime);
        let create = Command::CreateJoinToken { id, lifetime_ms };
        let written = self.propose(create).await?;
        self.reach(written.position).await?;
        let state = self.state();
        let gone = || status::internal("the join token is gone already");
        let made = state.join_tokens.get(&id).ok_or_else(gone)?;
        let authority = state.authority.as_ref().ok_or_else(gone)?;
        let ticket = JoinTicket {
            authority: sha256(&authority.certificate),
            token,
        };
        Ok(Response::new(v1::CreateJoinTokenResponse {
            token: ticket.expose(),
            expires_at_ms: made.expires_at.0,
            server_time_ms: self.ports.view.now().0,
        }))
    }
}

/// The hash of a state, off the threads that serve others: it reads every record.
async fn hash(state: Arc<State>) -> Result<String, Status> {
    let hash = tokio::task::spawn_blocking(move || state.hash()).await;
    let hash = hash.map_err(|_| status::internal("the state could not be hashed"))?;
    Ok(format!("{hash:016x}"))
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
