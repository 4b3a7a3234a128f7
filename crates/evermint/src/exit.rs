//! How a command ends: 0 when it did what was asked, 1 when it failed, 2 when it was asked wrongly,
//! 3 when what it waited for has no outcome yet.

use std::fmt;
use std::process::ExitCode;

/// The exit code of a command that waited, and learnt of no outcome.
pub const NO_OUTCOME: u8 = 3;

/// A command line, setting or input that cannot be meant; ends with exit code 2.
#[derive(Debug)]
struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A failure with advice: what was wrong, and what to do about it.
#[derive(Debug)]
struct Advised {
    problem: String,
    advice: String,
}

impl fmt::Display for Advised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl std::error::Error for Advised {}

/// An error that ends with exit code 2.
pub fn usage(text: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Usage(text.into()))
}

/// An error that ends with exit code 1 and says what to do.
pub fn advised(problem: impl Into<String>, advice: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Advised {
        problem: problem.into(),
        advice: advice.into(),
    })
}

/// What the error says can be done about it.
pub fn advice(error: &anyhow::Error) -> Option<&str> {
    error
        .chain()
        .find_map(|e| e.downcast_ref::<Advised>())
        .map(|a| a.advice.as_str())
}

/// The exit code for an error.
pub fn code(error: &anyhow::Error) -> ExitCode {
    let usage = error.chain().any(|e| e.is::<Usage>());
    ExitCode::from(if usage { 2 } else { 1 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn wrong_use_and_failure_have_codes_of_their_own() {
        let failure = anyhow::anyhow!("no");
        assert_eq!(code(&failure), ExitCode::from(1));
        let wrapped = Err::<(), _>(usage("no")).context("reading x").unwrap_err();
        assert_eq!(code(&wrapped), ExitCode::from(2));
    }
}
