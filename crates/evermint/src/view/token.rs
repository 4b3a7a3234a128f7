//! Sandbox tokens.

use std::path::PathBuf;

use evermint_proto::v1;
use serde::Serialize;

use crate::out::{At, Render};
use crate::page::{Page, absolute};

/// The answer of `sandbox token`. It has no `Debug`: it holds the token.
#[derive(Serialize)]
pub struct Token {
    /// Whose it is.
    pub sandbox: String,
    /// The token, unless it went into a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// The file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// When it ends.
    pub expires_at: At,
}

impl Token {
    /// What the gateway answered.
    pub fn new(sandbox: String, answer: v1::IssueSandboxTokenResponse) -> Self {
        Self {
            sandbox,
            token: Some(answer.token),
            file: None,
            expires_at: At(answer.expires_at_ms),
        }
    }

    /// Takes the token out, so that it is not shown.
    pub fn take(&mut self) -> String {
        self.token.take().unwrap_or_default()
    }
}

impl Render for Token {
    /// The token alone, so that a script can take it; or where it is.
    fn render(&self, page: &mut Page) {
        match (&self.token, &self.file) {
            (Some(token), _) => page.line(token.as_str()),
            (None, Some(file)) => page.line(format!(
                "a token of sandbox {}, good until {}, is in {}",
                self.sandbox,
                absolute(self.expires_at.0),
                file.display()
            )),
            (None, None) => {}
        }
    }
}

/// The answer of `sandbox revoke`.
#[derive(Debug, Serialize)]
pub struct Revocation {
    /// Whose tokens.
    pub sandbox: String,
    /// Where the write stands in the history.
    pub position: u64,
}

impl Render for Revocation {
    fn render(&self, page: &mut Page) {
        page.line(format!(
            "the tokens of sandbox {} are revoked; streams that they opened end",
            self.sandbox
        ));
    }
}
