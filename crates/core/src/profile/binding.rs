//! What a profile means for the environment of a sandbox: where each credential may be used, and
//! which settings stand beside it.

use std::collections::BTreeMap;

use super::{Format, Profile, template};
use crate::id::CredentialKey;

/// Where a credential may be used: a host or pattern, one port, and a pattern for the path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Binding {
    /// A host in lower case, or a pattern: `*` within a label, `**` for one or more labels.
    pub host: String,
    /// The port.
    pub port: u16,
    /// A pattern for the path; empty for any.
    pub path: String,
    /// Whether placeholders are replaced in request bodies.
    pub body_rewrite: bool,
}

impl Binding {
    /// Everything at and below a URL, which has to be one that secrets may be sent to.
    pub fn of_url(url: &str) -> Option<Self> {
        Format::Url.check(url).ok()?;
        let (scheme, rest) = url.split_once("://")?;
        let rest = rest.split(['?', '#']).next()?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
            _ if scheme == "http" => (authority, 80),
            _ => (authority, 443),
        };
        let path = path.trim_end_matches('/');
        Some(Self {
            host: host
                .trim_matches(['[', ']'])
                .trim_end_matches('.')
                .to_ascii_lowercase(),
            port,
            path: match path {
                "" => String::new(),
                path => format!("{path}/**"),
            },
            body_rewrite: false,
        })
    }
}

impl Profile {
    /// What stands for a placeholder, among a provider's settings.
    pub fn config_value<'a>(
        &'a self,
        config: &'a BTreeMap<String, String>,
        name: &str,
    ) -> Option<(&'a str, &'a Format)> {
        let key = self.config.iter().find(|key| key.name == name)?;
        Some((key.value(config)?, &key.format))
    }

    /// Where the credentials of a provider with these settings may be used, in order, each once.
    /// An endpoint whose placeholders are not given, or not fit for a host, is left out: a
    /// credential is then good for fewer places, never for more.
    pub fn bindings(&self, config: &BTreeMap<String, String>) -> Vec<Binding> {
        let mut bindings: Vec<Binding> = self
            .endpoints
            .iter()
            .filter_map(|endpoint| {
                let host = template::fill(&endpoint.host, |name| self.config_value(config, name));
                Some((endpoint, host.ok()?.to_ascii_lowercase()))
            })
            .flat_map(|(endpoint, host)| {
                endpoint.ports.iter().map(move |port| Binding {
                    host: host.trim_end_matches('.').to_owned(),
                    port: *port,
                    path: endpoint.path.clone(),
                    body_rewrite: endpoint.body_rewrite,
                })
            })
            .collect();
        bindings.sort();
        bindings.dedup();
        bindings
    }

    /// The settings that sandboxes get in the clear, by the name of the environment variable.
    pub fn environment(
        &self,
        config: &BTreeMap<String, String>,
    ) -> BTreeMap<CredentialKey, String> {
        self.config
            .iter()
            .filter_map(|key| Some((key, key.value(config)?)))
            .flat_map(|(key, value)| {
                key.env_vars
                    .iter()
                    .map(move |name| (name.clone(), value.to_owned()))
            })
            .collect()
    }
}
