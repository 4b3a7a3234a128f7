//! Answers as they are shown: each type is the documented JSON of one command, made from the
//! gateway's message, and knows how to write itself for people.
//!
//! Field names are stable. A time is RFC 3339 or absent (`null`); a length of time ends in `_ms`.
//! No view holds a secret, bundles apart, and those only where `--reveal` asks for it.

pub mod audit;
pub mod bundle;
pub mod cluster;
pub mod environment;
pub mod keys;
pub mod part;
pub mod profile;
pub mod provider;
pub mod refresh;
pub mod revocation;
pub mod route;
pub mod sandbox;
pub mod token;
pub mod trial;

use evermint_proto::v1;
use serde::Serialize;

use crate::out::Render;
use crate::page::{Cell, Page, Tone};
use revocation::Revocation;

/// The word of a protobuf enum: `VERDICT_IN_DOUBT` is `in-doubt`.
fn word(name: &str, prefix: &str) -> String {
    let word = name.strip_prefix(prefix).unwrap_or(name);
    word.to_ascii_lowercase().replace('_', "-")
}

/// A verdict's word.
fn verdict(value: i32) -> String {
    let verdict = v1::Verdict::try_from(value).unwrap_or_default();
    word(verdict.as_str_name(), "VERDICT_")
}

/// A reason's word.
fn reason(value: i32) -> String {
    let reason = v1::Reason::try_from(value).unwrap_or_default();
    word(reason.as_str_name(), "REASON_")
}

/// A verdict in its colour.
pub fn verdict_cell(word: &str) -> Cell {
    let tone = match word {
        "fresh" => Tone::Good,
        "pending" => Tone::Plain,
        "retrying" | "throttled" | "in-doubt" => Tone::Warn,
        _ => Tone::Bad,
    };
    Cell::new(word, tone)
}

/// A text, or `-` for none.
fn text_cell(text: &str) -> Cell {
    if text.is_empty() {
        Cell::none()
    } else {
        text.into()
    }
}

/// A delete, of one or of several.
#[derive(Debug, Serialize)]
pub struct Deletions {
    /// What kind of object.
    pub kind: &'static str,
    /// One for each name.
    pub deletions: Vec<Deletion>,
}

/// What became of one name.
#[derive(Debug, Serialize)]
pub struct Deletion {
    /// The name.
    pub name: String,
    /// False if there was none.
    pub deleted: bool,
    /// Where the write stands in the history.
    pub position: u64,
    /// What became of revocations at issuers, where they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub revocations: Vec<Revocation>,
}

impl Render for Deletions {
    fn render(&self, page: &mut Page) {
        for deletion in &self.deletions {
            let Deletion { name, deleted, .. } = deletion;
            let kind = self.kind;
            page.line(match deleted {
                true => Cell::from(format!("{kind} {name} deleted")),
                false => Cell::new(format!("there was no {kind} {name}"), Tone::Dim),
            });
            for revocation in &deletion.revocations {
                revocation.tell(page);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::page::Style;

    /// The time that relative times of tests count from.
    pub(crate) const NOW: u64 = 1_784_160_000_000;

    /// What `answer` looks like on a terminal of 80 columns without colours.
    pub(crate) fn shown<T: Render>(answer: &T) -> String {
        let style = Style {
            width: Some(80),
            color: false,
        };
        let mut page = Page::new(style, NOW);
        answer.render(&mut page);
        page.text().to_owned()
    }

    #[test]
    fn words_are_those_of_the_documentation() {
        assert_eq!(verdict(v1::Verdict::InDoubt as i32), "in-doubt");
        assert_eq!(reason(v1::Reason::AfterDoubt as i32), "after-doubt");
        assert_eq!(verdict(99), "unspecified");
    }
}
