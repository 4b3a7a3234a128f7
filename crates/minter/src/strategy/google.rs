//! What Google's credential files have in common.

use evermint_core::mint::Failure;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use crate::material::{FieldError, bad_material};
use crate::outside::Setup;

/// Google's token endpoint, and other names of it that files hold.
pub(crate) const TOKEN_URLS: &[&str] = &[
    "https://oauth2.googleapis.com/token",
    "https://accounts.google.com/o/oauth2/token",
    "https://www.googleapis.com/oauth2/v4/token",
];

/// Google's endpoint for the exchange of tokens.
pub(crate) const STS_URLS: &[&str] = &["https://sts.googleapis.com/v1/token"];

/// The scope that includes every other one of Google Cloud.
pub(crate) const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";

/// A text that is overwritten when it is dropped.
pub(crate) fn wiped<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(deserializer).map(Zeroizing::new)
}

/// Reads a credential file. The parser's own text could quote it.
///
/// # Errors
/// What is wrong, to follow its name.
pub(crate) fn file<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| {
        format!(
            "is not of Google's form (line {}, column {})",
            error.line(),
            error.column()
        )
    })
}

/// Refuses a file of another kind, and names the strategy that takes it.
///
/// # Errors
/// What it is not, to follow its name.
pub(crate) fn check_kind(kind: &str, expected: &str) -> Result<(), String> {
    if kind == expected {
        return Ok(());
    }
    let hint = match kind {
        "service_account" => "; it is for google-service-account-jwt",
        "authorized_user" => "; it is for google-authorized-user",
        "external_account" => "; it is for google-external-account",
        _ => "",
    };
    Err(format!("is not of the type {expected}{hint}"))
}

/// The token endpoint, and the field that decides it: the configured one, else what an uploaded
/// file names, else the first of `own`, Google's names for it.
pub(crate) fn endpoint(
    setup: &Setup<'_>,
    field: &'static str,
    uploaded: Option<String>,
    own: &[&str],
) -> (&'static str, String) {
    if !setup.config.token_url.is_empty() {
        return ("token_url", setup.config.token_url.clone());
    }
    match uploaded {
        Some(url) if !own.contains(&url.as_str()) => (field, url),
        _ => ("token_url", own[0].to_owned()),
    }
}

/// Refuses an endpoint that an uploaded file names, unless the configuration names it too.
pub(crate) fn check_endpoint(
    setup: &Setup<'_>,
    (field, url): &(&'static str, String),
) -> Option<FieldError> {
    let is_uploaded = *field != "token_url" && !setup.outside.transport.is_listed(url);
    let problem = "names a token endpoint that is not Google's; give token_url, or list it in issuers.allow_endpoints";
    is_uploaded.then(|| FieldError::new(*field, problem))
}

/// The endpoint, when a mint is about to use it.
///
/// # Errors
/// [`FailureClass::ConfigRefused`](evermint_core::mint::FailureClass::ConfigRefused) if it is not
/// allowed (any more).
pub(crate) fn checked(
    setup: &Setup<'_>,
    endpoint: (&'static str, String),
) -> Result<String, Failure> {
    match check_endpoint(setup, &endpoint) {
        Some(error) => Err(bad_material(&error.field, &error.problem)),
        None => Ok(endpoint.1),
    }
}
