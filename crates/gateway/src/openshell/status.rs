//! Errors in OpenShell's words: its codes and its texts, which its command line shows as they are.
//! The machine-readable reason stands beside them, as on the other face.

use evermint_core::command::Refusal;
use evermint_core::provider::Provider;
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
    let shown: String = name.chars().take(64).collect();
    not_found(format!("workspace '{shown}' not found"))
}

/// Something else has to be done first.
pub(super) fn precondition(what: impl Into<String>) -> Status {
    with_reason(Code::FailedPrecondition, "failed-precondition", what)
}

/// No credential of a provider has a value that a route could use now.
pub(super) fn no_usable_credential(provider: &Provider) -> Status {
    invalid(format!(
        "provider '{}' has no usable credential",
        provider.name
    ))
}

/// No provider of that name, where there has to be one.
pub(super) fn no_provider(name: &str) -> Status {
    with_reason(
        Code::FailedPrecondition,
        "not-found",
        format!("provider '{name}' not found"),
    )
}

/// Somebody else was first.
pub(super) fn aborted(what: impl Into<String>) -> Status {
    with_reason(Code::Aborted, "aborted", what)
}

/// What is needed does not answer; it may later.
pub(super) fn unavailable(what: impl Into<String>) -> Status {
    with_reason(Code::Unavailable, "unavailable", what)
}

/// A part of a method that is not Evermint's.
pub(super) fn unimplemented(what: impl Into<String>) -> Status {
    with_reason(Code::Unimplemented, "unimplemented", what)
}

/// A command that was refused.
pub(super) fn refused(refusal: &Refusal) -> Status {
    match refusal {
        Refusal::VersionMismatch { kind, current } => with_reason(
            Code::Aborted,
            "version-mismatch",
            format!("{kind} was modified concurrently (current resource_version: {current})"),
        ),
        refusal => crate::status::refused(refusal),
    }
}
