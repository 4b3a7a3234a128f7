//! Which endpoint is meant by a binding: patterns for hosts and paths.

use evermint_core::profile::binding::Binding;
use glob::Pattern;

use super::encode::percent_decoded;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    /// In lower case, without a dot at its end.
    host: String,
    port: u16,
    /// Without query, and with placeholders taken out.
    path: String,
    /// Whether every server reads the path alike: no `.` or `..` in it, no escaped separators.
    is_plain: bool,
}

impl Destination {
    pub(super) fn new(host: &str, port: u16, path: String) -> Self {
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = bare.unwrap_or(host).trim_end_matches('.');
        let is_plain = path.starts_with('/') && path.split('/').all(is_plain_segment);
        Self {
            host: host.to_ascii_lowercase(),
            port,
            path,
            is_plain,
        }
    }

    /// Whether `endpoint` is on this host and port, whatever its path.
    pub(super) fn is_host_of(&self, endpoint: &Binding) -> bool {
        endpoint.port == self.port && host_matches(&endpoint.host, &self.host)
    }

    /// Whether `endpoint` is this place.
    pub(super) fn is(&self, endpoint: &Binding) -> bool {
        self.is_host_of(endpoint) && self.path_matches(&endpoint.path)
    }

    /// A path that servers may read as another one is within no bound.
    fn path_matches(&self, pattern: &str) -> bool {
        if matches!(pattern, "" | "**" | "/**") {
            return true;
        }
        if !self.is_plain {
            return false;
        }
        match pattern.strip_suffix("/**") {
            Some(above) if !has_wildcard(above) => self
                .path
                .strip_prefix(above)
                .is_some_and(|below| below.is_empty() || below.starts_with('/')),
            _ => glob_matches(pattern, &self.path),
        }
    }
}

fn is_plain_segment(segment: &str) -> bool {
    let decoded = percent_decoded(segment.as_bytes());
    let decoded = decoded.as_deref().unwrap_or(segment.as_bytes());
    !matches!(decoded, b"." | b"..")
        && !decoded
            .iter()
            .any(|b| matches!(b, b'/' | b'\\' | b'?' | b'#' | b'%') || b.is_ascii_control())
}

/// Labels are matched one by one; `**` stands for one or more of them.
fn host_matches(pattern: &str, host: &str) -> bool {
    fn labels(pattern: &[&str], host: &[&str]) -> bool {
        match (pattern, host) {
            ([], []) => true,
            (["**", rest @ ..], [_, tail @ ..]) => labels(rest, tail) || labels(pattern, tail),
            ([label, rest @ ..], [first, tail @ ..]) => {
                !first.is_empty() && glob_matches(label, first) && labels(rest, tail)
            }
            _ => false,
        }
    }
    let pattern = pattern.trim_end_matches('.').to_ascii_lowercase();
    let pattern: Vec<&str> = pattern.split('.').collect();
    let host: Vec<&str> = host.split('.').collect();
    // More wildcards are no pattern that anybody means, and take long to match.
    let many = pattern.iter().filter(|label| **label == "**").count() > 2;
    !many && host.len() <= LABELS_MAX && labels(&pattern, &host)
}

/// Labels of a host name at most
/// ([RFC 1035 §2.3.4](https://www.rfc-editor.org/rfc/rfc1035#section-2.3.4): 255 octets).
const LABELS_MAX: usize = 127;

/// A pattern that cannot be one stands for itself.
fn glob_matches(pattern: &str, text: &str) -> bool {
    if !has_wildcard(pattern) {
        return pattern == text;
    }
    Pattern::new(pattern).map_or_else(|_| pattern == text, |p| p.matches(text))
}

fn has_wildcard(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: (&str, u16, &str), place: (&str, u16, &str), expected: bool) {
        let endpoint = Binding {
            host: pattern.0.to_owned(),
            port: pattern.1,
            path: pattern.2.to_owned(),
            body_rewrite: false,
        };
        let destination = Destination::new(place.0, place.1, place.2.to_owned());
        assert_eq!(destination.is(&endpoint), expected, "{pattern:?} {place:?}");
    }

    #[test]
    fn a_host_is_matched_label_by_label() {
        for (pattern, host, expected) in [
            ("api.example.com", "api.example.com", true),
            ("api.example.com", "API.Example.COM.", true),
            ("API.example.com.", "api.example.com", true),
            ("api.example.com", "xapi.example.com", false),
            ("api.example.com", "api.example.com.evil.example", false),
            ("*.example.com", "api.example.com", true),
            ("*.example.com", "a.b.example.com", false),
            ("*.example.com", "example.com", false),
            ("**.example.com", "a.b.example.com", true),
            ("**.example.com", "example.com", false),
            ("**.a.**.com", "x.a.y.z.com", true),
            (
                "*-aiplatform.googleapis.com",
                "europe-west4-aiplatform.googleapis.com",
                true,
            ),
            ("us-?.example.com", "us-1.example.com", true),
            ("us-[12].example.com", "us-3.example.com", false),
            ("*.example.com", ".example.com", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("::1", "[::1]", true),
            ("", "api.example.com", false),
        ] {
            check((pattern, 443, ""), (host, 443, "/"), expected);
        }
        check(
            ("api.example.com", 443, ""),
            ("api.example.com", 80, "/"),
            false,
        );
    }

    #[test]
    fn a_path_is_matched_as_a_whole() {
        for (pattern, path, expected) in [
            ("", "/anything", true),
            ("**", "/anything", true),
            ("/**", "/a/../b", true),
            ("/v1/**", "/v1", true),
            ("/v1/**", "/v1/", true),
            ("/v1/**", "/v1/a/b", true),
            ("/v1/**", "/v10/a", false),
            ("/v1/**", "/v2", false),
            ("/v1", "/v1", true),
            ("/v1", "/v1/", false),
            ("/v1/*/x", "/v1/a/b/x", true),
            ("/v[12]/x", "/v2/x", true),
            // An invalid glob stands for itself.
            ("/v[1", "/v[1", true),
            ("/v[1", "/v1", false),
        ] {
            check(("h", 1, pattern), ("h", 1, path), expected);
        }
    }

    #[test]
    fn a_path_that_can_be_read_in_two_ways_is_within_no_bound() {
        for path in [
            "/v1/../admin",
            "/v1/./x",
            "/v1/%2e%2e/admin",
            "/v1/%2E./admin",
            "/v1%2f..%2fadmin",
            "/v1/a%5cb",
            "/v1/a\\b",
            "/v1/%252e%252e/admin",
            "/v1/%00",
            "v1/x",
        ] {
            check(("h", 1, "/v1/**"), ("h", 1, path), false);
            check(("h", 1, "/v1/*"), ("h", 1, path), false);
            check(("h", 1, ""), ("h", 1, path), true);
        }
    }
}
