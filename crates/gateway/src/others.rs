//! The other replicas' API, for a question that another one may answer better.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

/// How long another replica has to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections to other replicas, by their URL. They connect when they are used.
#[derive(Default)]
pub(crate) struct Others {
    channels: Mutex<BTreeMap<String, Channel>>,
    /// This replica's own certificate chain in PEM: the others' come from the same authority.
    chain: Option<Vec<u8>>,
}

impl Others {
    pub(crate) fn new(chain: Option<Vec<u8>>) -> Self {
        Self {
            channels: Mutex::default(),
            chain,
        }
    }

    /// The way to the replica at `url`; `None` if that is no URL to connect to.
    pub(crate) fn channel(&self, url: &str) -> Option<Channel> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(url) {
            return Some(channel.clone());
        }
        let channel = self.connect(url)?;
        channels.insert(url.to_owned(), channel.clone());
        Some(channel)
    }

    fn connect(&self, url: &str) -> Option<Channel> {
        let endpoint = Endpoint::from_shared(url.to_owned()).ok()?;
        let mut endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
        if endpoint.uri().scheme_str() == Some("https") {
            let mut tls = ClientTlsConfig::new().with_native_roots();
            if let Some(chain) = &self.chain {
                tls = tls.ca_certificate(Certificate::from_pem(chain));
            }
            endpoint = endpoint.tls_config(tls).ok()?;
        }
        Some(endpoint.connect_lazy())
    }
}
