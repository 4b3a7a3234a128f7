//! Consensus: one replica's log, state machine and membership, and its talk with its peers.
//!
//! This crate alone knows openraft and sled. It offers the domain's ports
//! [`Proposer`](evermint_core::port::Proposer) and [`StateView`](evermint_core::port::StateView),
//! both on [`Node`].

#![allow(dead_code, reason = "skeleton")]

mod chunk;
mod clock;
mod config;
mod durable;
mod error;
mod guard;
mod log;
mod machine;
mod raft;
mod snapshot;
mod status;
mod stored;
#[cfg(test)]
mod suite;
mod view;

pub use clock::SystemClock;
pub use config::{Bootstrap, CACHE_BYTES, Config, Snapshots, Timing, Tls};
pub use durable::{Damage, SyncPolicy};
pub use error::Error;
pub use status::{LogStatus, Role, Status};
