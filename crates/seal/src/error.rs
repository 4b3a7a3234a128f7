//! Why sealing, opening or loading a key did not work, and what to do.

use std::path::PathBuf;

use evermint_core::secret::DataKeyId;

/// Never shows a key or a clear text.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file with the key-encryption key cannot be read.
    #[error("cannot read the KEK from {path}: {source}")]
    KekFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others than its owner may read the file.
    #[error(
        "the KEK file {path} may be read by others (mode {mode:04o}); run `chmod 600 {path}`, or allow it in the configuration"
    )]
    KekFileOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The environment has no such variable.
    #[error(
        "the environment variable {0} is not set; it must hold the KEK: 32 bytes in base64 or hex"
    )]
    KekVariable(String),
    /// The command did not print a key.
    #[error("the KEK command {program} {problem}; run it by hand, as the replica's user")]
    KekCommand {
        /// The program, without its arguments.
        program: String,
        /// What happened.
        problem: String,
    },
    /// What was found is no key.
    #[error(
        "{origin} holds no KEK: {problem}; expected are 32 random bytes, as base64 or hex (make one with `openssl rand -base64 32`)"
    )]
    KekMalformed {
        /// Where it came from.
        origin: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The data key was wrapped by another key-encryption key.
    #[error(
        "the KEK is not the one that wrapped data key {}: needed is KEK {expected}, given is KEK {got}; start this replica with KEK {expected}, as its only KEK or, while the KEK is rotated, as the former one beside the new (kek_former_file, _env or _command)",
        data_key.0
    )]
    WrongKek {
        /// The data key.
        data_key: DataKeyId,
        /// The name of the key that wrapped it.
        expected: String,
        /// The names of the keys at hand.
        got: String,
    },
    /// The wrapped key does not open although the key-encryption key is the right one.
    #[error("data key {} is damaged; restore it from a backup", .0.0)]
    DamagedDataKey(DataKeyId),
    /// No data key was loaded yet: the cluster is not bootstrapped, or its state not yet here.
    #[error("no data key is loaded; bootstrap the cluster, or wait until its state has arrived")]
    NoDataKey,
    /// The value names a data key that was not loaded: this replica's state is behind, or the
    /// value is from another cluster.
    #[error("data key {} is not loaded; load the data keys of the newest state", .0.0)]
    UnknownDataKey(DataKeyId),
    /// The value was altered, or was sealed for another place.
    #[error("{0} cannot be opened: it was altered, or sealed for another place")]
    Refused(String),
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    NoRandomness,
}
