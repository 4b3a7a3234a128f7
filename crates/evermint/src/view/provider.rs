//! Providers.

use std::collections::BTreeMap;

use evermint_proto::v1;
use serde::Serialize;

use super::{verdict, verdict_cell};
use crate::out::{At, Render};
use crate::page::{Cell, Page, absolute};

/// A provider, without its secrets.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Provider {
    pub id: String,
    pub workspace: String,
    pub name: String,
    pub r#type: String,
    pub config: BTreeMap<String, String>,
    pub credentials: Vec<Credential>,
    pub version: u64,
    pub created_at: At,
}

/// One key of a provider, without its value.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Credential {
    pub key: String,
    pub refreshed: bool,
    pub live: bool,
    pub generation: u64,
    pub expires_at: Option<At>,
    pub verdict: String,
    pub outputs: Vec<String>,
}

impl From<v1::Provider> for Provider {
    fn from(p: v1::Provider) -> Self {
        Self {
            id: p.id,
            workspace: p.workspace,
            name: p.name,
            r#type: p.r#type,
            config: p.config,
            credentials: p.credentials.into_iter().map(Credential::from).collect(),
            version: p.version,
            created_at: At(p.created_at_ms),
        }
    }
}

impl From<v1::Credential> for Credential {
    fn from(c: v1::Credential) -> Self {
        Self {
            verdict: verdict(c.verdict),
            key: c.key,
            refreshed: c.refreshed,
            live: c.live,
            generation: c.generation,
            expires_at: c.expires_at_ms.map(At),
            outputs: c.outputs,
        }
    }
}

/// One provider, as `provider create`, `get` and `update` show it.
#[derive(Debug, Serialize)]
pub struct One {
    /// What was done, for people.
    #[serde(skip)]
    pub done: Option<&'static str>,
    /// The provider.
    pub provider: Provider,
    /// Where the write stands in the history, or how far the read went.
    pub position: u64,
}

impl Render for One {
    fn render(&self, page: &mut Page) {
        let p = &self.provider;
        if let Some(done) = self.done {
            page.line(format!("provider {} {done}", p.name));
        }
        let mut fields = vec![
            ("name", Cell::from(p.name.as_str())),
            ("workspace", p.workspace.as_str().into()),
            ("type", p.r#type.as_str().into()),
            ("id", p.id.as_str().into()),
            ("version", p.version.into()),
            ("created", absolute(p.created_at.0).into()),
        ];
        for (key, value) in &p.config {
            fields.push(("config", format!("{key}={value}").into()));
        }
        page.fields(&fields);
        page.line("");
        let rows: Vec<Vec<Cell>> = p
            .credentials
            .iter()
            .map(|c| {
                let names = std::iter::once(&c.key).chain(&c.outputs);
                let names: Vec<&str> = names.map(String::as_str).collect();
                vec![
                    names.join(", ").into(),
                    if c.refreshed { "refreshed" } else { "static" }.into(),
                    verdict_cell(&c.verdict),
                    c.generation.into(),
                    if c.live || c.expires_at.is_some() {
                        page.end(c.expires_at.map(|at| at.0))
                    } else {
                        Cell::none()
                    },
                ]
            })
            .collect();
        page.table(
            &["CREDENTIAL", "KIND", "VERDICT", "GENERATION", "EXPIRES"],
            &rows,
            "no credentials yet: `evermint provider refresh configure` adds one that is minted",
        );
    }
}

/// Providers, as `provider list` shows them.
#[derive(Debug, Serialize)]
pub struct Many {
    /// Oldest first.
    pub providers: Vec<Provider>,
}

impl Render for Many {
    fn render(&self, page: &mut Page) {
        let rows: Vec<Vec<Cell>> = self
            .providers
            .iter()
            .map(|p| {
                let keys: Vec<&str> = p.credentials.iter().map(|c| c.key.as_str()).collect();
                let first_end = p
                    .credentials
                    .iter()
                    .filter_map(|c| c.expires_at)
                    .min_by_key(|at| at.0);
                vec![
                    p.name.as_str().into(),
                    p.workspace.as_str().into(),
                    p.r#type.as_str().into(),
                    p.version.into(),
                    page.when(p.created_at.0).into(),
                    first_end.map_or_else(Cell::none, |at| page.end(Some(at.0))),
                    super::text_cell(&keys.join(",")),
                ]
            })
            .collect();
        page.table(
            &[
                "NAME",
                "WORKSPACE",
                "TYPE",
                "VERSION",
                "CREATED",
                "EXPIRES",
                "CREDENTIALS",
            ],
            &rows,
            "no providers yet: `evermint provider create NAME --type TYPE` registers one",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, shown};
    use super::*;

    fn provider() -> v1::Provider {
        v1::Provider {
            id: "01234567-89ab-cdef-0011-223344556677".into(),
            workspace: "default".into(),
            name: "vertex".into(),
            r#type: "google-vertex".into(),
            config: [("region".to_owned(), "europe-west4".to_owned())].into(),
            credentials: vec![v1::Credential {
                key: "VERTEX_AI_TOKEN".into(),
                refreshed: true,
                live: true,
                generation: 7,
                expires_at_ms: Some(NOW + 41 * 60_000),
                verdict: v1::Verdict::Fresh as i32,
                outputs: Vec::new(),
            }],
            version: 3,
            created_at_ms: NOW - 3_600_000,
        }
    }

    #[test]
    fn a_provider_is_shown_with_its_credentials() {
        let one = One {
            done: Some("created"),
            provider: provider().into(),
            position: 12,
        };
        assert_eq!(
            shown(&one),
            "provider vertex created\n\
             name       vertex\n\
             workspace  default\n\
             type       google-vertex\n\
             id         01234567-89ab-cdef-0011-223344556677\n\
             version    3\n\
             created    2026-07-15T23:00:00Z\n\
             config     region=europe-west4\n\
             \n\
             CREDENTIAL       KIND       VERDICT  GENERATION  EXPIRES\n\
             VERTEX_AI_TOKEN  refreshed  fresh    7           in 41 min\n"
        );
    }

    #[test]
    fn json_has_the_documented_names() {
        let many = Many {
            providers: vec![provider().into()],
        };
        assert_eq!(
            serde_json::to_value(&many).unwrap(),
            serde_json::json!({"providers": [{
                "id": "01234567-89ab-cdef-0011-223344556677",
                "workspace": "default",
                "name": "vertex",
                "type": "google-vertex",
                "config": {"region": "europe-west4"},
                "credentials": [{
                    "key": "VERTEX_AI_TOKEN",
                    "refreshed": true,
                    "live": true,
                    "generation": 7,
                    "expires_at": "2026-07-16T00:41:00.000Z",
                    "verdict": "fresh",
                    "outputs": [],
                }],
                "version": 3,
                "created_at": "2026-07-15T23:00:00.000Z",
            }]})
        );
    }
}
