//! The names of event fields, once each.

/// An endpoint: address and URL.
pub(crate) const ENDPOINT: &str = "endpoint";
/// A bundle's generation.
pub(crate) const GENERATION: &str = "generation";
/// A bundle's revision.
pub(crate) const REVISION: &str = "revision";
/// What went wrong, without secrets.
pub(crate) const CAUSE: &str = "cause";
/// A host name.
pub(crate) const HOST: &str = "host";
/// How long, in milliseconds.
pub(crate) const PAUSE_MS: &str = "pause_ms";
