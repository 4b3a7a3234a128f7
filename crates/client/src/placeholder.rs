//! Placeholders: what child processes are given in place of secrets, and how a proxy turns them
//! into secrets again, in calls to the endpoints that the secrets are bound to and nowhere else.
//!
//! The forms are OpenShell's, so that what is written for its sandboxes runs in these:
//!
//! ```text
//! openshell:resolve:env:KEY                      names nothing but the key; never resolves to a secret
//! openshell:resolve:env:v<revision>_KEY          a static value
//! openshell:resolve:env:s<64 hex digits>_KEY     a minted value: always the newest
//! some-text-OPENSHELL-RESOLVE-ENV-KEY            an alias; never resolves to a secret
//! ```
//!
//! [`Placeholders`] knows what was given out; it grows with each bundle. A [`Resolver`] rewrites one
//! request to one endpoint: it resolves every placeholder or refuses the request. This module is
//! pure: time arrives as an argument.

mod encode;
mod pattern;
mod resolver;
mod rewrite;
mod store;
mod token;

pub use resolver::{Refused, Resolver};
pub use rewrite::Body;
pub use store::{Given, Placeholders, RETAINED_MAX};
pub use token::{ALIAS, PREFIX};
