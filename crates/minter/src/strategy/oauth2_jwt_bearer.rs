//! `oauth2-jwt-bearer`: an assertion is the grant,
//! [RFC 7523 §2.1](https://www.rfc-editor.org/rfc/rfc7523#section-2.1). It is signed here with a key
//! that the issuer knows, or somebody else keeps a fresh one in a file.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use evermint_core::mint::{Failure, FailureClass, Fence, Minted};
use evermint_core::strategy::Strategy;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{CredentialRefresher, Grant, client, entra};
use crate::assertion::{ALGORITHMS, Claims, Signer};
use crate::exchange::{JWT_BEARER, Proof, Request, exchange};
use crate::material::{
    FieldError, Format, Material, MaterialField, MaterialSchema, bad_material, object,
};
use crate::outside::Setup;

/// The strategy.
#[derive(Clone, Copy, Debug)]
pub struct OAuth2JwtBearer;

const KEY: &str = "private_key";
const KEY_ID: &str = "private_key_id";
const ALGORITHM: &str = "private_key_algorithm";
const ISSUER: &str = "assertion_issuer";
const SUBJECT: &str = "subject";
const AUDIENCE: &str = "assertion_audience";
const LIFETIME: &str = "assertion_lifetime_seconds";
const CLAIMS: &str = "assertion_claims";
const FILE: &str = "assertion_file";

/// The life of an assertion, where material does not say otherwise; some issuers allow no more.
const LIFE: u32 = 180;

const SCHEMA: MaterialSchema = MaterialSchema {
    strategy: Strategy::OAuth2JwtBearer,
    parts: &[
        &[
            MaterialField::secret(KEY, Format::Pem, "the key that signs the assertion")
                .or(FILE)
                .checked(|pem| Signer::new(pem).map(drop)),
            MaterialField::public(
                ISSUER,
                Format::Line,
                "who signs (claim iss), as registered at the issuer",
            )
            .or(FILE),
            MaterialField::public(
                SUBJECT,
                Format::Line,
                "for whom the token is (claim sub); who signs if not given",
            ),
            MaterialField::public(
                AUDIENCE,
                Format::Line,
                "for whom the assertion is (claim aud); the token endpoint if not given",
            ),
            MaterialField::public(KEY_ID, Format::Line, "the id of the key"),
            MaterialField::public(
                ALGORITHM,
                Format::OneOf(ALGORITHMS),
                "how the assertion is signed; what goes with the key if not given",
            ),
            MaterialField::public(
                LIFETIME,
                Format::Number,
                "how long the assertion is good, in seconds, 10 to 3600; 180 if not given",
            )
            .checked(|text| life(text).map(drop)),
            MaterialField::public(CLAIMS, Format::Json, "further claims, as a JSON object")
                .checked(|text| claims(text).map(drop)),
            MaterialField::public(
                FILE,
                Format::Path,
                "a file on the replicas with an assertion, in place of a key",
            )
            .or("private_key and assertion_issuer"),
        ],
        &[client::CLIENT_ID],
        client::AUTHENTICATION,
        entra::FIELDS,
        client::TARGET,
    ],
};

fn life(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|s| (10..=3_600).contains(s));
    let seconds: u32 = seconds.ok_or("is not between 10 and 3600 seconds")?;
    Ok(Duration::from_secs(seconds.into()))
}

/// Claims beside those that are set here.
fn claims(text: &str) -> Result<Map<String, Value>, String> {
    let claims = object(text)?;
    let own = ["iss", "sub", "aud", "iat", "exp", "jti"];
    match own.into_iter().find(|name| claims.contains_key(*name)) {
        Some(name) => Err(format!(
            "must not hold {name}, which has a field of its own"
        )),
        None => Ok(claims),
    }
}

fn signer(material: &Material<'_>) -> Result<Signer, (&'static str, String)> {
    let pem = material.get(KEY).ok_or((KEY, "is missing".to_owned()))?;
    let signer = Signer::new(pem)
        .map_err(|problem| (KEY, problem))?
        .key_id(material.get(KEY_ID));
    match material.get(ALGORITHM) {
        Some(name) => signer.algorithm(name).map_err(|p| (ALGORITHM, p)),
        None => Ok(signer),
    }
}

fn sign(setup: &Setup<'_>, url: &str) -> Result<Zeroizing<String>, Failure> {
    let material = &setup.material;
    let bad = |name: &'static str| move |problem: String| bad_material(name, &problem);
    let signer = signer(material).map_err(|(name, problem)| bad_material(name, &problem))?;
    let life = material.get(LIFETIME).map(life).transpose();
    let life = life.map_err(bad(LIFETIME))?;
    let more = material.get(CLAIMS).map(claims).transpose();
    let iss = material.require(ISSUER)?;
    let claims = Claims {
        iss,
        sub: Some(material.get(SUBJECT).unwrap_or(iss)),
        aud: material.get(AUDIENCE).unwrap_or(url),
        more: more.map_err(bad(CLAIMS))?.unwrap_or_default(),
        ..Claims::dated(
            setup.outside.skews.now(url),
            life.unwrap_or(Duration::from_secs(LIFE.into())),
        )
    };
    signer.sign(&claims, KEY)
}

#[async_trait]
impl CredentialRefresher for OAuth2JwtBearer {
    fn schema(&self) -> &'static MaterialSchema {
        &SCHEMA
    }

    fn grant(&self) -> Grant {
        Grant {
            refused: FailureClass::GrantRefused,
            remedy: "check that the issuer knows the key and its id, that assertion_issuer and assertion_audience are what it expects, and that the subject exists and has consented",
        }
    }

    fn endpoints(&self, setup: &Setup<'_>) -> Vec<(&'static str, String)> {
        entra::endpoints(setup)
    }

    fn check(&self, setup: &Setup<'_>) -> Vec<FieldError> {
        let material = &setup.material;
        let own = [
            KEY, ISSUER, SUBJECT, AUDIENCE, KEY_ID, ALGORITHM, LIFETIME, CLAIMS,
        ];
        let mut errors = material.check_either(FILE, &[KEY, ISSUER], &own);
        if material
            .get(KEY)
            .is_some_and(|pem| Signer::new(pem).is_ok())
            && let Err((field, problem)) = signer(material)
        {
            errors.push(FieldError::new(field, problem));
        }
        errors.extend(setup.check_path(FILE));
        errors.extend(client::check(setup));
        errors.extend(client::check_id(material));
        errors.extend(entra::check(setup));
        errors
    }

    async fn refresh(&self, setup: &Setup<'_>, fence: &Arc<dyn Fence>) -> Result<Minted, Failure> {
        let mut request = client::request(setup, fence, JWT_BEARER).await?;
        match setup.material.get(FILE) {
            Some(path) => {
                let files = &setup.outside.token_files;
                let assertion = files.read(&**fence, FILE, path).await?;
                add(&mut request, assertion.expose());
                request.proof = Proof::Borrowed;
            }
            None => {
                let assertion = sign(setup, &request.url)?;
                add(&mut request, assertion.as_bytes());
                request.proof = Proof::Dated;
            }
        }
        let tokens = exchange(setup, fence, request).await?;
        let in_use = client::in_use(&setup.material, &tokens);
        let mut minted = tokens.minted();
        minted.new_material.extend(in_use);
        Ok(minted)
    }
}

fn add(request: &mut Request, assertion: &[u8]) {
    request.redactor.add(assertion);
    request.form.add("assertion", assertion);
}
