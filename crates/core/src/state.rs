//! What is replicated.
//!
//! The maps share structure: cloning a [`State`] costs a few pointers, so that every reader and
//! every snapshot works on a consistent copy while new entries are applied. They are ordered, so
//! that iteration is the same everywhere.

use std::sync::Arc;

use imbl::OrdMap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::admission::{Authority, JoinToken, JoinTokenId};
use crate::audit::{AuditRecord, Link};
use crate::command::Answer;
use crate::credential::Credential;
use crate::id::{
    CredentialId, CredentialKey, InstallationId, Name, Position, ProfileId, ProviderId, ReplicaId,
    RequestId, SandboxId, ShardId, SigningKeyId, Workspace, WorkspaceId,
};
use crate::placement::Assignment;
use crate::platform::Platform;
use crate::profile::{CustomProfile, Scope};
use crate::provider::{Notes, Provider, Route, Sandbox};
use crate::record::{BadRecord, Key};
use crate::revocation::{Revocation, RevocationId};
use crate::secret::{DataKeyId, WrappedKey};
use crate::settings::Settings;
use crate::signing::SigningKey;
use crate::time::UnixMs;

/// Answers that are remembered, so that a proposal that arrives twice is applied once.
pub const ANSWERS_MAX: usize = 4096;

/// The replicated state of a cluster. Changed by [`apply`](crate::apply::apply) alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Position, clock, counters and settings.
    pub meta: Meta,
    /// Wrapped data keys.
    pub data_keys: OrdMap<DataKeyId, Arc<WrappedKey>>,
    /// The members.
    pub replicas: OrdMap<ReplicaId, Arc<Replica>>,
    /// Who owns which shard; a shard without an entry has no owner yet.
    pub shards: OrdMap<ShardId, Arc<Assignment>>,
    /// Providers.
    pub providers: OrdMap<ProviderId, Arc<Provider>>,
    /// Credentials of all providers; those of one provider stand together.
    pub credentials: OrdMap<CredentialId, Arc<Credential>>,
    /// Inference routes.
    pub routes: OrdMap<(Workspace, Name), Arc<Route>>,
    /// What is remembered of workspaces beyond their objects.
    pub workspaces: OrdMap<Workspace, Arc<WorkspaceMarks>>,
    /// Sandboxes.
    pub sandboxes: OrdMap<SandboxId, Arc<Sandbox>>,
    /// The audit trail by number, oldest first.
    pub audit: OrdMap<u64, Arc<AuditRecord>>,
    /// Recent answers by request.
    pub answers: OrdMap<RequestId, Arc<Answer>>,
    /// The keys of sandbox tokens.
    pub signing_keys: OrdMap<SigningKeyId, Arc<SigningKey>>,
    /// Imported profiles; the built-in ones are no state.
    pub profiles: OrdMap<(Scope, ProfileId), Arc<CustomProfile>>,
    /// Settings that others keep here.
    pub platform: Arc<Platform>,
    /// Signs the certificates of replicas, if the cluster does that itself.
    pub authority: Option<Arc<Authority>>,
    /// By which replicas join.
    pub join_tokens: OrdMap<JoinTokenId, Arc<JoinToken>>,
    /// Revocations, open and ended.
    pub revocations: OrdMap<RevocationId, Arc<Revocation>>,

    // Indices, derived from the maps above and never stored.
    pub(crate) provider_names: OrdMap<(Workspace, Name), ProviderId>,
    pub(crate) sandbox_names: OrdMap<(Workspace, Name), SandboxId>,
    pub(crate) answer_order: OrdMap<Position, RequestId>,
    pub(crate) tickets: OrdMap<CredentialId, ()>,
}

/// Position, clock, counters and settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The format of the records.
    pub format: u16,
    /// Commands beyond it are refused until every replica knows them.
    pub feature_level: u32,
    /// The newest applied command.
    pub position: Position,
    /// The newest stamp.
    pub clock: UnixMs,
    /// The id that the next replica gets.
    pub next_replica: u64,
    /// Grows with every change of the placement.
    pub placement_version: u64,
    /// The newest command that removed or replaced secrets at an operator's wish. Until every
    /// replica has cut its log behind it, copies of them are left there.
    pub destroyed: Position,
    /// The newest command that put data keys under another key-encryption key.
    pub rewrapped: Position,
    /// The newest audit record.
    pub audit_head: Link,
    /// The newest audit record that was dropped: the trail goes on from there.
    pub audit_anchor: Link,
    /// `None` until the bootstrap.
    pub settings: Option<Settings>,
}

impl Default for Meta {
    fn default() -> Self {
        Self {
            format: crate::record::FORMAT,
            feature_level: 1,
            position: Position(0),
            clock: UnixMs(0),
            next_replica: 1,
            placement_version: 0,
            destroyed: Position(0),
            rewrapped: Position(0),
            audit_head: Link::default(),
            audit_anchor: Link::default(),
            settings: None,
        }
    }
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Its Raft id.
    pub id: ReplicaId,
    /// Its data directory.
    pub installation: InstallationId,
    /// Where other replicas reach it: `host:port`.
    pub peer_address: String,
    /// Where clients reach it: a URL.
    pub api_address: String,
    /// When it joined.
    pub joined_at: UnixMs,
}

/// What is remembered of a workspace beyond its objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceMarks {
    /// The newest entry that deleted one of its routes.
    pub route_deleted: Position,
    /// The workspace as an object of its own, if it was created as one.
    pub object: Option<WorkspaceObject>,
}

/// A workspace as OpenShell's clients know it: something that is there before anything is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceObject {
    /// Its identity.
    pub id: WorkspaceId,
    /// What clients note on it.
    pub notes: Notes,
    /// When it was created.
    pub created_at: UnixMs,
}

/// Whether the first entry of a range by workspace and name is of this workspace.
fn starts<'a, V: 'a>(
    mut range: impl Iterator<Item = (&'a (Workspace, Name), &'a V)>,
    workspace: &Workspace,
) -> bool {
    range.next().is_some_and(|((w, _), _)| w == workspace)
}

impl State {
    /// The settings; those of the bootstrap, or the defaults before it.
    pub fn settings(&self) -> Settings {
        self.meta.settings.clone().unwrap_or_default()
    }

    /// Whether a workspace is there: the default one, one that was created, or one that holds
    /// something.
    pub fn has_workspace(&self, name: &Workspace) -> bool {
        let first = || (name.clone(), Name::least());
        *name == Workspace::default_workspace()
            || self.marks(name).object.is_some()
            || starts(self.provider_names.range(first()..), name)
            || starts(self.sandbox_names.range(first()..), name)
            || starts(self.routes.range(first()..), name)
            || self
                .profiles_in(Scope::Workspace(name.clone()))
                .next()
                .is_some()
    }

    /// What is remembered of a workspace.
    pub fn marks(&self, workspace: &Workspace) -> WorkspaceMarks {
        let known = self.workspaces.get(workspace);
        known
            .map(|marks| marks.as_ref().clone())
            .unwrap_or_default()
    }

    /// A provider by name.
    pub fn provider_named(&self, workspace: &Workspace, name: &Name) -> Option<&Arc<Provider>> {
        let id = self
            .provider_names
            .get(&(workspace.clone(), name.clone()))?;
        self.providers.get(id)
    }

    /// A sandbox by name.
    pub fn sandbox_named(&self, workspace: &Workspace, name: &Name) -> Option<&Arc<Sandbox>> {
        let id = self.sandbox_names.get(&(workspace.clone(), name.clone()))?;
        self.sandboxes.get(id)
    }

    /// The imported profile that counts for `id` in a workspace: its own, or the platform's.
    pub fn custom_profile(
        &self,
        workspace: &Workspace,
        id: &ProfileId,
    ) -> Option<&Arc<CustomProfile>> {
        [Scope::Workspace(workspace.clone()), Scope::Platform]
            .into_iter()
            .find_map(|scope| self.profiles.get(&(scope, id.clone())))
    }

    /// The imported profiles of one scope, by id.
    pub fn profiles_in(&self, scope: Scope) -> impl Iterator<Item = &Arc<CustomProfile>> {
        self.profiles
            .values()
            .filter(move |custom| custom.scope == scope)
    }

    /// The credentials of one provider, in order of their keys.
    pub fn credentials_of(&self, provider: &Provider) -> impl Iterator<Item = &Arc<Credential>> {
        let id = provider.id;
        provider.credentials.iter().filter_map(move |key| {
            self.credentials.get(&CredentialId {
                provider: id,
                key: key.clone(),
            })
        })
    }

    /// The revocations about one credential, oldest first; it may be gone.
    pub fn revocations_of<'a>(
        &'a self,
        credential: &'a CredentialId,
    ) -> impl Iterator<Item = &'a Arc<Revocation>> {
        let first = RevocationId {
            credential: credential.clone(),
            asked: Position(0),
        };
        let from_first = self.revocations.range(first..);
        from_first
            .take_while(move |(id, _)| id.credential == *credential)
            .map(|(_, revocation)| revocation)
    }

    /// Every name that sandboxes know values of the provider by: more than its keys where one
    /// mint has several outputs.
    pub fn names_of<'a>(
        &'a self,
        provider: &'a Provider,
    ) -> impl Iterator<Item = &'a CredentialKey> {
        self.credentials_of(provider).flat_map(|c| c.names())
    }

    /// The credentials that have a ticket out, in order.
    pub fn ticketed(&self) -> impl Iterator<Item = &Arc<Credential>> {
        self.tickets
            .keys()
            .filter_map(|id| self.credentials.get(id))
    }

    /// The bytes of one record; `None` if the object is not there.
    pub fn record(&self, key: &Key) -> Option<Vec<u8>> {
        fn bytes<T: Serialize>(value: &T) -> Vec<u8> {
            postcard::to_stdvec(value).expect("records are plain data, which postcard encodes")
        }
        match key {
            Key::Meta => Some(bytes(&self.meta)),
            Key::DataKey(id) => self.data_keys.get(id).map(|v| bytes(v.as_ref())),
            Key::Replica(id) => self.replicas.get(id).map(|v| bytes(v.as_ref())),
            Key::Shard(id) => self.shards.get(id).map(|v| bytes(v.as_ref())),
            Key::Provider(id) => self.providers.get(id).map(|v| bytes(v.as_ref())),
            Key::Credential(id) => self.credentials.get(id).map(|v| bytes(v.as_ref())),
            Key::Route(workspace, name) => self
                .routes
                .get(&(workspace.clone(), name.clone()))
                .map(|v| bytes(v.as_ref())),
            Key::Workspace(name) => self.workspaces.get(name).map(|v| bytes(v.as_ref())),
            Key::Sandbox(id) => self.sandboxes.get(id).map(|v| bytes(v.as_ref())),
            Key::Audit(number) => self.audit.get(number).map(|v| bytes(v.as_ref())),
            Key::Answer(id) => self.answers.get(id).map(|v| bytes(v.as_ref())),
            Key::SigningKey(id) => self.signing_keys.get(id).map(|v| bytes(v.as_ref())),
            Key::Profile(scope, id) => self
                .profiles
                .get(&(scope.clone(), id.clone()))
                .map(|v| bytes(v.as_ref())),
            Key::Platform => {
                (*self.platform != Platform::default()).then(|| bytes(self.platform.as_ref()))
            }
            Key::Authority => self.authority.as_ref().map(|v| bytes(v.as_ref())),
            Key::JoinToken(id) => self.join_tokens.get(id).map(|v| bytes(v.as_ref())),
            Key::Revocation(id) => self.revocations.get(id).map(|v| bytes(v.as_ref())),
        }
    }

    /// Every key that has a record, in order.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        std::iter::once(Key::Meta)
            .chain(self.data_keys.keys().map(|id| Key::DataKey(*id)))
            .chain(self.replicas.keys().map(|id| Key::Replica(*id)))
            .chain(self.shards.keys().map(|id| Key::Shard(*id)))
            .chain(self.providers.keys().map(|id| Key::Provider(*id)))
            .chain(self.credentials.keys().cloned().map(Key::Credential))
            .chain(
                self.routes
                    .keys()
                    .cloned()
                    .map(|(workspace, name)| Key::Route(workspace, name)),
            )
            .chain(self.workspaces.keys().cloned().map(Key::Workspace))
            .chain(self.sandboxes.keys().map(|id| Key::Sandbox(*id)))
            .chain(self.audit.keys().map(|n| Key::Audit(*n)))
            .chain(self.answers.keys().map(|id| Key::Answer(*id)))
            .chain(self.signing_keys.keys().map(|id| Key::SigningKey(*id)))
            .chain(
                self.profiles
                    .keys()
                    .cloned()
                    .map(|(scope, id)| Key::Profile(scope, id)),
            )
            .chain((*self.platform != Platform::default()).then_some(Key::Platform))
            .chain(self.authority.iter().map(|_| Key::Authority))
            .chain(self.join_tokens.keys().map(|id| Key::JoinToken(*id)))
            .chain(self.revocations.keys().cloned().map(Key::Revocation))
    }

    /// Every record, in the order of its keys: what a snapshot consists of.
    pub fn records(&self) -> impl Iterator<Item = (Key, Vec<u8>)> + '_ {
        self.keys().filter_map(|key| {
            let bytes = self.record(&key)?;
            Some((key, bytes))
        })
    }

    /// The state that consists of `records`; their order does not matter.
    ///
    /// # Errors
    /// [`BadRecord`] for a record that cannot be read or is of another format.
    pub fn from_records(
        records: impl IntoIterator<Item = (Key, Vec<u8>)>,
    ) -> Result<Self, BadRecord> {
        fn read<T: DeserializeOwned>(key: &Key, bytes: &[u8]) -> Result<T, BadRecord> {
            postcard::from_bytes(bytes).map_err(|e| BadRecord(format!("{key:?}: {e}")))
        }
        let mut state = Self::default();
        for (key, bytes) in records {
            let b = &bytes;
            match &key {
                Key::Meta => {
                    state.meta = read(&key, b)?;
                    if state.meta.format != crate::record::FORMAT {
                        return Err(BadRecord(format!(
                            "format {} is not {}",
                            state.meta.format,
                            crate::record::FORMAT
                        )));
                    }
                }
                Key::DataKey(id) => {
                    state.data_keys.insert(*id, Arc::new(read(&key, b)?));
                }
                Key::Replica(id) => {
                    state.replicas.insert(*id, Arc::new(read(&key, b)?));
                }
                Key::Shard(id) => {
                    state.shards.insert(*id, Arc::new(read(&key, b)?));
                }
                Key::Provider(id) => {
                    let provider: Provider = read(&key, b)?;
                    state
                        .provider_names
                        .insert((provider.workspace.clone(), provider.name.clone()), *id);
                    state.providers.insert(*id, Arc::new(provider));
                }
                Key::Credential(id) => {
                    let credential: Credential = read(&key, b)?;
                    if credential.ticket().is_some() {
                        state.tickets.insert(id.clone(), ());
                    }
                    state.credentials.insert(id.clone(), Arc::new(credential));
                }
                Key::Route(workspace, name) => {
                    state
                        .routes
                        .insert((workspace.clone(), name.clone()), Arc::new(read(&key, b)?));
                }
                Key::Workspace(name) => {
                    state
                        .workspaces
                        .insert(name.clone(), Arc::new(read(&key, b)?));
                }
                Key::Sandbox(id) => {
                    let sandbox: Sandbox = read(&key, b)?;
                    state
                        .sandbox_names
                        .insert((sandbox.workspace.clone(), sandbox.name.clone()), *id);
                    state.sandboxes.insert(*id, Arc::new(sandbox));
                }
                Key::Audit(number) => {
                    state.audit.insert(*number, Arc::new(read(&key, b)?));
                }
                Key::Answer(id) => {
                    let answer: Answer = read(&key, b)?;
                    state.answer_order.insert(answer.position, *id);
                    state.answers.insert(*id, Arc::new(answer));
                }
                Key::SigningKey(id) => {
                    state.signing_keys.insert(*id, Arc::new(read(&key, b)?));
                }
                Key::Profile(scope, id) => {
                    state
                        .profiles
                        .insert((scope.clone(), id.clone()), Arc::new(read(&key, b)?));
                }
                Key::Platform => state.platform = Arc::new(read(&key, b)?),
                Key::Authority => {
                    state.authority = Some(Arc::new(read(&key, b)?));
                }
                Key::JoinToken(id) => {
                    state.join_tokens.insert(*id, Arc::new(read(&key, b)?));
                }
                Key::Revocation(id) => {
                    state
                        .revocations
                        .insert(id.clone(), Arc::new(read(&key, b)?));
                }
            }
        }
        Ok(state)
    }

    /// A hash over all records: equal states have equal hashes on every replica.
    pub fn hash(&self) -> u64 {
        let mut hasher = Xxh3::new();
        for (key, bytes) in self.records() {
            let key = key.to_bytes();
            hasher.update(&(key.len() as u64).to_be_bytes());
            hasher.update(&key);
            hasher.update(&(bytes.len() as u64).to_be_bytes());
            hasher.update(&bytes);
        }
        hasher.digest()
    }
}
