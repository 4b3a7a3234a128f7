//! Group commit: proposals that arrive while the log is busy go into its next entry together.

use std::sync::Arc;

use evermint_core::command::{Answer, Batch, Proposal};
use openraft::ServerState;
use openraft::raft::ClientWriteResult;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::raft::{Raft, TypeConfig};
use crate::stamp::Stamper;
use crate::stored::EncodedBatch;

/// The most proposals in one entry.
const PROPOSALS_MAX: usize = 256;

/// The most bytes in one entry, unless one proposal is longer.
const BATCH_BYTES: usize = 1024 * 1024;

/// The longest proposal, in bytes.
pub(crate) const PROPOSAL_BYTES_MAX: usize = 1024 * 1024;

/// Proposals that may wait for their turn; more are held back where they come from.
const WAITING_MAX: usize = 4_096;

/// Entries on their way at once: while one is synced, the next one fills.
const IN_FLIGHT_MAX: usize = 2;

/// Why a proposal has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Rejection {
    /// It is in no log: this replica does not lead, or not for long enough.
    #[error("this replica does not lead, or does not know yet what time it is")]
    NotLeader,
    /// It is in no log.
    #[error("{0}")]
    NotTaken(String),
    /// It may be in the log.
    #[error("{0}")]
    Unknown(String),
}

struct Waiting {
    proposal: Proposal,
    bytes: usize,
    answer: oneshot::Sender<Result<Answer, Rejection>>,
}

/// The way into the local log.
#[derive(Clone)]
pub(crate) struct Batcher(mpsc::Sender<Waiting>);

impl Batcher {
    /// Starts the task that gathers; it ends when the last handle is gone.
    pub(crate) fn start(raft: Raft, stamper: Stamper) -> Self {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        tokio::spawn(gather(waiting, raft, stamper));
        Self(queue)
    }

    /// Puts a proposal into the log of this replica, if it leads, and waits for its outcome.
    pub(crate) async fn submit(&self, proposal: Proposal) -> Result<Answer, Rejection> {
        let bytes = encoded_len(&proposal);
        if bytes > PROPOSAL_BYTES_MAX {
            let problem = format!("{bytes} bytes in one command; at most {PROPOSAL_BYTES_MAX} fit");
            return Err(Rejection::NotTaken(problem));
        }
        let (answer, wait) = oneshot::channel();
        let waiting = Waiting {
            proposal,
            bytes,
            answer,
        };
        if self.0.send(waiting).await.is_err() {
            return Err(Rejection::NotTaken("the replica is stopping".to_owned()));
        }
        wait.await
            .unwrap_or_else(|_| Err(Rejection::Unknown("the replica stopped".to_owned())))
    }
}

fn encoded_len(proposal: &Proposal) -> usize {
    let flavor = postcard::ser_flavors::Size::default();
    postcard::serialize_with_flavor(proposal, flavor).unwrap_or(usize::MAX)
}

async fn gather(mut queue: mpsc::Receiver<Waiting>, raft: Raft, stamper: Stamper) {
    let slots = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut held: Option<Waiting> = None;
    while let Ok(slot) = slots.clone().acquire_owned().await {
        let first = match held.take() {
            Some(first) => first,
            None => match queue.recv().await {
                Some(first) => first,
                None => return,
            },
        };
        let mut bytes = first.bytes;
        let mut batch = vec![first];
        while batch.len() < PROPOSALS_MAX
            && let Ok(next) = queue.try_recv()
        {
            if bytes + next.bytes > BATCH_BYTES {
                held = Some(next);
                break;
            }
            bytes += next.bytes;
            batch.push(next);
        }
        // Who gave up waiting may have tried elsewhere by now.
        batch.retain(|waiting| !waiting.answer.is_closed());
        if batch.is_empty() {
            continue;
        }
        let (proposals, answers) = batch.into_iter().map(|w| (w.proposal, w.answer)).unzip();
        let stamp = if leads(&raft) { stamper.stamp() } else { None };
        let Some(at) = stamp else {
            answer_all(answers, &Rejection::NotLeader);
            continue;
        };
        let entry = EncodedBatch::new(&Batch { at, proposals });
        let raft = raft.clone();
        let written = raft.client_write_ff(entry).await;
        tokio::spawn(async move {
            match written {
                Ok(written) => settle(&raft, written, answers).await,
                Err(e) => answer_all(answers, &Rejection::Unknown(e.to_string())),
            }
            drop(slot);
        });
    }
}

fn leads(raft: &Raft) -> bool {
    raft.server_metrics().borrow().state == ServerState::Leader
}

/// Waits for the outcome of an entry, as long as this replica leads. After that, the entry may
/// have been committed all the same, even when Raft says that it was rejected: a snapshot of the
/// next leader may contain it.
async fn settle(
    raft: &Raft,
    written: impl Future<Output = Result<ClientWriteResult<TypeConfig>, impl Sized>>,
    answers: Answers,
) {
    let mut metrics = raft.server_metrics();
    let deposed = async {
        // An error means that Raft has stopped.
        drop(metrics.wait_for(|m| m.state != ServerState::Leader).await);
    };
    let response = tokio::select! {
        biased;
        written = written => match written {
            Ok(Ok(response)) => response,
            Ok(Err(e)) => return answer_all(answers, &Rejection::Unknown(e.to_string())),
            Err(_) => {
                let stopped = "the replica stopped".to_owned();
                return answer_all(answers, &Rejection::Unknown(stopped));
            }
        },
        () = deposed => {
            let deposed = "the leader lost its office".to_owned();
            return answer_all(answers, &Rejection::Unknown(deposed));
        }
    };
    for (answer, given) in answers.into_iter().zip(response.data) {
        // Who does not wait any more does not care.
        drop(answer.send(Ok(given)));
    }
}

type Answers = Vec<oneshot::Sender<Result<Answer, Rejection>>>;

fn answer_all(answers: Answers, rejection: &Rejection) {
    for answer in answers {
        drop(answer.send(Err(rejection.clone())));
    }
}
