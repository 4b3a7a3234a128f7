//! Makes a bundle out of its inputs: opens what is sealed, and encodes the whole, ready to send.
//!
//! What cannot be opened, has expired or has no value yet is left out with a reason, and never
//! keeps the rest from being served.

use std::collections::BTreeMap;

use bytes::Bytes;
use evermint_core::bundle::{Inputs, RouteInput};
use evermint_core::credential::{Credential, Verdict};
use evermint_core::environment::{self, Environment, Problem, environment};
use evermint_core::id::{CredentialId, Position};
use evermint_core::profile::Auth;
use evermint_core::profile::catalog::Catalog;
use evermint_core::profile::route::{NoUpstream, Upstream};
use evermint_core::time::UnixMs;
use evermint_failpoint::{Bug, planted};
use evermint_proto::v1;
use evermint_seal::{Context, Keyring};
use prost::Message as _;
use tonic::Status;
use xxhash_rust::xxh3::xxh3_64;
use zeroize::Zeroizing;

use crate::openshell::Offer;
use crate::{names, show, status};

/// A bundle as it is sent.
#[derive(Clone)]
pub(crate) struct Ready {
    /// An encoded `evermint.v1.Bundle`, overwritten when its last reader has it.
    pub(crate) bytes: Bytes,
    /// The newest entry that touched its inputs.
    pub(crate) generation: Position,
    /// A hash of its content.
    pub(crate) revision: String,
    /// When its first value ends.
    pub(crate) next_expiry: Option<UnixMs>,
    /// The ends of its values.
    pub(crate) ends: Vec<(v1::CredentialRef, UnixMs)>,
    /// What OpenShell's sandboxes see of it.
    pub(crate) openshell: Offer,
    /// Values that are there and could not be opened, and why.
    failures: Vec<(CredentialId, String)>,
}

impl Ready {
    /// Whether every value that is there could be opened. If not, it is worth another try.
    pub(crate) fn is_complete(&self) -> bool {
        self.failures.is_empty()
    }

    /// The bundle as a message.
    ///
    /// # Errors
    /// `INTERNAL`: what was encoded here can be read here.
    pub(crate) fn bundle(&self) -> Result<v1::Bundle, Status> {
        let read = v1::Bundle::decode(self.bytes.clone());
        read.map_err(|_| status::internal("the bundle cannot be read"))
    }

    /// Tells what a person should look at; for the first bundle that lacks it.
    pub(crate) fn log_failures(&self) {
        for (credential, error) in &self.failures {
            tracing::error!({ names::CREDENTIAL } = %credential, error, "a value cannot be opened");
        }
    }
}

/// What makes a bundle what it is, short of its content: as long as the outline is the same, so
/// is the bundle. Cheap to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outline {
    generation: Position,
    gaps: Vec<Option<Gap>>,
}

/// Why a credential is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Gap {
    verdict: Verdict,
    cause: &'static str,
}

impl Outline {
    /// The outline at `now`.
    pub(crate) fn of(inputs: &Inputs, now: UnixMs) -> Self {
        Self {
            generation: inputs.generation,
            gaps: inputs.credentials().map(|c| gap(c, now)).collect(),
        }
    }
}

fn gap(credential: &Credential, now: UnixMs) -> Option<Gap> {
    let verdict = credential.verdict(now);
    match &credential.value {
        None => Some(Gap {
            verdict,
            cause: "there is no value yet",
        }),
        Some(value) if value.is_expired(now) && !planted(Bug::NoExpiry) => Some(Gap {
            // The value is gone, whatever else is wrong.
            verdict: match verdict {
                Verdict::Misconfigured | Verdict::NeedsReauthorization => verdict,
                _ => Verdict::Expired,
            },
            cause: "the value has expired",
        }),
        Some(_) => None,
    }
}

/// The outputs of one credential, or why there are none.
type Opened = Result<BTreeMap<String, String>, Gap>;

/// Makes the bundle at `now`.
pub(crate) fn make(inputs: &Inputs, catalog: &Catalog, keyring: &Keyring, now: UnixMs) -> Ready {
    let mut failures = Vec::new();
    let mut opened: BTreeMap<CredentialId, Opened> = BTreeMap::new();
    for credential in inputs.credentials() {
        opened.entry(credential.id.clone()).or_insert_with(|| {
            if let Some(gap) = gap(credential, now) {
                return Err(gap);
            }
            open(credential, keyring).map_err(|error| {
                failures.push((credential.id.clone(), error));
                SHUT
            })
        });
    }
    let environment = environment(inputs, catalog);

    // Revisions are hashes of the bundle in which every value is replaced by the place in the
    // history that it came from: they change with the value, and tell nothing of it.
    let public = assemble(inputs, catalog, &environment, |credential| {
        let mut outcome = opened[&credential.id].clone();
        let position = credential.value.as_ref().map(|v| v.position);
        for value in outcome.iter_mut().flat_map(BTreeMap::values_mut) {
            *value = position.unwrap_or_default().to_string();
        }
        outcome
    });
    let revision = format!("{:016x}", xxh3_64(&public.encode_to_vec()));
    let environment_revision = fingerprint(public.clone());
    let openshell = Offer::new(inputs, catalog, public);

    let mut bundle = assemble(inputs, catalog, &environment, |credential| {
        opened[&credential.id].clone()
    });
    bundle.generation = inputs.generation.0;
    bundle.revision.clone_from(&revision);
    bundle.environment_revision = environment_revision;
    Ready {
        bytes: Bytes::from_owner(Zeroizing::new(bundle.encode_to_vec())),
        generation: inputs.generation,
        revision,
        next_expiry: inputs.next_expiry(now),
        ends: ends(&bundle),
        openshell,
        failures,
    }
}

/// The environment's part of a bundle as a number. Never 0, which means "none".
fn fingerprint(mut public: v1::Bundle) -> u64 {
    public.routes.clear();
    public.problems.clear();
    xxh3_64(&public.encode_to_vec()).max(1)
}

/// What is said of a value that cannot be opened.
const SHUT: Gap = Gap {
    verdict: Verdict::Misconfigured,
    cause: "this replica cannot open the value; its log says why",
};

/// The clear outputs, or what the log should say.
fn open(credential: &Credential, keyring: &Keyring) -> Result<BTreeMap<String, String>, String> {
    let outputs = credential.value.iter().flat_map(|value| &value.outputs);
    outputs
        .map(|(output, sealed)| {
            let context = Context::value(&credential.id, output);
            let secret = keyring
                .open(&context, sealed)
                .map_err(|error| error.to_string())?;
            let text = secret.expose_str().ok_or("it is not UTF-8")?;
            Ok((output.to_string(), text.to_owned()))
        })
        .collect()
}

/// The bundle without generation and revisions, with values as `value` gives them.
fn assemble(
    inputs: &Inputs,
    catalog: &Catalog,
    environment: &Environment,
    value: impl Fn(&Credential) -> Opened,
) -> v1::Bundle {
    let token = |credential: &Credential, fills: &dyn Fn(&str) -> bool| match value(credential) {
        Ok(mut values) => {
            values.retain(|key, _| fills(key));
            let token = v1::Token {
                values,
                expires_at_ms: credential
                    .value
                    .as_ref()
                    .and_then(|v| v.expires_at)
                    .map(|end| end.0),
                generation: credential.generation.0,
            };
            (Some(token), None)
        }
        Err(gap) => (None, Some(unavailable(&gap))),
    };
    let mut problems = environment.problems.clone();
    let routes = inputs.routes.iter().map(|input| {
        let (token, unavailable) = match input.credential.as_deref() {
            Some(credential) => token(credential, &|_| true),
            None => (None, Some(unavailable(&NO_CREDENTIAL))),
        };
        let upstream = upstream(input, catalog).unwrap_or_else(|error| {
            problems.push(Problem {
                provider: input.provider.name.to_string(),
                key: String::new(),
                cause: format!("route {} leads nowhere: {error}", input.route.name),
            });
            nowhere(input)
        });
        let key = |id: &CredentialId| id.key.to_string();
        v1::ResolvedRoute {
            name: input.route.name.to_string(),
            provider: input.provider.name.to_string(),
            provider_type: input.provider.kind.to_string(),
            config: input.provider.config.clone(),
            model: upstream.model,
            timeout_secs: input.route.timeout_secs,
            credential_key: input
                .credential
                .as_ref()
                .map(|c| key(&c.id))
                .unwrap_or_default(),
            token,
            unavailable,
            base_url: upstream.base_url,
            protocols: upstream.protocols,
            auth: Some(show::auth(&upstream.auth)),
            model_in_path: upstream.model_in_path,
            request_path_override: upstream.request_path,
            headers: upstream.headers,
            passthrough_headers: upstream.passthrough_headers,
        }
    });
    let routes = routes.collect();
    let credentials = environment.secrets.iter().map(|part| {
        let variables = &part.variables;
        let (token, unavailable) = token(&part.credential, &|key| {
            variables.iter().any(|v| v.key == key)
        });
        v1::BundleCredential {
            provider: part.provider.name.to_string(),
            key: part.credential.id.key.to_string(),
            token,
            unavailable,
            variables: variables.iter().map(show::variable).collect(),
            endpoints: part.bindings.iter().map(show::binding).collect(),
        }
    });
    v1::Bundle {
        sandbox: inputs.sandbox.id.to_string(),
        generation: 0,
        revision: String::new(),
        routes,
        credentials: credentials.collect(),
        plain: environment.plain.iter().map(show::plain).collect(),
        environment_revision: 0,
        problems: problems.iter().map(show::problem).collect(),
    }
}

/// Where a route leads. A provider without a profile leads where its settings say.
fn upstream(input: &RouteInput, catalog: &Catalog) -> Result<Upstream, NoUpstream> {
    let provider = &input.provider;
    let profile = catalog.profile_for(&provider.kind, input.profile.as_deref());
    let key = input.credential.as_ref().map(|c| &c.id.key);
    match profile {
        Some(profile) => profile.upstream(&provider.config, &input.route.model, key),
        None => match environment::base_url(provider) {
            Some(url) => Ok(Upstream {
                base_url: url.to_owned(),
                ..nowhere(input)
            }),
            None => Err(NoUpstream::NoBaseUrl("base_url".to_owned())),
        },
    }
}

/// A route of which only the model is known.
fn nowhere(input: &RouteInput) -> Upstream {
    Upstream {
        base_url: String::new(),
        protocols: Vec::new(),
        auth: Auth::Unspecified,
        headers: BTreeMap::new(),
        passthrough_headers: Vec::new(),
        model: input.route.model.clone(),
        model_in_path: false,
        request_path: None,
    }
}

/// What is said of a route whose provider has no credential.
const NO_CREDENTIAL: Gap = Gap {
    verdict: Verdict::Misconfigured,
    cause: "the provider has no such credential",
};

fn unavailable(gap: &Gap) -> v1::Unavailable {
    v1::Unavailable {
        verdict: show::verdict(gap.verdict).into(),
        cause: gap.cause.to_owned(),
    }
}

/// The ends of a bundle's values, each credential once.
fn ends(bundle: &v1::Bundle) -> Vec<(v1::CredentialRef, UnixMs)> {
    let of_routes = bundle
        .routes
        .iter()
        .map(|r| (&r.provider, &r.credential_key, &r.token));
    let of_providers = bundle
        .credentials
        .iter()
        .map(|c| (&c.provider, &c.key, &c.token));
    let ends: BTreeMap<(&str, &str), u64> = of_routes
        .chain(of_providers)
        .filter_map(|(provider, key, token)| {
            let end = token.as_ref()?.expires_at_ms?;
            Some(((provider.as_str(), key.as_str()), end))
        })
        .collect();
    ends.into_iter()
        .map(|((provider, key), end)| {
            let credential = v1::CredentialRef {
                provider: provider.to_owned(),
                key: key.to_owned(),
            };
            (credential, UnixMs(end))
        })
        .collect()
}
