//! What a failed call or stream means for what is done next: the one place that reads codes.

use std::time::Duration;

use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::error::Refusal;

/// The metadata key of the gateway's reason.
pub(crate) const REASON: &str = "evermint-reason";
/// The metadata key of the time after which to ask again
/// ([gRFC A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md)).
pub(crate) const RETRY: &str = "grpc-retry-pushback-ms";
/// The gateway's reason for a token that has come to its end.
const TOKEN_EXPIRED: &str = "token-expired";
/// Longest time to which a server can send a client away.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Why an endpoint did not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What it means.
    pub(crate) kind: Kind,
    /// Ask this endpoint again after this time, not earlier.
    pub(crate) pushback: Option<Duration>,
}

/// What a failure means.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Kind {
    /// It may pass, and another endpoint may be well.
    #[error("{0}")]
    Passing(String),
    /// Asking again does not help, though another endpoint may know better.
    #[error(transparent)]
    Refused(Refusal),
    /// There is no such sandbox, says a gateway.
    #[error("there is no such sandbox")]
    NoSandbox(Refusal),
    /// A stream ended, or did not begin, without a gateway's word: the connection broke, or
    /// something between spoke for it.
    #[error("the stream was cut: {0}")]
    Cut(String),
    /// A stream did not say anything in time.
    #[error("the stream said nothing for {} ms", .0.as_millis())]
    Silent(Duration),
}

impl Failure {
    /// Something that may pass.
    pub(crate) fn passing(cause: impl ToString) -> Self {
        Self {
            kind: Kind::Passing(cause.to_string()),
            pushback: None,
        }
    }

    /// A stream that ended without a word.
    pub(crate) fn cut(cause: impl ToString) -> Self {
        Self {
            kind: Kind::Cut(cause.to_string()),
            pushback: None,
        }
    }

    /// A stream that said nothing for so long.
    pub(crate) fn silent(bound: Duration) -> Self {
        Self {
            kind: Kind::Silent(bound),
            pushback: None,
        }
    }

    /// What a call ended with.
    pub(crate) fn of_call(status: &Status) -> Self {
        let reason = reason(status.metadata());
        let refusal = || Refusal {
            code: status.code(),
            reason: reason.clone(),
            message: status.message().to_owned(),
        };
        let kind = match status.code() {
            Code::NotFound if reason.as_deref() == Some("not-found") => Kind::NoSandbox(refusal()),
            Code::Unauthenticated
            | Code::PermissionDenied
            | Code::InvalidArgument
            | Code::NotFound
            | Code::Unimplemented => Kind::Refused(refusal()),
            _ => Kind::Passing(format!("{:?}: {}", status.code(), status.message())),
        };
        Self {
            kind,
            pushback: pushback(status.metadata()),
        }
    }

    /// What a stream ended with, or why it did not begin.
    pub(crate) fn of_stream(status: &Status, began: bool) -> Self {
        // A connection that cannot be made is UNAVAILABLE without a reason.
        let spoken =
            reason(status.metadata()).is_some() || (!began && status.code() == Code::Unavailable);
        // Proxies do not authenticate for us, but may say so in HTTP.
        let identity = matches!(
            status.code(),
            Code::Unauthenticated | Code::PermissionDenied
        );
        if spoken || identity {
            Self::of_call(status)
        } else {
            Self::cut(format!("{:?}: {}", status.code(), status.message()))
        }
    }
}

impl Kind {
    /// Whether a stream was ended with the token that opened it. Another one may be held by now.
    pub(crate) fn is_end_of_token(&self) -> bool {
        match self {
            Self::Refused(refusal) => {
                refusal.code == Code::Unauthenticated
                    && refusal.reason.as_deref() == Some(TOKEN_EXPIRED)
            }
            Self::Passing(_) | Self::NoSandbox(_) | Self::Cut(_) | Self::Silent(_) => false,
        }
    }
}

fn reason(metadata: &MetadataMap) -> Option<String> {
    Some(metadata.get(REASON)?.to_str().ok()?.to_owned())
}

fn pushback(metadata: &MetadataMap) -> Option<Duration> {
    let ms: u64 = metadata.get(RETRY)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_millis(ms).min(RETRY_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: Code, reason: Option<&'static str>, pushback: Option<&'static str>) -> Status {
        let mut status = Status::new(code, "why");
        for (key, value) in [(REASON, reason), (RETRY, pushback)] {
            if let Some(value) = value {
                status.metadata_mut().insert(key, value.parse().unwrap());
            }
        }
        status
    }

    fn word(failure: &Failure) -> &'static str {
        match failure.kind {
            Kind::Passing(_) => "passing",
            Kind::Refused(_) => "refused",
            Kind::NoSandbox(_) => "no sandbox",
            Kind::Cut(_) => "cut",
            Kind::Silent(_) => "silent",
        }
    }

    #[test]
    fn a_failure_means_what_the_gateway_says_and_silence_means_a_cut() {
        for (code, reason, call, opening, streaming) in [
            (
                Code::Unavailable,
                Some("behind"),
                "passing",
                "passing",
                "passing",
            ),
            (Code::Unavailable, None, "passing", "passing", "cut"),
            (Code::DeadlineExceeded, None, "passing", "cut", "cut"),
            (
                Code::Internal,
                Some("internal"),
                "passing",
                "passing",
                "passing",
            ),
            (Code::Internal, None, "passing", "cut", "cut"),
            (Code::Unknown, None, "passing", "cut", "cut"),
            (Code::Unimplemented, None, "refused", "cut", "cut"),
            (
                Code::NotFound,
                Some("not-found"),
                "no sandbox",
                "no sandbox",
                "no sandbox",
            ),
            (Code::NotFound, None, "refused", "cut", "cut"),
            (
                Code::Unauthenticated,
                Some("unauthenticated"),
                "refused",
                "refused",
                "refused",
            ),
            (Code::Unauthenticated, None, "refused", "refused", "refused"),
            (
                Code::InvalidArgument,
                Some("invalid-argument"),
                "refused",
                "refused",
                "refused",
            ),
        ] {
            let status = status(code, reason, None);
            let found = [
                word(&Failure::of_call(&status)),
                word(&Failure::of_stream(&status, false)),
                word(&Failure::of_stream(&status, true)),
            ];
            assert_eq!(found, [call, opening, streaming], "{code:?} {reason:?}");
        }
    }

    #[test]
    fn a_server_says_when_to_come_back_within_a_bound() {
        for (text, expected) in [
            (Some("50"), Some(Duration::from_millis(50))),
            (Some("86400000"), Some(RETRY_MAX)),
            (Some("-1"), None),
            (None, None),
        ] {
            let status = status(Code::Unavailable, Some("behind"), text);
            assert_eq!(Failure::of_call(&status).pushback, expected, "{text:?}");
        }
    }
}
