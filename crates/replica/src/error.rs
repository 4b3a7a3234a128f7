//! Why a replica does not start, or does not go on.

use std::path::PathBuf;

use evermint_core::command::Refusal;
use evermint_core::port::ProposeError;

use crate::durable::{Damage, StoreError};

/// Why a replica does not start, or cannot do what it is asked to; by what to do next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Correct the configuration.
    #[error("configuration: {0}")]
    Config(String),
    /// Stop the other process, or give this one a directory of its own.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// Start it with the key-encryption key of the cluster.
    #[error(
        "the cluster uses KEK {}, of which this replica has none (it has {})",
        .lacking.join(" and "),
        if .given.is_empty() { "no KEK".to_owned() } else { format!("KEK {}", .given.join(" and ")) }
    )]
    WrongKek {
        /// The names of those that it would need.
        lacking: Vec<String>,
        /// The names of those that it has.
        given: Vec<String>,
    },
    /// Use the build that wrote the store.
    #[error("the store has format {found}, this build knows {known}")]
    Format {
        /// What the store says.
        found: u32,
        /// What this build reads and writes.
        known: u32,
    },
    /// The store cannot be trusted any more: move it away, and the replica joins again as a new
    /// one. It must not vote with what is left.
    #[error(
        "the store is damaged: {0}; move the data directory away and let the replica join again"
    )]
    Damaged(#[from] Damage),
    /// Look at the disk, the network or the permissions.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The replica was removed from its cluster: wipe its data directory to let it join again.
    #[error("this replica was removed from the cluster")]
    Removed,
    /// The command was refused: nothing was changed.
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    /// Try again later.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The replica has stopped; start it again.
    #[error("the replica has stopped: {0}")]
    Stopped(String),
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

impl From<evermint_tls::Error> for Error {
    fn from(error: evermint_tls::Error) -> Self {
        Self::Config(format!("tls: {error}"))
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::InUse(path) => Self::InUse(path),
            StoreError::Format { found, known } => Self::Format { found, known },
            StoreError::Damaged(damage) => Self::Damaged(damage),
            StoreError::Io { what, source } => Self::Io { what, source },
        }
    }
}
