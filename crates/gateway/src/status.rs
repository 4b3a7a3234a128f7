//! The one place where errors become `tonic::Status`.
//!
//! Every status carries [`REASON`], a stable word for programs; its message is for people. Neither
//! ever holds a value that a client sent, names apart, nor anything that an issuer said.

use std::time::Duration;

use crate::token::Spent;
use bytes::Bytes;
use evermint_core::command::{Kind, Refusal};
use evermint_core::id::Position;
use evermint_core::port::ProposeError;
use evermint_core::time::millis;
use evermint_protocol::reader::Unfit;
use prost::Message as _;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::access::{Role, Target};
use crate::port::{ControlError, FieldProblem};

/// The metadata key of the reason.
pub const REASON: &str = "evermint-reason";

/// The metadata key of the time after which a call may be tried again
/// ([gRFC A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md)).
pub const RETRY: &str = "grpc-retry-pushback-ms";

/// After how long to ask again when the cluster has no leader.
const RETRY_LEADER: Duration = Duration::from_millis(500);
/// After how long to ask again when one replica cannot serve: another one can, at once.
const RETRY_ELSEWHERE: Duration = Duration::from_millis(50);

/// After how long to ask again when an OpenID provider was not reached.
const RETRY_PROVIDER: Duration = crate::jwks::PAUSE;
/// The time after which a login is tried again that found no room.
const RETRY_LOGIN: Duration = Duration::from_secs(1);

/// Most problems that one status tells; they have to fit into HTTP headers.
const PROBLEMS_MAX: usize = 16;

/// The reason of an error that was not made here, by its code.
pub(crate) fn default_reason(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::InvalidArgument => "invalid-argument",
        Code::DeadlineExceeded => "deadline-exceeded",
        Code::NotFound => "not-found",
        Code::AlreadyExists => "already-exists",
        Code::PermissionDenied => "permission-denied",
        Code::ResourceExhausted => "resource-exhausted",
        Code::FailedPrecondition => "failed-precondition",
        Code::Aborted => "aborted",
        // What tonic says of a message beyond the limit.
        Code::OutOfRange => "message-too-large",
        Code::Unimplemented => "unimplemented",
        Code::Unavailable => "unavailable",
        Code::Unauthenticated => "unauthenticated",
        Code::Unknown | Code::Internal | Code::DataLoss => "internal",
    }
}

fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Status {
    let mut status = Status::new(code, message);
    status
        .metadata_mut()
        .insert(REASON, MetadataValue::from_static(reason));
    status
}

/// A status in the words of another face.
pub(crate) fn with_reason(code: Code, reason: &'static str, message: impl Into<String>) -> Status {
    new(code, reason, bounded(message.into()))
}

fn retry_after(mut status: Status, after: Duration) -> Status {
    status
        .metadata_mut()
        .insert(RETRY, MetadataValue::from(millis(after)));
    status
}

/// No such method here, and nobody to ask for it.
pub(crate) fn unimplemented() -> Status {
    new(
        Code::Unimplemented,
        "unimplemented",
        "this is Evermint, which keeps provider credentials fresh; it has no such method, and no gateway behind it that might (--upstream-gateway)",
    )
}

/// The gateway behind this one was not reached, or broke off before it answered.
pub(crate) fn upstream_unreachable() -> Status {
    new(
        Code::Unavailable,
        "upstream-unreachable",
        "the gateway behind this one cannot be reached; this replica's log says why",
    )
}

/// The gateway behind this one answered something that makes no sense here.
pub(crate) fn upstream_unreadable() -> Status {
    new(
        Code::Internal,
        "upstream-unreadable",
        "the answer of the gateway behind this one cannot be used",
    )
}

/// Nobody knows whether this replica is up to date.
pub(crate) fn in_doubt() -> Status {
    retry_after(
        new(
            Code::Unavailable,
            "in-doubt",
            "this replica cannot learn whether it is up to date, and no other one answers for it",
        ),
        RETRY_LEADER,
    )
}

/// This replica cannot sign tokens now, for that reason.
pub(crate) fn no_issuer(why: &str) -> Status {
    retry_after(new(Code::Unavailable, "no-issuer", why), RETRY_ELSEWHERE)
}

/// Whether a refused caller may be known to another gateway: this one does not know it at all.
pub(crate) fn is_stranger(refused: &Status) -> bool {
    let reason = refused.metadata().get(REASON);
    let is = |word: &str| reason.is_some_and(|reason| reason == word);
    match refused.code() {
        Code::Unauthenticated => is("unauthenticated"),
        Code::NotFound => true,
        _ => false,
    }
}

/// The caller is known, and may not do this.
pub(crate) fn denied(what: &'static str) -> Status {
    new(Code::PermissionDenied, "permission-denied", what)
}

/// An operator who does not have this role where the call is about.
pub(crate) fn role_missing(role: Role, target: &Target) -> Status {
    let place = match target {
        Target::Anywhere | Target::Platform => String::new(),
        Target::Everywhere => " in all workspaces".to_owned(),
        Target::In(workspace) => format!(" in workspace {workspace}"),
    };
    new(
        Code::PermissionDenied,
        "role-missing",
        format!("role '{role}' required{place}"),
    )
}

/// An operator whose token does not have this scope.
pub(crate) fn scope_missing(scope: &str) -> Status {
    new(
        Code::PermissionDenied,
        "scope-missing",
        format!("scope '{scope}' required"),
    )
}

/// An OpenID provider whose keys are not known and cannot be asked for.
pub(crate) fn no_provider() -> Status {
    let message = "the OpenID provider's keys cannot be fetched; this replica's log says why";
    retry_after(
        new(Code::Unavailable, "no-oidc-keys", message),
        RETRY_PROVIDER,
    )
}

/// A caller who calls too often, and when it may again
/// ([`google.rpc.RetryInfo`](https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto)).
pub(crate) fn too_fast(wait: Duration) -> Status {
    const MESSAGE: &str = "too many calls; wait before the next one";
    let details = rpc::Status {
        code: Code::ResourceExhausted as i32,
        message: MESSAGE.to_owned(),
        details: vec![rpc::Any {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
            value: rpc::RetryInfo::after(wait).encode_to_vec(),
        }],
    };
    let details = Bytes::from(details.encode_to_vec());
    let mut status = Status::with_details(Code::ResourceExhausted, MESSAGE, details);
    let reason = MetadataValue::from_static("rate-limited");
    status.metadata_mut().insert(REASON, reason);
    // Rounded up: who comes back at that time is let in.
    retry_after(status, wait + Duration::from_millis(1))
}

/// Too many who wait already have their tokens looked at.
pub(crate) fn too_many_logins() -> Status {
    let status = new(
        Code::ResourceExhausted,
        "too-many-logins",
        "too many failed logins from this address; wait before the next one",
    );
    retry_after(status, RETRY_LOGIN)
}

/// A workspace that holds as much as it may.
pub(crate) fn workspace_full(what: &'static str, max: usize) -> Status {
    new(
        Code::ResourceExhausted,
        "workspace-full",
        format!("the workspace may hold {max} {what}; delete some, or have limit_{what} raised"),
    )
}

/// A request longer than what is read.
pub(crate) fn too_large(max: usize) -> Status {
    new(
        Code::OutOfRange,
        "message-too-large",
        format!("decoded message length too large: the limit is {max} bytes"),
    )
}

/// A request that did not come in time.
pub(crate) fn too_slow() -> Status {
    new(
        Code::DeadlineExceeded,
        "request-too-slow",
        "the request did not arrive in time",
    )
}

/// A token that was good once, or is not yet.
pub(crate) fn spent(spent: Spent) -> Status {
    let reason = match spent {
        Spent::Expired => "token-expired",
        Spent::Revoked => "token-revoked",
        Spent::Unknown => "token-unknown",
    };
    new(Code::Unauthenticated, reason, spent.to_string())
}

/// A command that was refused.
pub(crate) fn refused(refusal: &Refusal) -> Status {
    let (code, reason) = match refusal {
        Refusal::NotBootstrapped => {
            let status = new(
                Code::Unavailable,
                "not-bootstrapped",
                "the cluster is not bootstrapped yet",
            );
            return retry_after(status, RETRY_LEADER);
        }
        Refusal::NotFound(_) => (Code::NotFound, "not-found"),
        Refusal::AlreadyExists(_) => (Code::AlreadyExists, "already-exists"),
        Refusal::VersionMismatch { .. } => (Code::Aborted, "version-mismatch"),
        Refusal::BadSetting(_) => (Code::InvalidArgument, "bad-setting"),
        Refusal::TooMany { .. } => (Code::InvalidArgument, "too-many"),
        Refusal::AlreadyBootstrapped => (Code::FailedPrecondition, "already-bootstrapped"),
        Refusal::InUse { .. } => (Code::FailedPrecondition, "in-use"),
        Refusal::RefreshManaged(_) => (Code::FailedPrecondition, "refresh-managed"),
        Refusal::Pushed => (Code::FailedPrecondition, "pushed"),
        Refusal::NoRefresh => (Code::FailedPrecondition, "no-refresh"),
        Refusal::KeyCollision { .. } => (Code::FailedPrecondition, "key-collision"),
        Refusal::OutputOf { .. } => (Code::FailedPrecondition, "output-of"),
        Refusal::AuthorityExists => (Code::FailedPrecondition, "authority-exists"),
        Refusal::NoAuthority => (Code::FailedPrecondition, "no-authority"),
        Refusal::JoinTokenNeeded => (Code::FailedPrecondition, "join-token-needed"),
        Refusal::BadJoinToken(_) => (Code::FailedPrecondition, "bad-join-token"),
        Refusal::OtherWorkspace => (Code::FailedPrecondition, "other-workspace"),
        Refusal::TicketOutstanding => (Code::FailedPrecondition, "ticket-outstanding"),
        Refusal::InDoubt { .. } => (Code::FailedPrecondition, "in-doubt"),
        Refusal::Stopped => (Code::FailedPrecondition, "stopped"),
        Refusal::NotRevocable(_) => (Code::FailedPrecondition, "not-revocable"),
        Refusal::GrantAtStake(_) => (Code::FailedPrecondition, "grant-at-stake"),
        Refusal::KeysChanged => (Code::Aborted, "keys-changed"),
        // Those of placement and of the mint protocol concern owners, which propose past the
        // gateway.
        _ => (Code::Aborted, "stale"),
    };
    new(code, reason, bounded(refusal.to_string()))
}

/// A proposal or a question to the leader without an answer. A write whose answer was lost may
/// have taken effect: that is what `DEADLINE_EXCEEDED` says
/// ([gRPC status codes](https://grpc.io/docs/guides/status-codes/)).
pub(crate) fn unanswered(error: &ProposeError) -> Status {
    match error {
        ProposeError::Unavailable(_) => retry_after(
            new(Code::Unavailable, "no-leader", error.to_string()),
            RETRY_LEADER,
        ),
        ProposeError::Unknown(_) => new(
            Code::DeadlineExceeded,
            "outcome-unknown",
            format!("{error}; look before trying again: it may have happened"),
        ),
    }
}

/// The write is done, but this replica cannot show it yet.
pub(crate) fn done_elsewhere(position: Position) -> Status {
    new(
        Code::DeadlineExceeded,
        "done-elsewhere",
        format!(
            "the write took effect at position {position}, which this replica has not applied yet"
        ),
    )
}

/// A change of the Raft group that did not happen.
pub(crate) fn uncontrolled(error: &ControlError) -> Status {
    match error {
        ControlError::Refused(why) => new(Code::FailedPrecondition, "refused", why.as_str()),
        ControlError::Propose(error) => unanswered(error),
    }
}

/// A replica that may not answer reads.
pub(crate) fn unfit(unfit: Unfit) -> Status {
    let reason = match unfit {
        Unfit::NeverCaughtUp => "never-caught-up",
        Unfit::CutOff(_) => "cut-off",
    };
    retry_after(
        new(
            Code::Unavailable,
            reason,
            format!("{unfit}; ask another replica"),
        ),
        RETRY_ELSEWHERE,
    )
}

/// A replica that has not applied what the reader has seen, or was told to show.
pub(crate) fn behind(applied: Position, wanted: Position) -> Status {
    retry_after(
        new(
            Code::Unavailable,
            "behind",
            format!(
                "this replica has applied the history up to {applied}, not yet {wanted}; ask another replica"
            ),
        ),
        RETRY_ELSEWHERE,
    )
}

/// A replica that lacks a data key: another one may have it.
pub(crate) fn no_key() -> Status {
    let message = "this replica has not loaded the data key yet; ask another replica";
    retry_after(
        new(Code::Unavailable, "no-data-key", message),
        RETRY_ELSEWHERE,
    )
}

/// A replica that has as many dry runs to do as it does at once.
pub(crate) fn busy() -> Status {
    let message = "this replica is busy with other dry runs; ask another replica";
    retry_after(new(Code::Unavailable, "busy", message), RETRY_ELSEWHERE)
}

/// A replica on its way down.
pub(crate) fn shutting_down() -> Status {
    retry_after(
        new(
            Code::Unavailable,
            "shutting-down",
            "this replica is shutting down; ask another replica",
        ),
        RETRY_ELSEWHERE,
    )
}

/// No object of that name.
pub(crate) fn not_found(kind: Kind, name: impl std::fmt::Display) -> Status {
    new(
        Code::NotFound,
        "not-found",
        format!("{kind} {name} not found"),
    )
}

/// A built-in profile is no state that could be deleted.
pub(crate) fn built_in(id: impl std::fmt::Display) -> Status {
    new(
        Code::FailedPrecondition,
        "built-in",
        format!("profile {id} is built in and cannot be deleted"),
    )
}

/// No credentials with the call, or not the right ones.
pub(crate) fn unauthenticated(what: &'static str) -> Status {
    new(Code::Unauthenticated, "unauthenticated", what)
}

/// Something that is no fault of the caller. The cause is logged, not told.
pub(crate) fn internal(what: &'static str) -> Status {
    new(Code::Internal, "internal", what)
}

/// A request that is wrong in these ways.
pub(crate) fn invalid(problems: &[FieldProblem]) -> Status {
    let told = &problems[..problems.len().min(PROBLEMS_MAX)];
    let mut message = told
        .iter()
        .map(|p| format!("{} {}", p.field, p.problem))
        .collect::<Vec<_>>()
        .join("; ");
    if problems.len() > told.len() {
        message.push_str(&format!("; and {} more", problems.len() - told.len()));
    }
    let details = rpc::Status {
        code: Code::InvalidArgument as i32,
        message: message.clone(),
        details: vec![rpc::Any {
            type_url: "type.googleapis.com/google.rpc.BadRequest".to_owned(),
            value: rpc::BadRequest::of(told).encode_to_vec(),
        }],
    };
    let mut status = Status::with_details(
        Code::InvalidArgument,
        message,
        Bytes::from(details.encode_to_vec()),
    );
    status
        .metadata_mut()
        .insert(REASON, MetadataValue::from_static("invalid-argument"));
    status
}

/// The fields that a status of this server names, with what is wrong with each; for its clients.
pub fn field_problems(status: &Status) -> Vec<FieldProblem> {
    let details = rpc::Status::decode(status.details()).unwrap_or_default();
    let is_about_fields = |any: &&rpc::Any| any.type_url.ends_with("/google.rpc.BadRequest");
    let bodies = details.details.iter().filter(is_about_fields);
    bodies
        .filter_map(|any| rpc::BadRequest::decode(any.value.as_slice()).ok())
        .flat_map(|request| request.field_violations)
        .map(|violation| FieldProblem {
            field: violation.field,
            problem: violation.description,
        })
        .collect()
}

/// A message that fits into HTTP headers.
fn bounded(mut message: String) -> String {
    const MAX: usize = 2048;
    if message.len() > MAX {
        let end = (0..=MAX).rev().find(|i| message.is_char_boundary(*i));
        message.truncate(end.unwrap_or(0));
        message.push('…');
    }
    message
}

/// The messages of [`google.rpc`](https://github.com/googleapis/googleapis/tree/master/google/rpc)
/// that a status carries as details.
pub(crate) mod rpc {
    use crate::port::FieldProblem;

    /// When to try again.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct RetryInfo {
        #[prost(message, optional, tag = "1")]
        pub(crate) retry_delay: Option<Span>,
    }

    impl RetryInfo {
        pub(crate) fn after(wait: std::time::Duration) -> Self {
            Self {
                retry_delay: Some(Span {
                    seconds: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                    nanos: i32::try_from(wait.subsec_nanos()).unwrap_or(i32::MAX),
                }),
            }
        }
    }

    /// `google.protobuf.Duration`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Span {
        #[prost(int64, tag = "1")]
        pub(crate) seconds: i64,
        #[prost(int32, tag = "2")]
        pub(crate) nanos: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Status {
        #[prost(int32, tag = "1")]
        pub(crate) code: i32,
        #[prost(string, tag = "2")]
        pub(crate) message: String,
        #[prost(message, repeated, tag = "3")]
        pub(crate) details: Vec<Any>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Any {
        #[prost(string, tag = "1")]
        pub(crate) type_url: String,
        #[prost(bytes = "vec", tag = "2")]
        pub(crate) value: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct BadRequest {
        #[prost(message, repeated, tag = "1")]
        pub(crate) field_violations: Vec<FieldViolation>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct FieldViolation {
        #[prost(string, tag = "1")]
        pub(crate) field: String,
        #[prost(string, tag = "2")]
        pub(crate) description: String,
    }

    impl BadRequest {
        pub(super) fn of(problems: &[FieldProblem]) -> Self {
            let field_violations = problems
                .iter()
                .map(|p| FieldViolation {
                    field: p.field.clone(),
                    description: p.problem.clone(),
                })
                .collect();
            Self { field_violations }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_stands_in_the_message_and_in_the_details() {
        let problems: Vec<_> = (0..20)
            .map(|i| FieldProblem {
                field: format!("config[\"{i}\"]"),
                problem: "must not be empty".to_owned(),
            })
            .collect();
        let status = invalid(&problems);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(
            status
                .message()
                .starts_with("config[\"0\"] must not be empty; config[\"1\"] must not be empty; ")
        );
        assert!(status.message().ends_with("; and 4 more"));
        let details = rpc::Status::decode(status.details()).unwrap();
        assert_eq!(details.code, 3);
        assert_eq!(field_problems(&status), problems[..PROBLEMS_MAX]);
        assert_eq!(field_problems(&shutting_down()), []);
    }

    #[test]
    fn what_may_pass_tells_when_to_ask_again() {
        for status in [
            unanswered(&ProposeError::Unavailable("no votes".to_owned())),
            behind(Position(3), Position(7)),
            unfit(Unfit::NeverCaughtUp),
            shutting_down(),
        ] {
            assert_eq!(status.code(), Code::Unavailable);
            assert!(status.metadata().contains_key(RETRY), "{status:?}");
        }
        let unknown = unanswered(&ProposeError::Unknown("connection lost".to_owned()));
        assert_eq!(unknown.code(), Code::DeadlineExceeded);
        assert!(!unknown.metadata().contains_key(RETRY));
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let cut = bounded("ü".repeat(5000));
        assert!(cut.len() < 2100 && cut.ends_with('…'));
    }
}
