//! `oauth2-refresh-token`: a person's grant, kept alive by its refresh token,
//! [RFC 6749 §6](https://www.rfc-editor.org/rfc/rfc6749#section-6). The issuer may hand out a new
//! refresh token with every mint, and take a second use of the old one for theft
//! ([RFC 9700 §4.14.2](https://www.rfc-editor.org/rfc/rfc9700#section-4.14.2)).

use std::collections::BTreeMap;

use async_trait::async_trait;
use evermint_core::mint::{Failure, MintOrder, Minted};
use evermint_core::strategy::Strategy;

use super::{CredentialRefresher, client};
use crate::exchange::exchange;
use crate::material::{FieldError, Material, MaterialField, MaterialSchema, bad_material, line};
use crate::transport::Transport;

/// The strategy.
#[derive(Clone, Copy, Debug)]
pub struct OAuth2RefreshToken;

const REFRESH_TOKEN: &str = "refresh_token";

const SCHEMA: MaterialSchema = MaterialSchema {
    strategy: Strategy::OAuth2RefreshToken,
    fields: &[
        client::CLIENT_ID,
        MaterialField {
            name: "client_secret",
            required: false,
            secret: true,
            about: "the client's secret; a public client has none",
            check: line,
        },
        MaterialField {
            name: REFRESH_TOKEN,
            required: true,
            secret: true,
            about: "the grant's current refresh token; nothing else may use it from now on",
            check: line,
        },
        client::CLIENT_AUTH,
        client::AUDIENCE,
        client::RESOURCE,
    ],
};

#[async_trait]
impl CredentialRefresher for OAuth2RefreshToken {
    fn schema(&self) -> &'static MaterialSchema {
        &SCHEMA
    }

    fn validate_together(&self, material: &Material<'_>) -> Vec<FieldError> {
        client::check_auth(material)
    }

    async fn refresh(&self, order: &MintOrder, transport: &Transport) -> Result<Minted, Failure> {
        let old = order
            .secrets
            .get(REFRESH_TOKEN)
            .ok_or_else(|| bad_material(REFRESH_TOKEN, "is missing"))?;
        let mut request = client::request(order, "refresh_token")?;
        request.form.add(REFRESH_TOKEN, old.expose());
        let tokens = exchange(order, transport, request).await?;
        let rotated = tokens
            .refresh_token
            .filter(|new| new.expose() != old.expose())
            .map(|new| (REFRESH_TOKEN.to_owned(), new));
        Ok(Minted {
            token: tokens.token,
            extra_outputs: BTreeMap::new(),
            lifetime: tokens.lifetime,
            new_material: rotated.into_iter().collect(),
            scopes: tokens.scopes,
        })
    }
}
