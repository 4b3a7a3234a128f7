//! Whatever a store, or a peer, may hand over.

use bytes::Bytes;
use evermint_core::command::{Batch, Command, Proposal};
use evermint_core::id::{InstallationId, ReplicaId, RequestId};
use evermint_core::state::{Replica, State};
use evermint_core::time::UnixMs;
use evermint_fuzz::Corpus;
use evermint_proto::replica::v1 as wire;
use openraft::{EntryPayload, Membership};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::raft::{Entry, Peer};
use crate::snapshot::{Assembly, parts};
use crate::stored::{EncodedBatch, entry, from_wire, payload_bytes, to_wire, vote_from_wire};

fn batch() -> Batch {
    let register = Command::RegisterReplica {
        installation: InstallationId(7),
        peer_address: "127.0.0.1:1".to_owned(),
        api_address: "http://127.0.0.1:2".to_owned(),
    };
    Batch {
        at: UnixMs(1_000),
        proposals: vec![Proposal {
            by: None,
            request: RequestId(1),
            command: register,
        }],
    }
}

fn payloads() -> Vec<Bytes> {
    let peers = BTreeMap::from([(1, Peer::new("a:1")), (4, Peer::new("b:2"))]);
    let joint = vec![BTreeSet::from([1]), BTreeSet::from([1, 4])];
    let kinds = [
        EntryPayload::Blank,
        EntryPayload::Normal(EncodedBatch::new(&batch())),
        EntryPayload::Membership(Membership::new(joint, peers)),
    ];
    let entries = kinds.map(|payload| Entry {
        log_id: from_wire(wire::LogId::default()),
        payload,
    });
    entries.iter().map(payload_bytes).collect()
}

#[test]
fn fuzz_an_entry_is_unreadable_or_stands_as_it_was_read() {
    Corpus::new(payloads()).fuzz(|bytes| {
        let id = from_wire(wire::LogId::default());
        let Ok(read) = entry(id, Bytes::copy_from_slice(bytes)) else {
            return;
        };
        if let EntryPayload::Normal(batch) = &read.payload {
            // Unreadable or not: the machine stops at what it cannot read.
            let _decoded = batch.decode();
        }
        assert_eq!(entry(id, payload_bytes(&read)), Ok(read));
    });
}

#[test]
fn fuzz_a_message_of_a_peer_is_taken_or_refused() {
    let id = wire::LogId {
        term: 3,
        leader: 2,
        index: 7,
    };
    let entries = payloads().into_iter().map(|payload| wire::Entry {
        id: Some(id),
        payload,
    });
    let append = wire::AppendRequest {
        envelope: Some(wire::Envelope {
            cluster: Bytes::from_static(&[7; 16]),
            from: 1,
            to: 2,
        }),
        vote: Some(wire::Ballot {
            term: 3,
            candidate: 2,
            committed: true,
        }),
        previous: Some(id),
        committed: Some(id),
        entries: entries.collect(),
    };
    Corpus::new([append.encode_to_vec()]).fuzz(|bytes| {
        let Ok(append) = wire::AppendRequest::decode(bytes) else {
            return;
        };
        let vote = append.vote.map(vote_from_wire);
        assert_eq!(vote.map(crate::stored::vote_to_wire), append.vote);
        for wire in append.entries {
            let id = wire.id.unwrap_or_default();
            assert_eq!(to_wire(from_wire(id)), id);
            let _read = entry(from_wire(id), wire.payload);
        }
    });
}

#[test]
fn fuzz_a_snapshot_is_put_together_as_it_was_or_refused() {
    use wire::install_snapshot_request::Part;
    let mut state = State::default();
    for id in 1..=3 {
        let replica = Replica {
            id: ReplicaId(id),
            installation: InstallationId(u128::from(id)),
            peer_address: "127.0.0.1:1".to_owned(),
            api_address: String::new(),
            joined_at: UnixMs(id),
        };
        state.replicas.insert(ReplicaId(id), Arc::new(replica));
    }
    let state = Arc::new(state);
    let messages: Vec<Part> = parts(state.clone()).collect();
    let Some(Part::Trailer(trailer)) = messages.last().cloned() else {
        panic!("a snapshot ends with its trailer");
    };
    let chunks = messages.into_iter().filter_map(|part| match part {
        Part::Chunk(chunk) => Some(chunk.encode_to_vec()),
        Part::Header(_) | Part::Trailer(_) => None,
    });
    Corpus::new(chunks).fuzz(|bytes| {
        let Ok(chunk) = wire::SnapshotChunk::decode(bytes) else {
            return;
        };
        let mut assembly = Assembly::default();
        let added = assembly.add(chunk);
        if let Ok(whole) = added.and_then(|()| assembly.finish(trailer)) {
            assert_eq!(whole.0, state);
        }
    });
}
