//! Connections that the issuer can cut from inside a handler, with whatever answer is owed.
//!
//! HTTP servers offer a handler no way to close a connection without an answer; a lost answer is the
//! fault that matters most here, so the listener wraps each connection in one that fails when told.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A handler's end of its connection.
#[derive(Clone)]
pub(crate) struct Wire(CancellationToken);

impl Wire {
    /// Closes the connection: the client reads its end, and no answer.
    pub(crate) fn cut(&self) {
        self.0.cancel();
    }
}

/// Accepts connections that can be cut, one by one or all at once by `stop`.
pub(crate) struct WireListener {
    pub(crate) tcp: TcpListener,
    pub(crate) stop: CancellationToken,
}

impl Listener for WireListener {
    type Io = WireIo;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (WireIo, SocketAddr) {
        let (tcp, address) = <TcpListener as Listener>::accept(&mut self.tcp).await;
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let wire = Wire(self.stop.child_token());
        let cut = Box::pin(wire.0.clone().cancelled_owned());
        (WireIo { tcp, wire, cut }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

impl Connected<IncomingStream<'_, WireListener>> for Wire {
    fn connect_info(stream: IncomingStream<'_, WireListener>) -> Self {
        stream.io().wire.clone()
    }
}

pub(crate) struct WireIo {
    tcp: TcpStream,
    wire: Wire,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl WireIo {
    /// Fails once the wire is cut; until then the task is woken by the cut.
    fn whole(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Err(ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for WireIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.whole(cx)?;
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for WireIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.whole(cx)?;
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
