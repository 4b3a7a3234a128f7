//! Raft's messages to other replicas.

use std::sync::Arc;
use std::time::Duration;

use evermint_core::id::ReplicaId;
use evermint_proto::replica::v1::append_response::Result as Appended;
use evermint_proto::replica::v1::install_snapshot_request::Part;
use evermint_proto::replica::v1::{self as wire};
use futures::stream::{self, StreamExt};
use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, Snapshot, Vote};
use tonic::{Code, Status};

use crate::identity::Member;
use crate::peers::{Client, Lane, Peers};
use crate::raft::{Peer, TypeConfig};
use crate::snapshot;
use crate::stored::{Members, from_wire, payload_bytes, to_wire, vote_from_wire, vote_to_wire};
use crate::view::Views;

type RpcError = RPCError<u64, Peer, RaftError<u64>>;

/// Makes links to peers.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) me: Member,
    pub(crate) peers: Peers,
    pub(crate) views: Arc<Views>,
    /// Time between two tries of a peer that cannot be reached: short, so that a replica that is
    /// back hears of its leader before it stands for election.
    pub(crate) retry: Duration,
    /// How long one snapshot may take.
    pub(crate) snapshot_deadline: Duration,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &Peer) -> Link {
        Link {
            network: self.clone(),
            to: target,
            address: node.address.clone(),
        }
    }
}

/// The link to one peer.
pub(crate) struct Link {
    network: Network,
    to: u64,
    /// Where it was when it became a member.
    address: String,
}

impl Link {
    fn client(&self, lane: Lane) -> Result<Client, Status> {
        let state = self.network.views.state();
        let known = state.replicas.get(&ReplicaId(self.to));
        let address = known.map_or(&self.address, |replica| &replica.peer_address);
        let client = self.network.peers.client(ReplicaId(self.to), address, lane);
        client.map_err(Status::unavailable)
    }

    fn envelope(&self) -> Option<wire::Envelope> {
        Some(wire::Envelope {
            cluster: self.network.me.cluster.0.to_be_bytes().to_vec().into(),
            from: self.network.me.replica.0,
            to: self.to,
        })
    }

    async fn try_append(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
    ) -> Result<AppendEntriesResponse<u64>, Status> {
        let entries = request.entries.iter().map(|entry| wire::Entry {
            id: Some(to_wire(entry.log_id)),
            payload: payload_bytes(entry),
        });
        let message = wire::AppendRequest {
            envelope: self.envelope(),
            vote: Some(vote_to_wire(request.vote)),
            previous: request.prev_log_id.map(to_wire),
            committed: request.leader_commit.map(to_wire),
            entries: entries.collect(),
        };
        let response = self.client(Lane::Raft)?.append(message).await?;
        match response.into_inner().result {
            Some(Appended::Stored(_)) => Ok(AppendEntriesResponse::Success),
            Some(Appended::Partly(partly)) => Ok(AppendEntriesResponse::PartialSuccess(
                partly.last.map(from_wire),
            )),
            Some(Appended::Conflict(_)) => Ok(AppendEntriesResponse::Conflict),
            Some(Appended::HigherVote(vote)) => {
                Ok(AppendEntriesResponse::HigherVote(vote_from_wire(vote)))
            }
            None => Err(Status::internal("an append without a result")),
        }
    }

    async fn try_vote(&self, request: VoteRequest<u64>) -> Result<VoteResponse<u64>, Status> {
        let message = wire::VoteRequest {
            envelope: self.envelope(),
            vote: Some(vote_to_wire(request.vote)),
            last: request.last_log_id.map(to_wire),
        };
        let response = self.client(Lane::Raft)?.vote(message).await?.into_inner();
        let vote = response.vote.map(vote_from_wire);
        Ok(VoteResponse::new(
            vote.ok_or_else(|| Status::internal("a vote without a vote"))?,
            response.last.map(from_wire),
            response.granted,
        ))
    }

    async fn try_snapshot(
        &self,
        vote: Vote<u64>,
        snapshot: Snapshot<TypeConfig>,
    ) -> Result<SnapshotResponse<u64>, Status> {
        let meta = snapshot.meta;
        let header = Part::Header(wire::SnapshotHeader {
            envelope: self.envelope(),
            vote: Some(vote_to_wire(vote)),
            last: meta.last_log_id.map(to_wire),
            membership: Members::from(&meta.last_membership).to_bytes().into(),
            snapshot_id: meta.snapshot_id,
        });
        let parts = std::iter::once(header).chain(snapshot::parts(snapshot.snapshot.0));
        let messages = parts.map(|part| wire::InstallSnapshotRequest { part: Some(part) });
        let mut client = self.client(Lane::Bulk)?;
        let response = client.install_snapshot(stream::iter(messages)).await?;
        let vote = response.into_inner().vote.map(vote_from_wire);
        vote.map(SnapshotResponse::new)
            .ok_or_else(|| Status::internal("an installation without a vote"))
    }
}

impl RaftNetwork<TypeConfig> for Link {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RpcError> {
        self.try_append(rpc).await.map_err(failed)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        _option: RPCOption,
    ) -> Result<VoteResponse<u64>, RpcError> {
        self.try_vote(rpc).await.map_err(failed)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<u64>,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        let deadline = self.network.snapshot_deadline;
        let sending = tokio::time::timeout(deadline, self.try_snapshot(vote, snapshot));
        let sent = tokio::select! {
            closed = cancel => return Err(closed.into()),
            sent = sending => sent,
        };
        let status = match sent {
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(status)) => status,
            Err(_) => Status::deadline_exceeded("the snapshot took too long"),
        };
        Err(StreamingError::Unreachable(Unreachable::new(&status)))
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(self.network.retry))
    }
}

/// A peer that cannot be reached, or is not who we mean, is left alone for a moment.
fn failed(status: Status) -> RpcError {
    match status.code() {
        Code::Unavailable
        | Code::FailedPrecondition
        | Code::Unimplemented
        | Code::Unauthenticated
        | Code::PermissionDenied => Unreachable::new(&status).into(),
        _ => NetworkError::new(&status).into(),
    }
}

/// A stream of messages that ends at the first error, for receivers.
pub(crate) async fn next_part(
    messages: &mut tonic::Streaming<wire::InstallSnapshotRequest>,
) -> Result<Option<Part>, Status> {
    match messages.next().await {
        Some(message) => Ok(message?.part),
        None => Ok(None),
    }
}
