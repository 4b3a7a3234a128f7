//! A seeded simulation of the protocol: the real machines and the real state machine, in virtual
//! time, against everything that goes wrong.
//!
//! Real here: [`apply`](evermint_core::apply::apply), [`Owner`](evermint_protocol::owner::Owner),
//! [`Leader`](evermint_protocol::leader::Leader), recovery, cluster clock, deadline, the reader's
//! admission and the client's guard. Modelled: consensus (an oracle with one committed log), the
//! network, disks, clocks, processes, the issuer, sandboxes and operators. One seed decides
//! everything; the same seed is the same run, event for event.
//!
//! [`World`] is one run; `check` says what must hold after every step; [`Mutant`] are defects that
//! have to be found; [`shrink`](shrink::shrink) makes a failure small.

mod check;
pub mod config;
mod consensus;
pub mod dice;
mod faults;
pub mod hardware;
mod issuer;
pub mod mutant;
mod network;
mod operators;
mod outage;
mod readers;
mod replica;
pub mod report;
mod reports;
mod revoking;
mod shell;
pub mod shrink;
mod world;

pub use config::Config;
pub use mutant::Mutant;
pub use world::World;

use report::{Failure, Passed};

/// Runs one seed.
///
/// # Errors
/// The failure, made small.
pub fn run(seed: u64, mutant: Option<Mutant>) -> Result<Passed, Box<Failure>> {
    let config = Config::derive(seed);
    World::new(config.clone(), mutant)
        .run()
        .map_err(|(broken, _)| Box::new(shrink::shrink(config, mutant, broken)))
}
