//! `oauth2-client-credentials`: the client itself is the grant,
//! [RFC 6749 §4.4](https://www.rfc-editor.org/rfc/rfc6749#section-4.4).

use std::collections::BTreeMap;

use async_trait::async_trait;
use evermint_core::mint::{Failure, MintOrder, Minted};
use evermint_core::strategy::Strategy;

use super::{CredentialRefresher, client};
use crate::exchange::exchange;
use crate::material::{MaterialField, MaterialSchema, line};
use crate::transport::Transport;

/// The strategy.
#[derive(Clone, Copy, Debug)]
pub struct OAuth2ClientCredentials;

const SCHEMA: MaterialSchema = MaterialSchema {
    strategy: Strategy::OAuth2ClientCredentials,
    fields: &[
        client::CLIENT_ID,
        MaterialField {
            name: "client_secret",
            required: true,
            secret: true,
            about: "the client's secret",
            check: line,
        },
        client::CLIENT_AUTH,
        client::AUDIENCE,
        client::RESOURCE,
    ],
};

#[async_trait]
impl CredentialRefresher for OAuth2ClientCredentials {
    fn schema(&self) -> &'static MaterialSchema {
        &SCHEMA
    }

    async fn refresh(&self, order: &MintOrder, transport: &Transport) -> Result<Minted, Failure> {
        let request = client::request(order, "client_credentials")?;
        let tokens = exchange(order, transport, request).await?;
        // A refresh token must not come here (RFC 6749 §4.4.3); one that does is of no use.
        Ok(Minted {
            token: tokens.token,
            extra_outputs: BTreeMap::new(),
            lifetime: tokens.lifetime,
            new_material: BTreeMap::new(),
            scopes: tokens.scopes,
        })
    }
}
