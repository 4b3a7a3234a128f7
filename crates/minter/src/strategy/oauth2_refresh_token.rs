//! `oauth2-refresh-token`: a grant that a person gave once, renewed with its refresh token,
//! [RFC 6749 §6](https://www.rfc-editor.org/rfc/rfc6749#section-6). An issuer that sends a new
//! refresh token has replaced the old one; one that sends none has not.

use std::sync::Arc;

use async_trait::async_trait;
use evermint_core::mint::{Failure, FailureClass, Fence, Minted};
use evermint_core::secret::Secret;
use evermint_core::strategy::Strategy;

use super::{CredentialRefresher, Grant, client, entra};
use crate::exchange::exchange;
use crate::material::{FieldError, Format, MaterialField, MaterialSchema, bad_material};
use crate::outside::Setup;

/// The strategy.
#[derive(Clone, Copy, Debug)]
pub struct OAuth2RefreshToken;

const REFRESH_TOKEN: &str = "refresh_token";

const SCHEMA: MaterialSchema = MaterialSchema {
    strategy: Strategy::OAuth2RefreshToken,
    parts: &[
        &[
            client::CLIENT_ID.required(),
            MaterialField::secret(
                REFRESH_TOKEN,
                Format::Line,
                "the grant's current refresh token; nothing else may use it from now on",
            )
            .required(),
        ],
        client::AUTHENTICATION,
        entra::FIELDS,
        client::TARGET,
    ],
};

#[async_trait]
impl CredentialRefresher for OAuth2RefreshToken {
    fn schema(&self) -> &'static MaterialSchema {
        &SCHEMA
    }

    fn grant(&self) -> Grant {
        Grant {
            refused: FailureClass::GrantRefused,
            remedy: "the refresh token is expired, revoked or was used elsewhere: authorize again and configure the refresh with the new token; make sure that nothing else uses it",
        }
    }

    fn endpoints(&self, setup: &Setup<'_>) -> Vec<(&'static str, String)> {
        entra::endpoints(setup)
    }

    fn check(&self, setup: &Setup<'_>) -> Vec<FieldError> {
        let mut errors = client::check(setup);
        errors.extend(entra::check(setup));
        errors
    }

    fn grant_tokens(&self, setup: &Setup<'_>) -> Result<Vec<Secret>, Failure> {
        Ok(setup
            .material
            .secret(REFRESH_TOKEN)
            .cloned()
            .into_iter()
            .collect())
    }

    async fn refresh(&self, setup: &Setup<'_>, fence: &Arc<dyn Fence>) -> Result<Minted, Failure> {
        let old = setup
            .material
            .secret(REFRESH_TOKEN)
            .ok_or_else(|| bad_material(REFRESH_TOKEN, "is missing"))?;
        let mut request = client::request(setup, fence, "refresh_token").await?;
        request.form.add(REFRESH_TOKEN, old.expose());
        let tokens = exchange(setup, fence, request).await?;
        let in_use = client::in_use(&setup.material, &tokens);
        let mut minted = tokens.renewing(REFRESH_TOKEN, old);
        minted.new_material.extend(in_use);
        Ok(minted)
    }
}
