//! The closed list of commands that change the replicated state, and of their outcomes.
//!
//! Randomness (ids, nonces) arrives inside a command; time arrives beside it, as a
//! [`Stamp`](crate::time::Stamp). A command is proposed with a [`RequestId`], and proposing it
//! again gives the outcome of the first time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::admission::{BadJoinToken, JoinTokenId};
use crate::audit::{Origin, RefusedCalls};
use crate::credential::{Early, Reason, RefreshConfig};
use crate::id::{
    Attempt, AuthorizationEpoch, CredentialId, CredentialKey, Generation, InstallationId, Name,
    Position, ProfileId, ProviderId, ProviderType, ReplicaId, RequestId, SandboxId, SessionId,
    ShardEpoch, ShardId, SigningKeyId, TicketId, Workspace, WorkspaceId,
};
use crate::keys::{Resealed, Rewrapped};
use crate::mint::Failure;
use crate::platform::SettingValue;
use crate::profile::{Profile, Scope};
use crate::provider::Notes;
use crate::revocation::RevocationId;
use crate::secret::{DataKeyId, Sealed, WrappedKey};
use crate::settings::Settings;
use crate::time::UnixMs;

/// A command on its way into the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Chosen by the proposer, once for all retries.
    pub request: RequestId,
    /// Who asked for it; `None` for what the cluster does by itself.
    pub by: Option<Origin>,
    /// What is to change.
    pub command: Command,
}

/// What one log entry carries: the leader's stamp and the proposals that it gathered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The leader's reading of the cluster clock when it appended the entry.
    pub at: UnixMs,
    /// Applied one by one, in this order; each takes a [`Position`] of its own.
    pub proposals: Vec<Proposal>,
}

/// A change of the replicated state. The order is stored; append only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields' types say what they are")]
pub enum Command {
    // The cluster.
    /// The first command of a cluster: settings, the first data key and the first replica.
    Bootstrap {
        settings: Settings,
        data_key: DataKeyId,
        wrapped: WrappedKey,
        installation: InstallationId,
        peer_address: String,
        api_address: String,
    },
    /// Gives a replica its id. Asking again with the same installation gives the same id and
    /// updates the addresses.
    RegisterReplica {
        installation: InstallationId,
        peer_address: String,
        api_address: String,
    },
    /// Forgets a replica. Its id is never used again.
    RemoveReplica {
        replica: ReplicaId,
    },
    /// Moves shards. Refused if the placement changed since `based_on`.
    AssignShards {
        based_on: u64,
        moves: Vec<(ShardId, ReplicaId, SessionId)>,
    },

    // Providers.
    CreateProvider {
        id: ProviderId,
        workspace: Workspace,
        name: Name,
        kind: ProviderType,
        config: BTreeMap<String, String>,
        notes: Notes,
        credentials: BTreeMap<CredentialKey, StaticValue>,
    },
    /// Merges: `None` deletes a key. Refused if `expected_version` is given and not current.
    UpdateProvider {
        id: ProviderId,
        expected_version: Option<u64>,
        config: BTreeMap<String, Option<String>>,
        credentials: BTreeMap<CredentialKey, Option<StaticValue>>,
        /// Ends of static values; `None` means no end.
        expires_at: BTreeMap<CredentialKey, Option<UnixMs>>,
    },
    /// Refused while a sandbox or route uses the provider.
    DeleteProvider {
        id: ProviderId,
    },

    // Profiles.
    /// All or none: refused if the scope has one of them already.
    ImportProfiles {
        scope: Scope,
        profiles: Vec<Profile>,
    },
    /// Replaces a profile. Refused if `expected_version` is given and not current.
    UpdateProfile {
        scope: Scope,
        profile: Profile,
        expected_version: Option<u64>,
    },
    /// Refused while a provider uses the profile.
    DeleteProfile {
        scope: Scope,
        id: ProfileId,
    },

    // Refresh.
    /// Starts a new authorization epoch; what is in flight under the old one is void.
    ConfigureRefresh {
        credential: CredentialId,
        config: RefreshConfig,
        material: BTreeMap<String, Sealed>,
        /// What the operator says of the end of the value that is served now, if anything: when it
        /// is, or that there is none.
        expires_at: Option<Option<UnixMs>>,
    },
    /// Makes the next mint due at once.
    RotateCredential {
        credential: CredentialId,
    },
    /// Destroys the material; the value stays until its end.
    DeleteRefresh {
        credential: CredentialId,
    },

    // Routes and sandboxes.
    SetRoute {
        workspace: Workspace,
        name: Name,
        provider: ProviderId,
        credential: Option<CredentialKey>,
        model: String,
        timeout_secs: u64,
    },
    DeleteRoute {
        workspace: Workspace,
        name: Name,
    },
    CreateSandbox {
        id: SandboxId,
        workspace: Workspace,
        name: Name,
        providers: Vec<ProviderId>,
    },
    DeleteSandbox {
        id: SandboxId,
    },
    AttachProvider {
        sandbox: SandboxId,
        provider: ProviderId,
        expected_version: Option<u64>,
    },
    DetachProvider {
        sandbox: SandboxId,
        provider: ProviderId,
        expected_version: Option<u64>,
    },

    // The mint protocol, DESIGN §3.
    GrantTicket {
        credential: CredentialId,
        ticket: TicketId,
        owner: ReplicaId,
        session: SessionId,
        shard_epoch: ShardEpoch,
        epoch: AuthorizationEpoch,
        expected_generation: Generation,
        /// Number of tickets granted before this one: a late duplicate never matches.
        expected_attempt: Attempt,
        reason: Reason,
    },
    /// Accepted while the ticket is the current one, or the one in doubt.
    CommitMint {
        credential: CredentialId,
        ticket: TicketId,
        outputs: BTreeMap<CredentialKey, Sealed>,
        /// From before the request was sent; `None` means the configured default.
        lifetime_ms: Option<u64>,
        new_material: BTreeMap<String, Sealed>,
        /// How long pieces of material last, from before the request was sent.
        material_lifetimes_ms: BTreeMap<String, u64>,
    },
    FailMint {
        credential: CredentialId,
        ticket: TicketId,
        failure: Failure,
    },
    /// Proposed by the Raft leader alone.
    ExpireTicket {
        credential: CredentialId,
        ticket: TicketId,
    },
    /// The owner knows that nothing was sent.
    AbandonTicket {
        credential: CredentialId,
        ticket: TicketId,
    },

    // Sandbox tokens.
    /// Signs sandbox tokens from now on. Refused unless `replaces` is the key that signs now.
    AddSigningKey {
        id: SigningKeyId,
        replaces: Option<SigningKeyId>,
        public: Vec<u8>,
        private: Sealed,
    },
    /// Makes every token that the sandbox was given so far worthless.
    RevokeSandboxTokens {
        id: SandboxId,
    },
    /// A sandbox asks for a mint before it is due. Changes nothing more often than now and then.
    MintEarly {
        credential: CredentialId,
        /// The value that the sandbox speaks of.
        generation: Generation,
        early: Early,
    },

    // What OpenShell's clients know, and Evermint itself needs not.
    /// Says that a workspace is there, before anything is in it.
    CreateWorkspace {
        id: WorkspaceId,
        name: Workspace,
        notes: Notes,
    },
    /// Sets a setting of the platform, or with `None` unsets it.
    SetPlatformSetting {
        key: String,
        value: Option<SettingValue>,
    },

    // Joining a cluster that has an authority of its own.
    /// Makes an authority, drawn by the proposer, the one that signs replicas' certificates.
    /// Refused if there is one.
    AddAuthority {
        certificate: Vec<u8>,
        key: Sealed,
    },
    /// Lets one replica join within this time.
    CreateJoinToken {
        id: JoinTokenId,
        lifetime_ms: u64,
    },
    /// Uses up a token, and gives a replica its id. Asking again for the same installation and the
    /// same key gives the same id.
    AdmitReplica {
        token: JoinTokenId,
        installation: InstallationId,
        /// SHA-256 of the newcomer's public key.
        key: [u8; 32],
        peer_address: String,
        api_address: String,
    },

    // Revocation at the issuer.
    /// Deletes a provider and has the grants behind its credentials revoked, as far as their
    /// issuers can be told. Refused if none can, and where a deletion is.
    RevokeProvider {
        id: ProviderId,
    },
    /// Deletes a refresh and has its grant revoked. Refused if its issuer cannot be told.
    RevokeRefresh {
        credential: CredentialId,
    },
    /// Makes the next mint due at once, and has the value that is served now revoked a while after
    /// the new one came.
    RevokeValue {
        credential: CredentialId,
        grace_ms: u64,
    },
    /// The right to try to tell an issuer. Counts the try.
    ClaimRevocation {
        revocation: RevocationId,
        owner: ReplicaId,
        session: SessionId,
        shard_epoch: ShardEpoch,
        /// Tries before this one: a late duplicate never matches.
        expected_tries: u32,
    },
    /// The end of a try: the issuer agreed, or it failed.
    SettleRevocation {
        revocation: RevocationId,
        tries: u32,
        failure: Option<Failure>,
    },

    // Keys.
    /// Seals from now on. Refused unless it is the next one and wrapped as the newest one is.
    AddDataKey {
        id: DataKeyId,
        wrapped: WrappedKey,
    },
    /// Data keys under another key-encryption key, all or none. Refused unless every wrapping is
    /// the one that was opened, and no replica was registered since.
    RewrapDataKeys {
        /// The id that the next replica gets.
        joined: u64,
        keys: Vec<Rewrapped>,
    },
    /// Secrets under a newer data key; those that have changed since they were opened stay.
    Reseal {
        items: Vec<Resealed>,
    },

    // The audit trail.
    /// What a replica refused, gathered.
    RecordRefusals {
        calls: Vec<(Origin, RefusedCalls)>,
    },
}

impl Command {
    /// The name that audit, traces and metrics show.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Bootstrap { .. } => "bootstrap",
            Self::RegisterReplica { .. } => "register-replica",
            Self::RemoveReplica { .. } => "remove-replica",
            Self::AssignShards { .. } => "assign-shards",
            Self::CreateProvider { .. } => "create-provider",
            Self::UpdateProvider { .. } => "update-provider",
            Self::DeleteProvider { .. } => "delete-provider",
            Self::ImportProfiles { .. } => "import-profiles",
            Self::UpdateProfile { .. } => "update-profile",
            Self::DeleteProfile { .. } => "delete-profile",
            Self::ConfigureRefresh { .. } => "configure-refresh",
            Self::RotateCredential { .. } => "rotate-credential",
            Self::DeleteRefresh { .. } => "delete-refresh",
            Self::SetRoute { .. } => "set-route",
            Self::DeleteRoute { .. } => "delete-route",
            Self::CreateSandbox { .. } => "create-sandbox",
            Self::DeleteSandbox { .. } => "delete-sandbox",
            Self::AttachProvider { .. } => "attach-provider",
            Self::DetachProvider { .. } => "detach-provider",
            Self::GrantTicket { .. } => "grant-ticket",
            Self::CommitMint { .. } => "commit-mint",
            Self::FailMint { .. } => "fail-mint",
            Self::ExpireTicket { .. } => "expire-ticket",
            Self::AbandonTicket { .. } => "abandon-ticket",
            Self::AddSigningKey { .. } => "add-signing-key",
            Self::RevokeSandboxTokens { .. } => "revoke-sandbox-tokens",
            Self::MintEarly { .. } => "mint-early",
            Self::CreateWorkspace { .. } => "create-workspace",
            Self::SetPlatformSetting { .. } => "set-platform-setting",
            Self::AddAuthority { .. } => "add-authority",
            Self::CreateJoinToken { .. } => "create-join-token",
            Self::AdmitReplica { .. } => "admit-replica",
            Self::RevokeProvider { .. } => "revoke-provider",
            Self::RevokeRefresh { .. } => "revoke-refresh",
            Self::RevokeValue { .. } => "revoke-value",
            Self::ClaimRevocation { .. } => "claim-revocation",
            Self::SettleRevocation { .. } => "settle-revocation",
            Self::AddDataKey { .. } => "add-data-key",
            Self::RewrapDataKeys { .. } => "rewrap-data-keys",
            Self::Reseal { .. } => "reseal",
            Self::RecordRefusals { .. } => "record-refusals",
        }
    }

    /// Whether only the Raft leader may propose it, from its own observation: never forwarded.
    pub fn is_leaders_own(&self) -> bool {
        matches!(self, Self::ExpireTicket { .. } | Self::AssignShards { .. })
    }
}

/// A value that an operator sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticValue {
    /// The value.
    pub sealed: Sealed,
    /// Its end, if it has one.
    pub expires_at: Option<UnixMs>,
}

/// What became of a command: done, or refused with nothing changed.
pub type Outcome = Result<Done, Refusal>;

/// A command that took effect, or had taken effect before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Done {
    /// Nothing more to say.
    Ok,
    /// The replica's id.
    Replica(ReplicaId),
    /// The object's new version.
    Version(u64),
    /// Whether there was something to change: a delete of what is not there, an attach of what
    /// is attached, change nothing.
    Changed(bool),
    /// The configuration's epoch.
    Configured(AuthorizationEpoch),
    /// The ticket is granted.
    Granted {
        /// Its number.
        attempt: Attempt,
    },
    /// The value is committed.
    Committed(Generation),
    /// The ticket is settled without a value.
    Settled,
    /// So many secrets were sealed anew.
    Resealed(u32),
}

/// Why a command was refused. A refused command changes nothing but the history's position;
/// [`Voided`](Self::Voided) alone also frees the ticket that it came under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The cluster was bootstrapped before.
    #[error("the cluster is bootstrapped already")]
    AlreadyBootstrapped,
    /// The cluster was not bootstrapped.
    #[error("the cluster is not bootstrapped yet")]
    NotBootstrapped,
    /// A setting cannot be.
    #[error("setting {0}")]
    BadSetting(String),
    /// No such object.
    #[error("{0} not found")]
    NotFound(Kind),
    /// The name is taken.
    #[error("{0} already exists")]
    AlreadyExists(Kind),
    /// Someone else changed it.
    #[error("{kind} was modified concurrently (current version: {current})")]
    VersionMismatch {
        /// What.
        kind: Kind,
        /// Its version now.
        current: u64,
    },
    /// Others depend on it.
    #[error("{kind} is in use by {by}")]
    InUse {
        /// What.
        kind: Kind,
        /// By whom, names in order.
        by: String,
    },
    /// The key is minted by a refresh; only the refresh changes it.
    #[error("credential {0} is managed by a refresh; delete the refresh first")]
    RefreshManaged(CredentialKey),
    /// The credential has no refresh.
    #[error("credential has no refresh")]
    NoRefresh,
    /// Values of the credential are pushed.
    #[error("values of this credential are pushed; there is nothing to mint")]
    Pushed,
    /// Too many of something.
    #[error("too many {what}: at most {max}")]
    TooMany {
        /// What.
        what: String,
        /// The limit.
        max: usize,
    },
    /// The key belongs to two providers of one sandbox.
    #[error("credential {key} is already given by provider {provider}")]
    KeyCollision {
        /// The key.
        key: CredentialKey,
        /// The other provider.
        provider: Name,
    },
    /// The name belongs to another credential of the same provider: one of its mint's outputs, or
    /// its key.
    #[error("{key} is given by credential {credential} of this provider; change that one first")]
    OutputOf {
        /// The name.
        key: CredentialKey,
        /// The credential that gives it.
        credential: CredentialKey,
    },
    /// A mint's outputs are not those that its refresh declares; nothing of it is taken.
    #[error("the outputs are not those that the refresh declares")]
    WrongOutputs,
    /// The objects are in different workspaces.
    #[error("provider is in another workspace")]
    OtherWorkspace,
    /// The placement moved on.
    #[error("placement changed (current version: {0})")]
    PlacementChanged(u64),
    /// The shard does not exist, or not this replica owns it under this epoch.
    #[error("the shard is not owned by this replica under this epoch")]
    NotOwner,
    /// The credential moved on since the ticket was asked for.
    #[error("the credential has moved on (generation {generation}, attempt {})", attempt.0)]
    Stale {
        /// Its generation now.
        generation: Generation,
        /// Its newest attempt now.
        attempt: Attempt,
    },
    /// The configuration moved on since the ticket was asked for.
    #[error("the refresh was reconfigured")]
    EpochMismatch,
    /// Another key signs by now.
    #[error("another key signs by now")]
    SigningKeyReplaced,
    /// A ticket is out.
    #[error("another ticket is out")]
    TicketOutstanding,
    /// An earlier mint is in doubt until then.
    #[error("an earlier mint is in doubt")]
    InDoubt {
        /// When it will be settled at the latest.
        until: UnixMs,
    },
    /// A person has to act first.
    #[error("the refresh is stopped until it is reconfigured")]
    Stopped,
    /// The ticket is not, or no longer, the credential's.
    #[error("the ticket is not current")]
    TicketNotCurrent,
    /// Nobody knows how to tell the issuer.
    #[error("credential {0} cannot be revoked: its refresh has no revocation endpoint")]
    NotRevocable(CredentialKey),
    /// To revoke one token may end the grant that the next ones come from.
    #[error(
        "the tokens of credential {0} come from one grant, which an issuer may end with any of them"
    )]
    GrantAtStake(CredentialKey),
    /// Another try is under way, or it is not its time, or the revocation has ended.
    #[error("the revocation is not to be tried now")]
    RevocationNotDue,
    /// The result came under a configuration that is no longer in force; its ticket is freed.
    #[error("the refresh was reconfigured while the mint ran; its result was dropped")]
    Voided,
    /// The cluster has an authority.
    #[error("the cluster has a certificate authority already")]
    AuthorityExists,
    /// The cluster has none.
    #[error("the cluster has no certificate authority of its own: replicas join without a token")]
    NoAuthority,
    /// The cluster lets nobody in without a token.
    #[error("a join token is needed; `evermint cluster join-token` makes one")]
    JoinTokenNeeded,
    /// The token does not let this replica in.
    #[error("the join token {0}; `evermint cluster join-token` makes another")]
    BadJoinToken(BadJoinToken),
    /// Data keys, or the members that have to know their key-encryption key, have changed.
    #[error("the keys of the cluster have changed meanwhile; look at them again")]
    KeysChanged,
}

/// Kinds of objects, for refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Kind {
    Provider,
    Credential,
    Route,
    Sandbox,
    Replica,
    Shard,
    Profile,
    Workspace,
    Revocation,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Provider => "provider",
            Self::Credential => "credential",
            Self::Route => "route",
            Self::Sandbox => "sandbox",
            Self::Replica => "replica",
            Self::Shard => "shard",
            Self::Profile => "profile",
            Self::Workspace => "workspace",
            Self::Revocation => "revocation",
        })
    }
}

/// The outcome of a proposal, with the place that it took in the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Where it was applied first.
    pub position: Position,
    /// What became of it.
    pub outcome: Outcome,
}
