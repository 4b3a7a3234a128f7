//! Connections to other replicas: one for each address and lane, kept and reused.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evermint_proto::replica::v1::replica_client::ReplicaClient;
use tonic::transport::{
    Certificate, Channel, ClientTlsConfig, Endpoint, Identity, ServerTlsConfig,
};

use crate::config::Tls;
use crate::error::Error;

/// The longest message between replicas, in bytes: an append of one entry of the largest size,
/// or a chunk of a snapshot, with room to spare.
pub(crate) const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How often an idle connection is tried, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Bytes in flight on one stream, and on one connection.
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;

pub(crate) type Client = ReplicaClient<Channel>;

/// What a connection is for. Bulk stays away from what the leader's lease depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Raft's own messages.
    Raft,
    /// Everything else.
    Bulk,
}

/// Connections to other replicas.
#[derive(Clone)]
pub(crate) struct Peers {
    tls: Option<ClientTlsConfig>,
    channels: Arc<Mutex<BTreeMap<(String, Lane), Channel>>>,
}

impl Peers {
    pub(crate) fn new(tls: Option<ClientTlsConfig>) -> Self {
        Self {
            tls,
            channels: Arc::default(),
        }
    }

    /// A client of the replica at `address`. It connects when it is used, and again when need be.
    ///
    /// # Errors
    /// When `address` is no `host:port`.
    pub(crate) fn client(&self, address: &str, lane: Lane) -> Result<Client, String> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (address.to_owned(), lane);
        let channel = match channels.get(&key) {
            Some(channel) => channel.clone(),
            None => {
                let channel = self.endpoint(address)?.connect_lazy();
                channels.insert(key, channel.clone());
                channel
            }
        };
        Ok(ReplicaClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    fn endpoint(&self, address: &str) -> Result<Endpoint, String> {
        let scheme = match self.tls {
            Some(_) => "https",
            None => "http",
        };
        let bad = |e: tonic::transport::Error| format!("peer address {address}: {e}");
        let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
            .map_err(bad)?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        match &self.tls {
            Some(tls) => endpoint.tls_config(tls.clone()).map_err(bad),
            None => Ok(endpoint),
        }
    }
}

/// Both halves of mutual TLS.
pub(crate) fn read_tls(tls: &Tls) -> Result<(ServerTlsConfig, ClientTlsConfig), Error> {
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(Error::io(format!("read {}", path.display())))
    };
    let identity = Identity::from_pem(read(&tls.certificate)?, read(&tls.key)?);
    let ca = Certificate::from_pem(read(&tls.ca)?);
    let server = ServerTlsConfig::new()
        .identity(identity.clone())
        .client_ca_root(ca.clone());
    let mut client = ClientTlsConfig::new().identity(identity).ca_certificate(ca);
    if let Some(name) = &tls.server_name {
        client = client.domain_name(name.clone());
    }
    Ok((server, client))
}

/// Whether a call certainly did not reach the other side.
pub(crate) fn was_not_sent(status: &tonic::Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}
