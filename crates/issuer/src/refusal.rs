//! The errors of the token endpoint, as [RFC 6749 §5.2] shapes them.
//!
//! [RFC 6749 §5.2]: https://www.rfc-editor.org/rfc/rfc6749#section-5.2

/// A token request that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    /// For `error_description`: says why, never repeats what was sent.
    pub(crate) description: &'static str,
    /// The refresh token had been used before.
    pub(crate) reuse: bool,
}

/// The registered error codes of the token endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    InvalidRequest,
    /// `challenge`: the client used the `Authorization` header, and so must be answered with one.
    InvalidClient {
        challenge: bool,
    },
    InvalidGrant,
    UnauthorizedClient,
    UnsupportedGrantType,
    InvalidScope,
}

impl Code {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient { .. } => "invalid_client",
            Self::InvalidGrant => "invalid_grant",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::InvalidScope => "invalid_scope",
        }
    }

    /// 400, or 401 where the client is not who it says.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::InvalidClient { .. } => 401,
            _ => 400,
        }
    }

    pub(crate) fn because(self, description: &'static str) -> Refusal {
        Refusal {
            code: self,
            description,
            reuse: false,
        }
    }
}
