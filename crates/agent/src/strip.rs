//! What must not go on: whatever credentials a caller has put into its call, and the headers that
//! are between two neighbours only.

use http::header::{CONNECTION, COOKIE, FORWARDED, HOST, HeaderName, SET_COOKIE, TE};
use http::{HeaderMap, HeaderValue};

/// A header with one of these in its name is a credential, or says whose one is.
const CREDENTIAL_HEADERS: [&str; 12] = [
    "authorization",
    "api-key",
    "apikey",
    "access-key",
    "auth-token",
    "access-token",
    "security-token",
    "session-token",
    "subscription-key",
    "secret",
    "credential",
    "signature",
];

/// These say whose credential it is; with another one they are wrong.
const OWNER_HEADERS: [&str; 4] = [
    "openai-organization",
    "openai-project",
    "x-goog-user-project",
    "x-goog-iam-authority-selector",
];

/// Query parameters that are credentials.
const CREDENTIAL_PARAMETERS: [&str; 10] = [
    "key",
    "api_key",
    "api-key",
    "apikey",
    "access_token",
    "oauth_token",
    "token",
    "auth",
    "sig",
    "subscription-key",
];

/// Headers that are between two neighbours only
/// ([RFC 9110 §7.6.1](https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1)).
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Takes every credential out of a caller's headers; what says whose one it is stays if it is among
/// `kept`.
pub(crate) fn credentials(headers: &mut HeaderMap, kept: &[String]) {
    let is_credential = |name: &HeaderName| {
        let name_text = name.as_str();
        name == COOKIE
            || (OWNER_HEADERS.contains(&name_text) && !kept.iter().any(|k| k == name_text))
            || CREDENTIAL_HEADERS
                .iter()
                .any(|word| name_text.contains(word))
            || name_text.starts_with("x-amz-")
    };
    remove(headers, is_credential);
}

/// The query without credentials and without the parameter `also`; `None` if nothing is left.
pub(crate) fn query(query: Option<&str>, also: Option<&str>) -> Option<String> {
    let is_credential = |parameter: &str| {
        let name = parameter.split('=').next().unwrap_or_default();
        let name = percent_decoded(name).to_ascii_lowercase();
        let name = name.strip_prefix('$').unwrap_or(&name);
        CREDENTIAL_PARAMETERS.contains(&name)
            || also.is_some_and(|also| also.eq_ignore_ascii_case(name))
            || name.starts_with("x-amz-")
            || name.starts_with("x-goog-")
    };
    let kept: Vec<_> = query?
        .split('&')
        .filter(|p| !p.is_empty() && !is_credential(p))
        .collect();
    (!kept.is_empty()).then(|| kept.join("&"))
}

/// Takes out what is between two neighbours, and what the next one is told anew. `TE: trailers`,
/// which gRPC needs, stays.
pub(crate) fn hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let trailers = headers
        .get(TE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| {
            value
                .split(',')
                .any(|v| v.trim().eq_ignore_ascii_case("trailers"))
        });
    remove(headers, |name| {
        HOP_BY_HOP.contains(&name.as_str()) || named.contains(name)
    });
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Prepares a caller's headers for another host: the host is told anew, and who the caller is stays
/// here.
pub(crate) fn origin(headers: &mut HeaderMap) {
    remove(headers, |name| {
        name == HOST
            || name == FORWARDED
            || name.as_str().starts_with("x-forwarded-")
            || name.as_str().starts_with("x-evermint-")
    });
}

/// Prepares an upstream's headers for the caller of a route: cookies belong to the credential.
pub(crate) fn answer(headers: &mut HeaderMap) {
    hop_by_hop(headers);
    headers.remove(SET_COOKIE);
}

fn remove(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    let names: Vec<_> = headers
        .keys()
        .filter(|name| unwanted(name))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
}

/// Undoes `%XX`; what is none stays.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|h| std::str::from_utf8(h).ok());
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(decoded) if byte == b'%' => {
                out.push(decoded);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(names: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(n, v): &(&'static str, &'static str)| {
            (HeaderName::from_static(n), HeaderValue::from_static(v))
        };
        names.iter().map(pair).collect()
    }

    #[test]
    fn no_credential_of_the_caller_goes_on() {
        for (name, stays) in [
            ("authorization", false),
            ("proxy-authorization", false),
            ("x-api-key", false),
            ("api-key", false),
            ("x-goog-api-key", false),
            ("ocp-apim-subscription-key", false),
            ("x-amz-security-token", false),
            ("x-amz-date", false),
            ("cookie", false),
            ("openai-organization", false),
            ("x-auth-token", false),
            ("x-client-secret", false),
            ("content-type", true),
            ("anthropic-version", true),
            ("anthropic-beta", true),
            ("openai-beta", true),
            ("idempotency-key", true),
            ("x-stainless-lang", true),
            ("x-goog-api-client", true),
            ("user-agent", true),
        ] {
            let mut map = headers(&[(name, "v")]);
            credentials(&mut map, &[]);
            assert_eq!(map.contains_key(name), stays, "{name}");
        }
    }

    #[test]
    fn a_route_may_pass_on_whose_credential_it_is_but_never_a_credential() {
        let kept = ["openai-project".to_owned(), "authorization".to_owned()];
        let mut map = headers(&[("openai-project", "p"), ("authorization", "Bearer x")]);
        credentials(&mut map, &kept);
        assert_eq!(map, headers(&[("openai-project", "p")]));
    }

    #[test]
    fn no_credential_in_the_query_goes_on() {
        for (given, kept) in [
            ("alt=sse&key=AIza", Some("alt=sse")),
            ("key=AIza", None),
            ("%6bey=AIza&a=1", Some("a=1")),
            ("KEY=AIza&$key=b", None),
            (
                "api-version=2024-10-21&api_key=x",
                Some("api-version=2024-10-21"),
            ),
            ("X-Amz-Signature=x&beta=true", Some("beta=true")),
            ("monkey=1", Some("monkey=1")),
            ("access_token", None),
            ("", None),
        ] {
            assert_eq!(query(Some(given), None).as_deref(), kept, "{given}");
        }
        assert_eq!(query(None, None), None);
        assert_eq!(
            query(Some("mine=x&a=1"), Some("mine")).as_deref(),
            Some("a=1")
        );
    }

    #[test]
    fn what_is_between_neighbours_ends_here() {
        let mut map = headers(&[
            ("connection", "close, x-mine"),
            ("x-mine", "v"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("accept", "*/*"),
        ]);
        hop_by_hop(&mut map);
        assert_eq!(map, headers(&[("accept", "*/*"), ("te", "trailers")]));
    }

    #[test]
    fn a_token_is_no_credential_by_its_number() {
        // Percent signs that are no escapes are kept as they are.
        assert_eq!(percent_decoded("100%"), "100%");
        assert_eq!(percent_decoded("%zz%41"), "%zzA");
    }
}
