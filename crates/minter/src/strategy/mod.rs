//! The strategies, a file for each, and the trait that they share.
//!
//! A strategy turns an order into one token request and the answer into a token. To add one, write
//! its file, add it to [`Strategy`] and to [`refresher`].

use std::collections::BTreeMap;

use async_trait::async_trait;
use evermint_core::credential::RefreshConfig;
use evermint_core::mint::{Failure, MintOrder, Minted};
use evermint_core::secret::Secret;
use evermint_core::strategy::Strategy;

use crate::material::{FieldError, Material, MaterialSchema};
use crate::transport::Transport;

mod client;
mod google_service_account_jwt;
mod oauth2_client_credentials;
mod oauth2_refresh_token;

pub use google_service_account_jwt::GoogleServiceAccountJwt;
pub use oauth2_client_credentials::OAuth2ClientCredentials;
pub use oauth2_refresh_token::OAuth2RefreshToken;

/// One way of minting.
#[async_trait]
pub trait CredentialRefresher: Send + Sync {
    /// Which one.
    fn strategy(&self) -> Strategy {
        self.schema().strategy
    }

    /// The material that it takes.
    fn schema(&self) -> &'static MaterialSchema;

    /// Checks material when a refresh is configured: all problems at once, each with its field.
    fn validate(
        &self,
        public: &BTreeMap<String, String>,
        secret: &BTreeMap<String, Secret>,
    ) -> Vec<FieldError> {
        let material = Material::new(public, secret);
        let mut errors = material.check(self.schema());
        errors.extend(self.validate_together(&material));
        errors
    }

    /// What the fields do not tell one by one: which need, and which exclude, each other.
    fn validate_together(&self, material: &Material<'_>) -> Vec<FieldError> {
        let _ = material;
        Vec::new()
    }

    /// Checks what lies beside the material, such as scopes that the strategy cannot do without.
    fn validate_config(
        &self,
        config: &RefreshConfig,
        secret: &BTreeMap<String, Secret>,
    ) -> Vec<FieldError> {
        let _ = (config, secret);
        Vec::new()
    }

    /// Runs one mint, at the latest until the order's fence passes.
    ///
    /// # Errors
    /// [`Failure`], safe to store and to show.
    async fn refresh(&self, order: &MintOrder, transport: &Transport) -> Result<Minted, Failure>;
}

/// The implementation of a strategy.
pub fn refresher(strategy: Strategy) -> &'static dyn CredentialRefresher {
    match strategy {
        Strategy::OAuth2RefreshToken => &OAuth2RefreshToken,
        Strategy::OAuth2ClientCredentials => &OAuth2ClientCredentials,
        Strategy::GoogleServiceAccountJwt => &GoogleServiceAccountJwt,
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
            let names: BTreeSet<_> = schema.fields.iter().map(|field| field.name).collect();
            assert_eq!(names.len(), schema.fields.len());
            assert!(schema.fields.iter().all(|field| !field.about.is_empty()));
        }
    }
}
