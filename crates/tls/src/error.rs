//! Why certificates cannot be used.

use std::path::PathBuf;

/// Why certificates cannot be used; by what to do next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Look at the path and its permissions.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Correct the file.
    #[error("{} {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, as the rest of a sentence.
        problem: String,
    },
    /// The certificate and its key cannot be used together, or not at all.
    #[error("the certificate and its key cannot be used: {0}")]
    Tls(#[from] rustls::Error),
    /// The authorities cannot be used.
    #[error("the certificate authorities cannot be used: {0}")]
    Authorities(String),
}
