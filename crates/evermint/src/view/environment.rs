//! A sandbox's environment: which variable comes from where, and may go where. Secret values are
//! shown only where `--reveal` asks for it.

use evermint_proto::v1;
use serde::Serialize;

use super::bundle::{Reveal, Unavailable};
use super::text_cell;
use crate::out::{At, Render};
use crate::page::{Cell, Page, Tone};

/// A sandbox's environment.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Environment {
    pub sandbox: String,
    pub generation: u64,
    pub revision: u64,
    pub variables: Vec<Variable>,
    pub problems: Vec<Problem>,
    pub server_time: At,
}

/// One variable.
#[derive(Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Variable {
    pub name: String,
    pub provider: String,
    pub secret: bool,
    pub length: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    pub expires_at: Option<At>,
    pub identity: String,
    pub handle: String,
    pub endpoints: Vec<String>,
    pub unavailable: Option<Unavailable>,
}

impl std::fmt::Debug for Variable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Variable({}, …)", self.name)
    }
}

/// Something that is not delivered.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Problem {
    pub provider: String,
    pub key: String,
    pub cause: String,
}

impl Environment {
    /// What of `bundle` is to be shown.
    pub fn new(bundle: v1::Bundle, server_time_ms: u64, reveal: Reveal) -> Self {
        let secret = bundle.credentials.into_iter().flat_map(|credential| {
            let places = credential.endpoints.iter();
            let places = places.map(|e| place(&e.host, e.port, &e.path));
            let endpoints: Vec<String> = places.collect();
            let mut token = credential.token.unwrap_or_default();
            let (provider, unavailable) = (credential.provider, credential.unavailable);
            credential.variables.into_iter().map(move |variable| {
                let value = token.values.remove(&variable.key);
                Variable {
                    provider: provider.clone(),
                    secret: true,
                    length: value.as_ref().map(String::len),
                    expires_at: token.expires_at_ms.filter(|_| value.is_some()).map(At),
                    value: value.filter(|_| reveal == Reveal::Tokens),
                    name: variable.key,
                    identity: variable.identity,
                    handle: variable.handle,
                    endpoints: endpoints.clone(),
                    unavailable: unavailable.clone().map(Into::into),
                }
            })
        });
        let plain = bundle.plain.into_iter().map(|plain| Variable {
            name: plain.key,
            provider: plain.provider,
            secret: false,
            length: Some(plain.value.len()),
            value: Some(plain.value),
            expires_at: None,
            identity: String::new(),
            handle: String::new(),
            endpoints: Vec::new(),
            unavailable: None,
        });
        Self {
            sandbox: bundle.sandbox,
            generation: bundle.generation,
            revision: bundle.environment_revision,
            variables: secret.chain(plain).collect(),
            problems: bundle.problems.into_iter().map(Problem::from).collect(),
            server_time: At(server_time_ms),
        }
    }
}

impl From<v1::Problem> for Problem {
    fn from(problem: v1::Problem) -> Self {
        Self {
            provider: problem.provider,
            key: problem.key,
            cause: problem.cause,
        }
    }
}

/// A place to which values may be sent, in a word.
pub(super) fn place(host: &str, port: u32, path: &str) -> String {
    format!("{host}:{port}{path}")
}

/// A line for each problem, after an empty one.
pub(super) fn problems(problems: &[Problem], page: &mut Page) {
    if !problems.is_empty() {
        page.line("");
    }
    for problem in problems {
        let Problem {
            provider,
            key,
            cause,
        } = problem;
        let what = if key.is_empty() {
            provider.clone()
        } else {
            format!("{provider}/{key}")
        };
        page.line(format!("problem: {what}: {cause}"));
    }
}

impl Variable {
    /// What a table shows of the value.
    fn shown(&self) -> Cell {
        match (&self.value, self.length, &self.unavailable) {
            (Some(value), _, _) if !self.secret => text_cell(value),
            (_, Some(length), _) => Cell::new(format!("{length} bytes"), Tone::Good),
            (_, None, Some(why)) => Cell::new(format!("{}: {}", why.verdict, why.cause), Tone::Bad),
            (_, None, None) => Cell::none(),
        }
    }
}

impl Render for Environment {
    fn render(&self, page: &mut Page) {
        page.set_now(self.server_time.0);
        let rows: Vec<Vec<Cell>> = self
            .variables
            .iter()
            .map(|v| {
                vec![
                    v.name.as_str().into(),
                    v.provider.as_str().into(),
                    v.shown(),
                    v.expires_at
                        .as_ref()
                        .map_or_else(Cell::none, |at| page.end(Some(at.0))),
                    text_cell(&v.endpoints.join(", ")),
                ]
            })
            .collect();
        page.table(
            &["VARIABLE", "PROVIDER", "VALUE", "EXPIRES", "MAY GO TO"],
            &rows,
            "no variables: `evermint sandbox attach SANDBOX PROVIDER` gives it some",
        );
        problems(&self.problems, page);
        // Whole values stand on lines of their own, where no table cuts them.
        let revealed: Vec<_> = self
            .variables
            .iter()
            .filter_map(|v| Some((&v.name, v.value.as_ref().filter(|_| v.secret)?)))
            .collect();
        if !revealed.is_empty() {
            page.line("");
        }
        for (name, value) in revealed {
            page.line(format!("{name}={value}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, shown};
    use super::*;

    fn environment(reveal: Reveal) -> Environment {
        let token = v1::Token {
            values: [("TOKEN".to_owned(), "hunter2hunter2".to_owned())].into(),
            expires_at_ms: Some(NOW + 41 * 60_000),
            generation: 7,
        };
        let variable = |key: &str| v1::SecretVariable {
            key: key.into(),
            identity: "i".into(),
            handle: String::new(),
        };
        let bundle = v1::Bundle {
            sandbox: "s-1".into(),
            credentials: vec![
                v1::BundleCredential {
                    provider: "idp".into(),
                    key: "TOKEN".into(),
                    token: Some(token),
                    variables: vec![variable("TOKEN")],
                    endpoints: vec![v1::EndpointBinding {
                        host: "api.example".into(),
                        port: 443,
                        path: "/v1/**".into(),
                        body_rewrite: false,
                    }],
                    unavailable: None,
                },
                v1::BundleCredential {
                    provider: "old".into(),
                    key: "OLD".into(),
                    variables: vec![variable("OLD")],
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
            problems: vec![v1::Problem {
                provider: "old".into(),
                key: String::new(),
                cause: "bound to nothing".into(),
            }],
            ..v1::Bundle::default()
        };
        Environment::new(bundle, NOW, reveal)
    }

    #[test]
    fn secret_values_are_shown_only_where_they_are_to_be_revealed() {
        let hidden = environment(Reveal::Lengths);
        assert_eq!(
            shown(&hidden),
            "VARIABLE  PROVIDER  VALUE                      EXPIRES    MAY GO TO\n\
             TOKEN     idp       14 bytes                   in 41 min  api.example:443/v1/**\n\
             OLD       old       expired: no value is left  -          -\n\
             REGION    idp       eu                         -          -\n\
             \n\
             problem: old: bound to nothing\n"
        );
        let json = serde_json::to_string(&hidden).unwrap();
        assert!(!json.contains("hunter2"), "{json}");
        let open = environment(Reveal::Tokens);
        assert!(shown(&open).ends_with("\n\nTOKEN=hunter2hunter2\n"));
        let json = serde_json::to_value(&open).unwrap();
        assert_eq!(json["variables"][0]["value"], "hunter2hunter2");
        assert_eq!(json["variables"][2]["value"], "eu");
        assert!(!format!("{open:?}").contains("hunter2"));
    }
}
