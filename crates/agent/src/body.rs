//! Bodies on their way through: streamed frame by frame, so that a slow reader slows its sender down.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// What can end a body early.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Any body.
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Nothing.
pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// All at once.
pub(crate) fn full(content: impl Into<Bytes>) -> Body {
    Full::new(content.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A request's body as it comes.
pub(crate) fn streamed(body: Incoming) -> Body {
    body.map_err(BoxError::from).boxed_unsync()
}

/// Why a body cannot be had as a whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unread {
    #[error("it is larger than {0} bytes")]
    TooLarge(usize),
    #[error("it ended early")]
    Broken(#[source] hyper::Error),
}

/// Reads a whole body of at most `max` bytes; trailers are dropped.
///
/// # Errors
/// [`Unread`].
pub(crate) async fn read(mut body: Incoming, max: usize) -> Result<Bytes, Unread> {
    let hint = body.size_hint();
    if hint.lower() > max as u64 {
        return Err(Unread::TooLarge(max));
    }
    // What is announced is believed only when it comes.
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Unread::Broken)?.into_data() else {
            continue;
        };
        if read.len() + data.len() > max {
            return Err(Unread::TooLarge(max));
        }
        read.extend_from_slice(&data);
    }
    Ok(read.freeze())
}

/// A request's body: sent again if it has to be, or once only.
pub(crate) enum Outgoing {
    /// As often as needed.
    Again(Bytes),
    /// Once; `None` when it was.
    Once(Option<Body>),
}

impl Outgoing {
    /// Keeps a body whose length is known and at most `max`; streams any other.
    ///
    /// # Errors
    /// [`Unread::Broken`].
    pub(crate) async fn of(body: Incoming, max: usize) -> Result<Self, Unread> {
        let known = body.size_hint().exact().filter(|n| *n <= max as u64);
        Ok(match known {
            Some(_) => Self::Again(read(body, max).await?),
            None => Self::Once(Some(streamed(body))),
        })
    }

    /// The body to send; `None` if it cannot be sent again.
    pub(crate) fn take(&mut self) -> Option<Body> {
        match self {
            Self::Again(bytes) if bytes.is_empty() => Some(empty()),
            Self::Again(bytes) => Some(full(bytes.clone())),
            Self::Once(body) => body.take(),
        }
    }

    /// Whether [`Self::take`] gives one.
    pub(crate) fn is_left(&self) -> bool {
        match self {
            Self::Again(_) => true,
            Self::Once(body) => body.is_some(),
        }
    }
}

/// An upstream's answer, bounded in time. `kept` lives as long as the body does.
pub(crate) struct Answer<K> {
    body: Incoming,
    idle: Duration,
    silence: Option<Pin<Box<Sleep>>>,
    end: Pin<Box<Sleep>>,
    _kept: K,
}

/// Why an answer ends early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Late {
    #[error("the upstream said nothing for {0:?}")]
    Silent(Duration),
    #[error("the call took longer than it may")]
    Overdue,
}

impl<K> Answer<K> {
    pub(crate) fn new(body: Incoming, idle: Duration, deadline: Instant, kept: K) -> Self {
        Self {
            body,
            idle,
            silence: None,
            end: Box::pin(sleep_until(deadline)),
            _kept: kept,
        }
    }
}

impl<K: Unpin> HttpBody for Answer<K> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            // Silence counts from when it is listened to: a slow reader is not the upstream's fault.
            this.silence = None;
            return Poll::Ready(frame.map(|f| f.map_err(BoxError::from)));
        }
        if this.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(Late::Overdue.into())));
        }
        let idle = this.idle;
        let silence = this.silence.get_or_insert_with(|| Box::pin(sleep(idle)));
        ready!(silence.as_mut().poll(cx));
        Poll::Ready(Some(Err(Late::Silent(idle).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
