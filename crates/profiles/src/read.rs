//! From a tree to a profile: every problem is noted with its field and line, and reading goes on.

use std::collections::BTreeMap;
use std::str::FromStr;

use evermint_core::profile::Profile;

use crate::finding::{Finding, Severity};
use crate::yaml::{self, Node, Value};

/// One document of a text.
#[derive(Clone, Debug)]
pub struct Document {
    /// The line on which it begins.
    pub line: usize,
    /// The id that it gives, even if it is none; empty if it gives none.
    pub id: String,
    /// The profile, if no finding is an error.
    pub profile: Option<Profile>,
    /// What is wrong with it, in the order of lines.
    pub findings: Vec<Finding>,
}

/// Reads and lints every document of a text. A text that is no YAML is one document with one
/// finding.
pub fn read(text: &str) -> Vec<Document> {
    let nodes = match yaml::documents(text) {
        Ok(nodes) => nodes,
        Err(finding) => {
            return vec![Document {
                line: finding.line.unwrap_or(1),
                id: String::new(),
                profile: None,
                findings: vec![finding],
            }];
        }
    };
    nodes.iter().map(document).collect()
}

/// Reads every document of a text as far as its form goes, without lint; for tests of the form.
pub fn parse(text: &str) -> Vec<(Option<Profile>, Vec<Finding>)> {
    match yaml::documents(text) {
        Ok(nodes) => nodes
            .iter()
            .map(|node| {
                let mut reader = Reader::default();
                (reader.profile(node), reader.findings)
            })
            .collect(),
        Err(finding) => vec![(None, vec![finding])],
    }
}

fn document(node: &Node) -> Document {
    let mut reader = Reader::default();
    let profile = reader.profile(node);
    let lints = profile.iter().flat_map(crate::lint);
    // What could not be read is said once, not again by what it lacks then.
    let unread: Vec<String> = reader.findings.iter().map(|f| f.field.clone()).collect();
    let lints: Vec<Finding> = lints
        .filter(|f| !unread.contains(&f.field))
        .map(|f| Finding {
            line: Some(reader.line_of(&f.field).unwrap_or(node.line)),
            ..f
        })
        .collect();
    let mut findings = reader.findings;
    findings.extend(lints);
    findings.sort_by_key(|f| f.line);
    let id = match &node.value {
        Value::Map(entries) => entries
            .iter()
            .find(|(key, _)| key.text == "id")
            .and_then(|(_, value)| match &value.value {
                Value::Scalar { text, .. } => Some(text.chars().take(64).collect()),
                _ => None,
            })
            .unwrap_or_default(),
        _ => String::new(),
    };
    let is_sound = !findings.iter().any(|f| f.severity == Severity::Error);
    Document {
        line: node.line,
        id,
        profile: profile.filter(|_| is_sound),
        findings,
    }
}

/// Gathers findings, and remembers where each field stands.
#[derive(Default)]
pub(crate) struct Reader {
    pub(crate) findings: Vec<Finding>,
    lines: BTreeMap<String, usize>,
}

/// The entries of a mapping that were not read yet.
pub(crate) struct Fields<'n> {
    path: String,
    pub(crate) line: usize,
    entries: BTreeMap<&'n str, (usize, &'n Node)>,
}

impl<'n> Fields<'n> {
    /// The path of an entry.
    pub(crate) fn path(&self, name: &str) -> String {
        join(&self.path, name)
    }

    /// An entry, unless nothing is written there; it counts as read.
    pub(crate) fn take(&mut self, name: &str) -> Option<&'n Node> {
        let (_, node) = self.entries.remove(name)?;
        (!node.is_null()).then_some(node)
    }

    /// The names that were not read yet.
    pub(crate) fn names(&self) -> Vec<String> {
        self.entries.keys().map(|name| (*name).to_owned()).collect()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(|(_, n)| !n.is_null())
    }
}

fn join(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    }
}

impl Reader {
    pub(crate) fn error(&mut self, line: usize, field: impl Into<String>, message: impl ToString) {
        self.findings.push(Finding {
            line: Some(line),
            ..Finding::new(Severity::Error, field, message.to_string())
        });
    }

    /// Notes a problem of an entry that was read already, or is missing.
    pub(crate) fn wrong(&mut self, fields: &Fields<'_>, name: &str, message: impl ToString) {
        let path = fields.path(name);
        let line = self.lines.get(&path).copied().unwrap_or(fields.line);
        self.error(line, path, message);
    }

    /// The line of a field, or of the nearest one around it.
    fn line_of(&self, field: &str) -> Option<usize> {
        let mut field = field;
        loop {
            if let Some(line) = self.lines.get(field) {
                return Some(*line);
            }
            field = &field[..field.rfind(['.', '['])?];
        }
    }

    /// The fields of a mapping.
    pub(crate) fn fields<'n>(&mut self, path: &str, node: &'n Node) -> Option<Fields<'n>> {
        let Value::Map(entries) = &node.value else {
            self.error(node.line, path, "must be a mapping");
            return None;
        };
        self.lines.insert(path.to_owned(), node.line);
        for (key, _) in entries {
            self.lines.insert(join(path, &key.text), key.line);
        }
        Some(Fields {
            path: path.to_owned(),
            line: node.line,
            entries: entries
                .iter()
                .map(|(key, node)| (key.text.as_str(), (key.line, node)))
                .collect(),
        })
    }

    /// What was not read is not known.
    pub(crate) fn finish(&mut self, fields: Fields<'_>) {
        for (name, (line, _)) in &fields.entries {
            let shown: String = name.chars().take(64).collect();
            self.error(*line, join(&fields.path, &shown), "is not known");
        }
    }

    /// The text of a scalar.
    pub(crate) fn scalar<'n>(&mut self, path: &str, node: &'n Node) -> Option<&'n str> {
        match &node.value {
            Value::Scalar { text, .. } if !node.is_null() => Some(text),
            _ => {
                self.error(node.line, path, "must be a text");
                None
            }
        }
    }

    /// A text; empty if nothing is written.
    pub(crate) fn text(&mut self, fields: &mut Fields<'_>, name: &str) -> String {
        self.maybe_text(fields, name).unwrap_or_default()
    }

    /// A text that may be absent, which is not the same as empty.
    pub(crate) fn maybe_text(&mut self, fields: &mut Fields<'_>, name: &str) -> Option<String> {
        let node = fields.take(name)?;
        self.scalar(&fields.path(name), node).map(str::to_owned)
    }

    /// A text that is parsed.
    pub(crate) fn parse<T>(&mut self, fields: &mut Fields<'_>, name: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: ToString,
    {
        let node = fields.take(name)?;
        let path = fields.path(name);
        let text = self.scalar(&path, node)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.error(node.line, path, error.to_string());
                None
            }
        }
    }

    /// A flag; off if nothing is written.
    pub(crate) fn flag(&mut self, fields: &mut Fields<'_>, name: &str) -> bool {
        let Some(node) = fields.take(name) else {
            return false;
        };
        match &node.value {
            Value::Scalar {
                text,
                quoted: false,
            } if text == "true" => true,
            Value::Scalar {
                text,
                quoted: false,
            } if text == "false" => false,
            _ => {
                self.error(node.line, fields.path(name), "must be true or false");
                false
            }
        }
    }

    /// A number from 1 on; 0 counts as not written.
    pub(crate) fn number<T: FromStr + Default + PartialEq>(
        &mut self,
        fields: &mut Fields<'_>,
        name: &str,
    ) -> Option<T> {
        let node = fields.take(name)?;
        let number = match &node.value {
            Value::Scalar {
                text,
                quoted: false,
            } => text.parse().ok(),
            _ => None,
        };
        if number.is_none() {
            self.error(
                node.line,
                fields.path(name),
                "must be a whole number in its range",
            );
        }
        number.filter(|n| *n != T::default())
    }

    /// The items of a list with their paths; a single value counts as a list of one.
    pub(crate) fn items<'n>(
        &mut self,
        fields: &mut Fields<'n>,
        name: &str,
    ) -> Vec<(String, &'n Node)> {
        let Some(node) = fields.take(name) else {
            return Vec::new();
        };
        let path = fields.path(name);
        match &node.value {
            Value::List(items) => items
                .iter()
                .enumerate()
                .map(|(i, item)| {
                    let path = format!("{path}[{i}]");
                    self.lines.insert(path.clone(), item.line);
                    (path, item)
                })
                .collect(),
            _ => vec![(path, node)],
        }
    }

    /// A list whose items are read one by one; what cannot be read is left out.
    pub(crate) fn list<T>(
        &mut self,
        fields: &mut Fields<'_>,
        name: &str,
        read: impl Fn(&mut Self, &str, &Node) -> Option<T>,
    ) -> Vec<T> {
        let items = self.items(fields, name);
        items
            .into_iter()
            .filter_map(|(path, node)| read(self, &path, node))
            .collect()
    }

    /// A list of texts.
    pub(crate) fn texts(&mut self, fields: &mut Fields<'_>, name: &str) -> Vec<String> {
        self.list(fields, name, |reader, path, node| {
            reader.scalar(path, node).map(str::to_owned)
        })
    }

    /// A list of texts that are parsed.
    pub(crate) fn parsed<T>(&mut self, fields: &mut Fields<'_>, name: &str) -> Vec<T>
    where
        T: FromStr,
        T::Err: ToString,
    {
        self.list(fields, name, |reader, path, node| {
            let text = reader.scalar(path, node)?;
            text.parse()
                .map_err(|error: T::Err| reader.error(node.line, path, error.to_string()))
                .ok()
        })
    }

    /// A mapping of texts.
    pub(crate) fn text_map(
        &mut self,
        fields: &mut Fields<'_>,
        name: &str,
    ) -> BTreeMap<String, String> {
        let Some(node) = fields.take(name) else {
            return BTreeMap::new();
        };
        let Some(inner) = self.fields(&fields.path(name), node) else {
            return BTreeMap::new();
        };
        let entries: Vec<_> = inner.entries.iter().map(|(k, (_, n))| (*k, *n)).collect();
        entries
            .into_iter()
            .filter_map(|(key, node)| {
                // `key:` with nothing after it is an empty text here.
                let text = match node.is_null() {
                    true => "",
                    false => self.scalar(&inner.path(key), node)?,
                };
                Some((key.to_owned(), text.to_owned()))
            })
            .collect()
    }
}

/// A node as JSON text: what is carried for others.
pub(crate) fn json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Scalar { .. } if node.is_null() => serde_json::Value::Null,
        Value::Scalar { text, quoted: true } => text.as_str().into(),
        Value::Scalar { text, .. } => match text.as_str() {
            "true" => true.into(),
            "false" => false.into(),
            text => match text.parse::<i64>() {
                Ok(number) if number.to_string() == *text => number.into(),
                _ => text.into(),
            },
        },
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(entries) => entries
            .iter()
            .map(|(key, node)| (key.text.clone(), json(node)))
            .collect(),
    }
}
