//! The issuer over real connections: grants, faults, and the history it keeps of both.

// The helpers of these tests are tests too, but carry no attribute that says so.
#![allow(clippy::unwrap_used)]

mod admin;
mod faults;
mod grants;
mod history;
mod process;
mod support;
