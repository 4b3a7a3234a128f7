//! A sandbox's environment: its variables, what gives each its value, and where a secret one may
//! be sent.
//!
//! A function of the bundle's inputs and the profiles, and of nothing else: every replica gives a
//! sandbox the same handles. What is wrong with one provider becomes a [`Problem`], and leaves the
//! others as they are.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};

use crate::bundle::{AttachedInput, Inputs};
use crate::credential::Credential;
use crate::id::{CredentialKey, SandboxId};
use crate::profile::binding::Binding;
use crate::profile::catalog::Catalog;
use crate::provider::Provider;

/// The variables of one sandbox.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// The credentials of the attached providers, in the order of attachment, then of their keys.
    pub secrets: Vec<SecretPart>,
    /// What stands beside them in the clear, in the order of attachment, then of names.
    pub plain: Vec<Plain>,
    /// What is not delivered.
    pub problems: Vec<Problem>,
}

/// One credential, as a part of the environment.
#[derive(Clone, Debug)]
pub struct SecretPart {
    /// Its provider.
    pub provider: Arc<Provider>,
    /// The credential.
    pub credential: Arc<Credential>,
    /// The variables that it fills, in the order of their names, with or without a value now.
    pub variables: Vec<Variable>,
    /// Where its values may be sent, in order; nowhere if there are none.
    pub bindings: Arc<[Binding]>,
}

/// A variable whose value is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub key: String,
    /// Who gives the value: another identity means that older values are no longer to be used.
    pub identity: String,
    /// 64 hex digits that name the value in placeholders; `None` for a static value.
    pub handle: Option<String>,
}

/// A variable whose value is not secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain {
    /// The provider's name.
    pub provider: String,
    /// The variable's name.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// Something that is not delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The provider's name.
    pub provider: String,
    /// Which of its variables; empty if all are concerned.
    pub key: String,
    /// In one line.
    pub cause: String,
}

/// The environment of the sandbox whose `inputs` these are.
pub fn environment(inputs: &Inputs, catalog: &Catalog) -> Environment {
    let mut gathering = Gathering {
        sandbox: inputs.sandbox.id,
        environment: Environment::default(),
        taken: BTreeMap::new(),
    };
    for attached in &inputs.attached {
        gathering.provider(attached, catalog);
    }
    gathering.environment
}

/// Whether a variable cannot be called so: it would read like a revision or a handle in a
/// placeholder.
fn is_reserved(key: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let Some((first, _)) = key.split_once('_').filter(|(_, rest)| !rest.is_empty()) else {
        return false;
    };
    first.strip_prefix('v').is_some_and(is_number)
        || first
            .strip_prefix('s')
            .is_some_and(|handle| handle.len() == 64 && is_hex(handle))
}

struct Gathering<'a> {
    sandbox: SandboxId,
    environment: Environment,
    /// The names that are given, with the provider that gives them: the one that was attached
    /// first.
    taken: BTreeMap<CredentialKey, &'a Provider>,
}

impl<'a> Gathering<'a> {
    fn provider(&mut self, attached: &'a AttachedInput, catalog: &Catalog) {
        let provider = &attached.provider;
        let profile = catalog.profile_for(&provider.kind, attached.profile.as_deref());
        let bindings: Arc<[Binding]> = match profile {
            Some(profile) => profile.bindings(&provider.config).into(),
            None => base_url(provider)
                .and_then(Binding::of_url)
                .into_iter()
                .collect(),
        };
        if bindings.is_empty() && !attached.credentials.is_empty() {
            let cause = match profile {
                Some(_) => "its profile binds it to no endpoint under its settings",
                None => "it has no profile, and no base_url that says where it may be sent",
            };
            self.problem(provider, "", format!("{cause}: no placeholder is replaced"));
        }
        let sandbox = self.sandbox;
        for credential in &attached.credentials {
            let variables: Vec<Variable> = credential
                .names()
                .into_iter()
                .filter(|key| self.take(provider, key))
                .map(|key| variable(sandbox, credential, key, &bindings))
                .collect();
            self.environment.secrets.push(SecretPart {
                provider: Arc::clone(provider),
                credential: Arc::clone(credential),
                variables,
                bindings: Arc::clone(&bindings),
            });
        }
        let plain = profile.map(|profile| profile.environment(&provider.config));
        for (key, value) in plain.into_iter().flatten() {
            if self.take(provider, &key) {
                self.environment.plain.push(Plain {
                    provider: provider.name.to_string(),
                    key: key.to_string(),
                    value,
                });
            }
        }
    }

    /// Whether `provider` is the one that gives the variable.
    fn take(&mut self, provider: &'a Provider, key: &CredentialKey) -> bool {
        if is_reserved(key.as_str()) {
            self.problem(
                provider,
                key.as_str(),
                "the name is reserved for placeholders",
            );
            return false;
        }
        if let Some(other) = self.taken.get(key) {
            let cause = format!("provider {} gives it already", other.name);
            self.problem(provider, key.as_str(), cause);
            return false;
        }
        self.taken.insert(key.clone(), provider);
        true
    }

    fn problem(&mut self, provider: &Provider, key: &str, cause: impl Into<String>) {
        self.environment.problems.push(Problem {
            provider: provider.name.to_string(),
            key: key.to_owned(),
            cause: cause.into(),
        });
    }
}

/// The base URL that an operator gave: `base_url`, or a setting such as `OPENAI_BASE_URL`.
pub fn base_url(provider: &Provider) -> Option<&str> {
    let config = &provider.config;
    let named = || {
        let ends = |key: &str| key.to_ascii_lowercase().ends_with("_base_url");
        config.iter().find(|(key, _)| ends(key)).map(|(_, url)| url)
    };
    let url = config.get("base_url").or_else(named)?;
    Some(url.trim_end_matches('/'))
}

fn variable(
    sandbox: SandboxId,
    credential: &Credential,
    key: &CredentialKey,
    bindings: &[Binding],
) -> Variable {
    let handle = handle(sandbox, credential, key, bindings);
    Variable {
        key: key.to_string(),
        identity: match &handle {
            Some(handle) => format!("refresh:{handle}"),
            None => format!("{}:{key}", credential.id.provider),
        },
        handle,
    }
}

/// OpenShell's `workload_credential_handle`: it is the same for one mint after another, and another
/// one for another configuration, sandbox, provider or set of endpoints. `None` for a static value.
fn handle(
    sandbox: SandboxId,
    credential: &Credential,
    key: &CredentialKey,
    bindings: &[Binding],
) -> Option<String> {
    let epoch = credential.refresh.as_ref()?.epoch;
    let mut hash = Context::new(&SHA256);
    let mut part = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(b"openshell-workload-credential-handle-v1");
    part(sandbox.to_string().as_bytes());
    part(credential.id.provider.to_string().as_bytes());
    part(key.as_str().as_bytes());
    part(epoch.0.to_string().as_bytes());
    let mut endpoints: Vec<(String, u16, &str)> = bindings
        .iter()
        .map(|binding| {
            let host = binding.host.trim_end_matches('.').to_ascii_lowercase();
            let path = match binding.path.as_str() {
                "" | "**" => "/**",
                path => path,
            };
            (host, binding.port, path)
        })
        .collect();
    endpoints.sort();
    endpoints.dedup();
    for (host, port, path) in endpoints {
        part(host.as_bytes());
        part(&u32::from(port).to_le_bytes());
        part(path.as_bytes());
    }
    let digest = hash.finish();
    let mut hex = String::with_capacity(64);
    for byte in digest.as_ref() {
        let _ = write!(hex, "{byte:02x}");
    }
    Some(hex)
}
