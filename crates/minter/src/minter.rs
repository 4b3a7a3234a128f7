//! The port to issuers, as the rest of a replica sees it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use evermint_core::credential::RefreshConfig;
use evermint_core::mint::{Failure, MintOrder, Minted, Probed, RevokeOrder};
use evermint_core::port::{Minter, Prober};
use evermint_core::secret::Secret;

use crate::classify::Judge;
use crate::config::Config;
use crate::exchange::Proof;
use crate::material::{FieldError, Material};
use crate::outside::{Outside, Setup};
use crate::redact::Redactor;
use crate::strategy::refresher;
use crate::transport::NoAnswer;
use crate::{Error, material, revocation, strategy};

/// Scopes that one refresh may ask for.
const SCOPES_MAX: usize = 64;

/// What can be done about an endpoint that does not answer.
const UNREACHED: &str = "check the host of the token endpoint, and DNS, routes, firewalls and trusted certificates (issuers.ca_files) of the replicas";

/// Mints over HTTP, with the strategy that the order names.
#[derive(Debug)]
pub struct HttpMinter {
    outside: Outside,
}

impl HttpMinter {
    /// A minter under these rules. One for each process: limits are counted here.
    ///
    /// # Errors
    /// [`Error`] names the setting that cannot be.
    pub fn new(config: &Config) -> Result<Self, Error> {
        Ok(Self {
            outside: Outside::new(config)?,
        })
    }

    /// Checks a refresh when it is configured: endpoint, scopes and material, all problems at
    /// once. An empty list means that a mint can be tried.
    pub fn validate(
        &self,
        config: &RefreshConfig,
        secrets: &BTreeMap<String, Secret>,
    ) -> Vec<FieldError> {
        let setup = self.setup(config, secrets);
        let mut errors = Vec::new();
        if config.scopes.len() > SCOPES_MAX {
            let problem = format!("are more than {SCOPES_MAX}");
            errors.push(FieldError::new("scopes", problem));
        }
        for scope in &config.scopes {
            if let Err(problem) = check_scope(scope) {
                errors.push(FieldError::new("scopes", problem));
            }
        }
        errors.extend(strategy::validate(&setup));
        errors
    }

    fn setup<'a>(
        &'a self,
        config: &'a RefreshConfig,
        secrets: &'a BTreeMap<String, Secret>,
    ) -> Setup<'a> {
        Setup {
            config,
            material: Material::new(&config.material, secrets),
            outside: &self.outside,
        }
    }
}

/// A scope token, [RFC 6749 §3.3](https://www.rfc-editor.org/rfc/rfc6749#section-3.3).
fn check_scope(scope: &str) -> Result<(), String> {
    material::line(scope)?;
    let bad = scope
        .chars()
        .find(|c| !c.is_ascii_graphic() || matches!(c, '"' | '\\'));
    match bad {
        Some(c) => Err(format!("{scope:?} contains {c:?}, which no scope has")),
        None => Ok(()),
    }
}

#[async_trait]
impl Minter for HttpMinter {
    async fn mint(&self, order: MintOrder) -> Result<Minted, Failure> {
        let setup = self.setup(&order.config, &order.secrets);
        let refresher = refresher(order.config.strategy);
        admitted(&setup, &order.config.token_url)?;
        setup.material.check_presence(refresher.schema())?;
        refresher.refresh(&setup, &order.fence).await
    }

    async fn revoke(&self, order: RevokeOrder) -> Result<(), Failure> {
        let setup = self.setup(&order.config, &order.secrets);
        admitted(&setup, &order.config.revoke_url)?;
        revocation::revoke(&setup, &order).await
    }
}

#[async_trait]
impl Prober for HttpMinter {
    async fn probe(&self, order: MintOrder) -> Probed {
        let endpoint = self.reach(&order).await;
        let is_dark = matches!(endpoint, Some(Err(_)));
        let mint = if is_dark || order.config.strategy.consumes_material() {
            None
        } else {
            Some(self.mint(order).await)
        };
        Probed { endpoint, mint }
    }
}

impl HttpMinter {
    /// Asks every endpoint of a mint for a sign of life, until one gives none.
    async fn reach(&self, order: &MintOrder) -> Option<Result<String, Failure>> {
        let setup = self.setup(&order.config, &order.secrets);
        if let Err(failure) = admitted(&setup, &order.config.token_url) {
            return Some(Err(failure));
        }
        let mut signs = Vec::new();
        for (_, url) in refresher(order.config.strategy).endpoints(&setup) {
            match self.outside.transport.reach(&*order.fence, &url).await {
                Ok((issuer, status)) => signs.push(format!("{issuer} answers ({status})")),
                Err(no) => return Some(Err(unreached(&order.config, no))),
            }
        }
        (!signs.is_empty()).then(|| Ok(signs.join("; ")))
    }
}

/// Checks an endpoint once more when it is about to be asked: what is allowed may have changed.
fn admitted(setup: &Setup<'_>, url: &str) -> Result<(), Failure> {
    strategy::admit(setup, url)
        .map_err(|refused| unreached(setup.config, NoAnswer::Refused(refused)))
}

fn unreached(config: &RefreshConfig, no: NoAnswer) -> Failure {
    let judge = Judge {
        strategy: config.strategy,
        redactor: &Redactor::default(),
        proof: Proof::Lasting,
    };
    let mut failure = judge.no_answer(no);
    if failure.remedy.is_empty() {
        failure.remedy = UNREACHED.to_owned();
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;
    use evermint_core::strategy::Strategy;

    #[test]
    fn every_problem_of_a_configuration_is_named_at_once() {
        let minter = HttpMinter::new(&Config::default()).unwrap();
        let config = RefreshConfig {
            scopes: vec![
                "a b".to_owned(),
                "ok".to_owned(),
                "\"".to_owned(),
                String::new(),
            ],
            material: BTreeMap::from([("client_idd".to_owned(), "x".to_owned())]),
            ..RefreshConfig::new(Strategy::OAuth2RefreshToken, "http://idp.example/token")
        };
        let errors = minter.validate(&config, &BTreeMap::new());
        let fields: Vec<_> = errors.iter().map(|e| e.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "scopes",
                "scopes",
                "scopes",
                "token_url",
                "client_idd",
                "client_id",
                "refresh_token"
            ]
        );
    }
}
