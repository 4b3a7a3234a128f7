//! Dry runs: whether a credential could be minted, tried without using anything up.
//!
//! A dry run holds no ticket and changes nothing. It is for strategies that consume nothing; what
//! is for single use stays where it is ([`Prober`](evermint_core::port::Prober)).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evermint_core::credential::{Credential, Refresh, Value};
use evermint_core::id::TicketId;
use evermint_core::mint::{Failure, Fence, MintOrder, Minted, Probed};
use evermint_core::secret::{Sealed, Secret};
use evermint_core::strategy::Strategy;
use evermint_core::time::millis;
use evermint_proto::v1;
use evermint_proto::v1::test_step::Outcome;
use evermint_seal::Context;
use tokio::time::Instant;
use tonic::Status;
use uuid::Uuid;

use super::Services;
use crate::{names, status};

/// Time for a dry run if its caller does not say.
const TIME: Duration = Duration::from_secs(20);
/// The most that a caller may ask for.
const TIME_MAX: Duration = Duration::from_secs(60);
/// Dry runs of this replica at the same time; so they leave the issuers' gates to real mints.
pub(crate) const TRIALS_MAX: usize = 4;

/// A bound on tokio's clock.
struct Until(Instant);

impl Fence for Until {
    fn passed(&self) -> bool {
        Instant::now() >= self.0
    }

    fn remaining(&self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// What a dry run has shown so far.
#[derive(Default)]
struct Trial {
    steps: Vec<v1::TestStep>,
    mint: Option<v1::TestMint>,
}

impl Trial {
    fn step(&mut self, name: &str, outcome: Outcome, detail: impl Into<String>, remedy: &str) {
        self.steps.push(v1::TestStep {
            name: name.to_owned(),
            outcome: outcome.into(),
            detail: detail.into(),
            remedy: remedy.to_owned(),
        });
    }

    fn passed(&mut self, name: &str, detail: impl Into<String>) {
        self.step(name, Outcome::Passed, detail, "");
    }

    fn skipped(&mut self, name: &str, detail: impl Into<String>) {
        self.step(name, Outcome::Skipped, detail, "");
    }

    fn failed(&mut self, name: &str, failure: &Failure) {
        self.step(name, Outcome::Failed, &failure.cause, &failure.remedy);
    }
}

impl Services {
    /// Tries `credential`, within `timeout_ms`.
    pub(super) async fn test(
        &self,
        credential: &Credential,
        timeout_ms: u64,
    ) -> Result<v1::TestCredentialResponse, Status> {
        self.fit()?;
        let time = match timeout_ms {
            0 => TIME,
            ms => Duration::from_millis(ms).min(TIME_MAX),
        };
        let until = Instant::now() + time;
        let turn = tokio::time::timeout_at(until, self.trials.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(status::busy());
        };
        let mut trial = Trial::default();
        let strategy = match &credential.refresh {
            Some(refresh) => {
                let trying = self.try_refresh(credential, refresh, until, &mut trial);
                tokio::select! {
                    tried = trying => tried?,
                    () = self.shutdown.cancelled() => return Err(status::shutting_down()),
                }
                refresh.config.strategy.to_string()
            }
            None => {
                self.try_value(credential, &mut trial)?;
                String::new()
            }
        };
        let outcomes: Vec<_> = trial.steps.iter().map(|s| (&s.name, s.outcome())).collect();
        tracing::info!({ names::CREDENTIAL } = %credential.id, ?outcomes, "dry run");
        Ok(v1::TestCredentialResponse {
            steps: trial.steps,
            strategy,
            replica: self.ports.view.identity().0.0,
            mint: trial.mint,
        })
    }

    /// A static credential: there is nothing to try but its value.
    fn try_value(&self, credential: &Credential, trial: &mut Trial) -> Result<(), Status> {
        const STEP: &str = "value";
        let Some(value) = &credential.value else {
            let remedy = "`evermint provider update --credential` sets one";
            trial.step(STEP, Outcome::Failed, "there is no value", remedy);
            return Ok(());
        };
        if value.is_expired(self.ports.view.now()) {
            let remedy = "`evermint provider update` with a new value or a later end";
            trial.step(STEP, Outcome::Failed, "the value has expired", remedy);
            return Ok(());
        }
        let Value { outputs, .. } = value;
        for (output, sealed) in outputs {
            let context = Context::value(&credential.id, output);
            if let Err(problem) = self.open(&context, sealed)? {
                trial.step(STEP, Outcome::Failed, problem, "set the value again");
                return Ok(());
            }
        }
        trial.passed(
            STEP,
            "opens; whether its issuer takes it cannot be tried here",
        );
        Ok(())
    }

    async fn try_refresh(
        &self,
        credential: &Credential,
        refresh: &Refresh,
        until: Instant,
        trial: &mut Trial,
    ) -> Result<(), Status> {
        let Some(secrets) = self.open_material(credential, refresh, trial)? else {
            return Ok(());
        };
        let config = &refresh.config;
        let problems = self.ports.policy.check(config, &secrets);
        for problem in &problems {
            let detail = format!("{} {}", problem.field, problem.problem);
            let remedy = "configure the refresh again";
            trial.step("configuration", Outcome::Failed, detail, remedy);
        }
        if !problems.is_empty() {
            return Ok(());
        }
        trial.passed("configuration", "complete and well formed");
        let order = MintOrder {
            credential: credential.id.clone(),
            ticket: TicketId(Uuid::new_v4().as_u128()),
            config: config.clone(),
            secrets,
            fence: Arc::new(Until(until)),
        };
        let probed = self.ports.prober.probe(order).await;
        trial.tell(config.strategy, probed);
        Ok(())
    }

    /// The material in the clear; `None` if some of it cannot be opened by any replica.
    fn open_material(
        &self,
        credential: &Credential,
        refresh: &Refresh,
        trial: &mut Trial,
    ) -> Result<Option<BTreeMap<String, Secret>>, Status> {
        let mut secrets = BTreeMap::new();
        for (name, sealed) in &refresh.material {
            let context = Context::material(&credential.id, name);
            match self.open(&context, sealed)? {
                Ok(secret) => secrets.insert(name.clone(), secret),
                Err(problem) => {
                    let remedy = "configure the refresh again, with this material";
                    trial.step("material", Outcome::Failed, problem, remedy);
                    return Ok(None);
                }
            };
        }
        let detail = match secrets.len() {
            1 => "1 secret opens".to_owned(),
            n => format!("{n} secrets open"),
        };
        trial.passed("material", detail);
        Ok(Some(secrets))
    }

    /// Opens one secret. A replica that lacks the key leaves the dry run to another one.
    fn open(
        &self,
        context: &Context<'_>,
        sealed: &Sealed,
    ) -> Result<Result<Secret, String>, Status> {
        use evermint_seal::Error;
        match self.keyring().open(context, sealed) {
            Ok(secret) => Ok(Ok(secret)),
            Err(Error::UnknownDataKey(_) | Error::NoDataKey) => Err(status::no_key()),
            Err(error) => Ok(Err(error.to_string())),
        }
    }
}

impl Trial {
    fn tell(&mut self, strategy: Strategy, probed: Probed) {
        let Probed { endpoint, mint } = probed;
        let is_dark = matches!(endpoint, Some(Err(_)));
        match endpoint {
            Some(Ok(words)) => self.passed("endpoint", words),
            Some(Err(failure)) => self.failed("endpoint", &failure),
            None => self.skipped("endpoint", format!("{strategy} has none of its own")),
        }
        match mint {
            Some(Ok(minted)) => self.minted(minted),
            Some(Err(failure)) => self.failed("mint", &failure),
            None if is_dark => self.skipped("mint", "the endpoint cannot be reached"),
            None => self.skipped(
                "mint",
                format!(
                    "{strategy} uses its material up: a dry run never sends it; `evermint provider rotate --wait` mints for good"
                ),
            ),
        }
    }

    /// Takes note of a token and drops it.
    fn minted(&mut self, minted: Minted) {
        self.passed("mint", "the issuer gave a token, which was thrown away");
        self.mint = Some(v1::TestMint {
            lifetime_ms: minted.lifetime.map(millis),
            scopes: minted.scopes.unwrap_or_default(),
        });
    }
}
