//! What an operator decides about requests to issuers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::address::Network;
use crate::command::CommandLine;
use crate::endpoint::EndpointPattern;
use crate::stand_in::StandIn;

/// The `issuers` section of a replica's configuration. The default reaches public issuers over
/// https that a profile of the build or of the platform names, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether issuers on this host's loopback are reached, and those by plain http too. For
    /// tests and `evermint dev`.
    pub allow_loopback: bool,
    /// Private networks whose issuers may be reached, such as `10.20.0.0/16`.
    pub allow_networks: Vec<Network>,
    /// The token endpoints that may be used beside those that such a profile fixes: hosts
    /// (`login.example.com`, `*.example.com`, `idp.example.com:8443`) or URL prefixes
    /// (`https://idp.example.com/realms/prod/`).
    pub allow_endpoints: Vec<EndpointPattern>,
    /// Who on this host answers for which endpoint. For tests; needs `allow_loopback`.
    pub stand_ins: Vec<StandIn>,
    /// Directories below which material may name token files, such as
    /// `/var/run/secrets/tokens`. Empty: none.
    pub token_file_dirs: Vec<PathBuf>,
    /// The commands that the strategy `exec` may run, by the name that material gives.
    pub commands: BTreeMap<String, CommandLine>,
    /// Certificate authorities that are trusted beside the system's: PEM texts.
    pub ca_certificates: Vec<String>,
    /// The longest time for name, connection and TLS, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Requests that one issuer gets at the same time from this replica.
    pub concurrency: u32,
    /// Requests that one issuer gets in a minute from this replica; a sixtieth of them may come at
    /// once.
    pub requests_per_minute: u32,
    /// Failures in a row after which an issuer is left alone for a while.
    pub breaker_failures: u32,
    /// For how long at first, in milliseconds; doubled with every failed probe.
    pub breaker_pause_ms: u64,
    /// For how long at most, in milliseconds.
    pub breaker_pause_max_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            allow_loopback: false,
            allow_networks: Vec::new(),
            allow_endpoints: Vec::new(),
            stand_ins: Vec::new(),
            token_file_dirs: Vec::new(),
            commands: BTreeMap::new(),
            ca_certificates: Vec::new(),
            connect_timeout_ms: 5_000,
            concurrency: 16,
            requests_per_minute: 6_000,
            breaker_failures: 5,
            breaker_pause_ms: 2_000,
            breaker_pause_max_ms: 30_000,
        }
    }
}

impl Config {
    /// The default, with issuers on loopback.
    pub fn loopback() -> Self {
        Self {
            allow_loopback: true,
            ..Self::default()
        }
    }

    /// The longest time for name, connection and TLS.
    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_setting_is_refused_and_a_missing_one_has_its_default() {
        let config: Config = serde_json::from_str(r#"{"allow_networks":["10.0.0.0/8"]}"#).unwrap();
        assert_eq!(config.allow_networks.len(), 1);
        assert_eq!(config.concurrency, Config::default().concurrency);
        assert!(serde_json::from_str::<Config>(r#"{"alow_loopback":true}"#).is_err());
        for bad in ["10.0.0.0", "10.0.0.0/33", "10.0.0.1/8", "::/129", "x/8"] {
            let text = format!(r#"{{"allow_networks":["{bad}"]}}"#);
            assert!(serde_json::from_str::<Config>(&text).is_err(), "{bad}");
        }
    }
}
