//! The end of a ticket, enforced at the last inch (DESIGN §3).
//!
//! [`fenced`] asks the fence first in every poll and drops the work once it has passed.
//! [`FencedBody`] asks it once more directly before the bytes are written: the HTTP connection
//! pulls the body in the very poll in which it writes, so a process that was stopped after it
//! connected, and wakes after its ticket's end, sends nothing.
//!
//! [`SendRight`] makes the two agree. The body takes it before it gives its bytes away; whoever
//! gives up revokes it. Only one of them succeeds, so a request that is reported as unsent is
//! unsent, and stays so.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use evermint_core::mint::Fence;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

/// The fence is asked at least this often while nothing else happens: the clocks that see a
/// suspended machine wake nobody.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Runs `work` until the fence passes; `None` then, with `work` dropped.
pub(crate) fn fenced<F: Future>(fence: &dyn Fence, work: F) -> Fenced<'_, F> {
    Fenced {
        fence,
        work: Some(Box::pin(work)),
        timer: Box::pin(sleep(pause(fence))),
    }
}

/// The future of [`fenced`].
pub(crate) struct Fenced<'a, F> {
    fence: &'a dyn Fence,
    work: Option<Pin<Box<F>>>,
    timer: Pin<Box<Sleep>>,
}

/// How long to sleep before the fence is asked again.
fn pause(fence: &dyn Fence) -> Duration {
    fence.remaining().clamp(Duration::from_millis(1), ASK_EVERY)
}

impl<F: Future> Future for Fenced<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            if self.fence.passed() {
                self.work = None;
            }
            let Some(work) = self.work.as_mut() else {
                return Poll::Ready(None);
            };
            if let Poll::Ready(output) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            ready!(self.timer.as_mut().poll(cx));
            let next = Instant::now() + pause(self.fence);
            self.timer.as_mut().reset(next);
        }
    }
}

/// The right to send one request, once.
#[derive(Debug, Default)]
pub(crate) struct SendRight(AtomicU8);

impl SendRight {
    const OPEN: u8 = 0;
    const TAKEN: u8 = 1;
    const REVOKED: u8 = 2;

    /// Takes the right. `false`: it was revoked, or taken before; nothing may be sent.
    pub(crate) fn take(&self) -> bool {
        self.set(Self::TAKEN)
    }

    /// Revokes the right. `true`: nothing was sent, and nothing will be. `false`: bytes went out.
    pub(crate) fn revoke(&self) -> bool {
        self.set(Self::REVOKED) || self.0.load(Ordering::SeqCst) == Self::REVOKED
    }

    /// Whether bytes went out.
    pub(crate) fn is_taken(&self) -> bool {
        self.0.load(Ordering::SeqCst) == Self::TAKEN
    }

    fn set(&self, to: u8) -> bool {
        let order = Ordering::SeqCst;
        self.0
            .compare_exchange(Self::OPEN, to, order, order)
            .is_ok()
    }
}

/// Revokes a right when the request that it belongs to is given up, whoever does so.
pub(crate) struct RevokeOnDrop(pub(crate) Arc<SendRight>);

impl Drop for RevokeOnDrop {
    fn drop(&mut self) {
        self.0.revoke();
    }
}

/// The body was asked for too late; nothing was sent.
#[derive(Debug, thiserror::Error)]
#[error("the ticket ended before the request was written")]
pub(crate) struct TooLate;

/// A request body of one piece, which asks the fence before it gives that piece away.
pub(crate) struct FencedBody {
    content: Option<Bytes>,
    fence: Arc<dyn Fence>,
    right: Arc<SendRight>,
}

impl FencedBody {
    pub(crate) fn new(content: Bytes, fence: Arc<dyn Fence>, right: Arc<SendRight>) -> Self {
        Self {
            content: Some(content),
            fence,
            right,
        }
    }
}

impl http_body::Body for FencedBody {
    type Data = Bytes;
    type Error = TooLate;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TooLate>>> {
        let Some(content) = self.content.take() else {
            return Poll::Ready(None);
        };
        if self.fence.passed() || !self.right.take() {
            return Poll::Ready(Some(Err(TooLate)));
        }
        Poll::Ready(Some(Ok(Frame::data(content))))
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.content.as_ref().map_or(0, |c| c.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Passes at an instant of virtual time, or when a test says so.
    struct TestFence {
        end: Instant,
        passed: Mutex<bool>,
    }

    impl TestFence {
        fn new(in_ms: u64) -> Arc<Self> {
            Arc::new(Self {
                end: Instant::now() + Duration::from_millis(in_ms),
                passed: Mutex::new(false),
            })
        }
    }

    impl Fence for TestFence {
        fn passed(&self) -> bool {
            *self.passed.lock().unwrap() || Instant::now() >= self.end
        }
        fn remaining(&self) -> Duration {
            self.end - Instant::now()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn work_is_dropped_at_the_deadline() {
        let fence = TestFence::new(5_000);
        let began = Instant::now();
        let held = Arc::new(());
        let work = {
            let held = Arc::clone(&held);
            async move {
                std::future::pending::<()>().await;
                drop(held);
            }
        };
        let running = tokio::time::timeout(Duration::from_secs(60), fenced(&*fence, work));
        assert_eq!(running.await, Ok(None));
        assert_eq!(began.elapsed(), Duration::from_millis(5_000));
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_is_ready_is_not_polled_after_the_deadline() {
        let fence = TestFence::new(5_000);
        *fence.passed.lock().unwrap() = true;
        let done = fenced(&*fence, async { panic!("polled behind the fence") });
        assert_eq!(done.await, None::<()>);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fence_that_passes_by_another_clock_is_noticed_soon() {
        let fence = TestFence::new(3_600_000);
        let began = Instant::now();
        let watcher = Arc::clone(&fence);
        tokio::spawn(async move {
            sleep(Duration::from_millis(1_050)).await;
            *watcher.passed.lock().unwrap() = true;
        });
        let running = fenced(&*fence, std::future::pending::<()>());
        let running = tokio::time::timeout(Duration::from_secs(60), running);
        assert_eq!(running.await, Ok(None));
        assert!(began.elapsed() <= Duration::from_millis(1_050) + ASK_EVERY);
    }

    #[tokio::test]
    async fn work_that_ends_in_time_gives_its_output() {
        let fence = TestFence::new(5_000);
        assert_eq!(fenced(&*fence, async { 7 }).await, Some(7));
    }

    fn pull(body: &mut FencedBody) -> Poll<Option<Result<Frame<Bytes>, TooLate>>> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        http_body::Body::poll_frame(Pin::new(body), &mut cx)
    }

    #[tokio::test]
    async fn a_body_gives_its_bytes_once_and_takes_the_right() {
        let right = Arc::new(SendRight::default());
        let fence = TestFence::new(5_000);
        let mut body = FencedBody::new("x=1".into(), fence, Arc::clone(&right));
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(3));
        assert!(matches!(pull(&mut body), Poll::Ready(Some(Ok(_)))));
        assert!(matches!(pull(&mut body), Poll::Ready(None)));
        assert!(!right.revoke(), "bytes went out");
    }

    #[tokio::test]
    async fn a_body_behind_the_fence_gives_nothing_and_leaves_the_right() {
        let right = Arc::new(SendRight::default());
        let fence = TestFence::new(5_000);
        *fence.passed.lock().unwrap() = true;
        let mut body = FencedBody::new("x=1".into(), fence, Arc::clone(&right));
        assert!(matches!(pull(&mut body), Poll::Ready(Some(Err(TooLate)))));
        assert!(right.revoke());
    }

    #[tokio::test]
    async fn a_body_whose_request_was_given_up_gives_nothing() {
        let right = Arc::new(SendRight::default());
        let mut body = FencedBody::new("x=1".into(), TestFence::new(5_000), Arc::clone(&right));
        drop(RevokeOnDrop(Arc::clone(&right)));
        assert!(matches!(pull(&mut body), Poll::Ready(Some(Err(TooLate)))));
        assert!(right.revoke(), "still nothing was sent");
    }
}
