//! What any caller may use at most of a replica. Each bound has a setting, and a test that runs
//! into it and sees that others are still served.

use std::time::Duration;

/// Bounds on callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at the same time.
    pub connections: usize,
    /// Connections of one address at the same time; of IPv6, of one /64.
    pub connections_per_peer: usize,
    /// Calls of one connection at the same time.
    pub streams: u32,
    /// How long TLS and the first bytes of HTTP/2 may take.
    pub greeting: Duration,
    /// How often a peer is asked for a sign of life.
    pub keepalive: Duration,
    /// How long it may take to give one.
    pub keepalive_timeout: Duration,
    /// Length of a call's header, in bytes.
    pub header_bytes: u32,
    /// Length of a request, in bytes.
    pub request_bytes: usize,
    /// How long a request may take to arrive.
    pub request_time: Duration,
    /// Calls that one connection may have taken back before they were looked at.
    pub resets: usize,
    /// Calls of one connection that may break the protocol.
    pub errors: usize,
    /// Calls of one caller in a second, on the average.
    pub calls_per_second: u32,
    /// Calls of one caller at once.
    pub calls_burst: u32,
    /// Failed logins from one address that run off in a minute.
    pub failed_logins_per_minute: u32,
    /// Failed logins from one address after which its tokens are looked at one at a time.
    pub failed_logins_burst: u32,
    /// Providers of a workspace.
    pub providers: usize,
    /// Credentials of a workspace.
    pub credentials: usize,
    /// Routes of a workspace.
    pub routes: usize,
    /// Sandboxes of a workspace.
    pub sandboxes: usize,
    /// Custom profiles of a workspace, and of the platform.
    pub profiles: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 8_192,
            connections_per_peer: 1_024,
            streams: 4_096,
            greeting: Duration::from_secs(10),
            keepalive: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            header_bytes: 16 << 10,
            request_bytes: 4 << 20,
            request_time: Duration::from_secs(20),
            resets: 20,
            errors: 256,
            calls_per_second: 1_000,
            calls_burst: 2_000,
            failed_logins_per_minute: 60,
            failed_logins_burst: 100,
            providers: 20_000,
            credentials: 100_000,
            routes: 1_000,
            sandboxes: 100_000,
            profiles: 500,
        }
    }
}
