//! The ports of the domain as fakes: a whole cluster in memory, a clock in virtual time and a
//! scripted issuer. They run the real `apply`, so what they accept the real cluster accepts.

mod clock;
mod cluster;
mod minter;

pub use clock::TokioClock;
pub use cluster::FakeCluster;
pub use minter::{FakeMinter, MISSING, Revoked, Script};

use evermint_core::secret::DataKeyId;

/// The id of the data key that every fake cluster starts with.
pub const DATA_KEY: DataKeyId = DataKeyId(1);
