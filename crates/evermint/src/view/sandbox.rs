//! Sandboxes.

use evermint_proto::v1;
use serde::Serialize;

use super::text_cell;
use crate::out::{At, Render};
use crate::page::{Cell, Page, absolute};

/// A sandbox.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Sandbox {
    pub id: String,
    pub workspace: String,
    pub name: String,
    pub providers: Vec<String>,
    pub version: u64,
    pub created_at: At,
}

impl From<v1::Sandbox> for Sandbox {
    fn from(s: v1::Sandbox) -> Self {
        Self {
            id: s.id,
            workspace: s.workspace,
            name: s.name,
            providers: s.providers,
            version: s.version,
            created_at: At(s.created_at_ms),
        }
    }
}

/// One sandbox, as `sandbox create`, `get`, `attach` and `detach` show it.
#[derive(Debug, Serialize)]
pub struct One {
    /// For people: what was done.
    #[serde(skip)]
    pub done: String,
    /// Of an attach or detach: false if nothing was to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed: Option<bool>,
    /// The sandbox.
    pub sandbox: Sandbox,
    /// Where the write stands in the history, or how far the read went.
    pub position: u64,
}

impl Render for One {
    fn render(&self, page: &mut Page) {
        let s = &self.sandbox;
        if !self.done.is_empty() {
            page.line(self.done.as_str());
        }
        page.fields(&[
            ("name", s.name.as_str().into()),
            ("workspace", s.workspace.as_str().into()),
            ("id", s.id.as_str().into()),
            ("providers", text_cell(&s.providers.join(", "))),
            ("version", s.version.into()),
            ("created", absolute(s.created_at.0).into()),
        ]);
    }
}

/// Sandboxes, as `sandbox list` shows them.
#[derive(Debug, Serialize)]
pub struct Many {
    /// Oldest first.
    pub sandboxes: Vec<Sandbox>,
}

impl Render for Many {
    fn render(&self, page: &mut Page) {
        let rows: Vec<Vec<Cell>> = self
            .sandboxes
            .iter()
            .map(|s| {
                vec![
                    s.name.as_str().into(),
                    s.workspace.as_str().into(),
                    text_cell(&s.providers.join(",")),
                    page.when(s.created_at.0).into(),
                    s.id.as_str().into(),
                ]
            })
            .collect();
        page.table(
            &["NAME", "WORKSPACE", "PROVIDERS", "CREATED", "ID"],
            &rows,
            "no sandboxes: `evermint sandbox create NAME --provider PROVIDER` registers one",
        );
    }
}
