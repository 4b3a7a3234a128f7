//! Connections that come in.

use std::io;
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::ServerConfigs;

/// How long a caller may take to agree on keys.
pub const HANDSHAKE: Duration = Duration::from_secs(10);

/// Most callers that agree on keys at once; others wait in the system's queue.
const HANDSHAKES_MAX: usize = 512;

/// The connections of `tcp` with TLS, each with the newest of `configs`. One that does not agree on
/// keys in `time` holds up nobody else.
pub fn incoming<S, T>(
    tcp: S,
    configs: ServerConfigs,
    time: Duration,
) -> impl Stream<Item = io::Result<TlsStream<T>>>
where
    S: Stream<Item = io::Result<T>> + Unpin,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let door = (tcp, configs, JoinSet::new());
    stream::unfold(door, move |(mut tcp, configs, mut agreeing)| async move {
        loop {
            tokio::select! {
                accepted = tcp.next(), if agreeing.len() < HANDSHAKES_MAX => match accepted? {
                    Ok(stream) => {
                        let acceptor = TlsAcceptor::from(configs.borrow().clone());
                        let handshake = acceptor.accept(stream);
                        agreeing.spawn(tokio::time::timeout(time, handshake));
                    }
                    Err(error) => return Some((Err(error), (tcp, configs, agreeing))),
                },
                Some(agreed) = agreeing.join_next() => match agreed {
                    Ok(Ok(Ok(stream))) => return Some((Ok(stream), (tcp, configs, agreeing))),
                    Ok(Ok(Err(error))) => tracing::debug!(%error, "no TLS connection came about"),
                    Ok(Err(_)) => tracing::debug!("a caller took too long to agree on keys"),
                    Err(error) => tracing::error!(%error, "a handshake broke off"),
                },
            }
        }
    })
}
