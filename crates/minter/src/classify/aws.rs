//! The error codes of AWS, as
//! [STS](https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html) documents them:
//! what each means, and what a person can do.

use evermint_core::mint::FailureClass;
use serde::Deserialize;

use super::Words;
use crate::remedy::Said;

/// What a code means, and the remedy; `None` for one that is not AWS's. `grant` is the class of a
/// grant that is refused.
pub(super) fn verdict(code: &str, grant: FailureClass) -> Option<(FailureClass, &'static str)> {
    use FailureClass::{ConfigRefused, Throttled, Transient, UnknownRefusal};
    Some(match code {
        "ExpiredToken" | "ExpiredTokenException" => (
            grant,
            "the token that the role is assumed with has expired: give a fresh one, and see whether what renews it still runs",
        ),
        "IDPRejectedClaim" => (
            grant,
            "the identity provider's token does not fit: check its audience and subject against the role's trust policy",
        ),
        // The identity provider's keys may just be slow to arrive.
        "InvalidIdentityToken" => (
            UnknownRefusal,
            "AWS cannot verify the identity provider's token: check issuer URL, audience and thumbprint of the provider in IAM",
        ),
        "IDPCommunicationError" => (
            Transient,
            "AWS cannot reach the identity provider's keys: check that its JWKS answers from the internet",
        ),
        "AccessDenied" | "AccessDeniedException" => (
            ConfigRefused,
            "allow the call in the role's trust policy and in the caller's own policy, and check external_id; then configure the refresh again",
        ),
        "RegionDisabledException" => (
            ConfigRefused,
            "STS is not active in this region: activate it in the account's IAM settings, or configure another region",
        ),
        "MalformedPolicyDocument" => (
            ConfigRefused,
            "the session policy is no policy: correct policy and configure the refresh again",
        ),
        "PackedPolicyTooLarge" => (
            ConfigRefused,
            "the session policy is too large: shorten policy, or name fewer policy_arns",
        ),
        "ValidationError" => (
            ConfigRefused,
            "correct what the message names (often duration_seconds, beyond the role's maximum) and configure the refresh again",
        ),
        "InvalidClientTokenId" | "UnrecognizedClientException" => (
            ConfigRefused,
            "access_key_id is not known: it was deleted, is inactive or belongs to another partition; configure new keys",
        ),
        "SignatureDoesNotMatch" | "InvalidSignatureException" | "IncompleteSignature" => (
            ConfigRefused,
            "secret_access_key does not go with access_key_id: configure both again",
        ),
        "RequestExpired" => (Transient, "this replica's clock is off: set it (NTP)"),
        "OptInRequired" => (
            ConfigRefused,
            "the account is not signed up for this service: activate it",
        ),
        "Throttling"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException" => (
            Throttled,
            "wait; if it lasts, ask AWS for a higher limit or mint for fewer roles at once",
        ),
        "InternalFailure" | "ServiceUnavailable" => (Transient, ""),
        _ => return None,
    })
}

/// Whether a refusal with this code may be about the date of the request's signature.
pub(super) fn is_of_signature(code: &str) -> bool {
    matches!(code, "SignatureDoesNotMatch" | "InvalidSignatureException")
}

/// Whether a refusal with this code may be about the token that the role is assumed with.
pub(super) fn is_of_token(code: &str) -> bool {
    matches!(
        code,
        "ExpiredToken" | "ExpiredTokenException" | "IDPRejectedClaim"
    )
}

/// An error of the Query protocol: by itself, or the first of a list, as older services and moto
/// have it.
#[derive(Deserialize)]
struct ErrorResponse {
    #[serde(rename = "Error")]
    error: Option<Detail>,
    #[serde(rename = "Errors", default)]
    errors: Errors,
    #[serde(rename = "RequestId", default)]
    request: String,
}

#[derive(Default, Deserialize)]
struct Errors {
    #[serde(rename = "Error", default)]
    error: Vec<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    #[serde(rename = "Code")]
    code: String,
    #[serde(rename = "Message", default)]
    message: String,
}

/// The words of an error in XML.
pub(super) fn words(body: &[u8]) -> Option<Words> {
    let text = std::str::from_utf8(body).ok()?;
    let response: ErrorResponse = quick_xml::de::from_str(text).ok()?;
    let error = response
        .error
        .or_else(|| response.errors.error.into_iter().next())?;
    Some(Words {
        said: Said {
            code: error.code,
            description: error.message,
            ..Said::default()
        },
        request: response.request,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use evermint_core::mint::FAILURE_TEXT_MAX;

    #[test]
    fn an_error_of_the_query_protocol_is_read() {
        let body = br#"<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
            <Error><Type>Sender</Type><Code>AccessDenied</Code><Message>no &lt;way&gt;</Message></Error>
            <RequestId>1</RequestId></ErrorResponse>"#;
        let line = words(body).unwrap().line(403);
        assert_eq!(line, "AccessDenied (HTTP 403, request 1): no <way>");
        let body = b"<?xml version=\"1.0\"?><Response><Errors><Error><Code>A</Code></Error></Errors></Response>";
        assert_eq!(words(body).unwrap().line(403), "A (HTTP 403)");
        for other in [&b"<html><body>no</body></html>"[..], b"<", b"{}", b"\xff"] {
            assert!(words(other).is_none());
        }
    }

    #[test]
    fn a_final_refusal_has_a_remedy() {
        for code in [
            "ExpiredTokenException",
            "IDPRejectedClaim",
            "AccessDenied",
            "RegionDisabledException",
            "MalformedPolicyDocument",
            "PackedPolicyTooLarge",
            "ValidationError",
            "InvalidClientTokenId",
            "SignatureDoesNotMatch",
        ] {
            let (class, remedy) = verdict(code, FailureClass::GrantRefused).unwrap();
            assert!(matches!(
                class,
                FailureClass::ConfigRefused | FailureClass::GrantRefused
            ));
            assert!(
                !remedy.is_empty() && remedy.len() <= FAILURE_TEXT_MAX,
                "{code}"
            );
        }
        assert_eq!(verdict("invalid_grant", FailureClass::GrantRefused), None);
    }
}
