//! Everything behind the `evermint` command.
//!
//! [`wire`] alone knows all other crates: it puts one replica together, for `serve`, for `dev`
//! and for tests in the same process. [`settings`] says what a replica is told; [`cli`] is the
//! command line, [`command`] a file for each operator command, [`view`] what they show, and
//! [`gateways`] how they reach the cluster.

pub mod chain;
pub mod cli;
pub mod command;
pub mod dev;
pub mod discover;
pub mod duration;
pub mod exit;
pub mod gateways;
pub mod memory;
pub mod out;
pub mod page;
pub mod serve;
pub mod settings;
pub mod value;
pub mod view;
pub mod wire;
