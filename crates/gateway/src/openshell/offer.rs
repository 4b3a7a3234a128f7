//! What OpenShell's sandboxes see of a bundle: an environment and the routes, each with a revision.
//!
//! Their client throws away a whole environment for one part that it does not like, and with it
//! every static credential. So what it would not take is left out here, and the rest is given.
//!
//! A revision is a hash over what is given, with every value replaced by the place in the history
//! that it came from. It changes if and only if a sandbox would see something else: not with a
//! mint that failed, nor with one of a credential that it is not given.

use std::collections::BTreeMap;

use evermint_core::bundle::Inputs;
use evermint_core::profile::catalog::Catalog;
use evermint_proto::openshell::inference::v1 as routes;
use evermint_proto::openshell::v1::{
    GetSandboxProviderEnvironmentResponse as Environment, ProviderProfileCredential,
    StaticCredentialBinding, StaticCredentialEndpointBinding,
};
use evermint_proto::v1::{Bundle, BundleCredential, EndpointBinding, SecretVariable};
use prost::Message as _;
use xxhash_rust::xxh3::xxh3_64;

use super::profile_text;

/// The routes that these sandboxes know, in the order in which they are given.
const ROUTES: [&str; 2] = ["inference.local", "sandbox-system"];

/// What a bundle lacks for these sandboxes, and the revisions of what they see.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    /// Credentials that sandboxes obtain by themselves, by where they use them.
    dynamic: BTreeMap<String, ProviderProfileCredential>,
    /// The types of the routes' providers, by route, with aliases resolved.
    kinds: BTreeMap<String, String>,
    environment_revision: u64,
    routes_revision: u64,
}

impl Offer {
    /// The offer of a bundle whose values are `public`: names for values, and no secret.
    pub(crate) fn new(inputs: &Inputs, catalog: &Catalog, public: Bundle) -> Self {
        let mut offer = Self {
            dynamic: dynamic(inputs, catalog),
            kinds: kinds(inputs, catalog),
            environment_revision: 0,
            routes_revision: 0,
        };
        let seen = routes::GetInferenceBundleResponse {
            routes: offer.routes(&public),
            ..Default::default()
        };
        offer.routes_revision = xxh3_64(&seen.encode_to_vec());
        // 0 means "none" to these sandboxes.
        let seen = offer.environment(public).encode_to_vec();
        offer.environment_revision = xxh3_64(&seen).max(1);
        offer
    }

    /// The revision of the environment.
    pub(super) fn environment_revision(&self) -> u64 {
        self.environment_revision
    }

    /// The revision of the routes.
    pub(super) fn routes_revision(&self) -> String {
        format!("{:016x}", self.routes_revision)
    }

    /// The environment.
    pub(super) fn environment(&self, bundle: Bundle) -> Environment {
        let mut environment = Environment {
            provider_env_revision: self.environment_revision,
            dynamic_credentials: self.dynamic.clone(),
            ..Environment::default()
        };
        for credential in bundle.credentials {
            add(&mut environment, credential);
        }
        for plain in bundle.plain {
            if !environment.environment.contains_key(&plain.key) {
                let keys = &mut environment.non_secret_environment_keys;
                keys.push(plain.key.clone());
                environment.environment.insert(plain.key, plain.value);
            }
        }
        environment
    }

    /// The routes that can be used.
    pub(super) fn routes(&self, bundle: &Bundle) -> Vec<routes::ResolvedRoute> {
        let known = ROUTES
            .iter()
            .filter_map(|name| bundle.routes.iter().find(|route| route.name == *name));
        known
            .filter_map(|route| {
                let values = &route.token.as_ref()?.values;
                let api_key = values.get(&route.credential_key)?;
                if api_key.trim().is_empty() || route.base_url.is_empty() {
                    return None;
                }
                Some(routes::ResolvedRoute {
                    name: route.name.clone(),
                    base_url: route.base_url.clone(),
                    protocols: route.protocols.clone(),
                    api_key: api_key.clone(),
                    model_id: route.model.clone(),
                    provider_type: match self.kinds.get(&route.name) {
                        Some(kind) => kind.clone(),
                        None => route.provider_type.clone(),
                    },
                    timeout_secs: route.timeout_secs,
                    model_in_path: route.model_in_path,
                    request_path_override: route.request_path_override.clone(),
                })
            })
            .collect()
    }
}

/// Adds what a credential gives, if it gives anything now and may be used somewhere.
fn add(environment: &mut Environment, credential: BundleCredential) {
    let endpoints: Vec<_> = credential
        .endpoints
        .into_iter()
        .filter_map(endpoint)
        .collect();
    let Some(token) = credential.token.filter(|_| !endpoints.is_empty()) else {
        return;
    };
    let end = token.expires_at_ms.and_then(|end| i64::try_from(end).ok());
    for SecretVariable {
        key,
        identity,
        handle,
    } in credential.variables
    {
        let Some(value) = token.values.get(&key) else {
            continue;
        };
        if let Some(end) = end {
            environment
                .credential_expires_at_ms
                .insert(key.clone(), end);
        }
        let binding = StaticCredentialBinding {
            endpoints: endpoints.clone(),
            credential_identity: identity,
            workload_credential_handle: handle,
        };
        environment
            .static_credential_bindings
            .insert(key.clone(), binding);
        environment.environment.insert(key, value.clone());
    }
}

/// Where a credential may be used, if these sandboxes can make something of it.
fn endpoint(binding: EndpointBinding) -> Option<StaticCredentialEndpointBinding> {
    let is_label = |label: &str| {
        let may_be = |c: char| c.is_ascii_alphanumeric() || "-_*?[]!".contains(c);
        !label.is_empty() && label.chars().all(may_be)
    };
    let is_host = binding.host.split('.').all(is_label);
    let is_port = (1..=u32::from(u16::MAX)).contains(&binding.port);
    (is_host && is_port).then_some(StaticCredentialEndpointBinding {
        host: binding.host,
        port: binding.port,
        path: binding.path,
    })
}

/// What sandboxes obtain by themselves, with their own identity: a grant for each endpoint of its
/// profile.
fn dynamic(inputs: &Inputs, catalog: &Catalog) -> BTreeMap<String, ProviderProfileCredential> {
    let mut dynamic = BTreeMap::new();
    for attached in &inputs.attached {
        let provider = &attached.provider;
        let Some(profile) = catalog.profile_for(&provider.kind, attached.profile.as_deref()) else {
            continue;
        };
        let granted = |c: &&evermint_core::profile::ProfileCredential| c.token_grant.is_some();
        for credential in profile.credentials.iter().filter(granted) {
            for place in profile.bindings(&provider.config) {
                let (host, port, path) = (&place.host, place.port, &place.path);
                let (provider, name) = (&provider.name, &credential.name);
                dynamic.insert(
                    format!("{host}\t{port}\t{path}\t{provider}:{name}"),
                    profile_text::credential(credential),
                );
            }
        }
    }
    dynamic
}

/// The types of the routes' providers as their profiles name them: clients choose the header of a
/// call by it.
fn kinds(inputs: &Inputs, catalog: &Catalog) -> BTreeMap<String, String> {
    let kinds = inputs.routes.iter().filter_map(|input| {
        let profile = catalog.profile_for(&input.provider.kind, input.profile.as_deref())?;
        Some((input.route.name.to_string(), profile.id.to_string()))
    });
    kinds.collect()
}

#[cfg(test)]
mod tests {
    use evermint_proto::v1::{PlainVariable, ResolvedRoute, Token};

    use super::*;

    fn token(values: &[(&str, &str)], end: Option<u64>) -> Option<Token> {
        let values = values.iter();
        Some(Token {
            values: values
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            expires_at_ms: end,
            generation: 1,
        })
    }

    fn at(host: &str, port: u32) -> EndpointBinding {
        EndpointBinding {
            host: host.to_owned(),
            port,
            ..EndpointBinding::default()
        }
    }

    fn credential(key: &str, endpoints: Vec<EndpointBinding>) -> BundleCredential {
        BundleCredential {
            key: key.to_owned(),
            token: token(&[(key, "value")], Some(77)),
            variables: vec![SecretVariable {
                key: key.to_owned(),
                identity: format!("id:{key}"),
                handle: String::new(),
            }],
            endpoints,
            ..BundleCredential::default()
        }
    }

    fn offer() -> Offer {
        Offer {
            dynamic: BTreeMap::new(),
            kinds: BTreeMap::from([("sandbox-system".to_owned(), "openai".to_owned())]),
            environment_revision: 5,
            routes_revision: 0xab,
        }
    }

    #[test]
    fn a_credential_that_these_sandboxes_would_not_take_is_left_out_alone() {
        let mut unavailable = credential("UNAVAILABLE", vec![at("a.example", 443)]);
        unavailable.token = None;
        let bundle = Bundle {
            credentials: vec![
                credential("GOOD", vec![at("a.example", 443), at("{host}", 443)]),
                credential("NOWHERE", vec![]),
                credential("BRACES", vec![at("{API_HOST}", 443)]),
                credential("SPACE", vec![at("a b.example", 443)]),
                credential("EMPTY_LABEL", vec![at("a..example", 443)]),
                credential("NO_PORT", vec![at("a.example", 0)]),
                credential("BIG_PORT", vec![at("a.example", 65_536)]),
                credential("PATTERN", vec![at("**.a*.example", 1)]),
                unavailable,
            ],
            plain: vec![
                PlainVariable {
                    key: "REGION".to_owned(),
                    value: "eu".to_owned(),
                    ..PlainVariable::default()
                },
                PlainVariable {
                    key: "GOOD".to_owned(),
                    value: "shadow".to_owned(),
                    ..PlainVariable::default()
                },
            ],
            ..Bundle::default()
        };
        let given = offer().environment(bundle);
        let keys: Vec<_> = given.environment.keys().map(String::as_str).collect();
        assert_eq!(keys, ["GOOD", "PATTERN", "REGION"]);
        assert_eq!(given.environment["GOOD"], "value");
        let bound: Vec<_> = given.static_credential_bindings.keys().collect();
        assert_eq!(bound, ["GOOD", "PATTERN"]);
        assert_eq!(given.static_credential_bindings["GOOD"].endpoints.len(), 1);
        assert_eq!(given.non_secret_environment_keys, ["REGION"]);
        assert_eq!(given.credential_expires_at_ms["GOOD"], 77);
        assert_eq!(given.provider_env_revision, 5);
    }

    #[test]
    fn routes_come_in_their_order_and_one_that_is_broken_is_left_out() {
        let route = |name: &str, key: &str, base_url: &str| ResolvedRoute {
            name: name.to_owned(),
            provider_type: "open-ai".to_owned(),
            credential_key: "KEY".to_owned(),
            token: token(&[("KEY", key), ("OTHER", "x")], None),
            base_url: base_url.to_owned(),
            ..ResolvedRoute::default()
        };
        let given = |routes: Vec<ResolvedRoute>| {
            let bundle = Bundle {
                routes,
                ..Bundle::default()
            };
            let given = offer().routes(&bundle).into_iter();
            given
                .map(|route| (route.name, route.api_key, route.provider_type))
                .collect::<Vec<_>>()
        };
        let text =
            |name: &str, key: &str, kind: &str| (name.to_owned(), key.to_owned(), kind.to_owned());
        let url = "https://a.example";
        let mut keyless = route("inference.local", "k", url);
        keyless.token = None;
        for (what, routes, expected) in [
            (
                "both, and one of another name",
                vec![
                    route("sandbox-system", "s", url),
                    route("mine", "m", url),
                    route("inference.local", "l", url),
                ],
                vec![
                    text("inference.local", "l", "open-ai"),
                    text("sandbox-system", "s", "openai"),
                ],
            ),
            (
                "no key",
                vec![keyless, route("sandbox-system", "s", url)],
                vec![text("sandbox-system", "s", "openai")],
            ),
            (
                "a blank key",
                vec![route("inference.local", " ", url)],
                vec![],
            ),
            ("no URL", vec![route("inference.local", "k", "")], vec![]),
        ] {
            assert_eq!(given(routes), expected, "{what}");
        }
    }
}
