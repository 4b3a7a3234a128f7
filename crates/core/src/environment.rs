//! A sandbox's environment: its variables, what gives each its value, and where a secret one may
//! be sent.

/// A variable whose value is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub key: String,
    /// Who gives the value: another identity means that older values are no longer to be used.
    pub identity: String,
    /// 64 hex digits that name the value in placeholders; `None` for a static value.
    pub handle: Option<String>,
}

/// A place to which values may be sent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// A host, or a pattern: `*` within a label, `**` for one or more labels.
    pub host: String,
    /// Not 0.
    pub port: u16,
    /// A path, or a pattern; empty for any.
    pub path: String,
    /// Whether placeholders are replaced in request bodies.
    pub body_rewrite: bool,
}

/// A variable whose value is not secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain {
    /// The provider's name.
    pub provider: String,
    /// The variable's name.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// Something that is not delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The provider's name.
    pub provider: String,
    /// Which of its variables; empty if all are concerned.
    pub key: String,
    /// In one line.
    pub cause: String,
}
