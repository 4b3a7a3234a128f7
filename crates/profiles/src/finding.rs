//! What is wrong with a profile, and where.

use std::fmt;

/// One problem of a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The line, from 1; `None` if the profile did not come from a text.
    pub line: Option<usize>,
    /// The field, such as `credentials[0].refresh.token_url`; empty for the document.
    pub field: String,
    /// Whether the profile can be used all the same.
    pub severity: Severity,
    /// What is wrong and what is allowed, as the rest of a sentence that begins with the field.
    pub message: String,
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The profile is not accepted.
    Error,
    /// The profile may not be what its author meant.
    Warning,
}

impl Severity {
    /// The word that diagnostics show.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

impl Finding {
    /// A finding without a line.
    pub fn new(severity: Severity, field: impl Into<String>, message: impl fmt::Display) -> Self {
        Self {
            line: None,
            field: field.into(),
            severity,
            message: message.to_string(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        write!(f, "{}: ", self.severity.as_str())?;
        if !self.field.is_empty() {
            write!(f, "{} ", self.field)?;
        }
        f.write_str(&self.message)
    }
}
