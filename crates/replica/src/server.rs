//! The replica port: what a replica answers to its peers.
//!
//! It is open before the replica has a place in a cluster, so that newcomers see each other; all
//! but `Hello` is refused until then.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use evermint_core::admission::BadJoinToken;
use evermint_core::command::{Command, Done, Proposal, Refusal};
use evermint_core::id::{InstallationId, ReplicaId};
use evermint_core::port::ProposeError;
use evermint_proto::replica::v1::append_response::Result as Appended;
use evermint_proto::replica::v1::install_snapshot_request::Part;
use evermint_proto::replica::v1::propose_response::Result as Proposed;
use evermint_proto::replica::v1::read_index_response::Result as ReadAt;
use evermint_proto::replica::v1::replica_server::{Replica, ReplicaServer};
use evermint_proto::replica::v1::{self as wire};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest};
use openraft::{Snapshot, StoredMembership};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Extensions, Request, Response, Status, Streaming};

use crate::batch::Rejection;
use crate::local::Local;
use crate::network::next_part;
use crate::peers::MESSAGE_BYTES_MAX;
use crate::propose;
use crate::pulse;
use crate::raft::{Peer, SnapshotMeta};
use crate::refused::Reason;
use crate::security::{self, Asked, Security};
use crate::snapshot::{Assembly, SnapshotData};
use crate::stored::{Members, Unreadable, entry, from_wire, to_wire, vote_from_wire, vote_to_wire};

/// How long calls under way may take when the replica stops.
const PATIENCE: Duration = Duration::from_millis(500);

/// What peers see of a replica.
pub(crate) struct Door {
    pub(crate) installation: InstallationId,
    pub(crate) peer_address: String,
    /// It is allowed to found a cluster.
    pub(crate) may_found: bool,
    /// How it knows who is at the other end.
    security: Security,
    /// Set once the replica has a place.
    pub(crate) local: OnceLock<Arc<Local>>,
    /// One snapshot is taken in at a time.
    installing: Semaphore,
}

impl Door {
    pub(crate) fn new(
        installation: InstallationId,
        peer_address: String,
        may_found: bool,
        security: Security,
    ) -> Self {
        Self {
            installation,
            peer_address,
            may_found,
            security,
            local: OnceLock::new(),
            installing: Semaphore::new(1),
        }
    }

    fn running(&self) -> Result<&Arc<Local>, Status> {
        let local = self.local.get();
        local.ok_or_else(|| Status::failed_precondition("this replica is in no cluster yet"))
    }

    /// The running replica, if it is the one that is meant, and a message is from whom it says.
    /// At this address another one may have lived before. A member that was removed is heard no
    /// more, but for its beats, by whose answer it learns that it was.
    fn meant(
        &self,
        extensions: &Extensions,
        envelope: Option<&wire::Envelope>,
        sent: Sent,
    ) -> Result<&Arc<Local>, Status> {
        let local = self.running()?;
        let envelope = envelope.ok_or_else(|| Status::invalid_argument("no envelope"))?;
        if envelope.cluster[..] != local.me.cluster.0.to_be_bytes() {
            return Err(Status::failed_precondition(
                "this replica is in another cluster",
            ));
        }
        if envelope.to != local.me.replica.0 {
            let problem = format!("this is replica {}, not {}", local.me.replica, envelope.to);
            return Err(Status::failed_precondition(problem));
        }
        let from = ReplicaId(envelope.from);
        if !matches!(self.security, Security::Plain) {
            let names = self.security.names();
            let names = names.ok_or_else(|| Status::unavailable("no certificate yet"))?;
            let name = names.of(from, local.address(from).as_deref());
            let name = name.map_err(Status::permission_denied)?;
            security::check_certificate(extensions, name.as_ref())?;
        }
        let candidate = match sent {
            Sent::Ballot(ballot) => ballot.map(|ballot| ballot.candidate),
            Sent::Beat | Sent::Call => None,
        };
        if candidate.is_some_and(|candidate| candidate != from.0) {
            let problem = format!("replica {from} speaks for another one");
            return Err(Status::permission_denied(problem));
        }
        if !matches!(sent, Sent::Beat) && local.was_removed(from) {
            let problem = format!("replica {from} was removed from this cluster");
            return Err(Status::failed_precondition(problem));
        }
        Ok(local)
    }
}

/// What a message is, as far as it matters for whether it is heard.
enum Sent<'a> {
    /// It speaks for a candidate or leader, which has to be its sender.
    Ballot(Option<&'a wire::Ballot>),
    Beat,
    Call,
}

/// The service itself.
#[derive(Clone)]
pub(crate) struct Service(pub(crate) Arc<Door>);

#[tonic::async_trait]
impl Replica for Service {
    async fn append(
        &self,
        request: Request<wire::AppendRequest>,
    ) -> Result<Response<wire::AppendResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let envelope = request.envelope.as_ref();
        let local = self
            .0
            .meant(&extensions, envelope, Sent::Ballot(request.vote.as_ref()))?;
        let entries = request.entries.into_iter().map(|e| {
            let id = e.id.map(from_wire).ok_or(Unreadable("an entry"))?;
            entry(id, e.payload)
        });
        let append = AppendEntriesRequest {
            vote: vote_from_wire(present(request.vote, "vote")?),
            prev_log_id: request.previous.map(from_wire),
            leader_commit: request.committed.map(from_wire),
            entries: entries.collect::<Result<_, _>>().map_err(unreadable)?,
        };
        let result = match local.raft.append_entries(append).await.map_err(stopped)? {
            AppendEntriesResponse::Success => Appended::Stored(wire::Empty {}),
            AppendEntriesResponse::PartialSuccess(last) => Appended::Partly(wire::PartlyStored {
                last: last.map(to_wire),
            }),
            AppendEntriesResponse::Conflict => Appended::Conflict(wire::Empty {}),
            AppendEntriesResponse::HigherVote(vote) => Appended::HigherVote(vote_to_wire(vote)),
        };
        let result = Some(result);
        Ok(Response::new(wire::AppendResponse { result }))
    }

    async fn vote(
        &self,
        request: Request<wire::VoteRequest>,
    ) -> Result<Response<wire::VoteResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let envelope = request.envelope.as_ref();
        let local = self
            .0
            .meant(&extensions, envelope, Sent::Ballot(request.vote.as_ref()))?;
        let vote = VoteRequest::new(
            vote_from_wire(present(request.vote, "vote")?),
            request.last.map(from_wire),
        );
        let response = local.raft.vote(vote).await.map_err(stopped)?;
        Ok(Response::new(wire::VoteResponse {
            vote: Some(vote_to_wire(response.vote)),
            granted: response.vote_granted,
            last: response.last_log_id.map(to_wire),
        }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<wire::InstallSnapshotRequest>>,
    ) -> Result<Response<wire::InstallSnapshotResponse>, Status> {
        let (_, extensions, mut messages) = request.into_parts();
        let Some(Part::Header(header)) = next_part(&mut messages).await? else {
            return Err(Status::invalid_argument(
                "a snapshot begins with its header",
            ));
        };
        let sent = Sent::Ballot(header.vote.as_ref());
        let local = self.0.meant(&extensions, header.envelope.as_ref(), sent)?;
        let _alone = self
            .0
            .installing
            .try_acquire()
            .map_err(|_| Status::resource_exhausted("another snapshot is being installed"))?;
        let vote = vote_from_wire(present(header.vote, "vote")?);
        let members: Members = postcard::from_bytes(&header.membership)
            .map_err(|_| unreadable(Unreadable("a membership")))?;
        let meta = SnapshotMeta {
            last_log_id: header.last.map(from_wire),
            last_membership: StoredMembership::<u64, Peer>::from(members),
            snapshot_id: header.snapshot_id,
        };
        let receiving = tokio::time::timeout(local.timing.snapshot, receive(messages));
        let received = receiving.await;
        let data =
            received.map_err(|_| Status::deadline_exceeded("the snapshot took too long"))??;
        let snapshot = Snapshot {
            meta,
            snapshot: Box::new(data),
        };
        let installed = local.raft.install_full_snapshot(vote, snapshot).await;
        let installed = installed.map_err(stopped)?;
        let vote = Some(vote_to_wire(installed.vote));
        Ok(Response::new(wire::InstallSnapshotResponse { vote }))
    }

    async fn propose(
        &self,
        request: Request<wire::ProposeRequest>,
    ) -> Result<Response<wire::ProposeResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let envelope = request.envelope.as_ref();
        let local = self.0.meant(&extensions, envelope, Sent::Call)?;
        let proposal: Proposal = postcard::from_bytes(&request.proposal)
            .map_err(|_| unreadable(Unreadable("a proposal")))?;
        if proposal.command.is_leaders_own() {
            let name = proposal.command.name();
            let problem = format!("{name} is for the leader alone to propose");
            return Err(Status::permission_denied(problem));
        }
        let result = match local.batcher.submit(proposal).await {
            Ok(answer) => {
                let answer = postcard::to_stdvec(&answer).expect("answers are plain data");
                Proposed::Answer(answer.into())
            }
            Err(Rejection::NotLeader) => Proposed::NotLeader(wire::Empty {}),
            Err(Rejection::NotTaken(problem)) => return Err(Status::invalid_argument(problem)),
            Err(Rejection::Unknown(problem)) => return Err(Status::unknown(problem)),
        };
        let result = Some(result);
        Ok(Response::new(wire::ProposeResponse { result }))
    }

    async fn beat(
        &self,
        request: Request<wire::BeatRequest>,
    ) -> Result<Response<wire::BeatResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let envelope = request.envelope.as_ref();
        let local = self.0.meant(&extensions, envelope, Sent::Beat)?;
        let from = request.envelope.as_ref().map_or(0, |e| e.from);
        let result = Some(pulse::answer(local, ReplicaId(from), &request));
        Ok(Response::new(wire::BeatResponse { result }))
    }

    async fn read_index(
        &self,
        request: Request<wire::ReadIndexRequest>,
    ) -> Result<Response<wire::ReadIndexResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let envelope = request.envelope.as_ref();
        let local = self.0.meant(&extensions, envelope, Sent::Call)?;
        let result = match local.leads() {
            false => ReadAt::NotLeader(wire::Empty {}),
            true => {
                let position = local.confirmed_position().await;
                ReadAt::Position(position.map_err(Status::unavailable)?.0)
            }
        };
        let result = Some(result);
        Ok(Response::new(wire::ReadIndexResponse { result }))
    }

    async fn hello(
        &self,
        _request: Request<wire::HelloRequest>,
    ) -> Result<Response<wire::HelloResponse>, Status> {
        let member = self.0.local.get().map(|local| local.me);
        Ok(Response::new(wire::HelloResponse {
            cluster: member
                .map(|m| m.cluster.0.to_be_bytes().to_vec().into())
                .unwrap_or_default(),
            replica: member.map_or(0, |m| m.replica.0),
            installation: self.0.installation.0.to_be_bytes().to_vec().into(),
            peer_address: self.0.peer_address.clone(),
            would_found: member.is_none() && self.0.may_found,
        }))
    }

    async fn join(
        &self,
        request: Request<wire::JoinRequest>,
    ) -> Result<Response<wire::JoinResponse>, Status> {
        let local = self.0.running()?;
        let from = request.remote_addr().map(|address| address.ip());
        let (_, extensions, request) = request.into_parts();
        let answer = self.0.let_in(local, &extensions, request).await;
        let reason = match &answer {
            Ok(answer) if answer.keks_lacking.is_empty() => None,
            Ok(_) => Some(Reason::AnotherKek),
            Err(status) => Reason::of(status),
        };
        if let Some(reason) = reason {
            local.refused.note(from, reason, local.clock.now());
        }
        answer.map(Response::new)
    }
}

impl Door {
    /// Gives a newcomer a place, or says what it lacks.
    async fn let_in(
        &self,
        local: &Local,
        extensions: &Extensions,
        request: wire::JoinRequest,
    ) -> Result<wire::JoinResponse, Status> {
        let installation = <[u8; 16]>::try_from(&request.installation[..])
            .map_err(|_| Status::invalid_argument("installation: must be 16 bytes"))?;
        if request.peer_address.is_empty() {
            return Err(Status::invalid_argument("peer_address: must not be empty"));
        }
        let installation = InstallationId(u128::from_be_bytes(installation));
        match &self.security {
            Security::BuiltIn(built_in) => {
                let asked = built_in.asked(&request)?;
                self.knows(local, &asked).await?;
                if let Some(refused) = without_kek(local, &request) {
                    return Ok(refused);
                }
                let admit = Command::AdmitReplica {
                    token: asked.token,
                    installation,
                    key: asked.key,
                    peer_address: request.peer_address,
                    api_address: request.api_address,
                };
                let replica = place(local, admit).await?;
                let state = local.views.state();
                let (certificate, authority) =
                    built_in.certify(&state, local.me, replica, &asked)?;
                Ok(wire::JoinResponse {
                    certificate: certificate.into(),
                    authority: authority.into(),
                    ..welcome(local, replica)
                })
            }
            Security::Files(_) | Security::Plain => {
                if let Some(names) = self.security.names() {
                    // A newcomer has no id yet, but it has an address.
                    let name = names.of(ReplicaId(0), Some(&request.peer_address));
                    let name = name.map_err(Status::invalid_argument)?;
                    security::check_certificate(extensions, name.as_ref())?;
                }
                if let Some(refused) = without_kek(local, &request) {
                    return Ok(refused);
                }
                let register = Command::RegisterReplica {
                    installation,
                    peer_address: request.peer_address,
                    api_address: request.api_address,
                };
                let replica = place(local, register).await?;
                Ok(welcome(local, replica))
            }
        }
    }

    /// Whether a token is worth a log entry. One that was made a moment ago may not be known here
    /// yet.
    async fn knows(&self, local: &Local, asked: &Asked) -> Result<(), Status> {
        let known = || local.views.state().join_tokens.contains_key(&asked.token);
        if known() {
            return Ok(());
        }
        let position = propose::read_index(local).await;
        let position = position.map_err(|e| Status::unavailable(e.to_string()))?;
        if !local.views.reached(position, local.timing.propose).await {
            return Err(Status::unavailable("this replica is behind"));
        }
        let refusal = Refusal::BadJoinToken(BadJoinToken::Unknown);
        match known() {
            true => Ok(()),
            false => Err(Status::permission_denied(refusal.to_string())),
        }
    }
}

/// The answer to a newcomer that could not open what is sealed here.
fn without_kek(local: &Local, request: &wire::JoinRequest) -> Option<wire::JoinResponse> {
    let state = local.views.state();
    let in_use: BTreeSet<&String> = state.data_keys.values().map(|key| &key.kek).collect();
    let lacking = in_use.into_iter().filter(|k| !request.keks.contains(*k));
    let keks_lacking: Vec<String> = lacking.cloned().collect();
    if keks_lacking.is_empty() {
        return None;
    }
    tracing::warn!(
        peer = request.peer_address,
        lacks = keks_lacking.join(" and "),
        "a replica with another key-encryption key was given no place"
    );
    Some(wire::JoinResponse {
        keks_lacking,
        ..wire::JoinResponse::default()
    })
}

/// The id that a newcomer gets by `command`.
async fn place(local: &Local, command: Command) -> Result<ReplicaId, Status> {
    let answer = match propose::propose(local, command).await {
        Ok(answer) => answer,
        Err(e @ (ProposeError::Unavailable(_) | ProposeError::Unknown(_))) => {
            return Err(Status::unavailable(e.to_string()));
        }
    };
    match answer.outcome {
        Ok(Done::Replica(replica)) => Ok(replica),
        Ok(other) => Err(Status::internal(format!("an unexpected answer: {other:?}"))),
        Err(refusal @ (Refusal::BadJoinToken(_) | Refusal::JoinTokenNeeded)) => {
            Err(Status::permission_denied(refusal.to_string()))
        }
        Err(refusal) => Err(Status::failed_precondition(refusal.to_string())),
    }
}

fn welcome(local: &Local, replica: ReplicaId) -> wire::JoinResponse {
    wire::JoinResponse {
        cluster: local.me.cluster.0.to_be_bytes().to_vec().into(),
        replica: replica.0,
        ..wire::JoinResponse::default()
    }
}

/// Serves the replica port until `stop`; then what is under way has a moment to end.
pub(crate) fn serve(
    incoming: TcpIncoming,
    door: Arc<Door>,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let service = ReplicaServer::new(Service(door.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let mut server = Server::builder();
    if let Some(age) = door.security.connection_age() {
        server = server.max_connection_age(age);
    }
    let tls = door.security.server();
    let router = server.add_service(service);
    async move {
        let graceful = stop.clone().cancelled_owned();
        let serving = async {
            match tls {
                Some(configs) => {
                    let incoming = std::pin::pin!(evermint_tls::incoming(
                        incoming,
                        configs,
                        evermint_tls::HANDSHAKE
                    ));
                    router
                        .serve_with_incoming_shutdown(incoming, graceful)
                        .await
                }
                None => {
                    router
                        .serve_with_incoming_shutdown(incoming, graceful)
                        .await
                }
            }
        };
        let late = async {
            stop.cancelled().await;
            tokio::time::sleep(PATIENCE).await;
        };
        tokio::select! {
            served = serving => if let Err(error) = served {
                tracing::error!(%error, "the replica port is closed");
            },
            () = late => {}
        }
    }
}

async fn receive(
    mut messages: Streaming<wire::InstallSnapshotRequest>,
) -> Result<SnapshotData, Status> {
    let bad = |e: evermint_core::record::BadRecord| Status::data_loss(e.to_string());
    let mut assembly = Assembly::default();
    loop {
        match next_part(&mut messages).await? {
            Some(Part::Chunk(chunk)) => assembly.add(chunk).map_err(bad)?,
            Some(Part::Trailer(trailer)) => {
                let whole = tokio::task::spawn_blocking(move || assembly.finish(trailer));
                let whole = whole.await.map_err(|e| Status::internal(e.to_string()))?;
                return whole.map_err(bad);
            }
            Some(Part::Header(_)) => return Err(Status::invalid_argument("a second header")),
            None => return Err(Status::data_loss("a snapshot that ends too early")),
        }
    }
}

fn present<T>(field: Option<T>, name: &str) -> Result<T, Status> {
    field.ok_or_else(|| Status::invalid_argument(format!("no {name}")))
}

fn unreadable(e: Unreadable) -> Status {
    Status::invalid_argument(e.to_string())
}

fn stopped(e: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("Raft has stopped: {e}"))
}
