//! The rim: where a request's text becomes types that cannot be wrong.
//!
//! A [`Rim`] gathers every problem of a request before any of it is used, so that a caller learns
//! of all of them at once and nothing is half done.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::str::FromStr;

use evermint_core::id::{CredentialKey, Workspace};
use evermint_core::provider::limit;
use evermint_core::secret::Secret;
use tonic::Status;

use crate::port::FieldProblem;
use crate::status;

/// Most characters of a map key that an error repeats.
const ECHO_MAX: usize = 64;

/// The problems of one request.
#[derive(Debug, Default)]
pub(crate) struct Rim {
    problems: Vec<FieldProblem>,
}

impl Rim {
    /// The parts of the request, if nothing was wrong with any.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with every problem.
    pub(crate) fn finish<T>(self, parts: impl FnOnce() -> Option<T>) -> Result<T, Status> {
        match parts() {
            Some(parts) if self.problems.is_empty() => Ok(parts),
            _ => Err(status::invalid(&self.problems)),
        }
    }

    /// Notes a problem.
    pub(crate) fn problem(&mut self, field: impl Into<String>, problem: impl Display) {
        self.problems.push(FieldProblem {
            field: field.into(),
            problem: problem.to_string(),
        });
    }

    /// Notes problems that others found.
    pub(crate) fn problems(&mut self, found: Vec<FieldProblem>) {
        self.problems.extend(found);
    }

    /// Parses one field.
    pub(crate) fn parse<T>(&mut self, field: impl Into<String>, text: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(field, error);
                None
            }
        }
    }

    /// Parses a field that may be empty.
    pub(crate) fn optional<T>(&mut self, field: &str, text: &str) -> Option<Option<T>>
    where
        T: FromStr,
        T::Err: Display,
    {
        if text.is_empty() {
            return Some(None);
        }
        self.parse(field, text).map(Some)
    }

    /// Parses the workspace; an empty one is the default.
    pub(crate) fn workspace(&mut self, text: &str) -> Option<Workspace> {
        if text.is_empty() {
            return Some(Workspace::default_workspace());
        }
        self.parse("workspace", text)
    }

    /// Checks that `count` is at most `max`.
    pub(crate) fn count(&mut self, field: &str, count: usize, max: usize) {
        if count > max {
            self.problem(
                field,
                format_args!("has {count} entries; at most {max} are allowed"),
            );
        }
    }

    /// Checks a text that must not be empty, nor longer than `max` bytes, nor hold control
    /// characters.
    pub(crate) fn text(&mut self, field: impl Into<String>, text: &str, max: usize) {
        let field = field.into();
        if text.trim().is_empty() {
            self.problem(field, "must not be empty");
        } else if text.len() > max {
            self.too_long(field, text.len(), max);
        } else if let Some(found) = text.chars().find(|c| c.is_control()) {
            self.problem(
                field,
                format_args!("contains {found:?}; control characters are not allowed"),
            );
        }
    }

    /// Checks a map of plain settings or material: number of entries, keys and values.
    pub(crate) fn map(&mut self, field: &str, map: &BTreeMap<String, String>, max: usize) {
        self.count(field, map.len(), max);
        for (key, value) in map {
            let entry = entry(field, key);
            self.text(entry.clone(), key, limit::MAP_KEY);
            if value.len() > limit::MAP_VALUE {
                self.too_long(entry, value.len(), limit::MAP_VALUE);
            }
        }
    }

    /// Parses the keys of credentials.
    pub(crate) fn keys<'a>(
        &mut self,
        field: &str,
        keys: impl Iterator<Item = &'a String>,
    ) -> BTreeSet<CredentialKey> {
        keys.filter_map(|key| self.parse(entry(field, key), key))
            .collect()
    }

    /// Takes a secret: 1 to 8192 bytes, none of them NUL, which no environment variable can hold.
    pub(crate) fn secret(&mut self, field: impl Into<String>, text: String) -> Secret {
        let secret = Secret::from(text);
        if secret.is_empty() {
            self.problem(field, "must not be empty");
        } else if secret.len() > limit::MAP_VALUE {
            self.too_long(field.into(), secret.len(), limit::MAP_VALUE);
        } else if secret.expose().contains(&0) {
            self.problem(field, "contains a NUL byte, which is not allowed");
        }
        secret
    }

    /// Notes that a field is too long.
    pub(crate) fn too_long(&mut self, field: String, got: usize, max: usize) {
        self.problem(
            field,
            format_args!("is {got} bytes long; at most {max} are allowed"),
        );
    }
}

/// The path of a map's entry, with as much of its key as may be repeated.
pub(crate) fn entry(field: &str, key: &str) -> String {
    let mut shown: String = key.chars().take(ECHO_MAX).collect();
    if shown.len() < key.len() {
        shown.push('…');
    }
    format!("{field}[{shown:?}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(look: impl FnOnce(&mut Rim)) -> String {
        let mut rim = Rim::default();
        look(&mut rim);
        match rim.finish(|| Some(())) {
            Ok(()) => String::new(),
            Err(status) => status.message().to_owned(),
        }
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let told = problems(|rim| {
            rim.workspace("a b");
            rim.parse::<CredentialKey>("credential_key", "9");
            rim.text("model", " ", 9);
        });
        assert_eq!(
            told,
            "workspace contains ' '; allowed are ASCII letters and digits, then also '-', '_' and \
             '.'; credential_key contains '9'; allowed are ASCII letters, digits and '_', not \
             starting with a digit; model must not be empty"
        );
    }

    #[test]
    fn a_secret_is_bounded_and_never_repeated() {
        for (text, told) in [
            ("x".to_owned(), ""),
            ("x".repeat(8192), ""),
            (String::new(), "f must not be empty"),
            (
                "x".repeat(8193),
                "f is 8193 bytes long; at most 8192 are allowed",
            ),
            (
                "canary\0".to_owned(),
                "f contains a NUL byte, which is not allowed",
            ),
        ] {
            assert_eq!(problems(|rim| drop(rim.secret("f", text))), told);
        }
    }

    #[test]
    fn the_path_of_an_entry_is_bounded_and_escaped() {
        assert_eq!(entry("config", "a\"\n"), r#"config["a\"\n"]"#);
        assert!(entry("config", &"k".repeat(2_000_000)).len() < 100);
    }

    #[test]
    fn maps_are_checked_entry_by_entry() {
        let map = BTreeMap::from([
            (String::new(), "v".to_owned()),
            ("k".repeat(257), "v".to_owned()),
            ("big".to_owned(), "v".repeat(8193)),
            ("tab\t".to_owned(), String::new()),
        ]);
        let told = problems(|rim| rim.map("config", &map, 3));
        for part in [
            "config has 4 entries; at most 3",
            "config[\"\"] must not be empty",
            "is 257 bytes long; at most 256",
            "config[\"big\"] is 8193 bytes long; at most 8192",
            "config[\"tab\\t\"] contains '\\t'",
        ] {
            assert!(told.contains(part), "{part} not in {told}");
        }
    }
}
