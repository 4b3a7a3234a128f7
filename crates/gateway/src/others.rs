//! The other replicas' API, for a question that another one may answer better.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use evermint_tls::ClientConfigs;
use tonic::transport::Channel;

use crate::outgoing;

/// How long another replica has to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections to other replicas, by their URL. They connect when they are used.
#[derive(Default)]
pub(crate) struct Others {
    channels: Mutex<BTreeMap<String, Channel>>,
    /// Trusts certificates that come from where this replica's own does; `None` if it has none.
    tls: Option<ClientConfigs>,
}

impl Others {
    pub(crate) fn new(tls: Option<ClientConfigs>) -> Self {
        Self {
            channels: Mutex::default(),
            tls,
        }
    }

    /// The way to the replica at `url`; `None` if that is no URL to connect to.
    pub(crate) fn channel(&self, url: &str) -> Option<Channel> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(url) {
            return Some(channel.clone());
        }
        let tls = || match &self.tls {
            Some(configs) => Ok(configs.clone()),
            None => evermint_tls::trusting(None, None),
        };
        let channel = outgoing::channel(url, tls, |endpoint| {
            endpoint.connect_timeout(CONNECT_TIMEOUT)
        });
        let channel = channel
            .inspect_err(|problem| {
                tracing::debug!(url, problem, "another replica cannot be asked");
            })
            .ok()?;
        channels.insert(url.to_owned(), channel.clone());
        Some(channel)
    }
}
