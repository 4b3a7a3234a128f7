//! Inference routes.

use evermint_proto::v1;
use serde::Serialize;

use super::text_cell;
use crate::out::Render;
use crate::page::{Cell, Page};

/// A route.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Route {
    pub workspace: String,
    pub name: String,
    pub provider: String,
    pub credential_key: String,
    pub model: String,
    pub timeout_secs: u64,
    pub version: u64,
}

impl From<v1::Route> for Route {
    fn from(r: v1::Route) -> Self {
        Self {
            workspace: r.workspace,
            name: r.name,
            provider: r.provider,
            credential_key: r.credential_key,
            model: r.model,
            timeout_secs: r.timeout_secs,
            version: r.version,
        }
    }
}

fn timeout(secs: u64) -> Cell {
    match secs {
        0 => Cell::none(),
        secs => format!("{secs} s").into(),
    }
}

fn key(key: &str) -> Cell {
    match key {
        "" => "(first)".into(),
        key => key.into(),
    }
}

/// One route, as `inference set` and `get` show it.
#[derive(Debug, Serialize)]
pub struct One {
    /// For people: what was done.
    #[serde(skip)]
    pub done: Option<&'static str>,
    /// The route.
    pub route: Route,
    /// Where the write stands in the history, or how far the read went.
    pub position: u64,
}

impl Render for One {
    fn render(&self, page: &mut Page) {
        let r = &self.route;
        if let Some(done) = self.done {
            page.line(format!("route {} {done}", r.name));
        }
        page.fields(&[
            ("name", r.name.as_str().into()),
            ("workspace", r.workspace.as_str().into()),
            ("provider", r.provider.as_str().into()),
            ("credential", key(&r.credential_key)),
            ("model", r.model.as_str().into()),
            ("timeout", timeout(r.timeout_secs)),
            ("version", r.version.into()),
        ]);
    }
}

/// Routes, as `inference list` shows them.
#[derive(Debug, Serialize)]
pub struct Many {
    /// In the order of their names.
    pub routes: Vec<Route>,
}

impl Render for Many {
    fn render(&self, page: &mut Page) {
        let rows: Vec<Vec<Cell>> = self
            .routes
            .iter()
            .map(|r| {
                vec![
                    r.name.as_str().into(),
                    r.provider.as_str().into(),
                    key(&r.credential_key),
                    text_cell(&r.model),
                    timeout(r.timeout_secs),
                    r.version.into(),
                ]
            })
            .collect();
        page.table(
            &[
                "NAME",
                "PROVIDER",
                "CREDENTIAL",
                "MODEL",
                "TIMEOUT",
                "VERSION",
            ],
            &rows,
            "no routes: `evermint inference set --provider NAME --model MODEL` makes one",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::shown;
    use super::*;

    #[test]
    fn a_route_without_a_key_uses_the_first() {
        let many = Many {
            routes: vec![
                v1::Route {
                    name: "inference.local".into(),
                    provider: "vertex".into(),
                    model: "gemini-2.5-pro".into(),
                    version: 1,
                    ..Default::default()
                }
                .into(),
            ],
        };
        assert_eq!(
            shown(&many),
            "NAME             PROVIDER  CREDENTIAL  MODEL           TIMEOUT  VERSION\n\
             inference.local  vertex    (first)     gemini-2.5-pro  -        1\n"
        );
    }
}
