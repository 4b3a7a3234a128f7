//! The actor tree of a replica, and its mint journal.
//!
//! ```text
//! Root ─┬─ Placement ─── Shard (one for each shard owned here) ─── Credential (owns its timer)
//!       ├─ Salvage       (what former lives of this replica left unsettled)
//!       └─ Revocation    (tells issuers what they shall honour no more)
//! ```
//!
//! Actors are thin shells: what a credential does next is decided by
//! [`evermint_protocol::owner`], and what is owed for the past by
//! [`evermint_protocol::recovery`]. What runs here is always reconciled from the replicated
//! state; messages only say that it is time to look. So a lost message delays, and loses nothing,
//! and an actor that panics is made again from the state and the journal.
//!
//! This crate alone knows ractor. It reaches consensus, issuers and clocks through the ports of
//! [`evermint_core::port`] only.

mod credential;
mod fence;
mod journal;
mod line;
mod mint;
mod placement;
mod revocation;
mod room;
mod root;
mod salvage;
mod shard;
pub mod trace;

pub use journal::{Journal, JournalError};
pub use root::{Config, StartError, Tree};
