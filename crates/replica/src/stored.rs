//! Raft's own data as they are stored and sent: our types, so that no library's choice of bytes
//! is on disk.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use evermint_core::command::Batch;
use evermint_proto::replica::v1 as wire;
use openraft::{CommittedLeaderId, EntryPayload, LogId, Membership, StoredMembership, Vote};
use serde::{Deserialize, Serialize};

use crate::raft::{Entry, Peer};

/// Where an entry stands in the log, and who put it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) term: u64,
    pub(crate) leader: u64,
    pub(crate) index: u64,
}

impl From<LogId<u64>> for Mark {
    fn from(id: LogId<u64>) -> Self {
        Self {
            term: id.leader_id.term,
            leader: id.leader_id.node_id,
            index: id.index,
        }
    }
}

impl From<Mark> for LogId<u64> {
    fn from(mark: Mark) -> Self {
        Self::new(CommittedLeaderId::new(mark.term, mark.leader), mark.index)
    }
}

impl From<Mark> for wire::LogId {
    fn from(mark: Mark) -> Self {
        Self {
            term: mark.term,
            leader: mark.leader,
            index: mark.index,
        }
    }
}

impl From<wire::LogId> for Mark {
    fn from(id: wire::LogId) -> Self {
        Self {
            term: id.term,
            leader: id.leader,
            index: id.index,
        }
    }
}

/// A log id on its way to another replica.
pub(crate) fn to_wire(id: LogId<u64>) -> wire::LogId {
    Mark::from(id).into()
}

/// A log id that came from another replica.
pub(crate) fn from_wire(id: wire::LogId) -> LogId<u64> {
    Mark::from(id).into()
}

/// For whom a replica voted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ballot {
    pub(crate) term: u64,
    pub(crate) candidate: u64,
    pub(crate) committed: bool,
}

impl From<Vote<u64>> for Ballot {
    fn from(vote: Vote<u64>) -> Self {
        Self {
            term: vote.leader_id.term,
            candidate: vote.leader_id.node_id,
            committed: vote.committed,
        }
    }
}

impl From<Ballot> for Vote<u64> {
    fn from(ballot: Ballot) -> Self {
        match ballot.committed {
            true => Self::new_committed(ballot.term, ballot.candidate),
            false => Self::new(ballot.term, ballot.candidate),
        }
    }
}

/// A vote on its way to another replica.
pub(crate) fn vote_to_wire(vote: Vote<u64>) -> wire::Ballot {
    wire::Ballot {
        term: vote.leader_id.term,
        candidate: vote.leader_id.node_id,
        committed: vote.committed,
    }
}

/// A vote that came from another replica.
pub(crate) fn vote_from_wire(ballot: wire::Ballot) -> Vote<u64> {
    Ballot {
        term: ballot.term,
        candidate: ballot.candidate,
        committed: ballot.committed,
    }
    .into()
}

/// A membership and the entry that set it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Members {
    set_by: Option<Mark>,
    configs: Vec<BTreeSet<u64>>,
    peers: BTreeMap<u64, Peer>,
}

impl Members {
    fn plain(membership: &Membership<u64, Peer>) -> Self {
        Self {
            set_by: None,
            configs: membership.get_joint_config().clone(),
            peers: membership.nodes().map(|(id, p)| (*id, p.clone())).collect(),
        }
    }

    fn membership(self) -> Membership<u64, Peer> {
        Membership::new(self.configs, self.peers)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("members are plain data")
    }
}

impl From<&StoredMembership<u64, Peer>> for Members {
    fn from(stored: &StoredMembership<u64, Peer>) -> Self {
        Self {
            set_by: stored.log_id().map(Mark::from),
            ..Self::plain(stored.membership())
        }
    }
}

impl From<Members> for StoredMembership<u64, Peer> {
    fn from(members: Members) -> Self {
        Self::new(members.set_by.map(LogId::from), members.membership())
    }
}

/// Bytes that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} that cannot be read")]
pub(crate) struct Unreadable(pub(crate) &'static str);

const BLANK: u8 = 0;
const BATCH: u8 = 1;
const MEMBERS: u8 = 2;

/// A batch in its stored form: encoded once, by the leader that appends it, and decoded once on
/// each replica, where it is applied.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EncodedBatch(Bytes);

impl EncodedBatch {
    pub(crate) fn new(batch: &Batch) -> Self {
        let bytes = postcard::to_extend(batch, vec![BATCH]).expect("batches are plain data");
        Self(bytes.into())
    }

    /// A batch followed by zeros, as long as a test wants it.
    #[cfg(test)]
    pub(crate) fn padded(batch: &Batch, len: usize) -> Self {
        let mut bytes = Self::new(batch).0.to_vec();
        bytes.resize(len, 0);
        Self(bytes.into())
    }

    pub(crate) fn decode(&self) -> Result<Batch, Unreadable> {
        let (_, batch) = self.0.split_first().ok_or(Unreadable("a batch"))?;
        postcard::from_bytes(batch).map_err(|_| Unreadable("a batch"))
    }
}

impl std::fmt::Debug for EncodedBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Batch({} bytes)", self.0.len())
    }
}

/// An entry's payload in its stored form.
pub(crate) fn payload_bytes(entry: &Entry) -> Bytes {
    match &entry.payload {
        EntryPayload::Blank => Bytes::from_static(&[BLANK]),
        EntryPayload::Normal(batch) => batch.0.clone(),
        EntryPayload::Membership(membership) => {
            let members = Members::plain(membership);
            postcard::to_extend(&members, vec![MEMBERS])
                .expect("members are plain data")
                .into()
        }
    }
}

/// The entry at `id` with a payload in its stored form.
pub(crate) fn entry(id: LogId<u64>, payload: Bytes) -> Result<Entry, Unreadable> {
    let payload = match payload.split_first() {
        Some((&BLANK, [])) => EntryPayload::Blank,
        Some((&BATCH, _)) => EntryPayload::Normal(EncodedBatch(payload)),
        Some((&MEMBERS, members)) => postcard::from_bytes::<Members>(members)
            .map(|members| EntryPayload::Membership(members.membership()))
            .map_err(|_| Unreadable("a membership"))?,
        _ => return Err(Unreadable("a payload")),
    };
    Ok(Entry {
        log_id: id,
        payload,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use evermint_core::time::UnixMs;

    #[test]
    fn every_kind_of_entry_is_read_back() {
        let id: LogId<u64> = Mark {
            term: 3,
            leader: 2,
            index: 7,
        }
        .into();
        let batch = Batch {
            at: UnixMs(5),
            proposals: vec![],
        };
        let peers = BTreeMap::from([(1, Peer::new("a:1")), (4, Peer::new("b:2"))]);
        let joint = vec![BTreeSet::from([1]), BTreeSet::from([1, 4])];
        for payload in [
            EntryPayload::Blank,
            EntryPayload::Normal(EncodedBatch::new(&batch)),
            EntryPayload::Membership(Membership::new(joint, peers)),
        ] {
            let whole = Entry {
                log_id: id,
                payload,
            };
            assert_eq!(entry(id, payload_bytes(&whole)), Ok(whole));
        }
        assert_eq!(EncodedBatch::new(&batch).decode(), Ok(batch));
        assert!(entry(id, Bytes::new()).is_err());
        assert!(entry(id, Bytes::from_static(&[9, 9])).is_err());
    }
}
