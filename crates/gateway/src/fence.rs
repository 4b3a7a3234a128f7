//! Reads for clients that do not say what they have seen: at least as new as anything that any
//! replica gave away before the read began.
//!
//! The leader is asked how far the history is, and the read waits until this replica has applied
//! that much. One question serves every read that began before it was asked, so a replica asks one
//! at a time however many sandboxes read.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evermint_core::id::Position;
use evermint_core::port::{ProposeError, StateView};
use evermint_failpoint::{Bug, planted};
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::time::{Instant, timeout_at};

/// A question to the leader, for all that wait for its answer.
type Question = Shared<BoxFuture<'static, Result<Position, ProposeError>>>;

/// The questions of one replica.
pub(crate) struct Fence {
    view: Arc<dyn StateView>,
    /// Held by the question that is being asked.
    asking: tokio::sync::Mutex<()>,
    /// The one that will be asked next: a read that begins now may join it.
    next: Mutex<Option<Question>>,
}

impl Fence {
    pub(crate) fn new(view: Arc<dyn StateView>) -> Arc<Self> {
        Arc::new(Self {
            view,
            asking: tokio::sync::Mutex::default(),
            next: Mutex::default(),
        })
    }

    /// Waits until this replica has applied everything that was committed when the call began, at
    /// most for `bound`. Whether it has.
    pub(crate) async fn pass(self: &Arc<Self>, bound: Duration) -> bool {
        if planted(Bug::NoFence) {
            return true;
        }
        let deadline = Instant::now() + bound;
        match timeout_at(deadline, self.question()).await {
            Ok(Ok(position)) => {
                let left = deadline.saturating_duration_since(Instant::now());
                self.view.reached(position, left).await
            }
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// The next question.
    fn question(self: &Arc<Self>) -> Question {
        let mut next = self.next();
        if let Some(question) = &*next {
            return question.clone();
        }
        let fence = Arc::clone(self);
        let question = async move {
            let _turn = fence.asking.lock().await;
            // Who comes from now on began too late for this one.
            fence.next().take();
            fence.view.read_index().await
        };
        let question = question.boxed().shared();
        *next = Some(question.clone());
        question
    }

    fn next(&self) -> std::sync::MutexGuard<'_, Option<Question>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use async_trait::async_trait;
    use evermint_core::id::{ReplicaId, SessionId};
    use evermint_core::port::Change;
    use evermint_core::state::State;
    use evermint_core::time::UnixMs;
    use futures::stream::BoxStream;
    use tokio::sync::{Semaphore, watch};

    use super::*;

    /// A leader that answers when it may, with how often it was asked.
    struct Leader {
        may_answer: Semaphore,
        asked: AtomicU64,
        applied: watch::Sender<u64>,
    }

    #[async_trait]
    impl StateView for Leader {
        fn state(&self) -> Arc<State> {
            Arc::default()
        }
        fn changes(&self) -> BoxStream<'static, Change> {
            Box::pin(futures::stream::empty())
        }
        async fn reached(&self, position: Position, bound: Duration) -> bool {
            let mut applied = self.applied.subscribe();
            let reached = applied.wait_for(|applied| *applied >= position.0);
            tokio::time::timeout(bound, reached).await.is_ok()
        }
        async fn read_index(&self) -> Result<Position, ProposeError> {
            let asked = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
            self.may_answer.acquire().await.unwrap().forget();
            Ok(Position(asked))
        }
        fn staleness(&self) -> Option<Duration> {
            None
        }
        fn in_touch(&self) -> Duration {
            Duration::ZERO
        }
        fn now(&self) -> UnixMs {
            UnixMs(0)
        }
        fn identity(&self) -> (ReplicaId, SessionId) {
            (ReplicaId(1), SessionId(1))
        }
    }

    const LONG: Duration = Duration::from_secs(3_600);

    fn leader() -> (Arc<Leader>, Arc<Fence>) {
        let leader = Arc::new(Leader {
            may_answer: Semaphore::new(0),
            asked: AtomicU64::new(0),
            applied: watch::Sender::new(0),
        });
        let view: Arc<dyn StateView> = leader.clone();
        (leader, Fence::new(view))
    }

    /// Begins a read, and lets it go as far as it can.
    async fn begin(fence: &Arc<Fence>, bound: Duration) -> tokio::task::JoinHandle<bool> {
        let fence = Arc::clone(fence);
        let read = tokio::spawn(async move { fence.pass(bound).await });
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        read
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_begins_while_a_question_is_asked_waits_for_the_next_one() {
        let (leader, fence) = leader();
        leader.applied.send_replace(9);
        let first = begin(&fence, LONG).await;
        let late = [begin(&fence, LONG).await, begin(&fence, LONG).await];
        assert_eq!(leader.asked.load(Ordering::Relaxed), 1);
        leader.may_answer.add_permits(1);
        assert!(first.await.unwrap());
        assert!(late.iter().all(|read| !read.is_finished()));
        leader.may_answer.add_permits(1);
        for read in late {
            assert!(read.await.unwrap());
        }
        assert_eq!(leader.asked.load(Ordering::Relaxed), 2, "one for both");
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_waits_for_what_the_leader_said_and_no_longer_than_its_bound() {
        let (leader, fence) = leader();
        leader.may_answer.add_permits(2);
        let second = Duration::from_secs(1);
        assert!(!fence.pass(second).await, "not applied in time");
        let waiting = begin(&fence, LONG).await;
        leader.applied.send_replace(2);
        assert!(waiting.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_everyone_gave_up_holds_up_nobody() {
        let (leader, fence) = leader();
        leader.applied.send_replace(9);
        assert!(!fence.pass(Duration::from_secs(1)).await, "no answer");
        let gone = begin(&fence, LONG).await;
        let waiting = begin(&fence, LONG).await;
        gone.abort();
        assert!(gone.await.is_err());
        waiting.abort();
        assert!(waiting.await.is_err());
        leader.may_answer.add_permits(1);
        assert!(fence.pass(LONG).await);
    }
}
