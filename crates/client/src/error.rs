//! What can go wrong, by what the caller does next.

use tonic::Code;

/// What a caller is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The client cannot be built like this: correct the setting.
    #[error("{setting} {problem}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// What is wrong with it, and what is allowed.
        problem: String,
    },
    /// No endpoint serves, and one refuses. A person may have to look; the client goes on asking all
    /// the same.
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    /// Nobody answered: try again.
    #[error("no answer: {0}")]
    Unanswered(String),
    /// The client is gone, or its runtime is: nothing will change any more.
    #[error("the client is closed")]
    Closed,
}

impl Error {
    pub(crate) fn setting(setting: &'static str, problem: impl ToString) -> Self {
        Self::Setting {
            setting,
            problem: problem.to_string(),
        }
    }
}

/// What an endpoint said that asking again does not change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code:?}: {message}")]
pub struct Refusal {
    /// The gRPC code, such as `UNAUTHENTICATED` or `NOT_FOUND`.
    pub code: Code,
    /// The gateway's stable word for it; `None` if it is not a gateway that answered.
    pub reason: Option<String>,
    /// For people.
    pub message: String,
}
