//! `google-service-account-jwt`: a service account proves itself with an assertion that it signs,
//! [RFC 7523 §2.1](https://www.rfc-editor.org/rfc/rfc7523#section-2.1), as
//! [Google describes it](https://developers.google.com/identity/protocols/oauth2/service-account).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use evermint_core::credential::RefreshConfig;
use evermint_core::mint::{Failure, MintOrder, Minted};
use evermint_core::secret::Secret;
use evermint_core::strategy::Strategy;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Deserializer, Serialize};
use url::Url;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::CredentialRefresher;
use crate::exchange::{Request, exchange};
use crate::form::Form;
use crate::material::{
    FieldError, Material, MaterialField, MaterialSchema, bad_material, block, line,
};
use crate::redact::Redactor;
use crate::response::Wanted;
use crate::transport::Transport;

/// The strategy.
#[derive(Clone, Copy, Debug)]
pub struct GoogleServiceAccountJwt;

/// The audience that Google expects, whatever the endpoint is called.
const GOOGLE_AUDIENCE: &str = "https://oauth2.googleapis.com/token";

/// The life of an assertion; Google allows no more.
const ASSERTION_LIFE: Duration = Duration::from_secs(3_600);

/// Assertions are dated back, for issuers whose clock is behind.
const BACKDATE: Duration = Duration::from_secs(10);

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const KEY_FILE: &str = "service_account_json";
const EMAIL: &str = "client_email";
const PRIVATE_KEY: &str = "private_key";
const KEY_ID: &str = "private_key_id";
const TARGET_AUDIENCE: &str = "target_audience";

const SCHEMA: MaterialSchema = MaterialSchema {
    strategy: Strategy::GoogleServiceAccountJwt,
    fields: &[
        MaterialField {
            name: KEY_FILE,
            required: false,
            secret: true,
            about: "the whole key file of the service account; or else client_email and private_key",
            check: |text| block(text).and_then(|()| KeyFile::parse(text).map(drop)),
        },
        MaterialField {
            name: EMAIL,
            required: false,
            secret: false,
            about: "the service account's email address",
            check: line,
        },
        MaterialField {
            name: PRIVATE_KEY,
            required: false,
            secret: true,
            about: "the service account's private key: RSA, in PEM",
            check: |text| block(text).and_then(|()| signing_key(text).map(drop)),
        },
        MaterialField {
            name: KEY_ID,
            required: false,
            secret: false,
            about: "the id of the private key",
            check: line,
        },
        MaterialField {
            name: "subject",
            required: false,
            secret: false,
            about: "the user to act for, by domain-wide delegation",
            check: line,
        },
        MaterialField {
            name: TARGET_AUDIENCE,
            required: false,
            secret: false,
            about: "asks for an ID token with this audience instead of an access token with scopes",
            check: line,
        },
    ],
};

/// The part of Google's key file that is used. Its `token_uri` is not: an uploaded file must not
/// decide where assertions are sent.
#[derive(Deserialize)]
struct KeyFile {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    client_email: String,
    #[serde(default, deserialize_with = "wiped")]
    private_key: Zeroizing<String>,
    private_key_id: Option<String>,
    universe_domain: Option<String>,
}

/// A text that is overwritten when it is dropped.
fn wiped<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(deserializer).map(Zeroizing::new)
}

impl KeyFile {
    fn parse(text: &str) -> Result<Self, String> {
        let file: Self = serde_json::from_str(text).map_err(|error| {
            // The parser's own text could quote the file.
            format!(
                "is no key file in JSON (line {}, column {})",
                error.line(),
                error.column()
            )
        })?;
        if file.kind != "service_account" {
            let hint = match file.kind.as_str() {
                "authorized_user" => "; for an authorized user, use oauth2-refresh-token",
                _ => "",
            };
            return Err(format!("is not the key file of a service account{hint}"));
        }
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
        signing_key(&file.private_key).map_err(|p| format!("has a private_key that {p}"))?;
        Ok(file)
    }
}

/// Reads an RSA key, and proves that it can sign: some damage shows only then.
fn signing_key(pem: &str) -> Result<EncodingKey, String> {
    // What went through a shell or an environment file often has its line breaks spelled out.
    let pem = Zeroizing::new(pem.replace("\\n", "\n"));
    if !pem.contains("-----BEGIN") {
        return Err("is not in PEM: it has no line -----BEGIN PRIVATE KEY-----".to_owned());
    }
    let usable = EncodingKey::from_rsa_pem(pem.trim().as_bytes()).and_then(|key| {
        jsonwebtoken::encode(&Header::new(Algorithm::RS256), &(), &key).map(|_| key)
    });
    usable.map_err(|_| {
        "is no RSA private key of at least 2048 bits in PEM that can be read".to_owned()
    })
}

/// Who signs.
struct Account<'a> {
    email: Cow<'a, str>,
    key: EncodingKey,
    key_id: Option<Cow<'a, str>>,
    /// What must not show up in an error.
    secret: Secret,
}

impl<'a> Account<'a> {
    fn of(material: &Material<'a>) -> Result<Self, Failure> {
        if let Some(text) = material.get(KEY_FILE) {
            let file = KeyFile::parse(text).map_err(|p| bad_material(KEY_FILE, &p))?;
            return Ok(Self {
                key: signing_key(&file.private_key).map_err(|p| bad_material(KEY_FILE, &p))?,
                secret: Secret::new(file.private_key.as_bytes()),
                email: file.client_email.into(),
                key_id: file.private_key_id.map(Cow::from),
            });
        }
        let pem = material.require(PRIVATE_KEY)?;
        Ok(Self {
            email: material.require(EMAIL)?.into(),
            key: signing_key(pem).map_err(|p| bad_material(PRIVATE_KEY, &p))?,
            key_id: material.get(KEY_ID).map(Cow::from),
            secret: Secret::from(pem),
        })
    }
}

/// What the assertion says.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
    jti: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_audience: Option<&'a str>,
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

fn assertion(
    order: &MintOrder,
    material: &Material<'_>,
    account: &Account<'_>,
    now: SystemTime,
) -> Result<Zeroizing<String>, Failure> {
    let since_epoch = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let iat = since_epoch.saturating_sub(BACKDATE).as_secs();
    let target_audience = material.get(TARGET_AUDIENCE);
    let claims = Claims {
        iss: &account.email,
        aud: audience(&order.config.token_url),
        iat,
        exp: iat + ASSERTION_LIFE.as_secs(),
        jti: Uuid::new_v4().to_string(),
        sub: material.get("subject"),
        scope: target_audience
            .is_none()
            .then(|| order.config.scopes.join(" ")),
        target_audience,
    };
    let mut header = Header::new(Algorithm::RS256);
    header.kid = account.key_id.as_deref().map(str::to_owned);
    jsonwebtoken::encode(&header, &claims, &account.key)
        .map(Zeroizing::new)
        .map_err(|_| bad_material(PRIVATE_KEY, "does not sign"))
}

#[async_trait]
impl CredentialRefresher for GoogleServiceAccountJwt {
    fn schema(&self) -> &'static MaterialSchema {
        &SCHEMA
    }

    fn validate_together(&self, material: &Material<'_>) -> Vec<FieldError> {
        let has = |name| material.get(name).is_some();
        if has(KEY_FILE) {
            let doubles = [EMAIL, PRIVATE_KEY, KEY_ID]
                .into_iter()
                .filter(|name| has(name));
            let problem = "is in service_account_json already; give one or the other";
            return doubles.map(|name| FieldError::new(name, problem)).collect();
        }
        let missing = [EMAIL, PRIVATE_KEY].into_iter().filter(|name| !has(name));
        let problem = "is missing; give it, or the whole key file as service_account_json";
        missing.map(|name| FieldError::new(name, problem)).collect()
    }

    fn validate_config(
        &self,
        config: &RefreshConfig,
        secret: &BTreeMap<String, Secret>,
    ) -> Vec<FieldError> {
        let material = Material::new(&config.material, secret);
        let problem = match (config.scopes.is_empty(), material.get(TARGET_AUDIENCE)) {
            (true, None) => "are missing; give scopes, or target_audience for an ID token",
            (false, Some(_)) => "do not go together with target_audience; give one or the other",
            (true, Some(_)) | (false, None) => return Vec::new(),
        };
        vec![FieldError::new("scopes", problem)]
    }

    async fn refresh(&self, order: &MintOrder, transport: &Transport) -> Result<Minted, Failure> {
        let material = Material::new(&order.config.material, &order.secrets);
        let account = Account::of(&material)?;
        let assertion = assertion(order, &material, &account, SystemTime::now())?;
        // Not the whole key file: most of it is no secret, and would blot out half of every
        // message.
        let mut redactor = Redactor::new([&account.secret]);
        redactor.add(assertion.as_bytes());
        let mut form = Form::new(GRANT_TYPE);
        form.add("assertion", assertion.as_bytes());
        let request = Request {
            form,
            authorization: None,
            redactor,
            wanted: match material.get(TARGET_AUDIENCE) {
                Some(_) => Wanted::IdToken,
                None => Wanted::AccessToken,
            },
        };
        let tokens = exchange(order, transport, request).await?;
        Ok(Minted {
            token: tokens.token,
            extra_outputs: BTreeMap::new(),
            lifetime: tokens.lifetime,
            new_material: BTreeMap::new(),
            scopes: tokens.scopes,
        })
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
    fn a_key_that_cannot_sign_is_refused_without_showing_it() {
        for (pem, why) in [
            ("hunter2", "not in PEM"),
            (
                "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----",
                "no RSA",
            ),
            (
                "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----",
                "no RSA",
            ),
            ("-----BEGIN PRIVATE KEY-----", "no RSA"),
        ] {
            let problem = signing_key(pem).unwrap_err();
            assert!(
                problem.contains(why) && !problem.contains("hunter2"),
                "{problem}"
            );
        }
    }

    #[test]
    fn a_file_that_is_no_key_file_is_refused_without_showing_it() {
        for (text, why) in [
            ("hunter2", "no key file in JSON (line 1, column 1)"),
            ("{\"type\": hunter2}", "no key file in JSON"),
            ("{}", "no key file"),
            (
                r#"{"type":"authorized_user","refresh_token":"hunter2"}"#,
                "oauth2-refresh-token",
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
