//! `aws-sts-web-identity`: a session of a role for whoever has a token of an identity provider that
//! AWS trusts,
//! [AssumeRoleWithWebIdentity](https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html).
//! The request is not signed: the token is the proof.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use evermint_core::mint::{Failure, FailureClass, Fence, Minted};
use evermint_core::secret::Secret;
use evermint_core::strategy::Strategy;

use super::{CredentialRefresher, Grant, Outputs, aws};
use crate::classify::Judge;
use crate::exchange::{Proof, send};
use crate::material::{FieldError, Format, MaterialField, MaterialSchema, bad_material};
use crate::outside::Setup;
use crate::redact::Redactor;
use crate::transport::Outgoing;

/// The strategy.
#[derive(Clone, Copy, Debug)]
pub struct AwsStsWebIdentity;

const TOKEN: &str = "web_identity_token";
const TOKEN_FILE: &str = "web_identity_token_file";

const SCHEMA: MaterialSchema = MaterialSchema {
    strategy: Strategy::AwsStsWebIdentity,
    parts: &[
        &[
            MaterialField::public(
                TOKEN_FILE,
                Format::Path,
                "the file that holds the identity provider's token on the replicas, below issuers.token_file_dirs",
            )
            .or(TOKEN),
            MaterialField::secret(TOKEN, Format::Line, "the identity provider's token itself")
                .or(TOKEN_FILE),
        ],
        aws::FIELDS,
    ],
};

#[async_trait]
impl CredentialRefresher for AwsStsWebIdentity {
    fn schema(&self) -> &'static MaterialSchema {
        &SCHEMA
    }

    fn grant(&self) -> Grant {
        Grant {
            refused: FailureClass::GrantRefused,
            remedy: "configure the refresh with a fresh token of the identity provider, or name the file that holds one",
        }
    }

    fn outputs(&self) -> Outputs {
        aws::OUTPUTS
    }

    fn endpoints(&self, setup: &Setup<'_>) -> Vec<(&'static str, String)> {
        aws::endpoints(setup)
    }

    fn check(&self, setup: &Setup<'_>) -> Vec<FieldError> {
        let mut errors = aws::check(setup);
        let material = &setup.material;
        match (material.get(TOKEN_FILE), material.has(TOKEN)) {
            (Some(_), true) => {
                let problem = "is given beside web_identity_token; give one or the other";
                errors.push(FieldError::new(TOKEN_FILE, problem));
            }
            (Some(path), false) => {
                let checked = setup.outside.token_files.check(path);
                errors.extend(checked.err().map(|p| FieldError::new(TOKEN_FILE, p)));
            }
            (None, true) => {}
            (None, false) => {
                let problem = "is missing; give it, or the token itself as web_identity_token";
                errors.push(FieldError::new(TOKEN_FILE, problem));
            }
        }
        errors
    }

    fn is_revocable(&self) -> bool {
        false
    }

    async fn refresh(&self, setup: &Setup<'_>, fence: &Arc<dyn Fence>) -> Result<Minted, Failure> {
        let (token, proof) = token(setup, fence).await?;
        let url = aws::url(setup);
        let mut form = aws::form(setup, "AssumeRoleWithWebIdentity");
        form.add("WebIdentityToken", token.expose());
        let redactor = Redactor::new([&*token]);
        let judge = Judge {
            strategy: Strategy::AwsStsWebIdentity,
            redactor: &redactor,
            proof,
        };
        let answer = send(
            setup,
            fence,
            &judge,
            &url,
            Outgoing::form(url.as_str(), form),
        )
        .await?;
        aws::read(&answer).map_err(|why| judge.answer(&answer, why))
    }
}

/// The identity provider's token, and what kind of proof it is.
async fn token<'a>(
    setup: &Setup<'a>,
    fence: &Arc<dyn Fence>,
) -> Result<(Cow<'a, Secret>, Proof), Failure> {
    if let Some(path) = setup.material.get(TOKEN_FILE) {
        let files = &setup.outside.token_files;
        let token = files.read(&**fence, TOKEN_FILE, path).await?;
        return Ok((Cow::Owned(token), Proof::Borrowed));
    }
    let token = setup.material.secret(TOKEN);
    let token = token.ok_or_else(|| bad_material(TOKEN, "is missing"))?;
    Ok((Cow::Borrowed(token), Proof::Lasting))
}
