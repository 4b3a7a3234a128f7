//! Texts with `{placeholders}`: token endpoints, base URLs and hosts.
//!
//! Whoever fills a placeholder decides one segment of a path or a part of one label of a host, and
//! nothing else: no value can bring a slash, a dot in the host, a port, a user name, a query or an
//! escape. A host as a whole is chosen only where the profile says so, by [`Format::Host`] or a
//! closed list.

use super::Format;

/// The longest value that a placeholder takes, in bytes.
pub const VALUE_MAX: usize = 253;

/// Why a template gives no text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Braces that do not match, or nothing between them.
    #[error("has braces that do not match")]
    Malformed,
    /// A placeholder that nothing fills.
    #[error("needs {0}, which is not given")]
    Missing(String),
    /// A value that could lead elsewhere. The value is not repeated.
    #[error("cannot take {name} as it is given: {problem}")]
    Unfit {
        /// The placeholder.
        name: String,
        /// What is wrong with its value.
        problem: &'static str,
    },
}

/// One piece of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Text that stands for itself.
    Text(&'a str),
    /// A placeholder's name, and whether it stands in the host.
    Placeholder(&'a str, bool),
}

/// Takes a template apart. Everything up to the first slash after `://` is the host; a template
/// without `://` is a host as a whole.
///
/// # Errors
/// [`TemplateError::Malformed`].
pub fn pieces(template: &str) -> Result<Vec<Piece<'_>>, TemplateError> {
    let host_begins = template.find("://").map_or(0, |at| at + 3);
    let host_ends = template[host_begins..]
        .find(['/', '?', '#'])
        .map_or(template.len(), |at| host_begins + at);
    let mut pieces = Vec::new();
    let mut at = 0;
    while let Some(open) = template[at..].find(['{', '}']).map(|i| at + i) {
        let rest = template[open..]
            .strip_prefix('{')
            .ok_or(TemplateError::Malformed)?;
        let close = rest.find(['{', '}']).ok_or(TemplateError::Malformed)?;
        let name = &rest[..close];
        if name.is_empty() || !rest[close..].starts_with('}') {
            return Err(TemplateError::Malformed);
        }
        if open > at {
            pieces.push(Piece::Text(&template[at..open]));
        }
        pieces.push(Piece::Placeholder(name, open < host_ends));
        at = open + close + 2;
    }
    if at < template.len() {
        pieces.push(Piece::Text(&template[at..]));
    }
    Ok(pieces)
}

/// Fills a template; `value` gives what stands for a name, and what it has to look like.
///
/// # Errors
/// [`TemplateError`]; the first that is found.
pub fn fill<'a>(
    template: &str,
    value: impl Fn(&str) -> Option<(&'a str, &'a Format)>,
) -> Result<String, TemplateError> {
    let mut text = String::with_capacity(template.len());
    for piece in pieces(template)? {
        match piece {
            Piece::Text(part) => text.push_str(part),
            Piece::Placeholder(name, in_host) => {
                let (value, format) =
                    value(name).ok_or_else(|| TemplateError::Missing(name.to_owned()))?;
                fits(value, format, in_host).map_err(|problem| TemplateError::Unfit {
                    name: name.to_owned(),
                    problem,
                })?;
                text.push_str(value);
            }
        }
    }
    Ok(text)
}

/// Whether whoever fills a template chooses a whole host.
pub fn frees_host<'a>(template: &str, format: impl Fn(&str) -> Option<&'a Format>) -> bool {
    let is_free = |piece| match piece {
        Piece::Placeholder(name, true) => matches!(format(name), Some(Format::Host)),
        Piece::Placeholder(_, false) | Piece::Text(_) => false,
    };
    pieces(template).is_ok_and(|pieces| pieces.into_iter().any(is_free))
}

/// Whether a value may stand in a template.
fn fits(value: &str, format: &Format, in_host: bool) -> Result<(), &'static str> {
    if value.is_empty() || value.len() > VALUE_MAX {
        return Err("it must have 1 to 253 bytes");
    }
    match (in_host, format) {
        (true, Format::Host) => is_host(value).then_some(()).ok_or("it is no host name"),
        (true, Format::OneOf(all)) if all.iter().any(|one| one == value) => {
            is_host(value).then_some(()).ok_or("it is no host name")
        }
        (true, _) => is_label(value)
            .then_some(())
            .ok_or("only letters, digits and '-' may stand in a host"),
        (false, _) => is_segment(value)
            .then_some(())
            .ok_or("only letters, digits, '-', '_', '.' and '~' may stand in a path"),
    }
}

/// Letters, digits and `-`, none at an end.
pub(crate) fn is_label(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    !text.is_empty() && text.chars().all(plain) && !text.starts_with('-') && !text.ends_with('-')
}

/// Letters, digits, `-`, `_`, `.` and `~`; not `.` or `..`.
pub(crate) fn is_segment(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.~".contains(c);
    !text.is_empty() && text.chars().all(plain) && text != "." && text != ".."
}

/// Labels with dots between them, at most 253 bytes.
pub(crate) fn is_host(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

impl Format {
    /// Whether a value looks like this.
    ///
    /// # Errors
    /// What it has to look like, as the rest of a sentence that begins with the value's name.
    pub fn check(&self, value: &str) -> Result<(), String> {
        let (fits, problem) = match self {
            Self::Text => (true, ""),
            Self::Segment => (
                is_segment(value),
                "must consist of letters, digits, '-', '_', '.' and '~'",
            ),
            Self::Label => (
                is_label(value),
                "must consist of letters, digits and '-', none of these at an end",
            ),
            Self::Uuid => (is_uuid(value), "must be a UUID"),
            Self::Host => (is_host(value), "must be a host name"),
            Self::Url => (is_url(value), "must be an https URL"),
            Self::Integer => (value.parse::<u64>().is_ok(), "must be a whole number"),
            Self::OneOf(all) => {
                if all.iter().any(|one| one == value) {
                    return Ok(());
                }
                return Err(format!("must be one of {}", all.join(", ")));
            }
        };
        fits.then_some(()).ok_or_else(|| problem.to_owned())
    }
}

fn is_uuid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    parts.iter().map(|p| p.len()).eq([8, 4, 4, 4, 12])
        && parts
            .iter()
            .all(|p| p.chars().all(|c| c.is_ascii_hexdigit()))
}

/// An `https` URL with a host, or an `http` one of loopback; without user, query or fragment.
pub(crate) fn is_url(text: &str) -> bool {
    let plain = |rest: &str| {
        let host = rest.split('/').next().unwrap_or("");
        !host.is_empty()
            && !rest
                .chars()
                .any(|c| c.is_whitespace() || c.is_control() || "@?#\\{}".contains(c))
    };
    match text.split_once("://") {
        Some(("https", rest)) => plain(rest),
        Some(("http", rest)) => {
            let authority = rest.split('/').next().unwrap_or("");
            let host = match authority.strip_prefix('[') {
                Some(v6) => v6.split(']').next().unwrap_or(""),
                None => authority.split(':').next().unwrap_or(""),
            };
            plain(rest) && ["localhost", "127.0.0.1", "::1"].contains(&host)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_free_where_a_whole_one_is_taken() {
        let all = Format::OneOf(vec!["a.example".to_owned()]);
        for (template, is_free) in [
            ("https://{host}/token", true),
            ("https://{host}.example/token", true),
            ("https://idp.example/{host}/token", false),
            ("https://{label}.idp.example/token", false),
            ("https://{one}/token", false),
            ("https://idp.example/token", false),
        ] {
            let format = |name: &str| match name {
                "host" => Some(&Format::Host),
                "label" => Some(&Format::Label),
                _ => Some(&all),
            };
            assert_eq!(frees_host(template, format), is_free, "{template}");
        }
    }

    fn check(template: &str, values: &[(&str, &str, Format)], expected: Result<&str, &str>) {
        let filled = fill(template, |name| {
            values
                .iter()
                .find(|(n, _, _)| *n == name)
                .map(|(_, value, format)| (*value, format))
        });
        match (filled, expected) {
            (Ok(text), Ok(expected)) => assert_eq!(text, expected),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (got, expected) => panic!("{template}: {got:?}, not {expected:?}"),
        }
    }

    #[test]
    fn placeholders_are_filled_in_host_and_path() {
        let region = [
            ("r", "europe-west4", Format::Text),
            ("p", "a.b_c", Format::Text),
        ];
        check("https://x.test/t", &region, Ok("https://x.test/t"));
        check(
            "https://{r}-x.test/{p}:do",
            &region,
            Ok("https://europe-west4-x.test/a.b_c:do"),
        );
        check("{r}.x.test", &region, Ok("europe-west4.x.test"));
        check("https://{r}.test/{nope}", &region, Err("nope"));
    }

    #[test]
    fn no_value_changes_host_or_path() {
        for evil in [
            "", ".", "..", "a/b", "a\\b", "a?b", "a#b", "a%2fb", "a@b", "a:1", "a b", "a\n", "ü",
        ] {
            check(
                "https://x.test/{v}/t",
                &[("v", evil, Format::Text)],
                Err("cannot take v"),
            );
            check(
                "https://{v}.x.test/",
                &[("v", evil, Format::Text)],
                Err("cannot take v"),
            );
        }
        // A dot in the host would leave the domain.
        check(
            "https://{v}/",
            &[("v", "evil.test", Format::Text)],
            Err("in a host"),
        );
        check(
            "https://{v}.x.test/",
            &[("v", "-a", Format::Label)],
            Err("in a host"),
        );
    }

    #[test]
    fn a_whole_host_is_chosen_only_where_the_profile_allows_it() {
        let listed = Format::OneOf(vec!["a.test".to_owned(), "b.test".to_owned()]);
        check(
            "https://{v}/t",
            &[("v", "b.test", listed.clone())],
            Ok("https://b.test/t"),
        );
        check(
            "https://{v}/t",
            &[("v", "evil.test", listed)],
            Err("in a host"),
        );
        check(
            "https://{v}/t",
            &[("v", "any.test", Format::Host)],
            Ok("https://any.test/t"),
        );
        check(
            "https://{v}/t",
            &[("v", "any.test:80", Format::Host)],
            Err("no host name"),
        );
        check(
            "https://{v}/t",
            &[("v", "a..test", Format::Host)],
            Err("no host name"),
        );
    }

    #[test]
    fn braces_have_to_match() {
        for bad in ["{", "}", "a{b", "a}b", "{}", "{a{b}}", "{a}}"] {
            check(
                bad,
                &[("a", "x", Format::Text), ("b", "x", Format::Text)],
                Err("braces"),
            );
        }
    }

    #[test]
    fn formats_say_what_they_want() {
        let uuid = "01234567-89ab-cdef-0011-223344556677";
        for (format, good, bad) in [
            (Format::Uuid, uuid, "0123456789abcdef0011223344556677"),
            (Format::Host, "a.test", "a/test"),
            (Format::Url, "https://a.test/b", "http://a.test"),
            (
                Format::Url,
                "http://127.0.0.1:8/b",
                "http://127.0.0.1.evil.test/",
            ),
            (Format::Url, "http://[::1]:8/b", "https://user@a.test/"),
            (Format::Integer, "12", "-1"),
            (Format::Label, "us-east1", "us.east1"),
            (Format::Segment, "a.b", ".."),
            (Format::OneOf(vec!["a".to_owned()]), "a", "b"),
        ] {
            assert_eq!(format.check(good), Ok(()), "{good}");
            assert!(format.check(bad).is_err(), "{bad}");
        }
    }
}
