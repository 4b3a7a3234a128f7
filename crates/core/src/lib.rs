//! The domain of Evermint, pure: types, the replicated state, and the one function that changes it.
//!
//! This crate does no IO, reads no clock and draws no random number; everything of that kind
//! arrives inside a [`Command`](command::Command) or a [`Stamp`](time::Stamp). So the same
//! history gives the same state, byte for byte, on every replica, and in every simulation.
//!
//! Where to start: [`state::State`] says what is replicated, [`apply::apply`] how it changes,
//! [`invariant`] what must hold after every step. [`refresh`] decides *when* a credential falls
//! due, [`placement`] *who* owns it, [`bundle`] what a sandbox sees of it. [`profile`] says what is
//! known of a type of provider. [`port`] lists what
//! the domain needs from outside.

pub mod admission;
pub mod apply;
pub mod audit;
pub mod bundle;
pub mod command;
pub mod credential;
pub mod environment;
pub mod horizon;
pub mod id;
pub mod invariant;
pub mod keys;
pub mod mint;
pub mod placement;
pub mod platform;
pub mod port;
pub mod profile;
pub mod provider;
pub mod record;
pub mod refresh;
pub mod revocation;
pub mod secret;
pub mod settings;
pub mod signing;
pub mod state;
pub mod strategy;
pub mod time;
