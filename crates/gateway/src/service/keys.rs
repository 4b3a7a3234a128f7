//! `evermint.v1.Keys`.

use std::collections::{BTreeMap, BTreeSet};

use evermint_core::command::Command;
use evermint_core::id::{Position, ReplicaId};
use evermint_core::keys;
use evermint_core::state::State;
use evermint_proto::v1;
use evermint_proto::v1::keys_server::Keys;
use evermint_seal::rotation;
use tonic::{Request, Response, Status};

use super::Services;
use crate::port::Peer;
use crate::status;

#[tonic::async_trait]
impl Keys for Services {
    async fn get_key_status(
        &self,
        request: Request<v1::GetKeyStatusRequest>,
    ) -> Result<Response<v1::GetKeyStatusResponse>, Status> {
        let state = self.read(request.into_inner().consistent).await?;
        let raft = self.ports.control.status();
        Ok(Response::new(shown(&state, &raft.peers)))
    }

    async fn rotate_data_key(
        &self,
        _request: Request<v1::RotateDataKeyRequest>,
    ) -> Result<Response<v1::RotateDataKeyResponse>, Status> {
        self.catch_up().await?;
        let next = rotation::next_data_key(self.keyring(), &self.state());
        let (id, wrapped) = next.map_err(|error| {
            tracing::error!(%error, "no data key could be made");
            status::internal("this replica cannot make a data key; its log says why")
        })?;
        let written = self.propose(Command::AddDataKey { id, wrapped }).await?;
        Ok(Response::new(v1::RotateDataKeyResponse {
            data_key: id.0,
            position: written.position.0,
        }))
    }
}

fn shown(state: &State, peers: &BTreeMap<ReplicaId, Peer>) -> v1::GetKeyStatusResponse {
    let secrets = keys::sealed_under(state);
    let newest = keys::newest(state).map(|(id, _)| id);
    let older = secrets.iter().filter(|(id, _)| Some(**id) < newest);
    v1::GetKeyStatusResponse {
        keks: keks(state, peers),
        secrets_to_reseal: older.map(|(_, count)| *count as u64).sum(),
        data_keys: state
            .data_keys
            .iter()
            .map(|(id, wrapped)| v1::DataKey {
                id: id.0,
                kek: wrapped.kek.clone(),
                secrets: secrets.get(id).copied().unwrap_or_default() as u64,
            })
            .collect(),
        position: state.meta.position.0,
    }
}

fn keks(state: &State, peers: &BTreeMap<ReplicaId, Peer>) -> Vec<v1::KeyEncryptionKey> {
    let members: BTreeMap<ReplicaId, Option<&Peer>> = state
        .replicas
        .keys()
        .map(|id| (*id, peers.get(id)))
        .collect();
    let in_use: BTreeSet<&str> = state.data_keys.values().map(|k| k.kek.as_str()).collect();
    let held = members.values().flatten().flat_map(|peer| &peer.keks);
    let names: BTreeSet<&str> = in_use
        .iter()
        .copied()
        .chain(held.map(String::as_str))
        .collect();
    let those = |holds: &dyn Fn(&Peer) -> bool| -> Vec<u64> {
        let replicas = members.iter();
        let those = replicas.filter(|(_, peer)| peer.is_some_and(holds));
        those.map(|(id, _)| id.0).collect()
    };
    names
        .into_iter()
        .map(|name| {
            let wraps = state.data_keys.values().filter(|key| key.kek == name);
            let wanted_by = those(&|peer| wants(peer, name));
            v1::KeyEncryptionKey {
                name: name.to_owned(),
                data_keys: u32::try_from(wraps.count()).unwrap_or(u32::MAX),
                replicas: those(&|peer| peer.keks.iter().any(|kek| kek == name)),
                needed_for: needed_for(state, &members, &in_use, name),
                waits_for: match wanted_by.is_empty() || in_use.iter().all(|kek| *kek == name) {
                    true => String::new(),
                    false => waits_for(&members, name),
                },
                wanted_by,
            }
        })
        .collect()
}

fn wants(peer: &Peer, kek: &str) -> bool {
    peer.keks.first().is_some_and(|first| first == kek)
}

/// What would not open any more without the key.
fn needed_for(
    state: &State,
    members: &BTreeMap<ReplicaId, Option<&Peer>>,
    in_use: &BTreeSet<&str>,
    name: &str,
) -> Vec<String> {
    if in_use.contains(name) {
        let wrapped = state.data_keys.iter().filter(|(_, key)| key.kek == name);
        let ids: Vec<_> = wrapped.map(|(id, _)| id.0.to_string()).collect();
        return vec![format!("it wraps data key {}", ids.join(", "))];
    }
    // A replica may come back with a state of before, as long as it has not cut its log since.
    let done = |peer: &&Peer| {
        peer.erased
            .is_some_and(|erased| erased >= state.meta.rewrapped)
    };
    let behind = members
        .iter()
        .filter(|(_, peer)| peer.as_ref().is_none_or(|peer| !done(peer)));
    match state.meta.rewrapped {
        Position(0) => Vec::new(),
        _ => behind
            .map(|(id, _)| format!("replica {id} may still have data keys under it on its disk"))
            .collect(),
    }
}

fn waits_for(members: &BTreeMap<ReplicaId, Option<&Peer>>, name: &str) -> String {
    let others = members
        .iter()
        .filter(|(_, peer)| !peer.is_some_and(|peer| wants(peer, name)));
    let others: Vec<_> = others.map(|(id, _)| format!("replica {id}")).collect();
    match others.is_empty() {
        true => "the leader, which is about to change them".to_owned(),
        false => format!("{}, to be started with it", others.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use evermint_core::secret::{DataKeyId, WrappedKey};
    use evermint_core::state::Replica;
    use evermint_core::time::UnixMs;

    use super::*;

    fn check(wrapped: &str, rewrapped: u64, peers: &[(&[&str], u64)], told: &[(&str, &str)]) {
        let mut state = State::default();
        state.meta.rewrapped = Position(rewrapped);
        let key = WrappedKey {
            kek: wrapped.to_owned(),
            nonce: [0; 12],
            ciphertext: Vec::new(),
        };
        state.data_keys.insert(DataKeyId(1), Arc::new(key));
        let mut known = BTreeMap::new();
        for (n, (keks, erased)) in (1..).zip(peers) {
            let id = ReplicaId(n);
            let replica = Replica {
                id,
                installation: evermint_core::id::InstallationId(n.into()),
                peer_address: String::new(),
                api_address: String::new(),
                joined_at: UnixMs(0),
            };
            state.replicas.insert(id, Arc::new(replica));
            if !keks.is_empty() {
                let peer = Peer {
                    keks: keks.iter().map(|kek| (*kek).to_owned()).collect(),
                    erased: Some(Position(*erased)),
                    ..Peer::default()
                };
                known.insert(id, peer);
            }
        }
        let keks = shown(&state, &known).keks;
        let shown: Vec<_> = keks
            .iter()
            .map(|kek| {
                let why = match kek.waits_for.is_empty() {
                    true => kek.needed_for.join("; "),
                    false => format!("waits for {}", kek.waits_for),
                };
                (kek.name.as_str(), why)
            })
            .collect();
        let told: Vec<_> = told
            .iter()
            .map(|(n, why)| (*n, (*why).to_owned()))
            .collect();
        assert_eq!(shown, told);
    }

    #[test]
    fn a_kek_is_needed_until_nothing_on_any_disk_is_wrapped_by_it() {
        let wraps = "it wraps data key 1";
        let disk = "replica 2 may still have data keys under it on its disk";
        let next: (&[&str], u64) = (&["new", "old"], 0);
        // Nobody rotates.
        check("old", 0, &[(&["old"], 0)], &[("old", wraps)]);
        // One replica was started with the new one; then another one; a third is not heard of.
        let second = "waits for replica 2, to be started with it";
        check(
            "old",
            0,
            &[next, (&["old"], 0)],
            &[("new", second), ("old", wraps)],
        );
        check(
            "old",
            0,
            &[next, (&[], 0)],
            &[("new", second), ("old", wraps)],
        );
        let leader = "waits for the leader, which is about to change them";
        check("old", 0, &[next, next], &[("new", leader), ("old", wraps)]);
        // All data keys are under the new one; the logs are being cut.
        let cut: (&[&str], u64) = (&["new", "old"], 7);
        check("new", 7, &[cut, next], &[("new", wraps), ("old", disk)]);
        check("new", 7, &[cut, cut], &[("new", wraps), ("old", "")]);
    }
}
