//! Chaos: clusters of real `evermint serve` processes under seeded faults, and what was seen of
//! them from outside.
//!
//! | part | what it is |
//! | --- | --- |
//! | [`check`] | what must hold of it, one file for each promise |
//! | [`history`] | what was seen: every call, read, issuer request and fault, one line each |

pub mod check;
pub mod history;
