//! Connections to other replicas: one for each address and lane, kept and reused.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evermint_core::id::ReplicaId;
use evermint_proto::replica::v1::replica_client::ReplicaClient;
use evermint_tls::Connector;
use tonic::transport::{Channel, Endpoint};

use crate::security::{Names, Security};

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

/// Who is to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Whom {
    Member(ReplicaId),
    /// Whoever is there: this replica is a newcomer, and knows nobody.
    Anyone,
}

type Channels = BTreeMap<(Whom, String, Lane), Channel>;

/// Connections to other replicas.
#[derive(Clone)]
pub(crate) struct Peers {
    security: Security,
    channels: Arc<Mutex<Channels>>,
}

impl Peers {
    pub(crate) fn new(security: Security) -> Self {
        Self {
            security,
            channels: Arc::default(),
        }
    }

    /// A client of a member at `address`. It connects when it is used, and again when need be.
    ///
    /// # Errors
    /// When `address` is no `host:port`.
    pub(crate) fn client(
        &self,
        replica: ReplicaId,
        address: &str,
        lane: Lane,
    ) -> Result<Client, String> {
        self.get(Whom::Member(replica), address, lane)
    }

    /// A client of whoever is at `address`, for a newcomer.
    ///
    /// # Errors
    /// When `address` is no `host:port`.
    pub(crate) fn stranger(&self, address: &str) -> Result<Client, String> {
        self.get(Whom::Anyone, address, Lane::Bulk)
    }

    fn get(&self, whom: Whom, address: &str, lane: Lane) -> Result<Client, String> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (whom, address.to_owned(), lane);
        let channel = match channels.get(&key) {
            Some(channel) => channel.clone(),
            None => {
                let channel = self.channel(whom, address)?;
                channels.insert(key, channel.clone());
                channel
            }
        };
        Ok(ReplicaClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    fn channel(&self, whom: Whom, address: &str) -> Result<Channel, String> {
        let bad = |e: tonic::transport::Error| format!("peer address {address}: {e}");
        // TLS is the connector's concern, whose channels are plain to tonic.
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(bad)?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        let (configs, name) = match whom {
            Whom::Member(replica) => {
                let names = self.security.names();
                let name = names.map(|names| names.of(replica, Some(address)));
                (self.security.client(), name.transpose()?.flatten())
            }
            Whom::Anyone => {
                let names = self.security.names().unwrap_or(Names::Hosts);
                let name = names.of(ReplicaId(0), Some(address))?;
                (self.security.stranger(), name)
            }
        };
        Ok(match (configs, name) {
            (Some(configs), Some(name)) => {
                endpoint.connect_with_connector_lazy(Connector::new(configs, name))
            }
            (Some(_), None) => return Err("this replica has no place in a cluster yet".to_owned()),
            (None, _) => endpoint.connect_lazy(),
        })
    }
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
