//! Consensus: one replica's log, state machine and membership, and its talk with its peers.
//!
//! This crate alone knows openraft and sled. It offers the domain's ports
//! [`Proposer`](evermint_core::port::Proposer) and [`StateView`](evermint_core::port::StateView),
//! both on [`Node`], which owns everything here. Where to read next:
//!
//! | what | files |
//! | --- | --- |
//! | on the disk | `durable` (sled and the sync), `guard`, `identity`, `disk` (all together) |
//! | Raft's storage | `log`, `machine`, `snapshot`, `stored` (our bytes for Raft's data) |
//! | between replicas | `peers`, `network` (Raft's messages out), `server` (everything in), `security` (who is who) |
//! | writing | `propose` (local or forwarded), `batch` (group commit) |
//! | reading | `view` (published states), `pulse` (freshness, the cluster clock) |
//! | who belongs | `entrance` (found or join), `members` (learn, vote, go) |
//! | the leader | `duties` (tickets and placement) |
//! | for operators | `status`, `hearsay` (what is known of the others), `eraser` (cuts the log), `refused` (joins, for the audit trail) |

mod batch;
mod clock;
mod config;
mod disk;
mod durable;
mod duties;
mod entrance;
mod eraser;
mod error;
#[cfg(test)]
mod fuzz;
mod guard;
mod hearsay;
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
mod refused;
mod security;
mod server;
mod snapshot;
mod stamp;
mod status;
mod stored;
#[cfg(test)]
mod suite;
#[cfg(feature = "test-faults")]
pub mod testing;
mod view;

pub use clock::SystemClock;
pub use config::{Bootstrap, BuiltInTls, CACHE_BYTES, Config, Snapshots, Timing, Tls, TlsFiles};
pub use durable::{Damage, SyncPolicy};
pub use error::Error;
pub use hearsay::Heard;
pub use node::Node;
pub use status::{LogStatus, Role, Status};
