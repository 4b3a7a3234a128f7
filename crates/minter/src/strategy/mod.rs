//! The strategies, a file for each, and the trait that they share.
//!
//! A strategy turns an order into one token request and the answer into a token. To add one, write
//! its file, add it to [`Strategy`] and to [`refresher`].

use std::sync::Arc;

use async_trait::async_trait;
use evermint_core::credential::RefreshConfig;
use evermint_core::mint::{Failure, FailureClass, Fence, Minted};
use evermint_core::secret::Secret;
use evermint_core::strategy::Strategy;

use crate::endpoint::EndpointRefused;
use crate::form::Form;
use crate::material::{FieldError, MaterialSchema};
use crate::outside::Setup;
use crate::revocation::{self, Told};

pub(crate) mod aws;
mod aws_sts_assume_role;
mod aws_sts_web_identity;
mod client;
mod entra;
mod exec;
mod external;
mod github_app_installation;
mod google;
mod google_authorized_user;
mod google_external_account;
mod google_service_account_jwt;
mod ibm_iam_apikey;
mod oauth2_client_credentials;
mod oauth2_jwt_bearer;
mod oauth2_refresh_token;
mod oauth2_token_exchange;

pub use aws_sts_assume_role::AwsStsAssumeRole;
pub use aws_sts_web_identity::AwsStsWebIdentity;
pub use exec::Exec;
pub use external::External;
pub use github_app_installation::GitHubAppInstallation;
pub use google_authorized_user::GoogleAuthorizedUser;
pub use google_external_account::GoogleExternalAccount;
pub use google_service_account_jwt::GoogleServiceAccountJwt;
pub use ibm_iam_apikey::IbmIamApikey;
pub use oauth2_client_credentials::OAuth2ClientCredentials;
pub use oauth2_jwt_bearer::OAuth2JwtBearer;
pub use oauth2_refresh_token::OAuth2RefreshToken;
pub use oauth2_token_exchange::OAuth2TokenExchange;

/// One way of minting.
#[async_trait]
pub trait CredentialRefresher: Send + Sync {
    /// Which one.
    fn strategy(&self) -> Strategy {
        self.schema().strategy
    }

    /// The material that it takes.
    fn schema(&self) -> &'static MaterialSchema;

    /// What it means if the issuer refuses the grant.
    fn grant(&self) -> Grant;

    /// The endpoints that a mint asks, each with the field that decides it.
    fn endpoints(&self, setup: &Setup<'_>) -> Vec<(&'static str, String)> {
        vec![("token_url", setup.config.token_url.clone())]
    }

    /// Checks what the fields do not tell one by one when a refresh is configured: which need, and
    /// which exclude, each other, and the scopes.
    fn check(&self, setup: &Setup<'_>) -> Vec<FieldError> {
        let _ = setup;
        Vec::new()
    }

    /// What a mint gives beside the token. A strategy that consumes its material gives nothing
    /// else: a mint that lacked it would fail, and take the rotated material with it.
    fn outputs(&self) -> Outputs {
        Outputs::Fixed(&[])
    }

    /// The tokens of the grant behind a mint: what a revocation of all of it begins with.
    ///
    /// # Errors
    /// Material that went bad.
    fn grant_tokens(&self, setup: &Setup<'_>) -> Result<Vec<Secret>, Failure> {
        let _ = setup;
        Ok(Vec::new())
    }

    /// Has one token revoked, of which kind `hint` says
    /// ([RFC 7009 §2.1](https://www.rfc-editor.org/rfc/rfc7009#section-2.1)); the client proves
    /// itself as it does when it mints.
    ///
    /// # Errors
    /// [`Failure`], safe to store and to show.
    async fn revoke(
        &self,
        setup: &Setup<'_>,
        fence: &Arc<dyn Fence>,
        token: &Secret,
        hint: &str,
    ) -> Result<Told, Failure> {
        let request = client::prove(setup, fence, Form::default()).await?;
        revocation::request(setup, fence, request, token, hint).await
    }

    /// Whether its issuers revoke tokens at all.
    fn is_revocable(&self) -> bool {
        true
    }

    /// Runs one mint, at the latest until the fence passes.
    ///
    /// # Errors
    /// [`Failure`], safe to store and to show.
    async fn refresh(&self, setup: &Setup<'_>, fence: &Arc<dyn Fence>) -> Result<Minted, Failure>;
}

/// What it means if an issuer refuses the grant (`invalid_grant`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// [`FailureClass::GrantRefused`], or [`FailureClass::ConfigRefused`] where there is no grant
    /// beside the client itself.
    pub refused: FailureClass,
    /// What a person can do about it, in one line.
    pub remedy: &'static str,
}

/// Checks a refresh: all problems at once, each with its field.
pub(crate) fn validate(setup: &Setup<'_>) -> Vec<FieldError> {
    let refresher = refresher(setup.config.strategy);
    let mut errors = Vec::new();
    for (field, url) in refresher.endpoints(setup) {
        if let Err(refused) = setup.outside.transport.check_endpoint(&url) {
            errors.push(FieldError::new(field, refused.to_string()));
        }
    }
    if errors.is_empty()
        && let Err(refused) = admit(setup, &setup.config.token_url)
    {
        errors.push(FieldError::new("token_url", refused.to_string()));
    }
    errors.extend(check_revocation(setup));
    errors.extend(setup.material.check(refresher.schema()));
    errors.extend(refresher.check(setup));
    errors.extend(refresher.outputs().check(setup.config));
    errors
}

/// Checks that somebody who may has decided on an endpoint that the configuration names. Where it
/// names none, the strategy's own is used.
///
/// # Errors
/// [`EndpointRefused`] says what to set.
pub(crate) fn admit(setup: &Setup<'_>, url: &str) -> Result<(), EndpointRefused> {
    match url.is_empty() {
        true => Ok(()),
        false => setup.outside.transport.admit(url, &setup.config.fixed_urls),
    }
}

/// Checks the revocation endpoint, by the same rules as the token endpoint.
fn check_revocation(setup: &Setup<'_>) -> Option<FieldError> {
    let url = setup.config.revoke_url.as_str();
    if url.is_empty() {
        return None;
    }
    let strategy = setup.config.strategy;
    let problem = match refresher(strategy).is_revocable() {
        false => format!("is not for {strategy}: its tokens cannot be revoked"),
        true => match admit(setup, url) {
            Ok(()) => return None,
            Err(refused) => refused.to_string(),
        },
    };
    Some(FieldError::new("revoke_url", problem))
}

/// The outputs of a mint beside the token, by the names that a refresh declares them with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outputs {
    /// Exactly these; none is of use without the others.
    Fixed(&'static [&'static str]),
    /// Whatever the source gives; those that are declared have to be there.
    Any,
}

impl Outputs {
    /// Checks the outputs that a refresh declares.
    pub(crate) fn check(self, config: &RefreshConfig) -> Vec<FieldError> {
        let Self::Fixed(known) = self else {
            return Vec::new();
        };
        let declared = |name: &str| config.outputs.contains_key(name);
        let lacking: Vec<_> = known.iter().filter(|n| !declared(n)).copied().collect();
        let lacking = (!lacking.is_empty()).then(|| {
            let names = lacking.join(", ");
            format!("lack {names}: say under which name sandboxes know it (outputs={names})")
        });
        let mut surplus = config
            .outputs
            .keys()
            .filter(|n| !known.contains(&n.as_str()));
        let surplus = surplus.next().map(|name| match known {
            [] => format!("has {name:?}; {} gives the token alone", config.strategy),
            known => format!(
                "has {name:?}; {} gives {}",
                config.strategy,
                known.join(", ")
            ),
        });
        let problems = lacking.into_iter().chain(surplus);
        problems.map(|p| FieldError::new("outputs", p)).collect()
    }
}

/// The implementation of a strategy.
pub fn refresher(strategy: Strategy) -> &'static dyn CredentialRefresher {
    match strategy {
        Strategy::OAuth2RefreshToken => &OAuth2RefreshToken,
        Strategy::OAuth2ClientCredentials => &OAuth2ClientCredentials,
        Strategy::GoogleServiceAccountJwt => &GoogleServiceAccountJwt,
        Strategy::GoogleAuthorizedUser => &GoogleAuthorizedUser,
        Strategy::GoogleExternalAccount => &GoogleExternalAccount,
        Strategy::OAuth2TokenExchange => &OAuth2TokenExchange,
        Strategy::OAuth2JwtBearer => &OAuth2JwtBearer,
        Strategy::IbmIamApikey => &IbmIamApikey,
        Strategy::AwsStsAssumeRole => &AwsStsAssumeRole,
        Strategy::AwsStsWebIdentity => &AwsStsWebIdentity,
        Strategy::GitHubAppInstallation => &GitHubAppInstallation,
        Strategy::Exec => &Exec,
        Strategy::External => &External,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_strategy_has_its_own_implementation_and_a_schema_without_doubles() {
        for strategy in Strategy::ALL {
            let schema = refresher(strategy).schema();
            assert_eq!(refresher(strategy).strategy(), strategy);
            let names: BTreeSet<_> = schema.fields().map(|field| field.name).collect();
            assert_eq!(names.len(), schema.fields().count());
            assert!(schema.fields().all(|field| !field.about.is_empty()));
            if strategy.consumes_material() {
                assert_eq!(refresher(strategy).outputs(), Outputs::Fixed(&[]));
            }
        }
    }
}
