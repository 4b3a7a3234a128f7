//! `google-authorized-user`: a person's Google account, by the refresh token that
//! `gcloud auth application-default login` writes into its file. Google does not rotate it; a new
//! one that comes all the same is kept.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use evermint_core::mint::{Failure, FailureClass, Fence, Minted};
use evermint_core::secret::Secret;
use evermint_core::strategy::Strategy;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{CredentialRefresher, Grant, google};
use crate::exchange::{Client, Proof, Request, exchange};
use crate::form::Form;
use crate::material::{
    FieldError, Format, Material, MaterialField, MaterialSchema, bad_material, line,
};
use crate::outside::Setup;
use crate::redact::Redactor;
use crate::response::Wanted;
use crate::revocation::{self, Told};

/// The strategy.
#[derive(Clone, Copy, Debug)]
pub struct GoogleAuthorizedUser;

const FILE: &str = "authorized_user_json";
const ID: &str = "client_id";
const SECRET: &str = "client_secret";
const REFRESH_TOKEN: &str = "refresh_token";

const SCHEMA: MaterialSchema = MaterialSchema {
    strategy: Strategy::GoogleAuthorizedUser,
    parts: &[&[
        MaterialField::secret(
            FILE,
            Format::Json,
            "the whole file application_default_credentials.json",
        )
        .or("client_id, client_secret and refresh_token")
        .checked(|text| UserFile::parse(text).map(drop)),
        MaterialField::public(ID, Format::Line, "the client's id").or(FILE),
        MaterialField::secret(SECRET, Format::Line, "the client's secret").or(FILE),
        MaterialField::secret(REFRESH_TOKEN, Format::Line, "the refresh token").or(FILE),
    ]],
};

/// The part of gcloud's file that is used.
#[derive(Deserialize)]
struct UserFile {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    client_id: String,
    #[serde(default, deserialize_with = "google::wiped")]
    client_secret: Zeroizing<String>,
    #[serde(default, deserialize_with = "google::wiped")]
    refresh_token: Zeroizing<String>,
    token_uri: Option<String>,
}

impl UserFile {
    fn parse(text: &str) -> Result<Self, String> {
        let file: Self = google::file(text)?;
        google::check_kind(&file.kind, "authorized_user")?;
        for (name, value) in [
            (ID, &file.client_id),
            (SECRET, &*file.client_secret),
            (REFRESH_TOKEN, &*file.refresh_token),
        ] {
            line(value).map_err(|problem| format!("has a {name} that {problem}"))?;
        }
        Ok(file)
    }
}

/// Whose grant it is.
struct User<'a> {
    client_id: Cow<'a, str>,
    client_secret: Secret,
    refresh_token: Secret,
}

impl<'a> User<'a> {
    fn of(material: &Material<'a>) -> Result<Self, Failure> {
        if let Some(text) = material.get(FILE) {
            let file = UserFile::parse(text).map_err(|p| bad_material(FILE, &p))?;
            return Ok(Self {
                client_id: file.client_id.into(),
                client_secret: Secret::new(file.client_secret.as_bytes()),
                // One that came with an answer is newer than the file's.
                refresh_token: match material.secret(REFRESH_TOKEN) {
                    Some(newer) => newer.clone(),
                    None => Secret::new(file.refresh_token.as_bytes()),
                },
            });
        }
        let secret = |name| {
            let secret = material.secret(name).cloned();
            secret.ok_or_else(|| bad_material(name, "is missing"))
        };
        Ok(Self {
            client_id: material.require(ID)?.into(),
            client_secret: secret(SECRET)?,
            refresh_token: secret(REFRESH_TOKEN)?,
        })
    }
}

fn endpoint(setup: &Setup<'_>) -> (&'static str, String) {
    let file = || UserFile::parse(setup.material.get(FILE)?).ok()?.token_uri;
    google::endpoint(setup, FILE, file(), google::TOKEN_URLS)
}

#[async_trait]
impl CredentialRefresher for GoogleAuthorizedUser {
    fn schema(&self) -> &'static MaterialSchema {
        &SCHEMA
    }

    fn grant(&self) -> Grant {
        Grant {
            refused: FailureClass::GrantRefused,
            remedy: "log in again (gcloud auth application-default login) and configure the refresh with the new file; grants of apps in testing end after 7 days, others after 6 idle months, a password change, or beyond 100 per account",
        }
    }

    fn endpoints(&self, setup: &Setup<'_>) -> Vec<(&'static str, String)> {
        vec![endpoint(setup)]
    }

    fn check(&self, setup: &Setup<'_>) -> Vec<FieldError> {
        let fields = [ID, SECRET, REFRESH_TOKEN];
        let mut errors = setup.material.check_either(FILE, &fields, &fields);
        errors.extend(google::check_endpoint(setup, &endpoint(setup)));
        errors
    }

    fn grant_tokens(&self, setup: &Setup<'_>) -> Result<Vec<Secret>, Failure> {
        Ok(vec![User::of(&setup.material)?.refresh_token])
    }

    /// Google asks for no proof of the client: whoever has a token may end it.
    async fn revoke(
        &self,
        setup: &Setup<'_>,
        fence: &Arc<dyn Fence>,
        token: &Secret,
        hint: &str,
    ) -> Result<Told, Failure> {
        let request = Request {
            url: String::new(),
            form: Form::default(),
            client: Client::default(),
            other_client: None,
            redactor: Redactor::new(setup.material.secrets()),
            wanted: Wanted::AccessToken,
            proof: Proof::Lasting,
        };
        revocation::request(setup, fence, request, token, hint).await
    }

    async fn refresh(&self, setup: &Setup<'_>, fence: &Arc<dyn Fence>) -> Result<Minted, Failure> {
        let user = User::of(&setup.material)?;
        let mut form = Form::new("refresh_token");
        form.add(ID, user.client_id.as_bytes());
        form.add(SECRET, user.client_secret.expose());
        form.add(REFRESH_TOKEN, user.refresh_token.expose());
        if !setup.config.scopes.is_empty() {
            form.add("scope", setup.config.scopes.join(" "));
        }
        let request = Request {
            url: google::checked(setup, endpoint(setup))?,
            form,
            client: Client::default(),
            other_client: None,
            redactor: Redactor::new([&user.client_secret, &user.refresh_token]),
            wanted: Wanted::AccessToken,
            proof: Proof::Lasting,
        };
        let tokens = exchange(setup, fence, request).await?;
        Ok(tokens.renewing(REFRESH_TOKEN, &user.refresh_token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_gclouds_is_refused_without_showing_it() {
        for (text, why) in [
            ("hunter2", "not of Google's form"),
            (
                r#"{"type":"service_account","private_key":"hunter2"}"#,
                "google-service-account-jwt",
            ),
            (r#"{"type":"authorized_user"}"#, "client_id that is empty"),
            (
                r#"{"type":"authorized_user","client_id":"a","client_secret":"hunter2"}"#,
                "refresh_token that is empty",
            ),
        ] {
            let problem = UserFile::parse(text).err().unwrap();
            assert!(
                problem.contains(why) && !problem.contains("hunter2"),
                "{problem}"
            );
        }
    }
}
