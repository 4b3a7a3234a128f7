//! Bootstrap, members and placement.

use std::sync::Arc;

use super::{Tx, changed};
use crate::command::{Done, Kind, Outcome, Refusal};
use crate::id::{InstallationId, ReplicaId, SessionId, ShardEpoch, ShardId};
use crate::placement::Assignment;
use crate::record::Key;
use crate::secret::{DataKeyId, WrappedKey};
use crate::settings::Settings;
use crate::state::Replica;

impl Tx<'_> {
    pub(super) fn bootstrap(
        &mut self,
        settings: &Settings,
        (data_key, wrapped): (DataKeyId, &WrappedKey),
        (installation, peer_address, api_address): (InstallationId, &str, &str),
    ) -> Outcome {
        if self.state.meta.settings.is_some() {
            return Err(Refusal::AlreadyBootstrapped);
        }
        settings
            .validate()
            .map_err(|e| Refusal::BadSetting(e.to_string()))?;
        self.state.meta.settings = Some(settings.clone());
        self.state
            .data_keys
            .insert(data_key, Arc::new(wrapped.clone()));
        self.touched.insert(Key::DataKey(data_key));
        self.audit_change("bootstrap", installation);
        self.register_replica(installation, peer_address, api_address)
    }

    /// In a cluster that admits replicas by tokens, those alone that it knows.
    pub(super) fn announce_replica(
        &mut self,
        installation: InstallationId,
        peer_address: &str,
        api_address: &str,
    ) -> Outcome {
        let mut replicas = self.state.replicas.values();
        let is_known = replicas.any(|r| r.installation == installation);
        if self.state.authority.is_some() && !is_known {
            return Err(Refusal::JoinTokenNeeded);
        }
        self.register_replica(installation, peer_address, api_address)
    }

    pub(super) fn register_replica(
        &mut self,
        installation: InstallationId,
        peer_address: &str,
        api_address: &str,
    ) -> Outcome {
        let known = self
            .state
            .replicas
            .values()
            .find(|r| r.installation == installation)
            .cloned();
        let replica = match known {
            Some(known) => {
                if (&*known.peer_address, &*known.api_address) != (peer_address, api_address) {
                    let id = known.id;
                    self.audit_change("move-replica", format_args!("{id} to {peer_address}"));
                }
                Replica {
                    peer_address: peer_address.to_owned(),
                    api_address: api_address.to_owned(),
                    ..known.as_ref().clone()
                }
            }
            None => {
                let id = ReplicaId(self.state.meta.next_replica);
                self.state.meta.next_replica += 1;
                self.audit_change("register-replica", id);
                Replica {
                    id,
                    installation,
                    peer_address: peer_address.to_owned(),
                    api_address: api_address.to_owned(),
                    joined_at: self.stamp.at,
                }
            }
        };
        let id = replica.id;
        self.touched.insert(Key::Replica(id));
        self.state.replicas.insert(id, Arc::new(replica));
        Ok(Done::Replica(id))
    }

    /// The replica's tickets stay: the leader expires them when their time has come.
    pub(super) fn remove_replica(&mut self, replica: ReplicaId) -> Outcome {
        let removed = self.state.replicas.remove(&replica).is_some();
        if removed {
            self.touched.insert(Key::Replica(replica));
            self.audit_change("remove-replica", replica);
        }
        changed(removed)
    }

    /// All moves or none. A ticket of the former owner stays valid until it is settled or the
    /// leader expires it: only then may the new owner get one (G1, G2).
    pub(super) fn assign_shards(
        &mut self,
        based_on: u64,
        moves: &[(ShardId, ReplicaId, SessionId)],
    ) -> Outcome {
        let current = self.state.meta.placement_version;
        if based_on != current {
            return Err(Refusal::PlacementChanged(current));
        }
        let shards = self.settings().shards;
        for (shard, replica, _) in moves {
            if shard.0 >= shards {
                return Err(Refusal::NotFound(Kind::Shard));
            }
            if !self.state.replicas.contains_key(replica) {
                return Err(Refusal::NotFound(Kind::Replica));
            }
        }
        for (shard, replica, session) in moves {
            let epoch = self
                .state
                .shards
                .get(shard)
                .map_or(ShardEpoch(1), |a| ShardEpoch(a.epoch.0 + 1));
            let assignment = Assignment {
                replica: *replica,
                session: *session,
                epoch,
            };
            self.touched.insert(Key::Shard(*shard));
            self.state.shards.insert(*shard, Arc::new(assignment));
        }
        self.state.meta.placement_version += 1;
        Ok(Done::Version(self.state.meta.placement_version))
    }
}
