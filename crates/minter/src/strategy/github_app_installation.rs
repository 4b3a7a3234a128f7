//! `github-app-installation`: a token for what an installation of a GitHub App may do, for an hour,
//! [as GitHub describes it](https://docs.github.com/apps/creating-github-apps/authenticating-with-a-github-app/generating-an-installation-access-token-for-a-github-app).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use evermint_core::mint::{Failure, FailureClass, Fence, Minted};
use evermint_core::secret::Secret;
use evermint_core::strategy::Strategy;
use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::{CredentialRefresher, Grant};
use crate::assertion::{Claims, Signer};
use crate::classify::Judge;
use crate::exchange::{Proof, send};
use crate::lifetime;
use crate::material::{
    FieldError, Format, MaterialField, MaterialSchema, bad_material, list, object,
};
use crate::outside::Setup;
use crate::redact::Redactor;
use crate::response::{self, Unusable};
use crate::revocation::Told;
use crate::transport::{Answer, Outgoing};

/// The strategy.
#[derive(Clone, Copy, Debug)]
pub struct GitHubAppInstallation;

/// The API of github.com.
const PUBLIC_API: &str = "https://api.github.com";

/// GitHub allows ten minutes by its own clock, counted from a minute back here.
const JWT_LIFE: Duration = Duration::from_secs(9 * 60);
const BACKDATE: Duration = Duration::from_secs(60);

/// Most repositories that a token is cut down to.
const REPOSITORIES_MAX: usize = 500;

const APP_ID: &str = "app_id";
const PRIVATE_KEY: &str = "private_key";
const INSTALLATION: &str = "installation_id";
const REPOSITORIES: &str = "repositories";
const REPOSITORY_IDS: &str = "repository_ids";
const PERMISSIONS: &str = "permissions";

const SCHEMA: MaterialSchema = MaterialSchema {
    strategy: Strategy::GitHubAppInstallation,
    parts: &[&[
        MaterialField::public(
            APP_ID,
            Format::Line,
            "the app's client id (preferred) or app id",
        )
        .required(),
        MaterialField::secret(
            PRIVATE_KEY,
            Format::Pem,
            "the app's private key: RSA, in PEM",
        )
        .required()
        .checked(|pem| Signer::rsa(pem).map(drop)),
        MaterialField::public(INSTALLATION, Format::Line, "the number of the installation")
            .required()
            .checked(|id| number(id).map(drop)),
        MaterialField::public(
            REPOSITORIES,
            Format::Line,
            "cuts the token down to these repositories: names without owner, parted by commas",
        )
        .checked(|names| {
            let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            match list(names).iter().find(|name| !name.chars().all(fits)) {
                Some(name) => Err(format!("has {name:?}: write names without their owner")),
                None => at_most(list(names).len()),
            }
        }),
        MaterialField::public(
            REPOSITORY_IDS,
            Format::Line,
            "cuts the token down to these repositories: their numbers, parted by commas",
        )
        .checked(|ids| {
            list(ids)
                .into_iter()
                .try_for_each(|id| number(id).map(drop))?;
            at_most(list(ids).len())
        }),
        MaterialField::public(
            PERMISSIONS,
            Format::Json,
            r#"cuts the token down to these permissions: {"contents":"read"}"#,
        )
        .checked(|text| permissions(text).map(drop)),
    ]],
};

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "is no number".to_owned())
}

fn at_most(count: usize) -> Result<(), String> {
    match count {
        0 => Err("names no repository".to_owned()),
        n if n > REPOSITORIES_MAX => Err(format!("has more than {REPOSITORIES_MAX}")),
        _ => Ok(()),
    }
}

fn permissions(text: &str) -> Result<Map<String, Value>, String> {
    let permissions = object(text)?;
    let known = |level: &Value| matches!(level.as_str(), Some("read" | "write" | "admin"));
    match permissions.iter().find(|(_, level)| !known(level)) {
        Some((name, _)) => Err(format!(
            "has {name:?} with a level that is not read, write or admin"
        )),
        None => Ok(permissions),
    }
}

/// The API: github.com's, or that of an Enterprise Server (`https://HOST/api/v3`).
fn api(setup: &Setup<'_>) -> String {
    let base = match setup.config.token_url.as_str() {
        "" => PUBLIC_API,
        url => url,
    };
    base.trim_end_matches('/').to_owned()
}

fn url(setup: &Setup<'_>) -> String {
    let installation = setup.material.get(INSTALLATION).unwrap_or("");
    format!(
        "{}/app/installations/{installation}/access_tokens",
        api(setup)
    )
}

/// What the token is cut down to.
fn body(setup: &Setup<'_>) -> Result<Value, Failure> {
    let material = &setup.material;
    let mut body = Map::new();
    if let Some(names) = material.get(REPOSITORIES) {
        body.insert(REPOSITORIES.to_owned(), json!(list(names)));
    }
    if let Some(ids) = material.get(REPOSITORY_IDS) {
        let ids: Result<Vec<u64>, _> = list(ids).into_iter().map(number).collect();
        let ids = ids.map_err(|problem| bad_material(REPOSITORY_IDS, &problem))?;
        body.insert(REPOSITORY_IDS.to_owned(), json!(ids));
    }
    if let Some(text) = material.get(PERMISSIONS) {
        let asked = permissions(text).map_err(|problem| bad_material(PERMISSIONS, &problem))?;
        body.insert(PERMISSIONS.to_owned(), Value::Object(asked));
    }
    Ok(Value::Object(body))
}

const JSON: HeaderValue = HeaderValue::from_static("application/vnd.github+json");
const API_VERSION: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-github-api-version"),
    HeaderValue::from_static("2022-11-28"),
);

/// The app's word for itself, dated by GitHub's clock as far as that is known.
fn jwt(setup: &Setup<'_>, url: &str) -> Result<Zeroizing<String>, Failure> {
    let key = setup.material.require(PRIVATE_KEY)?;
    let signer = Signer::rsa(key).map_err(|problem| bad_material(PRIVATE_KEY, &problem))?;
    let now = setup.outside.skews.now(url);
    let claims = Claims {
        iss: setup.material.require(APP_ID)?,
        ..Claims::dated(now.checked_sub(BACKDATE).unwrap_or(now), JWT_LIFE)
    };
    signer.sign(&claims, PRIVATE_KEY)
}

/// The header that shows a token; if it cannot be one, `material` is to blame.
fn bearer(token: &[u8], material: &str) -> Result<HeaderValue, Failure> {
    let bearer = Zeroizing::new([b"Bearer ", token].concat());
    let mut bearer = HeaderValue::from_bytes(&bearer)
        .map_err(|_| bad_material(material, "does not go into a header"))?;
    bearer.set_sensitive(true);
    Ok(bearer)
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    token: String,
    #[serde(default)]
    expires_at: Value,
    #[serde(default)]
    permissions: BTreeMap<String, Value>,
}

fn read(answer: &Answer) -> Result<Minted, Unusable> {
    let wire: Wire = response::json(answer)?;
    let token = response::token(Some(Secret::from(wire.token)), "no token")?;
    let granted = wire.permissions.iter();
    let granted = granted.filter_map(|(name, level)| Some(format!("{name}:{}", level.as_str()?)));
    let scopes: Vec<String> = granted.collect();
    Ok(Minted {
        token,
        extra_outputs: BTreeMap::new(),
        lifetime: lifetime::until_timestamp(wire.expires_at.as_str().unwrap_or(""), answer),
        new_material: BTreeMap::new(),
        material_lifetimes: BTreeMap::new(),
        scopes: (!scopes.is_empty()).then_some(scopes),
    })
}

#[async_trait]
impl CredentialRefresher for GitHubAppInstallation {
    fn schema(&self) -> &'static MaterialSchema {
        &SCHEMA
    }

    fn grant(&self) -> Grant {
        Grant {
            refused: FailureClass::GrantRefused,
            remedy: "install the app and configure the refresh with the installation's number",
        }
    }

    fn endpoints(&self, setup: &Setup<'_>) -> Vec<(&'static str, String)> {
        vec![("token_url", url(setup))]
    }

    fn check(&self, setup: &Setup<'_>) -> Vec<FieldError> {
        let problem = "are not for GitHub Apps; cut the token down with permissions";
        let error = (!setup.config.scopes.is_empty()).then(|| FieldError::new("scopes", problem));
        error.into_iter().collect()
    }

    /// GitHub ends a token at the wish of whoever shows it.
    async fn revoke(
        &self,
        setup: &Setup<'_>,
        fence: &Arc<dyn Fence>,
        token: &Secret,
        _hint: &str,
    ) -> Result<Told, Failure> {
        let url = setup.config.revoke_url.as_str();
        let mut redactor = Redactor::new(setup.material.secrets());
        redactor.add(token.expose());
        let outgoing = Outgoing::bare(Method::DELETE, url)
            .header(ACCEPT, JSON)
            .header(API_VERSION.0, API_VERSION.1)
            .header(AUTHORIZATION, bearer(token.expose(), "token")?);
        let judge = Judge {
            strategy: Strategy::GitHubAppInstallation,
            redactor: &redactor,
            proof: Proof::Lasting,
        };
        let answer = send(setup, fence, &judge, url, outgoing).await?;
        match answer.status {
            // A token that is bad already is one that is worth nothing.
            status if status.is_success() || status == StatusCode::UNAUTHORIZED => {
                Ok(Told::Revoked)
            }
            _ => Err(judge.answer(&answer, Unusable::Refusal)),
        }
    }

    async fn refresh(&self, setup: &Setup<'_>, fence: &Arc<dyn Fence>) -> Result<Minted, Failure> {
        let url = url(setup);
        let jwt = jwt(setup, &url)?;
        let mut redactor = Redactor::new(setup.material.secrets());
        redactor.add(jwt.as_bytes());
        let outgoing = Outgoing::json(url.as_str(), &body(setup)?)
            .header(ACCEPT, JSON)
            .header(API_VERSION.0, API_VERSION.1)
            .header(AUTHORIZATION, bearer(jwt.as_bytes(), APP_ID)?);
        let judge = Judge {
            strategy: Strategy::GitHubAppInstallation,
            redactor: &redactor,
            proof: Proof::Dated,
        };
        let answer = send(setup, fence, &judge, &url, outgoing).await?;
        read(&answer).map_err(|why| judge.answer(&answer, why))
    }
}
