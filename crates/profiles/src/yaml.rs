//! A YAML text as a tree with line numbers, within bounds.
//!
//! Profiles come from whoever may import one, so the bounds are part of the format: a few hundred
//! kilobytes, a few levels, and no anchors, aliases or tags, by which a short text can mean a large
//! one. What a scalar means is decided by the reader that wants it; here it is text.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::finding::{Finding, Severity};

/// The longest text, in bytes.
pub const TEXT_MAX: usize = 1024 * 1024;
/// The deepest nesting.
pub const DEPTH_MAX: usize = 24;
/// Most nodes of one text.
pub const NODES_MAX: usize = 50_000;
/// Most documents of one text.
pub const DOCUMENTS_MAX: usize = 64;

/// One node of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The line on which it begins, from 1.
    pub line: usize,
    /// What it is.
    pub value: Value,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A scalar.
    Scalar {
        /// Its text, without quotes and escapes.
        text: String,
        /// Whether it was written in quotes or as a block: then it is a text, whatever it looks
        /// like.
        quoted: bool,
    },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the text; keys are scalars.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its line.
    pub line: usize,
    /// Its text.
    pub text: String,
}

impl Node {
    /// Whether nothing was written: `key:` or `key: null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, quoted: false }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }
}

/// An open collection.
enum Open {
    List(usize, Vec<Node>),
    Map(usize, Vec<(Key, Node)>, Option<Key>),
}

/// Takes a text apart into its documents; empty documents are left out.
///
/// # Errors
/// The first thing that is no YAML, or not within the bounds.
pub fn documents(text: &str) -> Result<Vec<Node>, Finding> {
    let refuse = |line: Option<usize>, message: String| Finding {
        line,
        ..Finding::new(Severity::Error, "", message)
    };
    if text.len() > TEXT_MAX {
        let message = format!(
            "is {} bytes long; at most {TEXT_MAX} are allowed",
            text.len()
        );
        return Err(refuse(None, message));
    }
    let mut documents = Vec::new();
    let mut stack: Vec<Open> = Vec::new();
    let mut nodes = 0;
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            refuse(
                Some(error.marker().line()),
                format!("is no YAML: {}", error.info()),
            )
        })?;
        let line = line_of(&span);
        let refuse = |message: &str| refuse(Some(line), message.to_owned());
        nodes += 1;
        if nodes > NODES_MAX {
            return Err(refuse("has too many values"));
        }
        let done = match event {
            Event::Alias(_) => return Err(refuse("has an alias (*name), which is not allowed")),
            Event::Scalar(_, _, anchor, ref tag) | Event::SequenceStart(anchor, ref tag)
                if anchor != 0 || tag.is_some() =>
            {
                return Err(refuse(MARKED));
            }
            Event::MappingStart(anchor, ref tag) if anchor != 0 || tag.is_some() => {
                return Err(refuse(MARKED));
            }
            Event::SequenceStart(..) => {
                stack.push(Open::List(line, Vec::new()));
                None
            }
            Event::MappingStart(..) => {
                stack.push(Open::Map(line, Vec::new(), None));
                None
            }
            Event::Scalar(text, style, ..) => Some(Node {
                line,
                value: Value::Scalar {
                    text: text.into_owned(),
                    quoted: style != ScalarStyle::Plain,
                },
            }),
            Event::SequenceEnd | Event::MappingEnd => stack.pop().map(close),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => None,
        };
        if stack.len() > DEPTH_MAX {
            return Err(refuse("is nested too deeply"));
        }
        let Some(node) = done else { continue };
        match stack.last_mut() {
            None if node.is_null() => {}
            None => documents.push(node),
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map(_, entries, key @ None)) => {
                let Value::Scalar { text, .. } = node.value else {
                    return Err(refuse("has a key that is no text"));
                };
                if entries.iter().any(|(key, _)| key.text == text) {
                    return Err(refuse("is a key that stands here twice"));
                }
                *key = Some(Key { line, text });
            }
            Some(Open::Map(_, entries, key)) => {
                entries.extend(key.take().map(|key| (key, node)));
            }
        }
        if documents.len() > DOCUMENTS_MAX {
            return Err(refuse("has too many documents"));
        }
    }
    Ok(documents)
}

const MARKED: &str = "has an anchor (&name) or a tag (!name), which is not allowed";

fn close(open: Open) -> Node {
    match open {
        Open::List(line, items) => Node {
            line,
            value: Value::List(items),
        },
        Open::Map(line, entries, _) => Node {
            line,
            value: Value::Map(entries),
        },
    }
}

fn line_of(span: &Span) -> usize {
    span.start.line()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, line: Option<usize>, part: &str) {
        let error = documents(text).unwrap_err();
        assert_eq!(error.line, line, "{error}");
        assert!(error.message.contains(part), "{error}");
    }

    #[test]
    fn what_could_blow_up_is_refused() {
        check("a: &x 1\nb: *x\n", Some(1), "anchor");
        check("a: 1\nb: !!str 2\n", Some(2), "tag");
        check(&"[".repeat(DEPTH_MAX + 1), Some(1), "nested too deeply");
        check(
            &"- 1
"
            .repeat(NODES_MAX),
            Some(NODES_MAX - 2),
            "too many values",
        );
        check(&" ".repeat(TEXT_MAX + 1), None, "bytes long");
        check("a: 1\nb: 2\na: 3\n", Some(3), "twice");
        check("? [a]\n: b\n", Some(1), "no text");
        check("a: b: c\n", Some(1), "no YAML");
        check(
            &"---\na: 1\n".repeat(DOCUMENTS_MAX + 1),
            Some(2 * DOCUMENTS_MAX + 3),
            "documents",
        );
    }

    #[test]
    fn every_document_is_given_with_the_lines_of_its_values() {
        let all = documents("---\n---\na: 1\nb:\n  - 'x'\n  - null\n---\nc\n").unwrap();
        assert_eq!(all.len(), 2);
        let Value::Map(entries) = &all[0].value else {
            panic!("{all:?}")
        };
        assert_eq!((entries[1].0.line, entries[1].1.line), (4, 5));
        let Value::List(items) = &entries[1].1.value else {
            panic!("{all:?}")
        };
        assert!(!items[0].is_null() && items[1].is_null());
    }
}
