//! Tests on real `evermint serve` processes, and what they need: this crate is the harness, the
//! scenarios stand in `tests/`, one file each.
//!
//! | part | what it is |
//! | --- | --- |
//! | [`Cluster`] | replicas as processes with directories of their own: killed, paused, started again |
//! | [`Admin`] | calls to the cluster, as an operator makes them: any replica, with retries |
//! | [`Idp`] | the issuer: the real OpenID provider in `real-idp/`, or the built-in one |
//! | [`Gate`] | a door before the issuer at which connecting hangs |
//! | [`Sandboxes`] | readers that move between replicas and remember every answer |
//! | [`OpenShellSandbox`] | a sandbox with the habits of OpenShell's client |
//! | [`eventually`] | waits for a condition, with a bound: nothing here sleeps for luck |
//!
//! A fault that does not take effect fails the test that injects it. When a test fails, the ends of
//! the replicas' logs are printed and their directories are kept.

mod admin;
mod binary;
mod canary;
mod cluster;
mod config;
mod gate;
mod idp;
mod mints;
mod openshell;
mod ports;
mod process;
mod sandbox;
mod tap;
mod wait;

pub use admin::Admin;
pub use binary::{evermint, evermint_failpoints};
pub use canary::Canary;
pub use cluster::{Cluster, Replica};
pub use config::Options;
pub use gate::{Gate, Guest};
pub use idp::{Family, Grant, Idp, TTL_FOR_EVER};
pub use mints::{Mints, Refreshing};
pub use openshell::{Counted, OpenShellFindings, OpenShellSandbox};
pub use ports::free_port;
pub use process::Process;
pub use sandbox::{Findings, Sandboxes, Way, digest12};
pub use wait::{eventually, say, unix_ms};
