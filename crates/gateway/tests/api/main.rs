//! The API as a client sees it: over a real connection, with the ports faked.

#![allow(clippy::unwrap_used, reason = "a test that fails to unwrap has failed")]

mod access;
mod audit;
mod bad_input;
mod calls;
mod certificates;
mod cluster;
mod harness;
mod idp;
mod inference;
mod limits;
mod oidc;
mod openshell;
mod openshell_behind;
mod openshell_others;
mod openshell_sandbox;
mod passthrough;
mod profiles;
mod providers;
mod refreshes;
mod sandboxes;
mod secrets;
mod secure;
mod server;
mod tokens;
mod trials;
