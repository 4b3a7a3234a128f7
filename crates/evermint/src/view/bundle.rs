//! Bundles: the only answers that may hold secrets, and then only where `--reveal` asks for it.

use std::collections::BTreeMap;

use evermint_proto::v1;
use serde::Serialize;

use super::environment::{Problem, problems};
use super::part::{Auth, Endpoint, Plain, Reference, Variable};
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
    pub plain: Vec<Plain>,
    pub environment_revision: u64,
    pub problems: Vec<Problem>,
    /// Those that are good for less than was asked for.
    pub expiring: Vec<Reference>,
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
    pub base_url: String,
    pub protocols: Vec<String>,
    pub auth: Option<Auth>,
    pub model_in_path: bool,
    pub request_path_override: Option<String>,
    pub headers: BTreeMap<String, String>,
    pub passthrough_headers: Vec<String>,
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
    pub variables: Vec<Variable>,
    pub endpoints: Vec<Endpoint>,
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
            base_url: r.base_url,
            protocols: r.protocols,
            auth: r.auth.and_then(|auth| auth.place).map(Auth::from),
            model_in_path: r.model_in_path,
            request_path_override: r.request_path_override,
            headers: r.headers,
            passthrough_headers: r.passthrough_headers,
            credential_key: r.credential_key,
            token: r.token.map(|t| Token::new(t, reveal)),
            unavailable: r.unavailable.map(Unavailable::from),
        });
        let credentials = bundle.credentials.into_iter().map(|c| Credential {
            provider: c.provider,
            key: c.key,
            token: c.token.map(|t| Token::new(t, reveal)),
            unavailable: c.unavailable.map(Unavailable::from),
            variables: c.variables.into_iter().map(Variable::from).collect(),
            endpoints: c.endpoints.into_iter().map(Endpoint::from).collect(),
        });
        let plain = bundle.plain.into_iter().map(|p| Plain {
            provider: p.provider,
            key: p.key,
            value: p.value,
        });
        Self {
            sandbox: bundle.sandbox,
            generation: bundle.generation,
            revision: bundle.revision,
            routes: routes.collect(),
            credentials: credentials.collect(),
            plain: plain.collect(),
            environment_revision: bundle.environment_revision,
            problems: bundle.problems.into_iter().map(Problem::from).collect(),
            expiring: Vec::new(),
            staleness_ms,
            server_time: At(server_time_ms),
        }
    }

    /// Tells of those that are good for less than was asked for.
    pub fn with_expiring(mut self, expiring: Vec<v1::CredentialRef>) -> Self {
        let expiring = expiring.into_iter().map(|short| Reference {
            provider: short.provider,
            key: short.key,
        });
        self.expiring = expiring.collect();
        self
    }

    fn routes(&self, page: &mut Page) {
        let row = |r: &Route| {
            vec![
                r.name.as_str().into(),
                r.provider.as_str().into(),
                text_cell(&r.model),
                text_cell(&r.credential_key),
                state(r.token.as_ref(), r.unavailable.as_ref()),
            ]
        };
        let rows: Vec<Vec<Cell>> = self.routes.iter().map(row).collect();
        page.line("");
        page.table(
            &["ROUTE", "PROVIDER", "MODEL", "CREDENTIAL", "TOKEN"],
            &rows,
            "",
        );
        let row = |r: &Route| {
            let auth = r.auth.as_ref().map(ToString::to_string);
            vec![
                r.name.as_str().into(),
                text_cell(&r.base_url),
                text_cell(&auth.unwrap_or_default()),
                text_cell(&r.protocols.join(", ")),
            ]
        };
        let rows: Vec<Vec<Cell>> = self.routes.iter().map(row).collect();
        page.line("");
        page.table(&["ROUTE", "UPSTREAM", "TOKEN IN", "SPEAKS"], &rows, "");
    }

    fn credentials(&self, page: &mut Page) {
        let row = |c: &Credential| {
            let token = c.token.as_ref();
            let end = token.map(|t| page.end(t.expires_at.map(|at| at.0)));
            vec![
                c.provider.as_str().into(),
                c.key.as_str().into(),
                token.map_or_else(Cell::none, |t| t.generation.into()),
                end.unwrap_or_else(Cell::none),
                state(token, c.unavailable.as_ref()),
            ]
        };
        let rows: Vec<Vec<Cell>> = self.credentials.iter().map(row).collect();
        page.line("");
        page.table(
            &["PROVIDER", "CREDENTIAL", "GENERATION", "EXPIRES", "TOKEN"],
            &rows,
            "no credentials: `evermint sandbox attach SANDBOX PROVIDER` gives it some",
        );
    }

    fn variables(&self, page: &mut Page) {
        let secret = self.credentials.iter().flat_map(|c| {
            c.variables.iter().map(|variable| {
                let places: Vec<String> = c.endpoints.iter().map(ToString::to_string).collect();
                vec![
                    variable.key.as_str().into(),
                    c.provider.as_str().into(),
                    variable.shown(),
                    text_cell(&places.join(", ")),
                ]
            })
        });
        let plain = self.plain.iter().map(|p| {
            vec![
                p.key.as_str().into(),
                p.provider.as_str().into(),
                text_cell(&p.value),
                Cell::none(),
            ]
        });
        let rows: Vec<Vec<Cell>> = secret.chain(plain).collect();
        if !rows.is_empty() {
            page.line("");
            page.table(&["VARIABLE", "PROVIDER", "VALUE", "MAY GO TO"], &rows, "");
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
            self.routes(page);
        }
        self.credentials(page);
        self.variables(page);
        problems(&self.problems, page);
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
    use serde_json::json;

    use super::super::tests::{NOW, shown};
    use super::*;

    fn bundle(reveal: Reveal) -> Bundle {
        let token = v1::Token {
            values: [("TOKEN".to_owned(), "hunter2hunter2".to_owned())].into(),
            expires_at_ms: Some(NOW + 41 * 60_000),
            generation: 7,
        };
        let variable = |key: &str, handle: &str| v1::SecretVariable {
            key: key.into(),
            identity: "i-1".into(),
            handle: handle.into(),
        };
        let header = v1::HeaderAuth {
            name: "authorization".into(),
            prefix: "Bearer ".into(),
        };
        let bundle = v1::Bundle {
            sandbox: "s-1".into(),
            generation: 120,
            revision: "0123456789abcdef".into(),
            routes: vec![v1::ResolvedRoute {
                name: "inference.local".into(),
                provider: "idp".into(),
                model: "m-1".into(),
                credential_key: "TOKEN".into(),
                token: Some(token.clone()),
                base_url: "https://api.example".into(),
                protocols: vec!["openai_responses".into()],
                auth: Some(v1::Auth {
                    place: Some(v1::auth::Place::Header(header)),
                }),
                ..v1::ResolvedRoute::default()
            }],
            credentials: vec![
                v1::BundleCredential {
                    provider: "idp".into(),
                    key: "TOKEN".into(),
                    token: Some(token),
                    variables: vec![variable("TOKEN", &"1f".repeat(32))],
                    endpoints: vec![v1::EndpointBinding {
                        host: "api.example".into(),
                        port: 443,
                        path: "/v1/**".into(),
                        body_rewrite: true,
                    }],
                    unavailable: None,
                },
                v1::BundleCredential {
                    provider: "old".into(),
                    key: "OLD".into(),
                    variables: vec![variable("OLD", "")],
                    unavailable: Some(v1::Unavailable {
                        verdict: v1::Verdict::Expired as i32,
                        cause: "no value is left".into(),
                    }),
                    ..v1::BundleCredential::default()
                },
            ],
            plain: vec![v1::PlainVariable {
                provider: "idp".into(),
                key: "REGION".into(),
                value: "eu".into(),
            }],
            environment_revision: 9,
            problems: vec![v1::Problem {
                provider: "old".into(),
                key: "OLD".into(),
                cause: "bound to nothing".into(),
            }],
        };
        let expiring = vec![v1::CredentialRef {
            provider: "idp".into(),
            key: "TOKEN".into(),
        }];
        Bundle::new(bundle, 12, NOW, reveal).with_expiring(expiring)
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
             ROUTE            PROVIDER  MODEL  CREDENTIAL  TOKEN\n\
             inference.local  idp       m-1    TOKEN       14 bytes\n\
             \n\
             ROUTE            UPSTREAM             TOKEN IN                 SPEAKS\n\
             inference.local  https://api.example  authorization: Bearer …  openai_responses\n\
             \n\
             PROVIDER  CREDENTIAL  GENERATION  EXPIRES    TOKEN\n\
             idp       TOKEN       7           in 41 min  14 bytes\n\
             old       OLD         -           -          expired: no value is left\n\
             \n\
             VARIABLE  PROVIDER  VALUE                     MAY GO TO\n\
             TOKEN     idp       secret, handle 1f1f1f1f…  api.example:443/v1/** (and body)\n\
             OLD       old       secret, static            -\n\
             REGION    idp       eu                        -\n\
             \n\
             problem: old/OLD: bound to nothing\n"
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

    #[test]
    fn programs_are_told_all_that_a_bundle_holds() {
        let json = serde_json::to_value(bundle(Reveal::Lengths)).unwrap();
        let route = &json["routes"][0];
        let credentials = &json["credentials"];
        for (found, expected) in [
            (&route["base_url"], json!("https://api.example")),
            (&route["protocols"], json!(["openai_responses"])),
            (
                &route["auth"],
                json!({"header": {"name": "authorization", "prefix": "Bearer "}}),
            ),
            (&route["model_in_path"], json!(false)),
            (&route["request_path_override"], json!(null)),
            (
                &credentials[0]["variables"],
                json!([{"key": "TOKEN", "identity": "i-1", "handle": "1f".repeat(32)}]),
            ),
            (
                &credentials[0]["endpoints"],
                json!([{"host": "api.example", "port": 443, "path": "/v1/**", "body_rewrite": true}]),
            ),
            (
                &credentials[1]["unavailable"],
                json!({"verdict": "expired", "cause": "no value is left"}),
            ),
            (
                &json["plain"],
                json!([{"provider": "idp", "key": "REGION", "value": "eu"}]),
            ),
            (&json["environment_revision"], json!(9)),
            (
                &json["problems"],
                json!([{"provider": "old", "key": "OLD", "cause": "bound to nothing"}]),
            ),
            (
                &json["expiring"],
                json!([{"provider": "idp", "key": "TOKEN"}]),
            ),
        ] {
            assert_eq!(*found, expected);
        }
    }
}
