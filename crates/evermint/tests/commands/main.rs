//! The commands as an operator runs them: the real program, against a replica in this process and
//! the built-in issuer.

#![allow(clippy::unwrap_used, reason = "a test that fails to unwrap has failed")]

mod agent;
mod endpoints;
mod errors;
mod expiry;
mod found;
mod identity;
mod output;
mod readme;
mod refresh;
mod revocation;
mod site;
mod trial;
mod values;
