//! What the agent itself answers: in the shape that the caller's SDK expects, and with nothing secret
//! in it.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use crate::body::{self, Body};
use crate::call::Dialect;

/// Tells the agent's answers from an upstream's, in one stable word.
pub(crate) const REASON: HeaderName = HeaderName::from_static("x-evermint-reason");

/// Why a call gets no upstream's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What SDKs decide by: they try again at 429 and from 500 on.
    pub(crate) status: StatusCode,
    /// A stable word in kebab case.
    pub(crate) reason: &'static str,
    /// For people: what is wrong, and what to do.
    pub(crate) message: String,
    /// When to ask again.
    pub(crate) retry_after: Option<Duration>,
}

impl Refusal {
    pub(crate) fn new(
        status: StatusCode,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            reason,
            message: message.into(),
            retry_after: None,
        }
    }

    /// Something that may pass.
    pub(crate) fn passing(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            retry_after: Some(RETRY),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, reason, message)
        }
    }

    /// The answer, to a caller of this dialect.
    pub(crate) fn response(&self, dialect: Dialect) -> Response<Body> {
        let mut response = json_response(self.status, &self.body(dialect));
        let headers = response.headers_mut();
        headers.insert(REASON, HeaderValue::from_static(self.reason));
        if let Some(retry_after) = self.retry_after {
            headers.insert(RETRY_AFTER, retry_after.as_secs().max(1).into());
        }
        response
    }

    fn body(&self, dialect: Dialect) -> Value {
        let message = &self.message;
        match dialect {
            Dialect::OpenAi => json!({"error": {
                "message": message,
                "type": if self.status.is_server_error() { "server_error" } else { "invalid_request_error" },
                "param": null,
                "code": self.reason,
            }}),
            Dialect::Anthropic => json!({
                "type": "error",
                "error": {"type": self.anthropic(), "message": message},
                "request_id": null,
            }),
            Dialect::Google => json!({"error": {
                "code": self.status.as_u16(),
                "message": message,
                "status": self.google(),
                "details": [{
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": self.reason,
                    "domain": "evermint",
                }],
            }}),
        }
    }

    /// Anthropic's word for the status.
    fn anthropic(&self) -> &'static str {
        match self.status.as_u16() {
            400 | 415 => "invalid_request_error",
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            503 => "overloaded_error",
            504 => "timeout_error",
            _ => "api_error",
        }
    }

    /// Google's word for the status.
    fn google(&self) -> &'static str {
        match self.status.as_u16() {
            400 | 413 | 415 => "INVALID_ARGUMENT",
            401 => "UNAUTHENTICATED",
            403 => "PERMISSION_DENIED",
            404 => "NOT_FOUND",
            503 => "UNAVAILABLE",
            504 => "DEADLINE_EXCEEDED",
            _ => "INTERNAL",
        }
    }
}

/// When to ask again for what may pass.
const RETRY: Duration = Duration::from_secs(2);

/// An answer in JSON that nobody keeps.
pub(crate) fn json_response(status: StatusCode, value: &Value) -> Response<Body> {
    typed(status, "application/json", value.to_string())
}

/// An answer as plain text.
pub(crate) fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    typed(status, "text/plain; charset=utf-8", text)
}

/// An answer of this media type that nobody keeps.
pub(crate) fn typed(
    status: StatusCode,
    media_type: &'static str,
    content: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(body::full(content));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_shape_that_the_callers_sdk_reads() {
        let refusal = Refusal::passing("no-token", "no token now");
        for (dialect, at, expected) in [
            (Dialect::OpenAi, "/error/message", json!("no token now")),
            (Dialect::OpenAi, "/error/code", json!("no-token")),
            (Dialect::Anthropic, "/type", json!("error")),
            (Dialect::Anthropic, "/error/type", json!("overloaded_error")),
            (Dialect::Anthropic, "/error/message", json!("no token now")),
            (Dialect::Google, "/error/status", json!("UNAVAILABLE")),
            (Dialect::Google, "/error/code", json!(503)),
        ] {
            assert_eq!(refusal.body(dialect).pointer(at), Some(&expected), "{at}");
        }
    }

    #[test]
    fn what_may_pass_says_when_to_ask_again() {
        let passing = Refusal::passing("no-token", "").response(Dialect::OpenAi);
        assert_eq!(passing.headers()[RETRY_AFTER], "2");
        assert_eq!(passing.headers()[REASON], "no-token");
        let refused = Refusal::new(StatusCode::NOT_FOUND, "no-route", "");
        assert!(
            !refused
                .response(Dialect::OpenAi)
                .headers()
                .contains_key(RETRY_AFTER)
        );
    }
}
