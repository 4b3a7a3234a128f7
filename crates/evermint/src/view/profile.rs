//! Profiles, and what is wrong with them.

use evermint_proto::v1;
use serde::Serialize;

use super::text_cell;
use crate::out::Render;
use crate::page::{Cell, Page};

/// A profile.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Profile {
    pub id: String,
    pub source: &'static str,
    pub version: u64,
    pub display_name: String,
    pub description: String,
    pub category: String,
    pub aliases: Vec<String>,
    pub keys: Vec<String>,
    pub strategies: Vec<String>,
    pub shadowed: bool,
}

impl From<v1::Profile> for Profile {
    fn from(p: v1::Profile) -> Self {
        Self {
            source: match p.source() {
                v1::ProfileSource::BuiltIn => "built-in",
                v1::ProfileSource::Platform => "platform",
                v1::ProfileSource::Workspace => "workspace",
                v1::ProfileSource::Unspecified => "unknown",
            },
            id: p.id,
            version: p.version,
            display_name: p.display_name,
            description: p.description,
            category: p.category,
            aliases: p.aliases,
            keys: p.keys,
            strategies: p.strategies,
            shadowed: p.shadowed,
        }
    }
}

impl Profile {
    /// Where it comes from, and whether it counts.
    fn origin(&self) -> String {
        match self.shadowed {
            true => format!("{} (shadowed)", self.source),
            false => self.source.to_owned(),
        }
    }
}

/// One profile, as `provider profile show` shows it.
#[derive(Debug, Serialize)]
pub struct One {
    /// The profile.
    pub profile: Profile,
    /// Its document.
    pub yaml: String,
}

impl From<v1::Profile> for One {
    fn from(mut p: v1::Profile) -> Self {
        let yaml = std::mem::take(&mut p.yaml);
        Self {
            profile: p.into(),
            yaml,
        }
    }
}

impl Render for One {
    fn render(&self, page: &mut Page) {
        let p = &self.profile;
        page.fields(&[
            ("id", p.id.as_str().into()),
            ("source", p.origin().into()),
            ("version", p.version.into()),
        ]);
        page.line("");
        for line in self.yaml.lines() {
            page.line(line);
        }
    }
}

/// Profiles, as `provider profile list` shows them.
#[derive(Debug, Serialize)]
pub struct Many {
    /// In the order of their ids.
    pub profiles: Vec<Profile>,
}

impl Render for Many {
    fn render(&self, page: &mut Page) {
        let rows: Vec<Vec<Cell>> = self
            .profiles
            .iter()
            .map(|p| {
                vec![
                    p.id.as_str().into(),
                    p.origin().into(),
                    p.category.as_str().into(),
                    text_cell(&p.aliases.join(", ")),
                    text_cell(&p.strategies.join(", ")),
                    text_cell(&p.description),
                ]
            })
            .collect();
        page.table(
            &[
                "ID",
                "SOURCE",
                "CATEGORY",
                "ALIASES",
                "STRATEGIES",
                "DESCRIPTION",
            ],
            &rows,
            "no profiles",
        );
    }
}

/// Documents, as `provider profile export` writes them.
#[derive(Debug, Serialize)]
pub struct Exported {
    /// The documents, one text.
    pub yaml: String,
}

impl Render for Exported {
    fn render(&self, page: &mut Page) {
        for line in self.yaml.lines() {
            page.line(line);
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Finding {
    pub source: String,
    pub line: u32,
    pub severity: &'static str,
    pub profile: String,
    pub field: String,
    pub message: String,
}

impl From<v1::ProfileFinding> for Finding {
    fn from(f: v1::ProfileFinding) -> Self {
        Self {
            source: f.source,
            line: f.line,
            severity: if f.warning { "warning" } else { "error" },
            profile: f.profile,
            field: f.field,
            message: f.message,
        }
    }
}

/// One line for each, as compilers write them: never cut, so that editors find the place.
fn findings(page: &mut Page, findings: &[Finding]) {
    for f in findings {
        let place = match f.line {
            0 => f.source.clone(),
            line => format!("{}:{line}", f.source),
        };
        let field = match f.field.as_str() {
            "" => String::new(),
            field => format!("{field} "),
        };
        page.line(format!("{place}: {}: {field}{}", f.severity, f.message));
    }
}

/// What lint found.
#[derive(Debug, Serialize)]
pub struct Findings {
    /// Whether there is nothing but warnings.
    pub valid: bool,
    /// In the order of the texts.
    pub findings: Vec<Finding>,
}

impl Render for Findings {
    fn render(&self, page: &mut Page) {
        findings(page, &self.findings);
        let errors = self
            .findings
            .iter()
            .filter(|f| f.severity == "error")
            .count();
        match (self.valid, errors) {
            (true, _) if self.findings.is_empty() => page.line("nothing is wrong"),
            (true, _) => page.line("valid, with warnings"),
            (false, 1) => page.line("not valid: 1 error"),
            (false, errors) => page.line(format!("not valid: {errors} errors")),
        }
    }
}

/// What became of an import or an update.
#[derive(Debug, Serialize)]
pub struct Stored {
    /// For people: what was done, if it was.
    #[serde(skip)]
    pub done: Option<&'static str>,
    /// What was stored.
    pub profiles: Vec<Profile>,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Where the write stands in the history; 0 if there was none.
    pub position: u64,
}

impl Render for Stored {
    fn render(&self, page: &mut Page) {
        findings(page, &self.findings);
        let Some(done) = self.done else {
            page.line("nothing was changed");
            return;
        };
        for p in &self.profiles {
            page.line(format!(
                "profile {} {done} ({}, version {})",
                p.id, p.source, p.version
            ));
        }
    }
}
