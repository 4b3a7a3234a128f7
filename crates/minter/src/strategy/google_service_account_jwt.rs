//! `google-service-account-jwt`: a service account proves itself with an assertion that it signs,
//! [RFC 7523 §2.1](https://www.rfc-editor.org/rfc/rfc7523#section-2.1), as
//! [Google describes it](https://developers.google.com/identity/protocols/oauth2/service-account).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use evermint_core::mint::{Failure, FailureClass, Fence, Minted};
use evermint_core::secret::Secret;
use evermint_core::strategy::Strategy;
use serde::Deserialize;
use url::Url;
use zeroize::Zeroizing;

use super::{CredentialRefresher, Grant, google};
use crate::assertion::{Claims, Signer};
use crate::exchange::{Client, JWT_BEARER, Proof, Request, exchange};
use crate::form::Form;
use crate::material::{
    FieldError, Format, Material, MaterialField, MaterialSchema, bad_material, line,
};
use crate::outside::Setup;
use crate::redact::Redactor;
use crate::response::Wanted;

/// The strategy.
#[derive(Clone, Copy, Debug)]
pub struct GoogleServiceAccountJwt;

/// The audience that Google expects, whatever the endpoint is called.
const GOOGLE_AUDIENCE: &str = "https://oauth2.googleapis.com/token";

/// The life of an assertion; Google allows no more.
const ASSERTION_LIFE: Duration = Duration::from_secs(3_600);

const KEY_FILE: &str = "service_account_json";
const EMAIL: &str = "client_email";
const PRIVATE_KEY: &str = "private_key";
const KEY_ID: &str = "private_key_id";
const TARGET_AUDIENCE: &str = "target_audience";

const SCHEMA: MaterialSchema = MaterialSchema {
    strategy: Strategy::GoogleServiceAccountJwt,
    parts: &[&[
        MaterialField::secret(
            KEY_FILE,
            Format::Json,
            "the whole key file of the service account",
        )
        .or("client_email and private_key")
        .checked(|text| KeyFile::parse(text).map(drop)),
        MaterialField::public(EMAIL, Format::Line, "the service account's email address")
            .or(KEY_FILE),
        MaterialField::secret(
            PRIVATE_KEY,
            Format::Pem,
            "the service account's private key: RSA",
        )
        .or(KEY_FILE)
        .checked(|text| Signer::rsa(text).map(drop)),
        MaterialField::public(KEY_ID, Format::Line, "the id of the private key"),
        MaterialField::public(
            "subject",
            Format::Line,
            "the user to act for, by domain-wide delegation",
        ),
        MaterialField::public(
            TARGET_AUDIENCE,
            Format::Line,
            "asks for an ID token with this audience instead of an access token with scopes",
        ),
    ]],
};

/// The part of Google's key file that is used. An uploaded file must not decide where assertions
/// are sent: its `token_uri` counts only where the configuration names it.
#[derive(Deserialize)]
struct KeyFile {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    client_email: String,
    #[serde(default, deserialize_with = "google::wiped")]
    private_key: Zeroizing<String>,
    private_key_id: Option<String>,
    universe_domain: Option<String>,
    token_uri: Option<String>,
}

impl KeyFile {
    fn parse(text: &str) -> Result<Self, String> {
        let file: Self = google::file(text)?;
        google::check_kind(&file.kind, "service_account")?;
        if file
            .universe_domain
            .as_deref()
            .is_some_and(|u| u != "googleapis.com")
        {
            return Err(
                "is of another universe than googleapis.com, which does not exchange assertions"
                    .to_owned(),
            );
        }
        line(&file.client_email).map_err(|problem| format!("has a client_email that {problem}"))?;
        Signer::rsa(&file.private_key).map_err(|p| format!("has a private_key that {p}"))?;
        Ok(file)
    }
}

/// Who signs.
struct Account<'a> {
    email: Cow<'a, str>,
    signer: Signer,
    /// What must not show up in an error.
    secret: Secret,
}

impl<'a> Account<'a> {
    fn of(material: &Material<'a>) -> Result<Self, Failure> {
        if let Some(text) = material.get(KEY_FILE) {
            let bad = |problem: String| bad_material(KEY_FILE, &problem);
            let file = KeyFile::parse(text).map_err(bad)?;
            let signer = Signer::rsa(&file.private_key).map_err(bad)?;
            return Ok(Self {
                signer: signer.key_id(file.private_key_id.as_deref()),
                secret: Secret::new(file.private_key.as_bytes()),
                email: file.client_email.into(),
            });
        }
        let pem = material.require(PRIVATE_KEY)?;
        let signer = Signer::rsa(pem).map_err(|p| bad_material(PRIVATE_KEY, &p))?;
        Ok(Self {
            email: material.require(EMAIL)?.into(),
            signer: signer.key_id(material.get(KEY_ID)),
            secret: Secret::from(pem),
        })
    }
}

/// The audience for a token endpoint: Google's own under every name that Google's endpoint has,
/// the endpoint itself elsewhere.
fn audience(token_url: &str) -> &str {
    let url = Url::parse(token_url).ok();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or("");
    let is_google = ["googleapis.com", "google.com"].iter().any(|domain| {
        host.strip_suffix(domain)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    });
    if is_google {
        GOOGLE_AUDIENCE
    } else {
        token_url
    }
}

/// The token endpoint, and the field that decides it.
fn endpoint(setup: &Setup<'_>) -> (&'static str, String) {
    let file = || {
        KeyFile::parse(setup.material.get(KEY_FILE)?)
            .ok()?
            .token_uri
    };
    google::endpoint(setup, KEY_FILE, file(), google::TOKEN_URLS)
}

#[async_trait]
impl CredentialRefresher for GoogleServiceAccountJwt {
    fn schema(&self) -> &'static MaterialSchema {
        &SCHEMA
    }

    fn grant(&self) -> Grant {
        Grant {
            refused: FailureClass::GrantRefused,
            remedy: "check that the service account exists and is enabled, that its key was not deleted, and, for a subject, that domain-wide delegation covers these scopes",
        }
    }

    fn endpoints(&self, setup: &Setup<'_>) -> Vec<(&'static str, String)> {
        vec![endpoint(setup)]
    }

    fn check(&self, setup: &Setup<'_>) -> Vec<FieldError> {
        let material = &setup.material;
        let mut errors = material.check_either(
            KEY_FILE,
            &[EMAIL, PRIVATE_KEY],
            &[EMAIL, PRIVATE_KEY, KEY_ID],
        );
        errors.extend(google::check_endpoint(setup, &endpoint(setup)));
        let scopes = &setup.config.scopes;
        let problem = match (scopes.is_empty(), material.has(TARGET_AUDIENCE)) {
            (true, false) => "are missing; give scopes, or target_audience for an ID token",
            (false, true) => "do not go together with target_audience; give one or the other",
            (true, true) | (false, false) => return errors,
        };
        errors.push(FieldError::new("scopes", problem));
        errors
    }

    fn is_revocable(&self) -> bool {
        false
    }

    async fn refresh(&self, setup: &Setup<'_>, fence: &Arc<dyn Fence>) -> Result<Minted, Failure> {
        let material = &setup.material;
        let account = Account::of(material)?;
        let url = google::checked(setup, endpoint(setup))?;
        let target_audience = material.get(TARGET_AUDIENCE);
        let claims = Claims {
            iss: &account.email,
            sub: material.get("subject"),
            aud: audience(&url),
            scope: target_audience
                .is_none()
                .then(|| setup.config.scopes.join(" ")),
            target_audience,
            ..Claims::dated(setup.outside.skews.now(&url), ASSERTION_LIFE)
        };
        let assertion = account.signer.sign(&claims, PRIVATE_KEY)?;
        // Not the whole key file: most of it is no secret, and would blot out half of every
        // message.
        let mut redactor = Redactor::new([&account.secret]);
        redactor.add(assertion.as_bytes());
        let mut form = Form::new(JWT_BEARER);
        form.add("assertion", assertion.as_bytes());
        let request = Request {
            url,
            form,
            client: Client::default(),
            other_client: None,
            redactor,
            wanted: match target_audience {
                Some(_) => Wanted::IdToken,
                None => Wanted::AccessToken,
            },
            proof: Proof::Dated,
        };
        Ok(exchange(setup, fence, request).await?.minted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn google_expects_its_own_audience_and_others_theirs() {
        for (url, google) in [
            ("https://oauth2.googleapis.com/token", true),
            ("https://www.googleapis.com/oauth2/v4/token", true),
            ("https://accounts.google.com/o/oauth2/token", true),
            ("https://oauth2.mtls.googleapis.com/token", true),
            ("https://evilgoogleapis.com/token", false),
            ("https://idp.example/token", false),
            ("http://127.0.0.1:9/token", false),
        ] {
            assert_eq!(audience(url) == GOOGLE_AUDIENCE, google, "{url}");
            assert!(google || audience(url) == url);
        }
    }

    #[test]
    fn a_file_that_is_no_key_file_is_refused_without_showing_it() {
        for (text, why) in [
            ("hunter2", "not of Google's form (line 1, column 1)"),
            ("{\"type\": hunter2}", "not of Google's form"),
            ("{}", "not of Google's form"),
            (
                r#"{"type":"authorized_user","refresh_token":"hunter2"}"#,
                "google-authorized-user",
            ),
            (
                r#"{"type":"service_account","universe_domain":"x.example"}"#,
                "universe",
            ),
            (
                r#"{"type":"service_account"}"#,
                "client_email that is empty",
            ),
            (
                r#"{"type":"service_account","client_email":"a@b"}"#,
                "private_key that",
            ),
        ] {
            let problem = KeyFile::parse(text).err().unwrap();
            assert!(
                problem.contains(why) && !problem.contains("hunter2"),
                "{problem}"
            );
        }
    }
}
