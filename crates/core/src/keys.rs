//! The keys under which secrets rest, and every secret of the state with its place.
//!
//! Data keys are never dropped: journals and backups may hold what one of them sealed, and a
//! wrapped key is some eighty bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::admission::Authority;
use crate::credential::{Credential, Refresh, Value};
use crate::id::{CredentialId, CredentialKey, SigningKeyId};
use crate::revocation::{Ended, Revocation, RevocationId, Stage, Work};
use crate::secret::{DataKeyId, SealId, Sealed, WrappedKey};
use crate::signing::SigningKey;
use crate::state::State;

/// Data keys that a cluster can have; a new one every month lasts for eighty years.
pub const DATA_KEYS_MAX: usize = 1000;

/// Secrets that one [`Reseal`](crate::command::Command::Reseal) replaces at most.
pub const RESEAL_MAX: usize = 256;

/// Where a sealed value stands. It opens nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Place {
    /// One output of a credential's value.
    Value {
        /// The credential.
        credential: CredentialId,
        /// The output's name.
        output: CredentialKey,
    },
    /// One piece of a refresh's secret material.
    Material {
        /// The credential.
        credential: CredentialId,
        /// The material's name.
        name: String,
    },
    /// The private half of a signing key.
    SigningKey(SigningKeyId),
    /// The private key of the cluster's certificate authority.
    Authority,
    /// A piece of the material by which an issuer is told of a revocation.
    RevokedMaterial {
        /// The revocation.
        revocation: RevocationId,
        /// The material's name.
        name: String,
    },
    /// A token that is to be revoked.
    RevokedToken {
        /// The revocation.
        revocation: RevocationId,
        /// Which of its tokens, the oldest first.
        index: usize,
    },
}

/// One secret under a newer data key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resealed {
    /// Where it stands.
    pub place: Place,
    /// What was opened. If something else stands there by now, that stays.
    pub from: SealId,
    /// The same secret, sealed anew.
    pub to: Sealed,
}

/// A data key's wrapping under another key-encryption key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewrapped {
    /// Which key.
    pub key: DataKeyId,
    /// The nonce of the wrapping that was opened.
    pub from: [u8; 12],
    /// The same key, wrapped anew.
    pub to: WrappedKey,
}

/// The data key that seals: the newest.
pub fn newest(state: &State) -> Option<(DataKeyId, &WrappedKey)> {
    let (id, wrapped) = state.data_keys.get_max()?;
    Some((*id, wrapped))
}

/// Every secret of the state.
///
/// All of every type on the way to a secret is taken apart by name: a field that is added to one of
/// them does not compile until somebody has said here whether a secret is in it.
pub fn sealed(state: &State) -> impl Iterator<Item = (Place, &Sealed)> {
    let State {
        credentials,
        signing_keys,
        authority,
        revocations,
        meta: _,
        data_keys: _,
        replicas: _,
        shards: _,
        providers: _,
        routes: _,
        workspaces: _,
        sandboxes: _,
        audit: _,
        answers: _,
        profiles: _,
        platform: _,
        join_tokens: _,
        provider_names: _,
        sandbox_names: _,
        answer_order: _,
        tickets: _,
    } = state;
    let credentials = credentials.values().flat_map(|c| of_credential(c));
    let signing = signing_keys.values().map(|key| of_signing_key(key));
    let authority = authority.iter().map(|authority| of_authority(authority));
    let revocations = revocations.values().flat_map(|r| of_revocation(r));
    credentials
        .chain(signing)
        .chain(authority)
        .chain(revocations)
}

fn of_credential(credential: &Credential) -> impl Iterator<Item = (Place, &Sealed)> {
    let Credential {
        id,
        value,
        refresh,
        workspace: _,
        shard: _,
        generation: _,
        attempt: _,
        phase: _,
        settled: _,
        touched: _,
    } = credential;
    let outputs = value.iter().flat_map(|value| {
        let Value {
            outputs,
            issued_at: _,
            expires_at: _,
            generation: _,
            position: _,
        } = value;
        outputs
    });
    let material = refresh.iter().flat_map(|refresh| {
        let Refresh {
            material,
            config: _,
            epoch: _,
            due_at: _,
            early_from: _,
            due_reason: _,
            failures: _,
            health: _,
            last_mint_at: _,
            lost: _,
            learned_ends: _,
            doomed: _,
        } = refresh;
        material
    });
    let outputs = outputs.map(|(output, sealed)| {
        let (credential, output) = (id.clone(), output.clone());
        (Place::Value { credential, output }, sealed)
    });
    let material = material.map(|(name, sealed)| {
        let (credential, name) = (id.clone(), name.clone());
        (Place::Material { credential, name }, sealed)
    });
    outputs.chain(material)
}

fn of_signing_key(key: &SigningKey) -> (Place, &Sealed) {
    let SigningKey {
        id,
        public: _,
        private,
        added: _,
        since: _,
    } = key;
    (Place::SigningKey(*id), private)
}

fn of_authority(authority: &Authority) -> (Place, &Sealed) {
    let Authority {
        key,
        certificate: _,
        since: _,
    } = authority;
    (Place::Authority, key)
}

fn of_revocation(revocation: &Revocation) -> impl Iterator<Item = (Place, &Sealed)> {
    let Revocation {
        id,
        stage,
        workspace: _,
        provider: _,
        shard: _,
        target: _,
        asked_at: _,
    } = revocation;
    let work = match stage {
        Stage::Open(work) => Some(work),
        Stage::Ended(Ended {
            at: _,
            position: _,
            tries: _,
            end: _,
        }) => None,
    };
    work.into_iter().flat_map(move |work| {
        let Work {
            material,
            tokens,
            config: _,
            awaits: _,
            needless_from: _,
            due_at: _,
            until: _,
            tries: _,
            claim: _,
            cause: _,
        } = work.as_ref();
        let material = material.iter().map(|(name, sealed)| {
            let (revocation, name) = (id.clone(), name.clone());
            (Place::RevokedMaterial { revocation, name }, sealed)
        });
        let tokens = tokens.iter().enumerate().map(|(index, sealed)| {
            let revocation = id.clone();
            (Place::RevokedToken { revocation, index }, sealed)
        });
        material.chain(tokens)
    })
}

/// How many secrets rest under each data key.
pub fn sealed_under(state: &State) -> BTreeMap<DataKeyId, usize> {
    let mut counts: BTreeMap<_, _> = state.data_keys.keys().map(|id| (*id, 0)).collect();
    for (_, sealed) in sealed(state) {
        *counts.entry(sealed.key).or_default() += 1;
    }
    counts
}
