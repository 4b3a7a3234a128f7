//! The names of event fields, once each.

/// A route.
pub(crate) const ROUTE: &str = "route";
/// A provider.
pub(crate) const PROVIDER: &str = "provider";
/// A credential's generation.
pub(crate) const GENERATION: &str = "generation";
/// A status of HTTP.
pub(crate) const STATUS: &str = "status";
/// Why, in one stable word.
pub(crate) const REASON: &str = "reason";
/// What went wrong, without secrets.
pub(crate) const CAUSE: &str = "cause";
/// How long, in milliseconds.
pub(crate) const ELAPSED_MS: &str = "elapsed_ms";
/// A host and port.
pub(crate) const ENDPOINT: &str = "endpoint";
/// A signal.
pub(crate) const SIGNAL: &str = "signal";
/// An address that is listened on.
pub(crate) const LISTEN: &str = "listen";
