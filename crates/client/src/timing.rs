//! Bounds and intervals.

use std::time::Duration;

/// Bounds and intervals; the defaults suit gateways with their defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long a connection may take to come about, TLS included.
    pub connect: Duration,
    /// How long one endpoint has to answer a call, or to begin a stream, before the next one is
    /// asked. More than the gateway's own bound for catching up (2 s).
    pub attempt: Duration,
    /// A stream without a word for this long is dead. Three heartbeats of the gateway.
    pub silence: Duration,
    /// HTTP/2 pings go out at this interval, on idle connections too.
    pub keepalive: Duration,
    /// How soon a ping has to be answered.
    pub keepalive_timeout: Duration,
    /// First time for which an endpoint that failed is left alone; doubles with each failure in a
    /// row.
    pub penalty_base: Duration,
    /// Longest time for which an endpoint that failed is left alone.
    pub penalty_cap: Duration,
    /// Three streams in a row that end without a word before they are this old, at endpoints that
    /// answer calls, are taken for cut by a proxy.
    pub stream_min_life: Duration,
    /// How often to poll where streams are cut, ± a quarter.
    pub poll: Duration,
    /// How often to try a stream again where streams are cut, ± a quarter.
    pub rewatch: Duration,
    /// How often host names are resolved again, ± a quarter.
    pub resolve: Duration,
    /// How often the preferred endpoint is tried while another one serves.
    pub failback: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            attempt: Duration::from_secs(3),
            silence: Duration::from_secs(45),
            keepalive: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(5),
            penalty_base: Duration::from_millis(200),
            penalty_cap: Duration::from_secs(10),
            stream_min_life: Duration::from_secs(10),
            poll: Duration::from_secs(30),
            rewatch: Duration::from_secs(300),
            resolve: Duration::from_secs(30),
            failback: Duration::from_secs(30),
        }
    }
}

impl Timing {
    /// The first of the times that must not be zero and is.
    pub(crate) fn zero(&self) -> Option<&'static str> {
        [
            ("connect", self.connect),
            ("attempt", self.attempt),
            ("silence", self.silence),
            ("keepalive", self.keepalive),
            ("keepalive_timeout", self.keepalive_timeout),
            ("penalty_base", self.penalty_base),
            ("penalty_cap", self.penalty_cap),
            ("stream_min_life", self.stream_min_life),
            ("poll", self.poll),
            ("rewatch", self.rewatch),
            ("resolve", self.resolve),
            ("failback", self.failback),
        ]
        .into_iter()
        .find(|(_, d)| d.is_zero())
        .map(|(name, _)| name)
    }
}
