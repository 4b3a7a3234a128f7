//! Consensus: one replica's log, state machine and membership, and its talk with its peers.
//!
//! This crate alone knows openraft and sled. It offers the domain's ports
//! [`Proposer`](evermint_core::port::Proposer) and [`StateView`](evermint_core::port::StateView),
//! both on [`Node`].

mod batch;
mod clock;
mod config;
mod disk;
mod durable;
mod duties;
mod entrance;
mod error;
mod guard;
mod identity;
mod local;
mod log;
mod machine;
mod members;
mod network;
mod node;
mod peers;
mod propose;
mod pulse;
mod raft;
mod server;
mod snapshot;
mod status;
mod stored;
#[cfg(test)]
mod suite;
#[cfg(feature = "test-faults")]
pub mod testing;
mod view;

pub use clock::SystemClock;
pub use config::{Bootstrap, CACHE_BYTES, Config, Snapshots, Timing, Tls};
pub use durable::{Damage, SyncPolicy};
pub use error::Error;
pub use node::Node;
pub use status::{LogStatus, Role, Status};
