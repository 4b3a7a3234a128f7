//! The doorway: connections, counted, and dropped when their peers say nothing.
//!
//! A peer that is there answers the pings of HTTP/2, so a connection on which nothing arrives for
//! longer than a ping may take is dead, whatever state it is in: half open, amid TLS, or before its
//! first frame.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::transport::server::{Connected, TcpConnectInfo, TcpIncoming};

use crate::bounds::Bounds;

/// The first bytes of every HTTP/2 connection ([RFC 9113 §3.4](https://www.rfc-editor.org/rfc/rfc9113#section-3.4)).
const PREFACE: usize = 24;

/// Connections as they come, as long as there is room for them.
pub(crate) struct Doorway {
    incoming: TcpIncoming,
    inside: Arc<Inside>,
    greeting: Duration,
    silence: Duration,
}

impl Doorway {
    pub(crate) fn new(incoming: TcpIncoming, bounds: &Bounds) -> Self {
        Self {
            incoming,
            inside: Arc::new(Inside {
                counts: Mutex::default(),
                max: bounds.connections,
                max_of_peer: bounds.connections_per_peer,
            }),
            greeting: bounds.greeting,
            silence: bounds.keepalive + bounds.keepalive_timeout,
        }
    }
}

impl Stream for Doorway {
    type Item = io::Result<Guarded>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let io = match ready!(Pin::new(&mut self.incoming).poll_next(cx)) {
                Some(Ok(io)) => io,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            };
            let Ok(peer) = io.peer_addr() else {
                continue;
            };
            // One too many is closed at once, and the next one looked at.
            if let Some(place) = self.inside.enter(network(peer.ip())) {
                let first = Instant::now() + self.greeting;
                return Poll::Ready(Some(Ok(Guarded {
                    io,
                    _place: place,
                    greeted: 0,
                    until: first,
                    timer: Box::pin(sleep_until(first)),
                    silence: self.silence,
                })));
            }
            tracing::debug!(%peer, "a connection too many");
        }
    }
}

/// Who is inside.
struct Inside {
    counts: Mutex<Counts>,
    max: usize,
    max_of_peer: usize,
}

#[derive(Default)]
struct Counts {
    all: usize,
    of_peers: HashMap<IpAddr, usize>,
}

impl Inside {
    fn enter(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = counts.of_peers.get(&peer).copied().unwrap_or(0);
        if counts.all >= self.max || of_peer >= self.max_of_peer {
            return None;
        }
        counts.all += 1;
        counts.of_peers.insert(peer, of_peer + 1);
        Some(Place {
            inside: Arc::clone(self),
            peer,
        })
    }
}

/// The place of one connection; free again when it is dropped.
struct Place {
    inside: Arc<Inside>,
    peer: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let counts = &self.inside.counts;
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        if let Some(of_peer) = counts.of_peers.get_mut(&self.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                counts.of_peers.remove(&self.peer);
            }
        }
    }
}

/// Whose connections are counted together: an IPv4 address; of IPv6, what one host is given.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// A connection that ends when its peer is silent for too long.
pub(crate) struct Guarded {
    io: TcpStream,
    _place: Place,
    /// Bytes of the greeting that have come.
    greeted: usize,
    /// When it has been silent for too long.
    until: Instant,
    timer: Pin<Box<Sleep>>,
    silence: Duration,
}

impl Guarded {
    /// Something came.
    fn heard(&mut self, bytes: usize) {
        // Whoever drips the greeting has no more time for it.
        self.greeted = self.greeted.saturating_add(bytes);
        if self.greeted >= PREFACE {
            self.until = Instant::now() + self.silence;
        }
    }

    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            // The timer is set anew when it fires, not with each byte.
            if self.until <= Instant::now() {
                return Poll::Ready(());
            }
            let until = self.until;
            self.timer.as_mut().reset(until);
        }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Ready(read) => {
                self.heard(buf.filled().len() - before);
                Poll::Ready(read)
            }
            Poll::Pending => self
                .poll_silence(cx)
                .map(|()| Err(io::Error::from(io::ErrorKind::TimedOut))),
        }
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

impl Connected for Guarded {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.io.connect_info()
    }
}
