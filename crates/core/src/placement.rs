//! Who owns which credential: credentials hash to shards, shards are assigned to replicas.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::id::{CredentialId, ReplicaId, SessionId, ShardEpoch, ShardId};

/// The owner of one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Which replica.
    pub replica: ReplicaId,
    /// In which life: a restarted replica owns nothing that its former life owned.
    pub session: SessionId,
    /// Grows with every change.
    pub epoch: ShardEpoch,
}

/// The shard of a credential, out of `shards`. Stable: it is stored.
pub fn shard_of(credential: &CredentialId, shards: u16) -> ShardId {
    let mut hasher = Xxh3::new();
    hasher.update(&credential.provider.0.to_be_bytes());
    hasher.update(credential.key.as_str().as_bytes());
    let shard = hasher.digest() % u64::from(shards.max(1));
    ShardId(u16::try_from(shard).expect("below a u16"))
}

/// The owner of `shard` among `live`, by rendezvous (highest random weight) hashing: when a
/// replica leaves, only its own shards move; when one joins, it takes only what becomes its own.
pub fn rendezvous(
    shard: ShardId,
    live: &BTreeMap<ReplicaId, SessionId>,
) -> Option<(ReplicaId, SessionId)> {
    live.iter()
        .max_by_key(|(replica, _)| {
            let mut bytes = [0; 10];
            bytes[..2].copy_from_slice(&shard.0.to_be_bytes());
            bytes[2..].copy_from_slice(&replica.0.to_be_bytes());
            (xxh3_64(&bytes), **replica)
        })
        .map(|(replica, session)| (*replica, *session))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(ids: &[u64]) -> BTreeMap<ReplicaId, SessionId> {
        ids.iter()
            .map(|id| (ReplicaId(*id), SessionId(u128::from(*id))))
            .collect()
    }

    #[test]
    fn only_the_shards_of_a_lost_replica_move() {
        let (before, after) = (live(&[1, 2, 3]), live(&[1, 3]));
        for shard in (0..256).map(ShardId) {
            let was = rendezvous(shard, &before);
            let is = rendezvous(shard, &after);
            if was.map(|(r, _)| r) != Some(ReplicaId(2)) {
                assert_eq!(was, is);
            }
        }
    }

    #[test]
    fn three_replicas_share_the_shards_evenly() {
        let mut counts = BTreeMap::new();
        for shard in (0..256).map(ShardId) {
            *counts
                .entry(rendezvous(shard, &live(&[1, 2, 3])))
                .or_insert(0) += 1;
        }
        assert!(
            counts.values().all(|n| (60..=110).contains(n)),
            "{counts:?}"
        );
    }

    #[test]
    fn no_live_replica_means_no_owner() {
        assert_eq!(rendezvous(ShardId(0), &BTreeMap::new()), None);
    }
}
