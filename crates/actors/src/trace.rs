//! The names of the fields that this crate's traces carry.

/// The credential, as `provider id:key`.
pub const CREDENTIAL: &str = "credential";
/// The mint ticket.
pub const TICKET: &str = "ticket";
/// The number of the ticket among the credential's.
pub const ATTEMPT: &str = "attempt";
/// Why the mint runs now.
pub const REASON: &str = "reason";
