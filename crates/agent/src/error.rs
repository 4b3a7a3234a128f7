//! Why an agent cannot be run, by what a person does about it.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why an agent, or a command under it, cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Correct the setting.
    #[error("{setting} {problem}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// What is wrong with it, and what is allowed.
        problem: String,
    },
    /// Choose another address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// Look at the state directory: give another one, or remove what is damaged.
    #[error("{}: {problem}", path.display())]
    State {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Look at the gateways: none has given a bundle.
    #[error("not ready within {waited:?}: {cause}")]
    NotReady {
        /// How long was waited.
        waited: std::time::Duration,
        /// What was said last.
        cause: String,
    },
    /// Correct the command.
    #[error("cannot run {command:?}: {source}")]
    Command {
        /// The program.
        command: String,
        /// What the system says.
        source: std::io::Error,
    },
}

impl Error {
    pub(crate) fn setting(setting: &'static str, problem: impl Into<String>) -> Self {
        Self::Setting {
            setting,
            problem: problem.into(),
        }
    }
}
