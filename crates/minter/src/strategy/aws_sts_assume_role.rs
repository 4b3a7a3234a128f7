//! `aws-sts-assume-role`: a session of a role for whoever has keys that may assume it,
//! [AssumeRole](https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html). The
//! request is signed by AWS's own library; it leaves through our transport like every other.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;
use bytes::Bytes;
use evermint_core::mint::{Failure, FailureClass, Fence, Minted};
use evermint_core::strategy::Strategy;
use http::{HeaderName, HeaderValue};

use super::{CredentialRefresher, Grant, Outputs, aws};
use crate::classify::Judge;
use crate::exchange::{Proof, send};
use crate::material::{FieldError, Format, MaterialField, MaterialSchema, bad_material};
use crate::outside::Setup;
use crate::redact::Redactor;
use crate::transport::Outgoing;

/// The strategy.
#[derive(Clone, Copy, Debug)]
pub struct AwsStsAssumeRole;

const KEY_ID: &str = "access_key_id";
const SECRET_KEY: &str = "secret_access_key";
const SESSION_TOKEN: &str = "session_token";
const EXTERNAL_ID: &str = "external_id";

const SCHEMA: MaterialSchema = MaterialSchema {
    strategy: Strategy::AwsStsAssumeRole,
    parts: &[
        &[
            MaterialField::public(
                KEY_ID,
                Format::Line,
                "the id of the keys that may assume the role",
            )
            .required(),
            MaterialField::secret(SECRET_KEY, Format::Line, "the secret of these keys").required(),
            MaterialField::secret(
                SESSION_TOKEN,
                Format::Line,
                "the session token of these keys, if they are a session's themselves",
            ),
            MaterialField::public(
                EXTERNAL_ID,
                Format::Line,
                "the external id that the role's trust policy asks for",
            )
            .checked(|id| {
                let fits = |c: char| c.is_ascii_alphanumeric() || "_+=,.@:/-".contains(c);
                match (2..=1224).contains(&id.len()) && id.chars().all(fits) {
                    true => Ok(()),
                    false => Err("must be 2 to 1224 letters, digits and _+=,.@:/-".to_owned()),
                }
            }),
        ],
        aws::FIELDS,
    ],
};

#[async_trait]
impl CredentialRefresher for AwsStsAssumeRole {
    fn schema(&self) -> &'static MaterialSchema {
        &SCHEMA
    }

    fn grant(&self) -> Grant {
        Grant {
            refused: FailureClass::ConfigRefused,
            remedy: "check the keys and the role, and configure the refresh again",
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
        if !setup.material.has(aws::REGION) {
            let problem = "is missing: requests are signed for a region";
            errors.push(FieldError::new(aws::REGION, problem));
        }
        errors
    }

    fn is_revocable(&self) -> bool {
        false
    }

    async fn refresh(&self, setup: &Setup<'_>, fence: &Arc<dyn Fence>) -> Result<Minted, Failure> {
        let url = aws::url(setup);
        let mut form = aws::form(setup, "AssumeRole");
        form.add_some("ExternalId", setup.material.get(EXTERNAL_ID));
        let outgoing = signed(setup, &url, form.into_bytes())?;
        let redactor = Redactor::new(setup.material.secrets());
        let judge = Judge {
            strategy: Strategy::AwsStsAssumeRole,
            redactor: &redactor,
            proof: Proof::Dated,
        };
        let answer = send(setup, fence, &judge, &url, outgoing).await?;
        aws::read(&answer).map_err(|why| judge.answer(&answer, why))
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

/// The request under a signature of
/// [version 4](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html), dated by
/// AWS's clock as far as that is known.
fn signed(setup: &Setup<'_>, url: &str, body: Bytes) -> Result<Outgoing, Failure> {
    let material = &setup.material;
    let identity: Identity = Credentials::new(
        material.require(KEY_ID)?,
        material.require(SECRET_KEY)?,
        material.get(SESSION_TOKEN).map(str::to_owned),
        None,
        "evermint",
    )
    .into();
    let unfit = |_| bad_material(SECRET_KEY, "cannot sign the request");
    let instructions = sign_parts(
        &identity,
        material.require(aws::REGION)?,
        setup.outside.skews.now(url),
        url,
        &body,
    )
    .map_err(unfit)?;
    let mut outgoing = Outgoing::form_bytes(url, body);
    for (name, value) in instructions {
        outgoing = outgoing.header(name, value);
    }
    Ok(outgoing)
}

/// The header fields that prove the request.
fn sign_parts(
    identity: &Identity,
    region: &str,
    now: SystemTime,
    url: &str,
    body: &[u8],
) -> Result<Vec<(HeaderName, HeaderValue)>, Box<dyn std::error::Error + Send + Sync>> {
    let params = v4::SigningParams::builder()
        .identity(identity)
        .region(region)
        .name("sts")
        .time(now)
        .settings(SigningSettings::default())
        .build()?
        .into();
    let headers = [("content-type", FORM)];
    let request =
        SignableRequest::new("POST", url, headers.into_iter(), SignableBody::Bytes(body))?;
    let (instructions, _) = sign(request, &params)?.into_parts();
    let (headers, _) = instructions.into_parts();
    headers
        .iter()
        .map(|header| {
            let mut value = HeaderValue::from_str(header.value())?;
            value.set_sensitive(true);
            Ok((HeaderName::from_bytes(header.name().as_bytes())?, value))
        })
        .collect()
}
