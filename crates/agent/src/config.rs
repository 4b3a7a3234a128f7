//! What an agent is told.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::error::Error;
use crate::upstream::Limits;

/// What an agent is told. The defaults are for loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where calls, proxy requests and tunnels are listened for: plain and TLS on one port.
    pub listen: SocketAddr,
    /// Where health, metrics and the metadata endpoints are listened for; plain, so loopback only.
    pub local_listen: SocketAddr,
    /// Listen for calls beyond loopback, with TLS only: whoever reaches the address spends the
    /// sandbox's tokens.
    pub network: bool,
    /// Where the local authority is kept.
    pub state_dir: PathBuf,
    /// What is done with proxy requests to endpoints that no credential is bound to.
    pub unbound: Unbound,
    /// The metadata endpoints that are served.
    pub metadata: Vec<Metadata>,
    /// Serve metrics at `/metrics` of the loopback listener: those of the agent
    /// (`evermint_agent_…`), and those of its client ([`evermint_client::prometheus`]).
    pub metrics: bool,
    /// Certificate authorities of upstreams in PEM, besides those that the system trusts.
    pub authorities: Vec<u8>,
    /// Bounds of calls.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 7480).into(),
            local_listen: (Ipv4Addr::LOCALHOST, 7481).into(),
            network: false,
            state_dir: PathBuf::from("evermint-agent"),
            unbound: Unbound::default(),
            metadata: Vec::new(),
            metrics: false,
            authorities: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// What is done with proxy requests to endpoints that no credential is bound to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unbound {
    /// They go on as they are: tunnels unopened, plain requests if they hold no placeholder.
    #[default]
    Pass,
    /// They are refused.
    Refuse,
}

/// A metadata endpoint, and whose credential it gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// In which cloud's way.
    pub cloud: Cloud,
    /// The name of the attached provider; the only one that fits if not given.
    pub provider: Option<String>,
}

/// Whose SDKs are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    /// Google's metadata server.
    Google,
    /// The credential endpoint of AWS's containers.
    Aws,
    /// Azure's managed identity endpoint of App Service.
    Azure,
}

impl Config {
    /// Finds what cannot be meant.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub(crate) fn check(&self) -> Result<(), Error> {
        if !self.local_listen.ip().is_loopback() {
            return Err(Error::setting(
                "local_listen",
                "must be on loopback: tokens are given out there",
            ));
        }
        if !self.listen.ip().is_loopback() && !self.network {
            return Err(Error::setting(
                "listen",
                "is beyond loopback: whoever reaches it spends the sandbox's tokens; allow it with the network setting if that is meant",
            ));
        }
        for (at, one) in self.metadata.iter().enumerate() {
            if self.metadata[..at]
                .iter()
                .any(|other| other.cloud == one.cloud)
            {
                return Err(Error::setting("metadata", "names a cloud twice"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reaches_beyond_loopback_has_to_be_meant() {
        let anywhere: SocketAddr = "0.0.0.0:1".parse().unwrap();
        let good = Config::default;
        for (config, fits) in [
            (good(), true),
            (
                Config {
                    listen: anywhere,
                    ..good()
                },
                false,
            ),
            (
                Config {
                    listen: anywhere,
                    network: true,
                    ..good()
                },
                true,
            ),
            (
                Config {
                    local_listen: anywhere,
                    network: true,
                    ..good()
                },
                false,
            ),
        ] {
            assert_eq!(config.check().is_ok(), fits, "{config:?}");
        }
        let google = || Metadata {
            cloud: Cloud::Google,
            provider: None,
        };
        let twice = Config {
            metadata: vec![google(), google()],
            ..good()
        };
        assert!(twice.check().is_err());
    }
}
