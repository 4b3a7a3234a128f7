//! What is known of a type of provider: which credentials it has and how they travel, how they are
//! minted, which endpoints they are good for, and how its inference API is reached.
//!
//! A profile is data, from a YAML file (`evermint-profiles`) or from the replicated state. It
//! holds no secret, and nothing in it is trusted to be well-formed beyond its types: texts that
//! become URLs go through [`template`]. [`catalog`] finds the profile of a provider, [`route`]
//! applies one to a route, [`binding`] to the environment of a sandbox.

pub mod binding;
pub mod catalog;
pub mod refresh;
pub mod route;
pub mod template;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{CredentialKey, Position, ProfileId, Workspace};
use crate::strategy::{ReplayPolicy, Strategy};
use crate::time::UnixMs;

/// Limits of profiles, in entries and bytes.
pub mod limit {
    /// Custom profiles of one scope.
    pub const PROFILES: usize = 256;
    /// Profiles of one import.
    pub const IMPORT: usize = 64;
    /// Credentials, config keys, endpoints or APIs of one profile; entries of any of its lists.
    pub const ENTRIES: usize = 64;
    /// A name, host, path, URL or value.
    pub const TEXT: usize = 2048;
    /// A profile as it is stored.
    pub const PROFILE: usize = 256 * 1024;
}

/// A type of provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Its name; what a provider's type says.
    pub id: ProfileId,
    /// Other names by which operators may call it.
    pub aliases: Vec<ProfileId>,
    /// For people.
    pub display_name: String,
    /// For people.
    pub description: String,
    /// For people.
    pub category: Category,
    /// The credentials that a provider of this type has, the one that routes use first.
    pub credentials: Vec<ProfileCredential>,
    /// The plain settings that a provider of this type has.
    pub config: Vec<ConfigKey>,
    /// Where the credentials may be sent; a sandbox uses them nowhere else.
    pub endpoints: Vec<Endpoint>,
    /// Where credentials may be found on an operator's machine.
    pub discovery: Discovery,
    /// The inference APIs, most special first; empty if it is good for no route.
    pub inference: Vec<Api>,
    /// Anything else that people note.
    pub annotations: BTreeMap<String, String>,
    /// What Evermint carries for others and never reads, as JSON by name: OpenShell's `binaries`.
    pub carried: BTreeMap<String, String>,
}

/// What a provider is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Category {
    #[default]
    Other,
    Inference,
    Agent,
    SourceControl,
    Messaging,
    Data,
    Knowledge,
}

impl Category {
    /// Every category.
    pub const ALL: [Self; 7] = [
        Self::Other,
        Self::Inference,
        Self::Agent,
        Self::SourceControl,
        Self::Messaging,
        Self::Data,
        Self::Knowledge,
    ];

    /// The name that profiles write.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Inference => "inference",
            Self::Agent => "agent",
            Self::SourceControl => "source-control",
            Self::Messaging => "messaging",
            Self::Data => "data",
            Self::Knowledge => "knowledge",
        }
    }
}

/// One credential of a type of provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileCredential {
    /// Its name within the profile.
    pub name: String,
    /// For people.
    pub description: String,
    /// The names by which sandboxes know it: the first is the one that is minted, and any of them
    /// may be given as a static value.
    pub env_vars: Vec<CredentialKey>,
    /// Whether a provider is of no use without it.
    pub required: bool,
    /// How it travels.
    pub auth: Auth,
    /// How it can be minted, the usual way first; empty if it can only be given.
    pub refresh: Vec<RefreshSpec>,
    /// How a sandbox obtains it by itself, with its own identity; carried for OpenShell.
    pub token_grant: Option<TokenGrant>,
}

/// How a credential travels in a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Auth {
    /// The profile does not say; whoever calls the API knows.
    #[default]
    Unspecified,
    /// `Authorization: Bearer VALUE`, [RFC 6750 §2.1](https://www.rfc-editor.org/rfc/rfc6750#section-2.1).
    Bearer {
        /// Another header than `authorization`; empty for that one.
        header: String,
    },
    /// `NAME: PREFIX VALUE`.
    Header {
        /// The header.
        name: String,
        /// What stands before the value, with its space; usually empty.
        prefix: String,
    },
    /// [RFC 7617](https://www.rfc-editor.org/rfc/rfc7617).
    Basic {
        /// The user; empty if the value is `USER:PASSWORD` already.
        user: String,
    },
    /// `?PARAM=VALUE`.
    Query {
        /// The parameter.
        param: String,
    },
    /// In the path.
    Path {
        /// The path, with `{credential}` in the value's place, once.
        template: String,
    },
}

impl Auth {
    /// The name that profiles write; empty if the profile does not say.
    pub fn style(&self) -> &'static str {
        match self {
            Self::Unspecified => "",
            Self::Bearer { .. } => "bearer",
            Self::Header { .. } => "header",
            Self::Basic { .. } => "basic",
            Self::Query { .. } => "query",
            Self::Path { .. } => "path",
        }
    }
}

/// One way to mint a credential, and the defaults of a refresh that is configured by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshSpec {
    /// How.
    pub strategy: Strategy,
    /// Where.
    pub token_url: TokenUrl,
    /// Scopes unless the operator gives others.
    pub scopes: Vec<String>,
    /// What the operator has to give, and may give.
    pub material: Vec<MaterialSpec>,
    /// What one mint gives beside the token: output to the name of the credential, in this
    /// profile, that receives it.
    pub outputs: BTreeMap<String, String>,
    /// How long before its end a token is replaced, in seconds.
    pub refresh_before_secs: Option<u64>,
    /// How long a token is kept at least, in seconds.
    pub not_before_secs: Option<u64>,
    /// No token is trusted for longer, in seconds.
    pub max_lifetime_secs: Option<u64>,
    /// What the issuer does with a refresh token that was used before.
    pub replay: ReplayPolicy,
    /// Where tokens are revoked ([RFC 7009](https://www.rfc-editor.org/rfc/rfc7009)), as a
    /// template; empty if nowhere.
    pub revoke_url: String,
}

/// Where the token endpoint comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenUrl {
    /// The strategy needs none.
    None,
    /// The operator gives it, under the server's allow-list.
    FromOperator,
    /// The profile gives it: a [`template`] over config and public material.
    Template(String),
}

/// One input of a mint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaterialSpec {
    /// Its name, as the strategy knows it.
    pub name: String,
    /// For people.
    pub description: String,
    /// Whether it has to be given.
    pub required: bool,
    /// Whether it is sealed and never shown.
    pub secret: bool,
    /// What it looks like.
    pub format: Format,
    /// Its value unless another is given; never of a secret.
    pub default: Option<String>,
}

/// One plain setting of a provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigKey {
    /// Its name, by which templates refer to it.
    pub name: String,
    /// Other names under which operators may give it.
    pub aliases: Vec<String>,
    /// For people.
    pub description: String,
    /// Whether it has to be given.
    pub required: bool,
    /// What it looks like.
    pub format: Format,
    /// Its value unless another is given.
    pub default: Option<String>,
    /// The names under which sandboxes get it, in the clear; empty if they do not.
    pub env_vars: Vec<CredentialKey>,
}

/// What a setting or an input looks like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// Any text.
    #[default]
    Text,
    /// One segment of a path, or part of one: letters, digits, `-`, `_`, `.` and `~`; not `.` or
    /// `..`.
    Segment,
    /// One label of a host name, or part of one: letters, digits and `-`.
    Label,
    /// A UUID.
    Uuid,
    /// A host name, chosen by the operator.
    Host,
    /// An `https` URL; loopback may be `http`.
    Url,
    /// A whole number from 0 on.
    Integer,
    /// One of these.
    OneOf(Vec<String>),
}

/// Where a profile's credentials may be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// A host, a pattern (`*` within a label, `**` for one or more labels), or a [`template`].
    pub host: String,
    /// The ports.
    pub ports: Vec<u16>,
    /// A pattern for the path; empty for any.
    pub path: String,
    /// `rest`, `tcp`, …; empty if not said.
    pub protocol: String,
    /// `terminate` or `passthrough`; empty if not said.
    pub tls: String,
    /// How requests are signed, if they are; the caller's work.
    pub signing: Option<Signing>,
    /// Whether placeholders are replaced in WebSocket messages.
    pub websocket_rewrite: bool,
    /// Whether placeholders are replaced in request bodies.
    pub body_rewrite: bool,
    /// Whether credentials may go where no proxy looks into the connection.
    pub uninspected: bool,
    /// Network policy that Evermint carries for others and never reads, as JSON by name:
    /// OpenShell's `access`, `enforcement`, `rules` and the like.
    pub policy: BTreeMap<String, String>,
}

/// How requests to an endpoint are signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signing {
    /// `sigv4`.
    pub scheme: String,
    /// The service's name in the signature.
    pub service: String,
    /// The region's, as a template; empty if not said.
    pub region: String,
}

/// Where an operator's machine may hold what a provider needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovery {
    /// Names of this profile's credentials whose environment variables are looked at.
    pub credentials: Vec<String>,
    /// Files, such as gcloud's application default credentials.
    pub files: Vec<DiscoveryFile>,
}

/// A file that may hold what a provider needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscoveryFile {
    /// The environment variable that names it; empty if none does.
    pub env_var: String,
    /// Where it lies otherwise; `~/` is the operator's home.
    pub path: String,
    /// What it is: `gcloud-adc`, `google-service-account`, `aws-credentials`.
    pub kind: String,
}

/// One inference API of a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Api {
    /// The models that it is for, `*` at an end for any rest; empty for all.
    pub models: Vec<String>,
    /// The settings that it is for: each has one of these values.
    pub when: BTreeMap<String, Vec<String>>,
    /// Where it is: a [`template`] over the provider's config. Empty if the operator has to say.
    pub base_url: String,
    /// Config keys that give another base URL, the first that is set wins.
    pub base_url_from: Vec<String>,
    /// What it speaks: `openai_chat_completions`, `anthropic_messages`, ….
    pub protocols: Vec<String>,
    /// How the credential travels; as the credential says if unspecified.
    pub auth: Auth,
    /// Headers that every request gets.
    pub headers: BTreeMap<String, String>,
    /// Headers of the caller that are passed on.
    pub passthrough_headers: Vec<String>,
    /// Whether the model stands in the path rather than in the body.
    pub model_in_path: bool,
    /// What comes after the base URL (and after the model if that stands in the path), instead of
    /// the caller's path. An empty one means that nothing does.
    pub request_path: Option<String>,
    /// The model of a route that names none; empty if a route has to.
    pub default_model: String,
}

/// How a sandbox obtains a token with its own SPIFFE identity; carried for OpenShell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are OpenShell's")]
pub struct TokenGrant {
    pub token_endpoint: String,
    pub audience: String,
    pub jwt_svid_audience: String,
    pub client_assertion_type: String,
    pub scopes: Vec<String>,
    pub cache_ttl_seconds: i64,
    pub audience_overrides: Vec<AudienceOverride>,
}

/// Another audience for one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are OpenShell's")]
pub struct AudienceOverride {
    pub host: String,
    pub port: u16,
    pub path: String,
    pub audience: String,
    pub scopes: Vec<String>,
}

/// For whom a custom profile is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// All workspaces.
    Platform,
    /// One workspace, where it stands before one of the platform.
    Workspace(Workspace),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Platform => f.write_str("platform"),
            Self::Workspace(workspace) => write!(f, "workspace {workspace}"),
        }
    }
}

/// A custom profile, as it is replicated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomProfile {
    /// For whom.
    pub scope: Scope,
    /// What it says.
    pub profile: Profile,
    /// Starts at 1, grows by one with every change.
    pub version: u64,
    /// When it was imported.
    pub created_at: UnixMs,
    /// The newest entry that changed it.
    pub touched: Position,
}

impl Profile {
    /// A credential by its name within the profile.
    pub fn credential(&self, name: &str) -> Option<&ProfileCredential> {
        self.credentials.iter().find(|c| c.name == name)
    }

    /// The credential that sandboxes know as `key`.
    pub fn credential_for(&self, key: &CredentialKey) -> Option<&ProfileCredential> {
        self.credentials.iter().find(|c| c.env_vars.contains(key))
    }

    /// Whether a route may lead to a provider of this type.
    pub fn is_inference_capable(&self) -> bool {
        !self.inference.is_empty()
    }

    /// The keys that the further outputs of a mint are served under: output to key. An output
    /// whose credential is not there, or has no key, is left out.
    pub fn output_keys(&self, spec: &RefreshSpec) -> BTreeMap<String, CredentialKey> {
        spec.outputs
            .iter()
            .filter_map(|(output, name)| {
                let key = self.credential(name)?.env_vars.first()?;
                Some((output.clone(), key.clone()))
            })
            .collect()
    }
}

impl ProfileCredential {
    /// The way to mint it by `strategy`.
    pub fn refresh_by(&self, strategy: Strategy) -> Option<&RefreshSpec> {
        self.refresh.iter().find(|spec| spec.strategy == strategy)
    }
}

impl ConfigKey {
    /// Its value among a provider's settings: given under its name or an alias, or the default.
    /// A blank one counts as not given.
    pub fn value<'a>(&'a self, config: &'a BTreeMap<String, String>) -> Option<&'a str> {
        std::iter::once(&self.name)
            .chain(&self.aliases)
            .filter_map(|name| config.get(name))
            .map(String::as_str)
            .find(|value| !value.trim().is_empty())
            .or(self.default.as_deref())
    }
}
