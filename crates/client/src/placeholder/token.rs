//! The forms of a placeholder.

use super::encode::percent_decoded;

/// How a placeholder begins.
pub const PREFIX: &str = "openshell:resolve:env:";
/// What stands between the text and the key of an alias.
pub const ALIAS: &str = "OPENSHELL-RESOLVE-ENV-";
/// Hex digits of a handle.
const HANDLE_LEN: usize = 64;

/// A placeholder, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form<'a> {
    /// Names the key alone.
    Canonical { key: &'a str },
    /// A static value, by the revision under which it was given.
    Revisioned { revision: u64, key: &'a str },
    /// A minted value, by its handle.
    Stable { handle: &'a str, key: &'a str },
    /// A key within other text.
    Alias { key: &'a str },
}

impl<'a> Form<'a> {
    /// Takes `text` apart; `None` if it is no placeholder as a whole.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        if let Some(name) = text.strip_prefix(PREFIX) {
            return is_key(name).then(|| Self::named(name)).flatten();
        }
        let (before, key) = text.rsplit_once(ALIAS)?;
        let fits = !before.is_empty() && before.bytes().all(is_alias_char) && is_key(key);
        fits.then_some(Self::Alias { key })
    }

    /// What stands after the prefix. `None` for a number that cannot be.
    fn named(name: &'a str) -> Option<Self> {
        if let Some((handle, key)) = stable(name) {
            return Some(Self::Stable { handle, key });
        }
        match revisioned(name) {
            Some((digits, key)) => Some(Self::Revisioned {
                revision: digits.parse().ok()?,
                key,
            }),
            None => Some(Self::Canonical { key: name }),
        }
    }

    /// The variable that it stands for.
    pub(super) fn key(self) -> &'a str {
        match self {
            Self::Canonical { key }
            | Self::Revisioned { key, .. }
            | Self::Stable { key, .. }
            | Self::Alias { key } => key,
        }
    }
}

/// The placeholder of a static value.
pub(super) fn of_revision(revision: u64, key: &str) -> String {
    format!("{PREFIX}v{revision}_{key}")
}

/// The placeholder of a minted value.
pub(super) fn of_handle(handle: &str, key: &str) -> String {
    format!("{PREFIX}s{handle}_{key}")
}

/// Whether a variable may be called so: a name that reads like a revision or a handle would make
/// placeholders ambiguous.
pub(super) fn is_usable_name(key: &str) -> bool {
    is_key(key) && stable(key).is_none() && revisioned(key).is_none()
}

/// Whether a handle is one.
pub(super) fn is_handle(text: &str) -> bool {
    text.len() == HANDLE_LEN && text.bytes().all(is_lower_hex)
}

/// Whether something that looks like a placeholder is in it, also percent-encoded.
pub(super) fn has_marker(bytes: &[u8]) -> bool {
    has_raw_marker(bytes)
        || (bytes.contains(&b'%')
            && percent_decoded(bytes).is_some_and(|decoded| has_raw_marker(&decoded)))
}

/// Whether something that looks like a placeholder is in it.
pub(super) fn has_raw_marker(bytes: &[u8]) -> bool {
    [PREFIX, ALIAS].iter().any(|m| find(bytes, m).is_some())
}

/// Where the first placeholder within other text is: its beginning and end. It is as long as its
/// key can be.
pub(super) fn first_within(bytes: &[u8]) -> Option<(usize, usize)> {
    let begin = find(bytes, PREFIX)?;
    let key = begin + PREFIX.len();
    let len = bytes[key..].iter().take_while(|b| is_key_char(**b)).count();
    Some((begin, key + len))
}

fn find(bytes: &[u8], marker: &str) -> Option<usize> {
    let marker = marker.as_bytes();
    bytes.windows(marker.len()).position(|w| w == marker)
}

fn stable(name: &str) -> Option<(&str, &str)> {
    let (handle, key) = name.strip_prefix('s')?.split_at_checked(HANDLE_LEN)?;
    let key = key.strip_prefix('_')?;
    (is_handle(handle) && !key.is_empty()).then_some((handle, key))
}

fn revisioned(name: &str) -> Option<(&str, &str)> {
    let (digits, key) = name.strip_prefix('v')?.split_once('_')?;
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    (is_number && !key.is_empty()).then_some((digits, key))
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_key_char)
}

fn is_key_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_alias_char(byte: u8) -> bool {
    is_key_char(byte) || matches!(byte, b'.' | b'~' | b'-')
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle() -> String {
        "0123456789abcdef".repeat(4)
    }

    #[test]
    fn every_form_is_told_from_the_others() {
        let handle = handle();
        let stable = of_handle(&handle, "API_KEY");
        let upper = stable.replace('a', "A");
        let short = format!("{PREFIX}s{}_K", &handle[1..]);
        let key_of_short = &short[PREFIX.len()..];
        for (text, expected) in [
            (
                "openshell:resolve:env:API_KEY",
                Some(Form::Canonical { key: "API_KEY" }),
            ),
            (
                "openshell:resolve:env:v12_API_KEY",
                Some(Form::Revisioned {
                    revision: 12,
                    key: "API_KEY",
                }),
            ),
            (
                &stable,
                Some(Form::Stable {
                    handle: &handle,
                    key: "API_KEY",
                }),
            ),
            (
                "sk-OPENSHELL-RESOLVE-ENV-API_KEY",
                Some(Form::Alias { key: "API_KEY" }),
            ),
            (
                "a-OPENSHELL-RESOLVE-ENV-b-OPENSHELL-RESOLVE-ENV-C",
                Some(Form::Alias { key: "C" }),
            ),
            // Not quite a revision, and not quite a handle: names like any other.
            (
                "openshell:resolve:env:v_K",
                Some(Form::Canonical { key: "v_K" }),
            ),
            (
                "openshell:resolve:env:v12",
                Some(Form::Canonical { key: "v12" }),
            ),
            (&short, Some(Form::Canonical { key: key_of_short })),
            ("openshell:resolve:env:v18446744073709551616_K", None),
            ("openshell:resolve:env:", None),
            ("openshell:resolve:env:A-B", None),
            ("xopenshell:resolve:env:A", None),
            ("OPENSHELL-RESOLVE-ENV-K", None),
            ("a b-OPENSHELL-RESOLVE-ENV-K", None),
            ("sk-OPENSHELL-RESOLVE-ENV-", None),
            ("", None),
        ] {
            assert_eq!(Form::parse(text), expected, "{text}");
        }
        let Some(Form::Canonical { .. }) = Form::parse(&upper) else {
            panic!("a handle is in lower case");
        };
    }

    #[test]
    fn a_name_that_reads_like_a_placeholder_cannot_be_used() {
        for (key, usable) in [
            ("API_KEY", true),
            ("v1", true),
            ("v_1", true),
            ("v1_KEY", false),
            (&format!("s{}_KEY", handle()), false),
            (&format!("s{}", handle()), true),
            ("", false),
            ("A-B", false),
        ] {
            assert_eq!(is_usable_name(key), usable, "{key}");
        }
    }

    #[test]
    fn a_marker_is_found_raw_and_encoded() {
        for (text, found) in [
            ("x openshell:resolve:env:K", true),
            ("openshell%3Aresolve%3aenv:K", true),
            ("%6fpenshell:resolve:env:", true),
            ("OPENSHELL%2dRESOLVE-ENV-K", true),
            ("openshell:resolve", false),
            ("100%", false),
        ] {
            assert_eq!(has_marker(text.as_bytes()), found, "{text}");
        }
    }
}
