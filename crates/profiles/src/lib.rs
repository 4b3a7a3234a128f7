//! Provider profiles as people write them: YAML in and out, every problem at once with its line,
//! and the built-in ones.
//!
//! The profile itself is [`evermint_core::profile::Profile`]. [`yaml`] makes a bounded tree with
//! line numbers of a text, [`mod@read`] a profile of a tree, [`mod@lint`] looks for what no type forbids,
//! [`mod@write`] is the way back. Names of fields are OpenShell's where it has the thing.

pub mod builtin;
mod finding;
pub mod lint;
pub mod read;
mod read_parts;
pub mod write;
pub mod yaml;

pub use builtin::catalog;
pub use finding::{Finding, Severity};
pub use lint::lint;
pub use read::{Document, read};
pub use write::{write, write_all};
