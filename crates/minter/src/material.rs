//! What a strategy needs to know, and the check of it when an operator configures a refresh: all
//! problems at once, each with the name of its field.

use std::collections::BTreeMap;

use evermint_core::mint::{Failure, FailureClass};
use evermint_core::secret::Secret;
use evermint_core::strategy::Strategy;

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
    /// Its fields, in the order in which a person would fill them in.
    pub fields: &'static [MaterialField],
}

/// One piece of material.
#[derive(Clone, Copy, Debug)]
pub struct MaterialField {
    /// Its name.
    pub name: &'static str,
    /// Whether a mint is impossible without it.
    pub required: bool,
    /// Whether it has to be given, and is kept, as a secret.
    pub secret: bool,
    /// What it is, in one line.
    pub about: &'static str,
    /// Checks its form; the error says what is wrong and never shows the value.
    pub check: fn(&str) -> Result<(), String>,
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

    /// A piece of material that a mint is impossible without.
    ///
    /// # Errors
    /// [`FailureClass::ConfigRefused`], naming it.
    pub fn require(&self, name: &str) -> Result<&'a str, Failure> {
        self.get(name)
            .ok_or_else(|| bad_material(name, "is missing"))
    }

    /// Checks every field by itself: unknown, missing, given in the open, or of the wrong form.
    pub(crate) fn check(&self, schema: &MaterialSchema) -> Vec<FieldError> {
        let known = |name: &str| schema.fields.iter().any(|field| field.name == name);
        let mut errors = Vec::new();
        for name in self.public.keys().chain(self.secret.keys()) {
            if !known(name) {
                let names: Vec<_> = schema.fields.iter().map(|field| field.name).collect();
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
        for field in schema.fields {
            let (public, secret) = (self.public.get(field.name), self.secret.get(field.name));
            let problem = match (public, secret) {
                (None, None) if field.required => Some(format!("is missing: {}", field.about)),
                (None, None) => None,
                (Some(_), Some(_)) => {
                    Some("is given twice, in the open and as a secret".to_owned())
                }
                (Some(_), None) if field.secret => Some("has to be given as a secret".to_owned()),
                (Some(text), None) => (field.check)(text).err(),
                (None, Some(secret)) => match secret.expose_str() {
                    Some(text) => (field.check)(text).err(),
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
        fields: &[
            MaterialField {
                name: "id",
                required: true,
                secret: false,
                about: "who it is",
                check: line,
            },
            MaterialField {
                name: "key",
                required: true,
                secret: true,
                about: "the key",
                check: block,
            },
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
