//! Where answers go: standard output, as text for people or as JSON or YAML for programs.

use std::io::{ErrorKind, Write};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Serialize, Serializer};

use crate::page::{Page, Style, wall_ms};

/// How answers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables for people: names may be cut to fit the terminal, times are relative.
    #[default]
    Table,
    /// One JSON object, with stable field names and times in RFC 3339; secrets only where --reveal asks for them.
    Json,
    /// The same as YAML; one document for each answer.
    Yaml,
}

/// An answer that can be shown.
pub trait Render {
    /// Writes it for people.
    fn render(&self, page: &mut Page);
}

/// Standard output.
#[derive(Clone, Copy, Debug)]
pub struct Out {
    format: Format,
}

impl Out {
    /// Writes in `format`.
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    /// Whether it writes for programs.
    pub fn is_for_programs(self) -> bool {
        self.format != Format::Table
    }

    /// Shows one answer.
    ///
    /// # Errors
    /// When standard output cannot be written. A reader that went away is no error.
    pub fn show<T: Render + Serialize>(self, answer: &T) -> Result<()> {
        match self.format {
            Format::Json => {
                let mut text = serde_json::to_string_pretty(answer)?;
                text.push('\n');
                write(&text)
            }
            Format::Yaml => write(&yaml(answer)?),
            Format::Table => write(&text(answer)),
        }
    }

    /// Shows one of many answers: in JSON on a line of its own, in YAML after a line `---`.
    ///
    /// # Errors
    /// As [`show`](Self::show).
    pub fn show_next<T: Render + Serialize>(self, answer: &T) -> Result<()> {
        match self.format {
            Format::Json => write(&format!("{}\n", serde_json::to_string(answer)?)),
            Format::Yaml => write(&format!("---\n{}", yaml(answer)?)),
            Format::Table => write(&text(answer)),
        }
    }
}

/// The same tree as in JSON: types serialize as they do there.
fn yaml<T: Serialize>(answer: &T) -> Result<String> {
    let tree = serde_json::to_value(answer)?;
    Ok(serde_saphyr::to_string(&tree)?)
}

fn text<T: Render>(answer: &T) -> String {
    let mut page = Page::new(Style::of_stdout(), wall_ms());
    answer.render(&mut page);
    page.text().to_owned()
}

/// Writes to standard output.
///
/// # Errors
/// When it cannot be written. A reader that went away ends the program quietly, as it does for
/// other programs in a pipe.
pub fn write(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        result => result.context("cannot write to standard output"),
    }
}

/// Writes a line to standard error.
pub fn note(text: &str) {
    // Nobody is left to be told if this fails.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A point in time that JSON shows in RFC 3339, to the millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At(pub u64);

impl Serialize for At {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ms = i64::try_from(self.0).map_err(serde::ser::Error::custom)?;
        let at = jiff::Timestamp::from_millisecond(ms).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&format!("{at:.3}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_says_what_json_says() {
        let answer = serde_json::json!({
            "name": "no", "at": At(1_784_160_000_120), "ends": null, "list": ["a: b", "- c"],
            "empty": [], "version": 3, "live": true, "lines": "a\nb\n", "colon": "x: 'y' #z",
        });
        let yaml = yaml(&answer).unwrap();
        let expected = "\
at: \"2026-07-16T00:00:00.120Z\"
colon: \"x: 'y' #z\"
empty: []
ends: null
lines: |
  a
  b
list:
- \"a: b\"
- \"- c\"
live: true
name: \"no\"
version: 3
";
        assert_eq!(yaml, expected);
    }

    #[test]
    fn json_times_are_rfc_3339() {
        let json = serde_json::to_string(&At(1_784_160_000_120)).unwrap();
        assert_eq!(json, r#""2026-07-16T00:00:00.120Z""#);
    }
}
