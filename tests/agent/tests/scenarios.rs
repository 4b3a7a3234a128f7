//! The whole path beside a cluster that is hurt: real replicas, a real agent, a strict API.
#![allow(clippy::unwrap_used, reason = "tests")]

mod scenarios {
    mod two_minutes;
}
