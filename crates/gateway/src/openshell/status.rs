//! Errors in OpenShell's words: its codes and its texts, which its command line shows as they are.
//! The machine-readable reason stands beside them, as on the other face.

use tonic::{Code, Status};

use crate::status::with_reason;

/// The request is wrong.
pub(super) fn invalid(what: impl Into<String>) -> Status {
    with_reason(Code::InvalidArgument, "invalid-argument", what)
}

/// Nothing of that name.
pub(super) fn not_found(what: impl Into<String>) -> Status {
    with_reason(Code::NotFound, "not-found", what)
}

/// No workspace of that name.
pub(super) fn no_workspace(name: &str) -> Status {
    not_found(format!("workspace '{name}' not found"))
}

/// A method whose turn has not come.
pub(super) fn not_yet() -> Status {
    crate::status::unimplemented()
}
