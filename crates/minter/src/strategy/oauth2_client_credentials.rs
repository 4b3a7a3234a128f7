//! `oauth2-client-credentials`: the client itself is the grant,
//! [RFC 6749 §4.4](https://www.rfc-editor.org/rfc/rfc6749#section-4.4).

use std::sync::Arc;

use async_trait::async_trait;
use evermint_core::mint::{Failure, FailureClass, Fence, Minted};
use evermint_core::strategy::Strategy;

use super::{CredentialRefresher, Grant, client, entra};
use crate::exchange::exchange;
use crate::material::{FieldError, MaterialSchema};
use crate::outside::Setup;

/// The strategy.
#[derive(Clone, Copy, Debug)]
pub struct OAuth2ClientCredentials;

const SCHEMA: MaterialSchema = MaterialSchema {
    strategy: Strategy::OAuth2ClientCredentials,
    parts: &[
        &[client::CLIENT_ID.required()],
        client::AUTHENTICATION,
        entra::FIELDS,
        client::TARGET,
    ],
};

#[async_trait]
impl CredentialRefresher for OAuth2ClientCredentials {
    fn schema(&self) -> &'static MaterialSchema {
        &SCHEMA
    }

    fn grant(&self) -> Grant {
        Grant {
            refused: FailureClass::ConfigRefused,
            remedy: "check the client's registration at the issuer",
        }
    }

    fn endpoints(&self, setup: &Setup<'_>) -> Vec<(&'static str, String)> {
        entra::endpoints(setup)
    }

    fn check(&self, setup: &Setup<'_>) -> Vec<FieldError> {
        let mut errors = client::check(setup);
        errors.extend(client::check_proof(&setup.material));
        errors.extend(entra::check(setup));
        errors
    }

    async fn refresh(&self, setup: &Setup<'_>, fence: &Arc<dyn Fence>) -> Result<Minted, Failure> {
        let request = client::request(setup, fence, "client_credentials").await?;
        // A refresh token must not come here (RFC 6749 §4.4.3); one that does is of no use.
        let tokens = exchange(setup, fence, request).await?;
        let in_use = client::in_use(&setup.material, &tokens);
        let mut minted = tokens.minted();
        minted.new_material.extend(in_use);
        Ok(minted)
    }
}
