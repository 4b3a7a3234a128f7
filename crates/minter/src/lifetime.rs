//! How long a token lives: what the issuer said, else what the token itself says, else nothing.
//! Never for ever.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::fmt::rfc2822::DateTimeParser;
use serde::Deserialize;
use serde_json::Value;

use crate::transport::Answer;

/// The longest payload of a token that is looked into, in bytes of base64.
const PAYLOAD_MAX: usize = 64 * 1024;

/// Reads `expires_in`, [RFC 6749 §5.1](https://www.rfc-editor.org/rfc/rfc6749#section-5.1). It is
/// only recommended, and comes as a number, as a string, as null, or not at all; whatever is not a
/// believable number of seconds counts as not given.
pub(crate) fn expires_in(value: &Value) -> Option<Duration> {
    let seconds = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    believable(seconds?)
}

/// The lifetime that a JWT carries, without checking its signature: it is the issuer's word either
/// way. Counts from the earlier of what `iat` and the issuer's clock (`date`) give; `None` if the
/// text is no JWT, or has no believable end.
pub(crate) fn of_jwt(token: &str, date: Option<SystemTime>) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
        iat: Option<f64>,
    }
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || payload.len() > PAYLOAD_MAX {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let claims: Claims = serde_json::from_slice(&bytes).ok()?;
    let now = date.and_then(|date| date.duration_since(SystemTime::UNIX_EPOCH).ok());
    let by_date = now.and_then(|now| believable(claims.exp - now.as_secs_f64()));
    let by_issue = claims.iat.and_then(|iat| believable(claims.exp - iat));
    earlier(by_date, by_issue)
}

/// The time from `now` to an end in seconds since 1970, if it is believable.
pub(crate) fn until(end: &Value, now: SystemTime) -> Option<Duration> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    believable(end.as_f64()? - now.as_secs_f64())
}

/// The time from an answer to an end as [RFC 3339](https://www.rfc-editor.org/rfc/rfc3339) writes
/// it, by the issuer's clock, if it is believable.
pub(crate) fn until_timestamp(end: &str, answer: &Answer) -> Option<Duration> {
    until_rfc3339(end, answer.date().unwrap_or(answer.received_at))
}

/// The time from `now` to an end as [RFC 3339](https://www.rfc-editor.org/rfc/rfc3339) writes it,
/// if it is believable.
pub(crate) fn until_rfc3339(end: &str, now: SystemTime) -> Option<Duration> {
    let end: jiff::Timestamp = end.trim().parse().ok()?;
    until(&Value::from(end.as_second()), now)
}

/// The shorter one, if both are known.
pub(crate) fn earlier(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The longest lifetime that is believed, in seconds: a year. One of ten years is more likely to be
/// a mistake, or to mean "for ever", than a promise.
const BELIEVED_MAX: f64 = 366.0 * 86_400.0;

/// At least a second, at most [`BELIEVED_MAX`], in whole milliseconds.
fn believable(seconds: f64) -> Option<Duration> {
    let fits = (1.0..=BELIEVED_MAX).contains(&seconds);
    fits.then(|| Duration::from_millis((seconds * 1_000.0) as u64))
}

/// Reads an HTTP date, [RFC 9110 §5.6.7](https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7).
pub(crate) fn http_date(text: &str) -> Option<SystemTime> {
    let timestamp = DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    Some(timestamp.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secs(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn expires_in_is_read_in_all_its_shapes() {
        for (value, expected) in [
            (json!(3600), secs(3600)),
            (json!(3599.5), Some(Duration::from_millis(3_599_500))),
            (json!("3600"), secs(3600)),
            (json!(" 3600.0 "), secs(3600)),
            (json!(1), secs(1)),
            (json!(null), None),
            (json!(0), None),
            (json!(0.4), None),
            (json!(-5), None),
            (json!("-5"), None),
            (json!(""), None),
            (json!("never"), None),
            (json!("inf"), None),
            (json!("NaN"), None),
            (json!(true), None),
            (json!([3600]), None),
            (json!(1e300), None),
            (json!(400_000_000), None),
            (json!(u64::MAX), None),
            (json!(315_360_000), None),
            (json!(31_536_000), secs(31_536_000)),
        ] {
            assert_eq!(expires_in(&value), expected, "{value}");
        }
    }

    fn jwt(claims: Value) -> String {
        format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    fn at(unix: u64) -> Option<SystemTime> {
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(unix))
    }

    #[test]
    fn a_jwt_tells_its_lifetime() {
        for (claims, date, expected) in [
            (json!({"exp": 1_000_600, "iat": 1_000_000}), None, secs(600)),
            (json!({"exp": 1_000_600}), at(1_000_100), secs(500)),
            (
                json!({"exp": 1_000_600, "iat": 1_000_000}),
                at(1_000_100),
                secs(500),
            ),
            (
                json!({"exp": 1_000_600, "iat": 1_000_000}),
                at(999_000),
                secs(600),
            ),
            (
                json!({"exp": 1_000_600.0, "iat": 1_000_000}),
                None,
                secs(600),
            ),
            (json!({"exp": 1_000_600}), None, None),
            (json!({"exp": 1_000_600}), at(2_000_000), None),
            (
                json!({"exp": 1_000_600, "iat": 1_000_000}),
                at(2_000_000),
                secs(600),
            ),
            (json!({"exp": 99_999_999_999_u64, "iat": 0}), at(0), None),
            (json!({"iat": 5}), at(0), None),
            (json!({"exp": "soon"}), at(0), None),
        ] {
            assert_eq!(
                of_jwt(&jwt(claims.clone()), date),
                expected,
                "{claims} {date:?}"
            );
        }
    }

    #[test]
    fn what_is_no_jwt_tells_nothing() {
        for token in [
            "", "opaque", "a.b", "a.b.c", "a.b.c.d", "..", "e30.e30.", "a.!!.c",
        ] {
            assert_eq!(of_jwt(token, at(0)), None, "{token}");
        }
    }

    #[test]
    fn an_http_date_is_read() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), at(784_111_777));
        assert_eq!(http_date("yesterday"), None);
    }
}
