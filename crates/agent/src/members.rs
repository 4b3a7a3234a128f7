//! A JSON object whose members are kept as they were written, but for those that are set.
//!
//! A call's body is another party's text: numbers keep their digits, strings their escapes, members
//! their order. Only the white space between members is not kept.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::{RawValue, to_raw_value};

/// The members of an object, in order.
#[derive(Debug)]
pub(crate) struct Members(Vec<(String, Box<RawValue>)>);

impl Members {
    /// Parses an object.
    ///
    /// # Errors
    /// What is wrong with the text: no JSON, no object, or a name that stands twice, of which
    /// another parser might take the other one.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(text).map_err(|e| e.to_string())
    }

    /// Whether the member is `true`.
    pub(crate) fn is_true(&self, name: &str) -> bool {
        let mut values = self.0.iter().filter(|(n, _)| n == name);
        values.any(|(_, value)| value.get() == "true")
    }

    /// Whether there is such a member.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }

    /// Sets a member where it stands, or adds it.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<serde_json::Value>) {
        let value = to_raw_value(&value.into()).expect("a value is JSON");
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some(member) => member.1 = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Takes a member out.
    pub(crate) fn remove(&mut self, name: &str) {
        self.0.retain(|(n, _)| n != name);
    }

    /// The object as text.
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("members are JSON")
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Members(Vec::new());
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    if members.has(&name) {
                        return Err(serde::de::Error::custom(format!("{name:?} stands twice")));
                    }
                    members.0.push((name, value));
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl Serialize for Members {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, edit: impl Fn(&mut Members), expected: &str) {
        let mut members = Members::parse(text.as_bytes()).unwrap();
        edit(&mut members);
        assert_eq!(String::from_utf8(members.to_vec()).unwrap(), expected);
    }

    #[test]
    fn only_what_is_set_is_changed() {
        check(
            r#"{"a": 1.00, "model":"x", "s":"\u00e4", "o":{"model" : "y"}}"#,
            |m| m.set("model", "z"),
            r#"{"a":1.00,"model":"z","s":"\u00e4","o":{"model" : "y"}}"#,
        );
        check("{}", |m| m.set("model", "a\"b"), r#"{"model":"a\"b"}"#);
        // The same name, written in another way.
        check(
            r#"{"mod\u0065l":1}"#,
            |m| m.set("model", "z"),
            r#"{"model":"z"}"#,
        );
        check(r#"{"a":1,"model":2}"#, |m| m.remove("model"), r#"{"a":1}"#);
        check(
            r#"{"n":12345678901234567890.5}"#,
            |_| (),
            r#"{"n":12345678901234567890.5}"#,
        );
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for text in [
            r#"{"model":1,"model":2}"#,
            r#"{"model":1,"mod\u0065l":2}"#,
            "[]",
            "\"model\"",
            "",
            "{",
            "{}x",
            r#"{"a":}"#,
        ] {
            assert!(Members::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn only_the_word_true_is_true() {
        let members = Members::parse(br#"{"a":true,"b":"true","c":1,"d":{"a":true}}"#).unwrap();
        let found: Vec<_> = ["a", "b", "c", "d", "e"].map(|n| members.is_true(n)).into();
        assert_eq!(found, [true, false, false, false, false]);
    }
}
