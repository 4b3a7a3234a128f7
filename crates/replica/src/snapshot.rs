//! Snapshots: the whole state as it was at one entry.
//!
//! The state shares its structure with its later versions, so that taking a snapshot costs
//! nothing but what changes afterwards, and none is ever written twice: the machine's own table
//! is its durable form. It travels as the state's records, in chunks.

use std::sync::Arc;

use evermint_core::record::{BadRecord, Key};
use evermint_core::state::State;
use evermint_proto::replica::v1 as wire;

/// The most bytes of records in one chunk, unless a single record is longer.
pub(crate) const CHUNK_BYTES: usize = 1024 * 1024;

/// The most bytes of records in one snapshot.
pub(crate) const SNAPSHOT_BYTES_MAX: usize = 4 * 1024 * 1024 * 1024;

/// The content of a snapshot.
#[derive(Clone, Debug, Default)]
pub(crate) struct SnapshotData(pub(crate) Arc<State>);

/// Cuts a snapshot into chunks, and ends with a trailer.
pub(crate) fn parts(
    state: Arc<State>,
) -> impl Iterator<Item = wire::install_snapshot_request::Part> {
    use wire::install_snapshot_request::Part;
    let mut keys: Vec<Key> = state.keys().collect();
    keys.reverse();
    let mut records = 0;
    let mut ended = false;
    std::iter::from_fn(move || {
        let mut chunk = wire::SnapshotChunk::default();
        let mut bytes = 0;
        while bytes < CHUNK_BYTES
            && let Some(key) = keys.pop()
        {
            let Some(value) = state.record(&key) else {
                continue;
            };
            let key = key.to_bytes();
            bytes += key.len() + value.len();
            chunk.records.push(wire::Record {
                key: key.into(),
                value: value.into(),
            });
        }
        if !chunk.records.is_empty() {
            records += chunk.records.len() as u64;
            return Some(Part::Chunk(chunk));
        }
        let trailer = (!ended).then(|| {
            Part::Trailer(wire::SnapshotTrailer {
                records,
                state_hash: state.hash(),
            })
        });
        ended = true;
        trailer
    })
}

/// Puts a snapshot together from its chunks.
#[derive(Default)]
pub(crate) struct Assembly {
    records: Vec<(Key, Vec<u8>)>,
    bytes: usize,
}

impl Assembly {
    /// Takes the next chunk.
    pub(crate) fn add(&mut self, chunk: wire::SnapshotChunk) -> Result<(), BadRecord> {
        for record in chunk.records {
            self.bytes += record.key.len() + record.value.len();
            if self.bytes > SNAPSHOT_BYTES_MAX {
                return Err(BadRecord("a snapshot that is too long".to_owned()));
            }
            let key = Key::from_bytes(&record.key)?;
            self.records.push((key, record.value.into()));
        }
        Ok(())
    }

    /// Ends with the trailer.
    pub(crate) fn finish(self, trailer: wire::SnapshotTrailer) -> Result<SnapshotData, BadRecord> {
        if self.records.len() as u64 != trailer.records {
            return Err(BadRecord("a snapshot that is incomplete".to_owned()));
        }
        let state = State::from_records(self.records)?;
        if state.hash() != trailer.state_hash {
            return Err(BadRecord("a snapshot with another hash".to_owned()));
        }
        Ok(SnapshotData(Arc::new(state)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evermint_core::id::InstallationId;
    use evermint_core::id::ReplicaId;
    use evermint_core::state::Replica;
    use evermint_core::time::UnixMs;

    fn state(replicas: u64) -> Arc<State> {
        let mut state = State::default();
        for id in 1..=replicas {
            let replica = Replica {
                id: ReplicaId(id),
                installation: InstallationId(u128::from(id)),
                peer_address: "p".repeat(1_000),
                api_address: String::new(),
                joined_at: UnixMs(id),
            };
            state.replicas.insert(ReplicaId(id), Arc::new(replica));
        }
        Arc::new(state)
    }

    #[test]
    fn a_snapshot_is_put_together_from_its_parts() {
        use wire::install_snapshot_request::Part;
        let state = state(3_000);
        let mut assembly = Assembly::default();
        let mut chunks = 0;
        let mut whole = None;
        for part in parts(state.clone()) {
            match part {
                Part::Chunk(chunk) => {
                    chunks += 1;
                    assembly.add(chunk).unwrap();
                }
                Part::Trailer(trailer) => {
                    whole = Some(std::mem::take(&mut assembly).finish(trailer).unwrap());
                }
                Part::Header(_) => panic!("no header here"),
            }
        }
        assert!(chunks > 1);
        assert_eq!(*whole.unwrap().0, *state);
    }

    #[test]
    fn a_snapshot_that_lacks_a_record_is_refused() {
        use wire::install_snapshot_request::Part;
        let mut assembly = Assembly::default();
        for part in parts(state(3)) {
            match part {
                Part::Chunk(mut chunk) => {
                    chunk.records.pop();
                    assembly.add(chunk).unwrap();
                }
                Part::Trailer(trailer) => {
                    assert!(std::mem::take(&mut assembly).finish(trailer).is_err());
                }
                Part::Header(_) => panic!("no header here"),
            }
        }
    }
}
