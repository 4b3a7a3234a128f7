//! Proposals from any replica: into the local log if it leads, else forwarded to the leader,
//! under one request id until an outcome is known or time is up.

use std::time::Duration;

use evermint_core::audit::Origin;
use evermint_core::command::{Answer, Command, Proposal};
use evermint_core::id::{Position, ReplicaId, RequestId};
use evermint_core::port::ProposeError;
use evermint_proto::replica::v1 as wire;
use evermint_proto::replica::v1::propose_response::Result as Proposed;
use evermint_proto::replica::v1::read_index_response::Result as ReadAt;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};
use uuid::Uuid;

use crate::batch::Rejection;
use crate::local::Local;
use crate::peers::was_not_sent;

/// Time between two tries, unless a leader turns up.
const RETRY_EVERY: Duration = Duration::from_millis(50);

/// What one try came to.
enum Try<T> {
    Done(T),
    /// It certainly did not happen.
    No(String),
    /// It may have happened.
    Maybe(String),
    /// It did not happen, and will not.
    Never(String),
}

/// Proposes `command` until its outcome is known or `timing.propose` is over.
pub(crate) async fn propose(local: &Local, command: Command) -> Result<Answer, ProposeError> {
    propose_for(local, None, command).await
}

/// The same, at the wish of `by`.
pub(crate) async fn propose_for(
    local: &Local,
    by: Option<Origin>,
    command: Command,
) -> Result<Answer, ProposeError> {
    let own = command.is_leaders_own();
    let proposal = Proposal {
        by,
        request: RequestId(Uuid::new_v4().as_u128()),
        command,
    };
    retry(local, |leader| {
        let proposal = &proposal;
        async move {
            if leader == local.me.replica {
                return match local.batcher.submit(proposal.clone()).await {
                    Ok(answer) => Try::Done(answer),
                    Err(e @ Rejection::NotLeader) => Try::No(e.to_string()),
                    Err(Rejection::NotTaken(problem)) => Try::Never(problem),
                    Err(Rejection::Unknown(problem)) => Try::Maybe(problem),
                };
            }
            if own {
                return Try::Never("this replica does not lead".to_owned());
            }
            forward(local, leader, proposal).await
        }
    })
    .await
}

/// Asks the leader for a position that is confirmed after the call began.
pub(crate) async fn read_index(local: &Local) -> Result<Position, ProposeError> {
    retry(local, |leader| async move {
        if leader == local.me.replica {
            return match local.confirmed_position().await {
                Ok(position) => Try::Done(position),
                Err(problem) => Try::No(problem),
            };
        }
        let mut client = match local.client(leader) {
            Ok(client) => client,
            Err(problem) => return Try::No(problem),
        };
        let envelope = local.envelope(leader);
        match client.read_index(wire::ReadIndexRequest { envelope }).await {
            Ok(response) => match response.into_inner().result {
                Some(ReadAt::Position(position)) => Try::Done(Position(position)),
                _ => Try::No("the leader has changed".to_owned()),
            },
            // Asking changes nothing.
            Err(status) => Try::No(status.message().to_owned()),
        }
    })
    .await
}

async fn forward(local: &Local, leader: ReplicaId, proposal: &Proposal) -> Try<Answer> {
    let mut client = match local.client(leader) {
        Ok(client) => client,
        Err(problem) => return Try::No(problem),
    };
    let proposal = postcard::to_stdvec(proposal).expect("proposals are plain data");
    let request = wire::ProposeRequest {
        envelope: local.envelope(leader),
        proposal: proposal.into(),
    };
    let response = match client.propose(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => return refused(&status),
    };
    match response.result {
        Some(Proposed::Answer(answer)) => match postcard::from_bytes(&answer) {
            Ok(answer) => Try::Done(answer),
            Err(_) => Try::Maybe("the leader's answer cannot be read".to_owned()),
        },
        Some(Proposed::NotLeader(_)) => Try::No("the leader has changed".to_owned()),
        None => Try::Maybe("an answer without a result".to_owned()),
    }
}

/// What a failed call says of the proposal.
fn refused(status: &Status) -> Try<Answer> {
    let problem = status.message().to_owned();
    match status.code() {
        _ if was_not_sent(status) => Try::No(problem),
        // Said before anything was done.
        Code::FailedPrecondition => Try::No(problem),
        Code::InvalidArgument | Code::PermissionDenied => Try::Never(problem),
        _ => Try::Maybe(problem),
    }
}

/// Tries with whoever leads, again and again, until time is up. A try is given up when the
/// leader changes.
async fn retry<T, F>(
    local: &Local,
    mut attempt: impl FnMut(ReplicaId) -> F,
) -> Result<T, ProposeError>
where
    F: Future<Output = Try<T>>,
{
    let deadline = Instant::now() + local.timing.propose;
    let mut metrics = local.raft.server_metrics();
    let mut last = "no leader is known".to_owned();
    let mut maybe = false;
    loop {
        let leader = metrics.borrow_and_update().current_leader;
        if let Some(leader) = leader {
            let moved = async {
                let moved = metrics.wait_for(|m| m.current_leader != Some(leader)).await;
                drop(moved);
            };
            let tried = tokio::select! {
                tried = timeout_at(deadline, attempt(ReplicaId(leader))) => {
                    tried.unwrap_or_else(|_| Try::Maybe("no answer in time".to_owned()))
                }
                () = moved => Try::Maybe("the leader changed".to_owned()),
            };
            match tried {
                Try::Done(value) => return Ok(value),
                Try::No(problem) => last = problem,
                Try::Maybe(problem) => (maybe, last) = (true, problem),
                Try::Never(problem) if maybe => return Err(ProposeError::Unknown(problem)),
                Try::Never(problem) => return Err(ProposeError::Unavailable(problem)),
            }
        }
        let pause = deadline.min(Instant::now() + RETRY_EVERY);
        // Whichever comes first.
        let _ = timeout_at(pause, metrics.changed()).await;
        if Instant::now() >= deadline {
            return Err(match maybe {
                true => ProposeError::Unknown(last),
                false => ProposeError::Unavailable(last),
            });
        }
        if metrics.has_changed().is_err() {
            let stopped = "the replica has stopped".to_owned();
            return Err(match maybe {
                true => ProposeError::Unknown(stopped),
                false => ProposeError::Unavailable(stopped),
            });
        }
    }
}
