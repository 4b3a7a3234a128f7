//! The stored schema: one [`Key`] for every object of the state, and its bytes.
//!
//! The state machine's tree, snapshots and the state hash all consist of these records, so there
//! is one format to version and one to test. Bytes are [postcard](https://postcard.jamesmunns.com/wire-format).

use serde::{Deserialize, Serialize};

use crate::admission::JoinTokenId;
use crate::id::{
    CredentialId, Name, ProfileId, ProviderId, ReplicaId, RequestId, SandboxId, ShardId,
    SigningKeyId, Workspace,
};
use crate::profile::Scope;
use crate::revocation::RevocationId;
use crate::secret::DataKeyId;

/// The version of the records' format. A store with another one is refused.
pub const FORMAT: u16 = 1;

/// Names one object of the replicated state. The order is stored; append only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Key {
    /// Position, clock, counters and settings.
    Meta,
    DataKey(DataKeyId),
    Replica(ReplicaId),
    Shard(ShardId),
    Provider(ProviderId),
    Credential(CredentialId),
    Route(Workspace, Name),
    /// Outlives its routes: remembers when one of them was deleted.
    Workspace(Workspace),
    Sandbox(SandboxId),
    /// By its number.
    Audit(u64),
    Answer(RequestId),
    SigningKey(SigningKeyId),
    /// A custom profile.
    Profile(Scope, ProfileId),
    /// Settings of the platform that others keep here.
    Platform,
    Authority,
    JoinToken(JoinTokenId),
    Revocation(RevocationId),
}

impl Key {
    /// The key's bytes in the store.
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("keys are plain data, which postcard always encodes")
    }

    /// Reads a key back.
    ///
    /// # Errors
    /// When `bytes` is no key of this format.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadRecord> {
        postcard::from_bytes(bytes).map_err(|_| BadRecord("a key that cannot be read".to_owned()))
    }
}

/// A record that this build cannot read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged or unknown record: {0}")]
pub struct BadRecord(pub String);
