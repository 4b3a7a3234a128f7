//! Providers, routes and sandboxes: what operators register.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{CredentialKey, Name, Position, ProviderId, ProviderType, SandboxId, Workspace};
use crate::time::UnixMs;

/// Limits of a provider, in bytes and entries; those of OpenShell's API.
pub mod limit {
    /// Credentials of one provider.
    pub const CREDENTIALS: usize = 32;
    /// Config entries of one provider.
    pub const CONFIG: usize = 64;
    /// A config or material key.
    pub const MAP_KEY: usize = 256;
    /// A config or material value.
    pub const MAP_VALUE: usize = 8192;
    /// Material entries of one refresh.
    pub const MATERIAL: usize = 64;
    /// Providers attached to one sandbox.
    pub const ATTACHED: usize = 32;
    /// Labels of one object, and as many annotations.
    pub const NOTES: usize = 64;
    /// A model name.
    pub const MODEL: usize = 256;
}

/// What clients note on an object for themselves: carried, and never read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notes {
    /// To select by.
    pub labels: BTreeMap<String, String>,
    /// Anything else.
    pub annotations: BTreeMap<String, String>,
    /// Whose profiles an OpenShell client meant; `None` for the platform's. Which profile counts
    /// does not hang on it: a workspace's own stands before the platform's in any case.
    pub profile_workspace: Option<Workspace>,
}

/// A named account with an issuer or API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provider {
    /// Its identity.
    pub id: ProviderId,
    /// Where its name is unique.
    pub workspace: Workspace,
    /// Its name.
    pub name: Name,
    /// Its type; never changes.
    pub kind: ProviderType,
    /// Plain settings, such as a base URL.
    pub config: BTreeMap<String, String>,
    /// What clients note on it.
    pub notes: Notes,
    /// The keys of its credentials, in order.
    pub credentials: Vec<CredentialKey>,
    /// Grows by one with every change that an operator makes; for optimistic concurrency.
    pub version: u64,
    /// When it was created.
    pub created_at: UnixMs,
    /// The newest entry that changed something a sandbox sees of it, its credentials apart.
    pub touched: Position,
}

/// Which model a sandbox's inference calls go to, and with whose credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where its name is unique.
    pub workspace: Workspace,
    /// Its name.
    pub name: Name,
    /// Whose credential it uses.
    pub provider: ProviderId,
    /// Which of the provider's credentials; the first one if not said.
    pub credential: Option<CredentialKey>,
    /// The model that calls are sent to.
    pub model: String,
    /// Time limit of one call in seconds; 0 leaves it to the sandbox.
    pub timeout_secs: u64,
    /// Starts at 1, grows by one with every change.
    pub version: u64,
    /// The newest entry that changed it.
    pub touched: Position,
}

/// A reader of bundles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Its identity.
    pub id: SandboxId,
    /// Where its name is unique, and whose routes it reads.
    pub workspace: Workspace,
    /// Its name.
    pub name: Name,
    /// The providers whose credentials it may use, in the order in which they were attached.
    pub providers: Vec<ProviderId>,
    /// Its tokens carry this number; those with a lower one are revoked.
    pub token_epoch: u64,
    /// Grows by one with every change; for optimistic concurrency.
    pub version: u64,
    /// When it was created.
    pub created_at: UnixMs,
    /// The newest entry that changed it.
    pub touched: Position,
}
