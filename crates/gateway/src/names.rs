//! The names of span and event fields, once each.

/// The method of a call: `/package.Service/Method`.
pub(crate) const METHOD: &str = "rpc.method";
/// The gRPC code that a call ended with; for a stream, that it began with.
pub(crate) const CODE: &str = "rpc.code";
/// Time from the call's arrival to its answer's head, in milliseconds.
pub(crate) const LATENCY_MS: &str = "latency_ms";
/// A credential: `provider id:key`.
pub(crate) const CREDENTIAL: &str = "credential";
/// A sandbox's id.
pub(crate) const SANDBOX: &str = "sandbox";
/// The address that a server listens on.
pub(crate) const ADDRESS: &str = "address";
