//! `ibm-iam-apikey`: an API key of IBM Cloud for an access token, as
//! [IBM describes it](https://cloud.ibm.com/docs/account?topic=account-iamtoken_from_apikey).
//! Errors are not of OAuth's form: see `classify`.

use std::sync::Arc;

use async_trait::async_trait;
use evermint_core::mint::{Failure, FailureClass, Fence, Minted};
use evermint_core::strategy::Strategy;

use super::{CredentialRefresher, Grant};
use crate::exchange::{Client, Proof, Request, exchange};
use crate::form::Form;
use crate::material::{Format, MaterialField, MaterialSchema, bad_material};
use crate::outside::Setup;
use crate::redact::Redactor;
use crate::response::Wanted;

/// The strategy.
#[derive(Clone, Copy, Debug)]
pub struct IbmIamApikey;

const TOKEN_URL: &str = "https://iam.cloud.ibm.com/identity/token";

const GRANT_TYPE: &str = "urn:ibm:params:oauth:grant-type:apikey";

const API_KEY: &str = "api_key";

const SCHEMA: MaterialSchema = MaterialSchema {
    strategy: Strategy::IbmIamApikey,
    parts: &[&[MaterialField::secret(
        API_KEY,
        Format::Line,
        "the API key of a user or, better, of a service ID",
    )
    .required()]],
};

fn endpoint(setup: &Setup<'_>) -> String {
    match setup.config.token_url.as_str() {
        "" => TOKEN_URL.to_owned(),
        url => url.to_owned(),
    }
}

#[async_trait]
impl CredentialRefresher for IbmIamApikey {
    fn schema(&self) -> &'static MaterialSchema {
        &SCHEMA
    }

    fn grant(&self) -> Grant {
        Grant {
            refused: FailureClass::GrantRefused,
            remedy: "check in IBM Cloud (Manage, Access, API keys) that the key exists and is not locked or disabled; then configure the refresh with a new one",
        }
    }

    fn endpoints(&self, setup: &Setup<'_>) -> Vec<(&'static str, String)> {
        vec![("token_url", endpoint(setup))]
    }

    fn is_revocable(&self) -> bool {
        false
    }

    async fn refresh(&self, setup: &Setup<'_>, fence: &Arc<dyn Fence>) -> Result<Minted, Failure> {
        let key = setup
            .material
            .secret(API_KEY)
            .ok_or_else(|| bad_material(API_KEY, "is missing"))?;
        let mut form = Form::new(GRANT_TYPE);
        form.add("apikey", key.expose());
        let request = Request {
            url: endpoint(setup),
            form,
            client: Client::default(),
            other_client: None,
            redactor: Redactor::new([key]),
            wanted: Wanted::AccessToken,
            proof: Proof::Lasting,
        };
        // The refresh token that comes along is for IBM's own clients.
        Ok(exchange(setup, fence, request).await?.minted())
    }
}
