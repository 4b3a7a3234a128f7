//! What a profile means for an inference route: where calls go, what they look like, and how the
//! credential travels.

use std::collections::BTreeMap;

use super::template::{self, TemplateError};
use super::{Api, Auth, Format, Profile};
use crate::id::CredentialKey;

/// A route's upstream, with everything filled in but the credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Where calls go, without a slash at the end.
    pub base_url: String,
    /// What is spoken there.
    pub protocols: Vec<String>,
    /// How the credential travels.
    pub auth: Auth,
    /// Headers that every request gets.
    pub headers: BTreeMap<String, String>,
    /// Headers of the caller that are passed on.
    pub passthrough_headers: Vec<String>,
    /// The model that calls are sent to: the route's, or the API's default.
    pub model: String,
    /// Whether the model stands in the path.
    pub model_in_path: bool,
    /// What comes after the base URL, and after the model if that stands in the path.
    pub request_path: Option<String>,
}

/// Why a route leads nowhere; text for an operator, without a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoUpstream {
    /// The profile has no inference API, or says of none where it is.
    #[error("the profile does not say where an inference API is")]
    NotCapable,
    /// None of its APIs is for this model under these settings.
    #[error("no API of the profile is for this model under these settings")]
    NoApi,
    /// The base URL is neither in the profile nor in the provider's settings.
    #[error("the base URL is not given; set one of {0} in the provider's config")]
    NoBaseUrl(String),
    /// The base URL in the provider's settings is none.
    #[error("{0} in the provider's config must be an https URL")]
    BadBaseUrl(String),
    /// The base URL's placeholders cannot be filled.
    #[error("the base URL {0}")]
    Template(#[from] TemplateError),
}

impl Profile {
    /// The upstream of a route to `model`, with a provider's settings and the credential `key`.
    ///
    /// # Errors
    /// [`NoUpstream`].
    pub fn upstream(
        &self,
        config: &BTreeMap<String, String>,
        model: &str,
        key: Option<&CredentialKey>,
    ) -> Result<Upstream, NoUpstream> {
        if self.inference.is_empty() {
            return Err(NoUpstream::NotCapable);
        }
        let api = self
            .inference
            .iter()
            .find(|api| self.is_for(api, config, model))
            .ok_or(NoUpstream::NoApi)?;
        // Operators may serve a credential under a name of their own.
        let credential = key
            .and_then(|key| self.credential_for(key))
            .or_else(|| self.credentials.first());
        let auth = match &api.auth {
            Auth::Unspecified => credential.map(|c| c.auth.clone()).unwrap_or_default(),
            said => said.clone(),
        };
        Ok(Upstream {
            base_url: self.base_url(api, config)?,
            protocols: api.protocols.clone(),
            auth,
            headers: api.headers.clone(),
            passthrough_headers: api.passthrough_headers.clone(),
            model: match model {
                "" => api.default_model.clone(),
                model => model.to_owned(),
            },
            model_in_path: api.model_in_path,
            request_path: api.request_path.clone(),
        })
    }

    fn is_for(&self, api: &Api, config: &BTreeMap<String, String>, model: &str) -> bool {
        let model_fits = api.models.is_empty() || api.models.iter().any(|p| matches(p, model));
        model_fits
            && api.when.iter().all(|(name, values)| {
                let given = self
                    .config_value(config, name)
                    .map_or("", |(value, _)| value);
                values.iter().any(|value| value == given)
            })
    }

    fn base_url(&self, api: &Api, config: &BTreeMap<String, String>) -> Result<String, NoUpstream> {
        for name in &api.base_url_from {
            let given = match self.config_value(config, name) {
                Some((value, _)) => value,
                None => config.get(name).map_or("", String::as_str),
            };
            if !given.trim().is_empty() {
                Format::Url
                    .check(given)
                    .map_err(|_| NoUpstream::BadBaseUrl(name.clone()))?;
                return Ok(given.trim_end_matches('/').to_owned());
            }
        }
        if api.base_url.is_empty() {
            return Err(match api.base_url_from.as_slice() {
                // OpenShell's profiles say that there is one, and no more.
                [] => NoUpstream::NotCapable,
                names => NoUpstream::NoBaseUrl(names.join(", ")),
            });
        }
        let url = template::fill(&api.base_url, |name| self.config_value(config, name))?;
        Ok(url.trim_end_matches('/').to_owned())
    }
}

/// Whether a model is meant by a pattern: `*` at either end stands for anything.
fn matches(pattern: &str, model: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(""), _) => true,
        (Some(rest), Some(_)) => model.contains(rest.trim_end_matches('*')),
        (Some(end), None) => model.ends_with(end),
        (None, Some(start)) => model.starts_with(start),
        (None, None) => model == pattern,
    }
}
