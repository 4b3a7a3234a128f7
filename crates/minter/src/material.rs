//! What a strategy needs to know, and the check of it when an operator configures a refresh: all
//! problems at once, each with the name of its field.

use std::collections::BTreeMap;
use std::path::Path;

use evermint_core::mint::{Failure, FailureClass};
use evermint_core::secret::Secret;
use evermint_core::strategy::Strategy;
use serde_json::{Map, Value};
use url::Url;

/// The longest piece of material, in bytes.
pub const MATERIAL_MAX: usize = 64 * 1024;

/// Something is wrong with one field. The text holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct FieldError {
    /// The field, by the name that the operator wrote.
    pub field: String,
    /// What is wrong, and what is expected.
    pub problem: String,
}

impl FieldError {
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
        }
    }
}

/// The material that a strategy takes.
#[derive(Clone, Copy, Debug)]
pub struct MaterialSchema {
    /// The strategy.
    pub strategy: Strategy,
    /// Its fields, in the order in which a person would fill them in; in parts, because strategies
    /// share some.
    pub parts: &'static [&'static [MaterialField]],
}

impl MaterialSchema {
    /// Its fields, in the order in which a person would fill them in.
    pub fn fields(&self) -> impl Iterator<Item = &'static MaterialField> {
        self.parts.iter().copied().flatten()
    }
}

/// One piece of material.
#[derive(Clone, Copy, Debug)]
pub struct MaterialField {
    /// Its name.
    pub name: &'static str,
    /// Whether a mint is impossible without it.
    pub need: Need,
    /// Whether it has to be given, and is kept, as a secret.
    pub secret: bool,
    /// Its form.
    pub format: Format,
    /// What it is, in one line.
    pub about: &'static str,
    /// Looks closer than its format does; the error never shows the value.
    pub check: fn(&str) -> Result<(), String>,
}

/// Whether a mint is impossible without a piece of material.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It is.
    Required,
    /// It is not.
    Optional,
    /// It is, unless these others are given.
    Or(&'static str),
}

impl MaterialField {
    /// A piece that anyone may read; optional unless said otherwise.
    pub const fn public(name: &'static str, format: Format, about: &'static str) -> Self {
        Self {
            name,
            need: Need::Optional,
            secret: false,
            format,
            about,
            check: |_| Ok(()),
        }
    }

    /// A piece that has to be kept as a secret; optional unless said otherwise.
    pub const fn secret(name: &'static str, format: Format, about: &'static str) -> Self {
        let mut field = Self::public(name, format, about);
        field.secret = true;
        field
    }

    /// The same, and no mint without it.
    pub const fn required(mut self) -> Self {
        self.need = Need::Required;
        self
    }

    /// The same, needed unless `others` are given.
    pub const fn or(mut self, others: &'static str) -> Self {
        self.need = Need::Or(others);
        self
    }

    /// The same, looked at more closely.
    pub const fn checked(mut self, check: fn(&str) -> Result<(), String>) -> Self {
        self.check = check;
        self
    }

    /// Checks a value; the error says what is wrong and never shows it.
    fn check(&self, text: &str) -> Result<(), String> {
        self.format.check(text)?;
        (self.check)(text)
    }
}

/// The form of a piece of material.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A line of text.
    Line,
    /// Text of any number of lines.
    Text,
    /// One or more blocks of PEM.
    Pem,
    /// An object in JSON.
    Json,
    /// An absolute URL.
    Url,
    /// The absolute path of a file on the replicas.
    Path,
    /// A whole number.
    Number,
    /// One of these words.
    OneOf(&'static [&'static str]),
}

impl Format {
    /// What help shows for it.
    pub fn describe(self) -> String {
        match self {
            Self::Line => "text".to_owned(),
            Self::Text => "text of several lines".to_owned(),
            Self::Pem => "PEM".to_owned(),
            Self::Json => "JSON".to_owned(),
            Self::Url => "URL".to_owned(),
            Self::Path => "absolute path".to_owned(),
            Self::Number => "number".to_owned(),
            Self::OneOf(words) => words.join(" or "),
        }
    }

    fn check(self, text: &str) -> Result<(), String> {
        match self {
            Self::Text => block(text),
            Self::Pem if text.contains("-----BEGIN ") => block(text),
            Self::Pem => {
                block(text)?;
                Err("is not in PEM: it has no line that starts with -----BEGIN".to_owned())
            }
            Self::Json => block(text).and_then(|()| object(text).map(drop)),
            Self::Line => line(text),
            Self::Url => {
                line(text)?;
                let url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
                match url.host() {
                    Some(_) => Ok(()),
                    None => Err("is no URL with a host".to_owned()),
                }
            }
            Self::Path => {
                line(text)?;
                let is_plain = Path::new(text).is_absolute() && !text.split('/').any(|p| p == "..");
                let problem = || "must be an absolute path without ..".to_owned();
                is_plain.then_some(()).ok_or_else(problem)
            }
            Self::Number => {
                line(text)?;
                let number = text.parse::<u32>();
                number
                    .map(drop)
                    .map_err(|_| "is no whole number".to_owned())
            }
            Self::OneOf(words) if words.contains(&text) => Ok(()),
            Self::OneOf(words) => Err(format!("must be {}", words.join(" or "))),
        }
    }
}

/// Reads an object in JSON. The parser's own text could quote a secret.
pub(crate) fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| {
        format!(
            "is no object in JSON (line {}, column {})",
            error.line(),
            error.column()
        )
    })
}

/// The material of one refresh, public and secret, by name.
#[derive(Clone, Copy, Debug)]
pub struct Material<'a> {
    public: &'a BTreeMap<String, String>,
    secret: &'a BTreeMap<String, Secret>,
}

impl<'a> Material<'a> {
    /// A view on both maps. What an operator keeps as a secret without need is found too.
    pub fn new(public: &'a BTreeMap<String, String>, secret: &'a BTreeMap<String, Secret>) -> Self {
        Self { public, secret }
    }

    /// A piece of material, if it is there and is text.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        let secret = || self.secret.get(name).and_then(Secret::expose_str);
        self.public.get(name).map(String::as_str).or_else(secret)
    }

    /// A secret piece of material, if it is there.
    pub fn secret(&self, name: &str) -> Option<&'a Secret> {
        self.secret.get(name)
    }

    /// Whether there is such a piece.
    pub fn has(&self, name: &str) -> bool {
        self.public.contains_key(name) || self.secret.contains_key(name)
    }

    /// Every secret piece.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &'a Secret> {
        self.secret.values()
    }

    /// A piece of material that a mint is impossible without.
    ///
    /// # Errors
    /// [`FailureClass::ConfigRefused`], naming it.
    pub fn require(&self, name: &str) -> Result<&'a str, Failure> {
        self.get(name)
            .ok_or_else(|| bad_material(name, "is missing"))
    }

    /// Refuses a mint that lacks what it is impossible without.
    pub(crate) fn check_presence(&self, schema: &MaterialSchema) -> Result<(), Failure> {
        let needed = schema.fields().filter(|f| f.need == Need::Required);
        match needed.map(|field| field.name).find(|name| !self.has(name)) {
            Some(name) => Err(bad_material(name, "is missing")),
            None => Ok(()),
        }
    }

    /// Checks that there is either the `whole`, and none of its `parts`, or every `needed` part.
    pub(crate) fn check_either(
        &self,
        whole: &str,
        needed: &[&str],
        parts: &[&str],
    ) -> Vec<FieldError> {
        if self.has(whole) {
            let doubles = parts.iter().filter(|name| self.has(name));
            let problem = format!("is in {whole} already; give one or the other");
            return doubles.map(|n| FieldError::new(*n, &*problem)).collect();
        }
        let missing = needed.iter().filter(|name| !self.has(name));
        let problem = format!("is missing; give it, or the whole as {whole}");
        missing.map(|n| FieldError::new(*n, &*problem)).collect()
    }

    /// Checks every field by itself: unknown, missing, given in the open, or of the wrong form.
    pub(crate) fn check(&self, schema: &MaterialSchema) -> Vec<FieldError> {
        let known = |name: &str| schema.fields().any(|field| field.name == name);
        let mut errors = Vec::new();
        for name in self.public.keys().chain(self.secret.keys()) {
            if !known(name) {
                let names: Vec<_> = schema.fields().map(|field| field.name).collect();
                errors.push(FieldError::new(
                    name,
                    format!(
                        "is no material of {}; known are {}",
                        schema.strategy,
                        names.join(", ")
                    ),
                ));
            }
        }
        for field in schema.fields() {
            let (public, secret) = (self.public.get(field.name), self.secret.get(field.name));
            let problem = match (public, secret) {
                (None, None) if field.need == Need::Required => {
                    Some(format!("is missing: {}", field.about))
                }
                (None, None) => None,
                (Some(_), Some(_)) => {
                    Some("is given twice, in the open and as a secret".to_owned())
                }
                (Some(_), None) if field.secret => Some("has to be given as a secret".to_owned()),
                (Some(text), None) => field.check(text).err(),
                (None, Some(secret)) => match secret.expose_str() {
                    Some(text) => field.check(text).err(),
                    None => Some("is not UTF-8 text".to_owned()),
                },
            };
            errors.extend(problem.map(|problem| FieldError::new(field.name, problem)));
        }
        errors
    }
}

/// The failure of a mint whose material turns out to be wrong.
pub(crate) fn bad_material(name: &str, problem: &str) -> Failure {
    Failure {
        class: FailureClass::ConfigRefused,
        cause: format!("material {name} {problem}"),
        remedy: format!("configure the refresh again, with {name}"),
        retry_after_ms: None,
    }
}

/// The entries of a list that is parted by commas.
pub(crate) fn list(text: &str) -> Vec<&str> {
    let entries = text.split(',').map(str::trim);
    entries.filter(|entry| !entry.is_empty()).collect()
}

/// A line of text: what was pasted with its line end, or left blank, is noticed here.
pub(crate) fn line(text: &str) -> Result<(), String> {
    block(text)?;
    if text.trim() != text {
        return Err("begins or ends with white space; remove it".to_owned());
    }
    match text.chars().find(|c| c.is_control()) {
        Some(_) => Err("contains a line break or another control character".to_owned()),
        None => Ok(()),
    }
}

/// A text of any number of lines.
pub(crate) fn block(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("is empty".to_owned());
    }
    if text.len() > MATERIAL_MAX {
        return Err(format!("is longer than {MATERIAL_MAX} bytes"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: MaterialSchema = MaterialSchema {
        strategy: Strategy::OAuth2ClientCredentials,
        parts: &[
            &[MaterialField::public("id", Format::Line, "who it is").required()],
            &[MaterialField::secret("key", Format::Text, "the key").required()],
        ],
    };

    fn check(public: &[(&str, &str)], secret: &[(&str, &[u8])]) -> Vec<String> {
        let public = public
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let secret = secret
            .iter()
            .map(|(k, v)| ((*k).to_owned(), Secret::new(*v)))
            .collect();
        let material = Material::new(&public, &secret);
        material
            .check(&SCHEMA)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn each_format_takes_its_own() {
        const WORDS: Format = Format::OneOf(&["a", "b"]);
        for (format, good, bad) in [
            (Format::Line, "x y", &["", "x\n", "x\ny"][..]),
            (Format::Text, "x\ny", &["", " \n"]),
            (Format::Pem, "-----BEGIN X-----\n", &["", "MIIE"]),
            (Format::Json, "{\"a\": 1}\n", &["", "[]", "{", "a"]),
            (
                Format::Url,
                "https://a.example/b",
                &["", "a.example", "urn:a"],
            ),
            (
                Format::Path,
                "/run/a",
                &["", "run/a", "/run/../a", "/run/a\n"],
            ),
            (Format::Number, "3600", &["", "-1", "1.5", "x"]),
            (WORDS, "b", &["", "c", "a "]),
        ] {
            assert_eq!(format.check(good), Ok(()), "{format:?}");
            for text in bad {
                assert!(format.check(text).is_err(), "{format:?} {text:?}");
            }
        }
    }

    #[test]
    fn good_material_passes() {
        assert_eq!(
            check(&[("id", "a")], &[("key", b"k\nk")]),
            Vec::<String>::new()
        );
        assert_eq!(
            check(&[], &[("id", b"a"), ("key", b"k")]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn every_problem_is_named_at_once() {
        assert_eq!(
            check(&[("key", "hunter2"), ("idd", "x")], &[("odd", b"x")]),
            [
                "idd: is no material of oauth2-client-credentials; known are id, key",
                "odd: is no material of oauth2-client-credentials; known are id, key",
                "id: is missing: who it is",
                "key: has to be given as a secret",
            ]
        );
    }

    #[test]
    fn the_form_of_a_field_is_checked_without_showing_it() {
        for (value, problem) in [
            (&b""[..], "is empty"),
            (b" \n", "is empty"),
            (b"hunter2\n", "white space"),
            (b" hunter2", "white space"),
            (b"hun\nter2", "line break"),
            (b"hun\0ter2", "control character"),
            (b"hunter2\xff", "UTF-8"),
            (&[b'h'; MATERIAL_MAX + 1], "longer"),
        ] {
            let errors = check(&[], &[("id", value), ("key", b"k")]);
            assert_eq!(errors.len(), 1);
            assert!(
                errors[0].starts_with("id: ") && errors[0].contains(problem),
                "{errors:?}"
            );
            assert!(!errors[0].contains("hun"), "{errors:?}");
        }
        let twice = check(&[("id", "a")], &[("id", b"b"), ("key", b"k")]);
        assert!(twice[0].contains("twice"), "{twice:?}");
    }
}
