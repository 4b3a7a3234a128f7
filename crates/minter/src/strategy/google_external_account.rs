//! `google-external-account`: Google's workload identity federation. A token of somebody else is
//! exchanged for one of Google ([RFC 8693](https://www.rfc-editor.org/rfc/rfc8693)), and that one,
//! if a service account is to be impersonated, for one of the service account: two requests in one
//! mint, under one fence ([AIP-4117](https://google.aip.dev/auth/4117)).
//!
//! The token comes from a file or is given; a source that is a URL or a program is refused, for an
//! uploaded file must not decide what a replica calls or runs.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use evermint_core::mint::{Failure, FailureClass, Fence, Minted};
use evermint_core::secret::Secret;
use evermint_core::strategy::Strategy;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{CredentialRefresher, Grant, google, oauth2_token_exchange};
use crate::classify::Judge;
use crate::exchange::{Client, Proof, Request, TOKEN_EXCHANGE, exchange, send};
use crate::form::{Form, basic};
use crate::material::{
    FieldError, Format, Material, MaterialField, MaterialSchema, bad_material, line,
};
use crate::outside::Setup;
use crate::redact::Redactor;
use crate::response::{Unusable, Wanted};
use crate::transport::{Answer, Outgoing};
use crate::{lifetime, response};

/// The strategy.
#[derive(Clone, Copy, Debug)]
pub struct GoogleExternalAccount;

const FILE: &str = "external_account_json";
const AUDIENCE: &str = "audience";
const TOKEN_TYPE: &str = "subject_token_type";
const TOKEN: &str = "subject_token";
const TOKEN_FILE: &str = "subject_token_file";
const EMAIL: &str = "service_account_email";
const LIFETIME: &str = "impersonation_lifetime_seconds";

/// What Google's STS gives, and all that it takes here.
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// The life of an impersonated token, in seconds, where nothing says otherwise.
const LIFE: u32 = 3_600;

const SCHEMA: MaterialSchema = MaterialSchema {
    strategy: Strategy::GoogleExternalAccount,
    parts: &[&[
        MaterialField::secret(
            FILE,
            Format::Json,
            "the whole configuration of the external account",
        )
        .or("audience")
        .checked(|text| Account::parse(text).map(drop)),
        MaterialField::public(
            AUDIENCE,
            Format::Line,
            "the workload identity provider: //iam.googleapis.com/projects/…/providers/…",
        )
        .or(FILE),
        MaterialField::public(
            TOKEN_FILE,
            Format::Path,
            "a file on the replicas with the token that is exchanged",
        )
        .or(TOKEN),
        MaterialField::secret(TOKEN, Format::Line, "the token that is exchanged").or(TOKEN_FILE),
        MaterialField::public(
            TOKEN_TYPE,
            Format::Line,
            "its type, a URI; urn:ietf:params:oauth:token-type:jwt if not given",
        )
        .checked(oauth2_token_exchange::uri),
        MaterialField::public(
            EMAIL,
            Format::Line,
            "the service account to act as, if one is to be",
        )
        .checked(email),
        MaterialField::public(
            LIFETIME,
            Format::Number,
            "the life of the service account's token, 600 to 43200; 3600 if not given",
        )
        .checked(|text| life(text).map(drop)),
    ]],
};

fn email(text: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '@' | '.' | '-' | '_' | ':');
    let problem = "is no email address of a service account";
    match text.contains('@') && text.chars().all(is_plain) {
        true => Ok(()),
        false => Err(problem.to_owned()),
    }
}

fn life(text: &str) -> Result<u32, String> {
    let seconds = text.parse().ok().filter(|s| (600..=43_200).contains(s));
    seconds.ok_or_else(|| "is not between 600 and 43200 seconds".to_owned())
}

/// An external account: what Google's file says, or the fields do.
#[derive(Default, Deserialize)]
struct Account {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    audience: String,
    #[serde(default = "jwt")]
    subject_token_type: String,
    token_url: Option<String>,
    #[serde(default)]
    credential_source: Source,
    service_account_impersonation_url: Option<String>,
    #[serde(default)]
    service_account_impersonation: Impersonation,
    workforce_pool_user_project: Option<String>,
    client_id: Option<String>,
    #[serde(default, deserialize_with = "google::wiped")]
    client_secret: Zeroizing<String>,
    universe_domain: Option<String>,
}

fn jwt() -> String {
    JWT.to_owned()
}

#[derive(Default, Deserialize)]
struct Impersonation {
    token_lifetime_seconds: Option<u32>,
}

/// Where the token is that is exchanged.
#[derive(Default, Deserialize)]
struct Source {
    file: Option<String>,
    #[serde(default)]
    format: TokenFormat,
    url: Option<Value>,
    executable: Option<Value>,
    environment_id: Option<Value>,
    certificate: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
enum TokenFormat {
    #[default]
    Text,
    Json {
        subject_token_field_name: String,
    },
}

impl Account {
    fn parse(text: &str) -> Result<Self, String> {
        let account: Self = google::file(text)?;
        google::check_kind(&account.kind, "external_account")?;
        if account
            .universe_domain
            .as_deref()
            .is_some_and(|u| u != "googleapis.com")
        {
            return Err("is of another universe than googleapis.com".to_owned());
        }
        line(&account.audience).map_err(|problem| format!("has an audience that {problem}"))?;
        let source = &account.credential_source;
        let refused = [
            (source.executable.is_some(), "executable", "a program"),
            (source.url.is_some(), "url", "a URL"),
            (source.environment_id.is_some(), "environment_id", "AWS"),
            (source.certificate.is_some(), "certificate", "a certificate"),
        ];
        match refused.iter().find(|(is, _, _)| *is) {
            Some((_, name, what)) => Err(format!(
                "takes its token from {what} (credential_source.{name}), which is refused; keep the token in a file"
            )),
            None => Ok(account),
        }
    }

    fn of(material: &Material<'_>) -> Result<Self, (&'static str, String)> {
        let mut account = match material.get(FILE) {
            Some(text) => Self::parse(text).map_err(|problem| (FILE, problem))?,
            None => Self {
                audience: material.get(AUDIENCE).unwrap_or("").to_owned(),
                subject_token_type: material.get(TOKEN_TYPE).unwrap_or(JWT).to_owned(),
                ..Self::default()
            },
        };
        if let Some(path) = material.get(TOKEN_FILE) {
            account.credential_source.file = Some(path.to_owned());
        }
        if let Some(email) = material.get(EMAIL) {
            account.service_account_impersonation_url = Some(format!(
                "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{email}:generateAccessToken"
            ));
        }
        if let Some(text) = material.get(LIFETIME) {
            let life = life(text).map_err(|problem| (LIFETIME, problem))?;
            account.service_account_impersonation.token_lifetime_seconds = Some(life);
        }
        Ok(account)
    }

    fn endpoint(&self, setup: &Setup<'_>) -> (&'static str, String) {
        google::endpoint(setup, FILE, self.token_url.clone(), google::STS_URLS)
    }

    /// Where the service account's token comes from, and the field that decides it.
    fn impersonation(&self) -> Option<(&'static str, String)> {
        let url = self.service_account_impersonation_url.clone()?;
        let is_googles = url
            .strip_prefix("https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/")
            .and_then(|rest| rest.strip_suffix(":generateAccessToken"))
            .is_some_and(|email| !email.contains('/'));
        // What is Google's by its form needs no list.
        Some((if is_googles { "token_url" } else { FILE }, url))
    }

    /// The token that is exchanged.
    async fn subject(
        &self,
        setup: &Setup<'_>,
        fence: &Arc<dyn Fence>,
    ) -> Result<(Secret, Proof), Failure> {
        if let Some(token) = setup.material.secret(TOKEN) {
            return Ok((token.clone(), Proof::Lasting));
        }
        let source = &self.credential_source;
        let path = source.file.as_deref();
        let path = path.ok_or_else(|| bad_material(TOKEN_FILE, "is missing"))?;
        let files = &setup.outside.token_files;
        let content = files.read(&**fence, TOKEN_FILE, path).await?;
        let token = match &source.format {
            TokenFormat::Text => content,
            TokenFormat::Json {
                subject_token_field_name: name,
            } => {
                let object: Option<Value> = serde_json::from_slice(content.expose()).ok();
                let token = object.as_ref().and_then(|o| o.get(name)?.as_str());
                let problem =
                    "is no JSON with the token in the field that subject_token_field_name names";
                Secret::from(token.ok_or_else(|| crate::token_file::unread(TOKEN_FILE, problem))?)
            }
        };
        Ok((token, Proof::Borrowed))
    }

    /// The exchange of the token at Google's STS.
    async fn federate(
        &self,
        setup: &Setup<'_>,
        fence: &Arc<dyn Fence>,
    ) -> Result<response::Tokens, Failure> {
        let (subject, proof) = self.subject(setup, fence).await?;
        let scope = match self.service_account_impersonation_url {
            Some(_) => google::CLOUD_PLATFORM.to_owned(),
            None => setup.config.scopes.join(" "),
        };
        let mut form = Form::new(TOKEN_EXCHANGE);
        form.add("audience", &self.audience);
        form.add("scope", scope);
        form.add("requested_token_type", ACCESS_TOKEN);
        form.add("subject_token", subject.expose());
        form.add("subject_token_type", &self.subject_token_type);
        let mut redactor = Redactor::new([&subject]);
        let client = self.client_id.as_deref().map(|id| {
            let secret = Secret::new(self.client_secret.as_bytes());
            redactor.add(secret.expose());
            basic(id, &secret)
        });
        if let (None, Some(project)) = (&client, &self.workforce_pool_user_project) {
            form.add("options", json!({"userProject": project}).to_string());
        }
        let request = Request {
            url: google::checked(setup, self.endpoint(setup))?,
            form,
            client: Client {
                authorization: client,
                ..Client::default()
            },
            other_client: None,
            redactor,
            wanted: Wanted::AccessToken,
            proof,
        };
        exchange(setup, fence, request).await
    }

    /// The token of the service account, for the federated one.
    async fn impersonate(
        &self,
        setup: &Setup<'_>,
        fence: &Arc<dyn Fence>,
        federated: &Secret,
        url: String,
    ) -> Result<Minted, Failure> {
        let life = self.service_account_impersonation.token_lifetime_seconds;
        let body = json!({
            "scope": setup.config.scopes,
            "lifetime": format!("{}s", life.unwrap_or(LIFE)),
        });
        let token = federated.expose_str().unwrap_or_default();
        let bearer = Zeroizing::new(format!("Bearer {token}"));
        let mut bearer = HeaderValue::from_str(&bearer)
            .expect("a token is plain ASCII, or it would not have been read");
        bearer.set_sensitive(true);
        let judge = Judge {
            strategy: setup.config.strategy,
            redactor: &Redactor::new([federated]),
            proof: Proof::Lasting,
        };
        let outgoing = Outgoing::json(url.as_str(), &body).header(AUTHORIZATION, bearer);
        let answer = send(setup, fence, &judge, &url, outgoing).await?;
        impersonated(&answer).map_err(|why| judge.answer(&answer, why))
    }
}

/// Reads the answer of `generateAccessToken`.
fn impersonated(answer: &Answer) -> Result<Minted, Unusable> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wire {
        #[serde(deserialize_with = "google::wiped")]
        access_token: Zeroizing<String>,
        #[serde(default)]
        expire_time: Value,
    }
    let wire: Wire = response::json(answer)?;
    let token = response::token(
        Some(Secret::new(wire.access_token.as_bytes())),
        "no accessToken",
    )?;
    Ok(Minted {
        token,
        lifetime: lifetime_of(
            &wire.expire_time,
            answer.date().unwrap_or(answer.received_at),
        ),
        extra_outputs: Default::default(),
        new_material: Default::default(),
        material_lifetimes: Default::default(),
        scopes: None,
    })
}

/// The time from `now` to an end as RFC 3339 writes it.
fn lifetime_of(end: &Value, now: SystemTime) -> Option<Duration> {
    let end: jiff::Timestamp = end.as_str()?.parse().ok()?;
    lifetime::until(&json!(end.as_second()), now)
}

#[async_trait]
impl CredentialRefresher for GoogleExternalAccount {
    fn schema(&self) -> &'static MaterialSchema {
        &SCHEMA
    }

    fn grant(&self) -> Grant {
        Grant {
            refused: FailureClass::GrantRefused,
            remedy: "check the workload identity pool: that its provider takes tokens of this issuer and audience, and that its attribute condition lets this subject in",
        }
    }

    fn endpoints(&self, setup: &Setup<'_>) -> Vec<(&'static str, String)> {
        let Ok(account) = Account::of(&setup.material) else {
            return Vec::new();
        };
        let mut endpoints = vec![account.endpoint(setup)];
        endpoints.extend(account.impersonation());
        endpoints
    }

    fn check(&self, setup: &Setup<'_>) -> Vec<FieldError> {
        let material = &setup.material;
        let mut errors = material.check_either(FILE, &[AUDIENCE], &[AUDIENCE, TOKEN_TYPE]);
        if let Ok(account) = Account::of(material) {
            let endpoints = [Some(account.endpoint(setup)), account.impersonation()];
            errors.extend(
                endpoints
                    .iter()
                    .flatten()
                    .filter_map(|e| google::check_endpoint(setup, e)),
            );
            let (given, file) = (material.has(TOKEN), &account.credential_source.file);
            match file {
                Some(_) if given => {
                    let problem = "goes with no file of a token: give one of them";
                    errors.push(FieldError::new(TOKEN, problem));
                }
                Some(path) => {
                    let field = match material.has(TOKEN_FILE) {
                        true => TOKEN_FILE,
                        false => FILE,
                    };
                    let problem = setup.outside.token_files.check(path).err();
                    errors.extend(problem.map(|problem| FieldError::new(field, problem)));
                }
                None if !given => {
                    let problem = "is missing; give it, or subject_token";
                    errors.push(FieldError::new(TOKEN_FILE, problem));
                }
                None => {}
            }
        }
        if setup.config.scopes.is_empty() {
            let problem = format!("are missing; {} includes all", google::CLOUD_PLATFORM);
            errors.push(FieldError::new("scopes", problem));
        }
        errors
    }

    fn is_revocable(&self) -> bool {
        false
    }

    async fn refresh(&self, setup: &Setup<'_>, fence: &Arc<dyn Fence>) -> Result<Minted, Failure> {
        let account = Account::of(&setup.material);
        let account = account.map_err(|(field, problem)| bad_material(field, &problem))?;
        let impersonation = account.impersonation();
        // Checked before anything is sent.
        let impersonation = impersonation
            .map(|endpoint| google::checked(setup, endpoint))
            .transpose()?;
        let federated = account.federate(setup, fence).await?;
        match impersonation {
            Some(url) => {
                account
                    .impersonate(setup, fence, &federated.token, url)
                    .await
            }
            None => Ok(federated.minted()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        Account::parse(text).err().unwrap()
    }

    #[test]
    fn a_source_that_would_be_called_or_run_is_refused() {
        for (source, why) in [
            (r#"{"executable":{"command":"/bin/sh"}}"#, "a program"),
            (r#"{"url":"http://169.254.169.254/"}"#, "a URL"),
            (r#"{"environment_id":"aws1"}"#, "AWS"),
            (r#"{"certificate":{}}"#, "a certificate"),
            (r#"{"file":"/a","executable":{}}"#, "a program"),
        ] {
            let text = format!(
                r#"{{"type":"external_account","audience":"//a","credential_source":{source}}}"#
            );
            let problem = problem(&text);
            assert!(
                problem.contains(why) && problem.contains("refused"),
                "{problem}"
            );
        }
    }

    #[test]
    fn a_file_of_another_kind_is_refused() {
        for (text, why) in [
            ("hunter2", "not of Google's form"),
            (r#"{"type":"authorized_user"}"#, "google-authorized-user"),
            (r#"{"type":"external_account"}"#, "audience that is empty"),
            (
                r#"{"type":"external_account","audience":"//a","universe_domain":"x.example"}"#,
                "universe",
            ),
        ] {
            let problem = problem(text);
            assert!(
                problem.contains(why) && !problem.contains("hunter2"),
                "{problem}"
            );
        }
    }

    #[test]
    fn an_end_is_read_as_rfc_3339_writes_it() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_793_613_600);
        for (end, life) in [
            (json!("2026-11-02T11:00:00Z"), Some(3_600)),
            (json!("2026-11-02T10:00:00Z"), None),
            (json!("2046-11-02T10:00:00Z"), None),
            (json!("tomorrow"), None),
            (json!(3_600), None),
            (Value::Null, None),
        ] {
            assert_eq!(
                lifetime_of(&end, now),
                life.map(Duration::from_secs),
                "{end}"
            );
        }
    }
}
