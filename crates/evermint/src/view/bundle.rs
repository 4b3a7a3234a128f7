//! Bundles: the only answers that may hold secrets, and then only where `--reveal` asks for it.

use std::collections::BTreeMap;

use evermint_proto::v1;
use serde::Serialize;

use super::{text_cell, verdict, verdict_cell};
use crate::out::{At, Render};
use crate::page::{Cell, Page, Tone, span};

/// A sandbox's bundle.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Bundle {
    pub sandbox: String,
    pub generation: u64,
    pub revision: String,
    pub routes: Vec<Route>,
    pub credentials: Vec<Credential>,
    pub staleness_ms: u64,
    pub server_time: At,
}

/// A route with what it leads to.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Route {
    pub name: String,
    pub provider: String,
    pub provider_type: String,
    pub model: String,
    pub timeout_secs: u64,
    pub config: BTreeMap<String, String>,
    pub credential_key: String,
    pub token: Option<Token>,
    pub unavailable: Option<Unavailable>,
}

/// A credential for the sandbox's environment.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Credential {
    pub provider: String,
    pub key: String,
    pub token: Option<Token>,
    pub unavailable: Option<Unavailable>,
}

/// A live value: its lengths in bytes, and itself only where it is to be revealed.
#[derive(Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Token {
    pub generation: u64,
    pub expires_at: Option<At>,
    pub lengths: BTreeMap<String, usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<BTreeMap<String, String>>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token(generation {}, …)", self.generation)
    }
}

/// Why a credential cannot be used now.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Unavailable {
    pub verdict: String,
    pub cause: String,
}

/// Whether tokens are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reveal {
    /// Their lengths alone.
    Lengths,
    /// Themselves.
    Tokens,
}

impl Bundle {
    /// What of `bundle` is to be shown.
    pub fn new(bundle: v1::Bundle, staleness_ms: u64, server_time_ms: u64, reveal: Reveal) -> Self {
        let routes = bundle.routes.into_iter().map(|r| Route {
            name: r.name,
            provider: r.provider,
            provider_type: r.provider_type,
            model: r.model,
            timeout_secs: r.timeout_secs,
            config: r.config,
            credential_key: r.credential_key,
            token: r.token.map(|t| Token::new(t, reveal)),
            unavailable: r.unavailable.map(Unavailable::from),
        });
        let credentials = bundle.credentials.into_iter().map(|c| Credential {
            provider: c.provider,
            key: c.key,
            token: c.token.map(|t| Token::new(t, reveal)),
            unavailable: c.unavailable.map(Unavailable::from),
        });
        Self {
            sandbox: bundle.sandbox,
            generation: bundle.generation,
            revision: bundle.revision,
            routes: routes.collect(),
            credentials: credentials.collect(),
            staleness_ms,
            server_time: At(server_time_ms),
        }
    }
}

impl Token {
    fn new(token: v1::Token, reveal: Reveal) -> Self {
        let lengths = token.values.iter().map(|(key, v)| (key.clone(), v.len()));
        Self {
            generation: token.generation,
            expires_at: token.expires_at_ms.map(At),
            lengths: lengths.collect(),
            values: (reveal == Reveal::Tokens).then_some(token.values),
        }
    }

    fn lines(&self) -> Vec<String> {
        match &self.values {
            Some(values) => values.iter().map(|(k, v)| format!("{k}={v}")).collect(),
            None => self
                .lengths
                .iter()
                .map(|(k, n)| format!("{k}: {n} bytes"))
                .collect(),
        }
    }
}

impl From<v1::Unavailable> for Unavailable {
    fn from(u: v1::Unavailable) -> Self {
        Self {
            verdict: verdict(u.verdict),
            cause: u.cause,
        }
    }
}

impl Render for Bundle {
    fn render(&self, page: &mut Page) {
        page.set_now(self.server_time.0);
        page.fields(&[
            ("sandbox", self.sandbox.as_str().into()),
            ("generation", self.generation.into()),
            ("revision", self.revision.as_str().into()),
            ("staleness", span(self.staleness_ms).into()),
        ]);
        if !self.routes.is_empty() {
            page.line("");
            let rows: Vec<Vec<Cell>> = self
                .routes
                .iter()
                .map(|r| {
                    vec![
                        r.name.as_str().into(),
                        r.provider.as_str().into(),
                        text_cell(&r.model),
                        text_cell(&r.credential_key),
                        state(r.token.as_ref(), r.unavailable.as_ref()),
                    ]
                })
                .collect();
            page.table(
                &["ROUTE", "PROVIDER", "MODEL", "CREDENTIAL", "TOKEN"],
                &rows,
                "",
            );
        }
        page.line("");
        let rows: Vec<Vec<Cell>> = self
            .credentials
            .iter()
            .map(|c| {
                let token = c.token.as_ref();
                vec![
                    c.provider.as_str().into(),
                    c.key.as_str().into(),
                    token.map_or_else(Cell::none, |t| t.generation.into()),
                    token.map_or_else(Cell::none, |t| page.end(t.expires_at.map(|at| at.0))),
                    state(token, c.unavailable.as_ref()),
                ]
            })
            .collect();
        page.table(
            &["PROVIDER", "CREDENTIAL", "GENERATION", "EXPIRES", "TOKEN"],
            &rows,
            "no credentials: `evermint sandbox attach SANDBOX PROVIDER` gives it some",
        );
        // Whole values stand on lines of their own, where no table cuts them.
        let tokens = self.credentials.iter().filter_map(|c| c.token.as_ref());
        let revealed: Vec<&Token> = tokens.filter(|t| t.values.is_some()).collect();
        if !revealed.is_empty() {
            page.line("");
        }
        for line in revealed.iter().flat_map(|t| t.lines()) {
            page.line(line);
        }
    }
}

fn state(token: Option<&Token>, unavailable: Option<&Unavailable>) -> Cell {
    match (token, unavailable) {
        (Some(token), _) => {
            let bytes: usize = token.lengths.values().sum();
            Cell::new(format!("{bytes} bytes"), Tone::Good)
        }
        (None, Some(why)) if why.cause.is_empty() => verdict_cell(&why.verdict),
        (None, Some(why)) => Cell::new(format!("{}: {}", why.verdict, why.cause), Tone::Bad),
        (None, None) => Cell::none(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, shown};
    use super::*;

    fn bundle(reveal: Reveal) -> Bundle {
        let token = v1::Token {
            values: [("TOKEN".to_owned(), "hunter2hunter2".to_owned())].into(),
            expires_at_ms: Some(NOW + 41 * 60_000),
            generation: 7,
        };
        let bundle = v1::Bundle {
            sandbox: "s-1".into(),
            generation: 120,
            revision: "0123456789abcdef".into(),
            routes: vec![],
            credentials: vec![
                v1::BundleCredential {
                    provider: "idp".into(),
                    key: "TOKEN".into(),
                    token: Some(token),
                    unavailable: None,
                    ..v1::BundleCredential::default()
                },
                v1::BundleCredential {
                    provider: "old".into(),
                    key: "OLD".into(),
                    token: None,
                    unavailable: Some(v1::Unavailable {
                        verdict: v1::Verdict::Expired as i32,
                        cause: "no value is left".into(),
                    }),
                    ..v1::BundleCredential::default()
                },
            ],
            ..v1::Bundle::default()
        };
        Bundle::new(bundle, 12, NOW, reveal)
    }

    #[test]
    fn tokens_are_shown_only_where_they_are_to_be_revealed() {
        let hidden = bundle(Reveal::Lengths);
        let text = shown(&hidden);
        assert_eq!(
            text,
            "sandbox     s-1\n\
             generation  120\n\
             revision    0123456789abcdef\n\
             staleness   12 ms\n\
             \n\
             PROVIDER  CREDENTIAL  GENERATION  EXPIRES    TOKEN\n\
             idp       TOKEN       7           in 41 min  14 bytes\n\
             old       OLD         -           -          expired: no value is left\n"
        );
        let json = serde_json::to_string(&hidden).unwrap();
        assert!(!json.contains("hunter2"), "{json}");
        let open = bundle(Reveal::Tokens);
        assert!(shown(&open).ends_with("\n\nTOKEN=hunter2hunter2\n"));
        let json = serde_json::to_value(&open).unwrap();
        let token = &json["credentials"][0]["token"];
        assert_eq!(token["values"]["TOKEN"], "hunter2hunter2");
        assert!(!format!("{open:?}").contains("hunter2"));
    }
}
