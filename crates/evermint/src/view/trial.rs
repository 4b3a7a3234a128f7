//! Dry runs.

use evermint_proto::v1;
use serde::Serialize;

use super::word;
use crate::out::Render;
use crate::page::{Cell, Page, Tone, span};

/// The dry run of one credential.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Trial {
    pub provider: String,
    pub credential_key: String,
    pub strategy: String,
    pub replica: u64,
    pub steps: Vec<Step>,
    pub mint: Option<Mint>,
}

/// One step of it.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Step {
    pub name: String,
    pub outcome: String,
    pub detail: String,
    pub remedy: String,
}

/// The token that was minted and thrown away.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Mint {
    pub lifetime_ms: Option<u64>,
    pub scopes: Vec<String>,
}

impl Trial {
    /// What the gateway answered.
    pub fn new(provider: &str, key: &str, answer: v1::TestCredentialResponse) -> Self {
        let steps = answer.steps.into_iter().map(|step| Step {
            outcome: word(step.outcome().as_str_name(), "OUTCOME_"),
            name: step.name,
            detail: step.detail,
            remedy: step.remedy,
        });
        Self {
            provider: provider.to_owned(),
            credential_key: key.to_owned(),
            strategy: answer.strategy,
            replica: answer.replica,
            steps: steps.collect(),
            mint: answer.mint.map(|mint| Mint {
                lifetime_ms: mint.lifetime_ms,
                scopes: mint.scopes,
            }),
        }
    }

    /// Whether a step failed.
    pub fn has_failed(&self) -> bool {
        self.steps.iter().any(|step| step.outcome == "failed")
    }
}

/// Dry runs, as `provider test` shows them.
#[derive(Debug, Serialize)]
pub struct Many {
    /// In the order of their keys.
    pub credentials: Vec<Trial>,
}

impl Render for Many {
    fn render(&self, page: &mut Page) {
        for trial in &self.credentials {
            trial.render(page);
        }
    }
}

impl Trial {
    fn render(&self, page: &mut Page) {
        let strategy = match self.strategy.as_str() {
            "" => "static",
            strategy => strategy,
        };
        page.line(format!(
            "{}/{} ({strategy}), tried on replica {}",
            self.provider, self.credential_key, self.replica
        ));
        for step in &self.steps {
            let tone = match step.outcome.as_str() {
                "passed" => Tone::Good,
                "failed" => Tone::Bad,
                _ => Tone::Dim,
            };
            page.line(Cell::new(
                format!("  {:7}  {:13}  {}", step.outcome, step.name, step.detail),
                tone,
            ));
            if !step.remedy.is_empty() {
                page.line(format!("    try: {}", step.remedy));
            }
        }
        if let Some(mint) = &self.mint {
            let lifetime = mint.lifetime_ms.map_or_else(
                || "for as long as the cluster's default: it does not tell".to_owned(),
                span,
            );
            page.line(format!("  good for {lifetime}"));
            page.line(match mint.scopes.is_empty() {
                true => "  scopes: as asked for".to_owned(),
                false => format!("  scopes: {}", mint.scopes.join(" ")),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::shown;
    use super::*;
    use evermint_proto::v1::test_step::Outcome;

    fn step(name: &str, outcome: Outcome, detail: &str, remedy: &str) -> v1::TestStep {
        v1::TestStep {
            name: name.into(),
            outcome: outcome.into(),
            detail: detail.into(),
            remedy: remedy.into(),
        }
    }

    #[test]
    fn a_dry_run_is_told_step_by_step() {
        let answer = v1::TestCredentialResponse {
            steps: vec![
                step("material", Outcome::Passed, "2 secrets open", ""),
                step(
                    "endpoint",
                    Outcome::Failed,
                    "idp.example could not be reached",
                    "check DNS",
                ),
                step(
                    "mint",
                    Outcome::Skipped,
                    "the endpoint cannot be reached",
                    "",
                ),
            ],
            strategy: "oauth2-client-credentials".into(),
            replica: 2,
            mint: None,
        };
        let many = Many {
            credentials: vec![Trial::new("crm", "TOKEN", answer)],
        };
        assert!(many.credentials[0].has_failed());
        assert_eq!(
            shown(&many),
            "crm/TOKEN (oauth2-client-credentials), tried on replica 2\n\
             \x20 passed   material       2 secrets open\n\
             \x20 failed   endpoint       idp.example could not be reached\n\
             \x20   try: check DNS\n\
             \x20 skipped  mint           the endpoint cannot be reached\n"
        );
    }

    #[test]
    fn the_token_that_was_thrown_away_is_told_by_lifetime_and_scopes() {
        let answer = v1::TestCredentialResponse {
            steps: vec![step("mint", Outcome::Passed, "the issuer gave a token", "")],
            replica: 1,
            mint: Some(v1::TestMint {
                lifetime_ms: Some(3_600_000),
                scopes: vec!["a".into(), "b".into()],
            }),
            ..Default::default()
        };
        let many = Many {
            credentials: vec![Trial::new("crm", "TOKEN", answer)],
        };
        let text = shown(&many);
        assert!(text.contains("good for 60 min\n  scopes: a b\n"), "{text}");
        let json = serde_json::to_value(&many).unwrap();
        assert_eq!(json["credentials"][0]["mint"]["lifetime_ms"], 3_600_000);
    }
}
