//! The store without the rest, for the power-loss test: it writes as Raft would, says what was
//! acknowledged, and reads back what a power cut left.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use evermint_core::command::{Batch, Command, Proposal};
use evermint_core::id::{InstallationId, Name, ProviderId, ProviderType, RequestId, Workspace};
use evermint_core::secret::{DataKeyId, WrappedKey};
use evermint_core::settings::Settings;
use evermint_core::time::UnixMs;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::{EntryPayload, LogId, RaftLogReader, RaftSnapshotBuilder, StorageError, Vote};

use crate::clock::{SystemClock, Timekeeper};
use crate::durable::{Store, SyncPolicy};
use crate::error::Error;
use crate::log::LogStore;
use crate::machine::Machine;
use crate::raft::Entry;
use crate::stored::{EncodedBatch, Mark};

/// Providers that are changed again and again.
const PROVIDERS: u64 = 20;

/// The log and the state machine of one replica, on their own.
pub struct BareStore {
    log: LogStore,
    machine: Machine,
    term: u64,
    next: u64,
}

/// What a store contains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// How many entries the log has had: one more than the index of the last one.
    pub entries: u64,
    /// The term of the vote.
    pub term: u64,
}

fn stopped(e: StorageError<u64>) -> Error {
    Error::Stopped(e.to_string())
}

impl BareStore {
    /// Opens or creates the store in `dir`, checks it, and applies what the log has beyond the
    /// state machine.
    ///
    /// # Errors
    /// As [`Node::start`](crate::Node::start).
    pub async fn open(dir: &Path, policy: SyncPolicy) -> Result<Self, Error> {
        let store = Store::open(&dir.join("raft"), 1 << 20, policy)?;
        let mut log = LogStore::open(&store, &dir.join("guard"), policy)?;
        let mut machine = Machine::open(&store, Timekeeper::new(Arc::new(SystemClock)))?;
        let vote = log.read_vote().await.map_err(stopped)?;
        let next = log.extent().last.map_or(0, |mark| mark.index + 1);
        let from = machine.applied().map_or(0, |id| id.index + 1);
        let rest = log.try_get_log_entries(from..next).await.map_err(stopped)?;
        if rest.len() as u64 != next.saturating_sub(from) {
            let problem = format!("entries {from} to {next} are not all there");
            return Err(Error::Stopped(problem));
        }
        machine.apply(rest).await.map_err(stopped)?;
        Ok(Self {
            log,
            machine,
            term: vote.map_or(0, |vote| vote.leader_id.term),
            next,
        })
    }

    /// What it contains.
    pub fn contents(&self) -> Contents {
        Contents {
            entries: self.next,
            term: self.term,
        }
    }

    /// Appends `count` entries with about `bytes` of content each, waits until they are durable,
    /// and applies them.
    ///
    /// # Errors
    /// [`Error::Stopped`] when the disk fails.
    pub async fn append(&mut self, count: u64, bytes: usize) -> Result<(), Error> {
        let entries: Vec<Entry> = (self.next..self.next + count)
            .map(|index| Entry {
                log_id: self.id(index),
                payload: EntryPayload::Normal(EncodedBatch::new(&batch(index, bytes))),
            })
            .collect();
        self.log
            .blocking_append(entries.clone())
            .await
            .map_err(stopped)?;
        self.next += count;
        self.machine.apply(entries).await.map_err(stopped)?;
        Ok(())
    }

    /// Votes in the next term.
    ///
    /// # Errors
    /// [`Error::Stopped`] when the disk fails.
    pub async fn vote(&mut self) -> Result<(), Error> {
        let vote = Vote::new(self.term + 1, 1);
        self.log.save_vote(&vote).await.map_err(stopped)?;
        self.term += 1;
        Ok(())
    }

    /// Appends entries that it takes back again, as a follower of a leader that was replaced.
    ///
    /// # Errors
    /// [`Error::Stopped`] when the disk fails.
    pub async fn append_in_vain(&mut self, count: u64) -> Result<(), Error> {
        let entries: Vec<Entry> = (self.next..self.next + count)
            .map(|index| Entry {
                log_id: self.id(index),
                payload: EntryPayload::Blank,
            })
            .collect();
        self.log.blocking_append(entries).await.map_err(stopped)?;
        let since = self.id(self.next);
        self.log.truncate(since).await.map_err(stopped)
    }

    /// Takes a snapshot and cuts the log behind it.
    ///
    /// # Errors
    /// [`Error::Stopped`] when the disk fails.
    pub async fn snapshot(&mut self) -> Result<(), Error> {
        let mut builder = self.machine.get_snapshot_builder().await;
        let snapshot = builder.build_snapshot().await.map_err(stopped)?;
        match snapshot.meta.last_log_id {
            Some(last) => self.log.purge(last).await.map_err(stopped),
            None => Ok(()),
        }
    }

    fn id(&self, index: u64) -> LogId<u64> {
        Mark {
            term: self.term,
            leader: 1,
            index,
        }
        .into()
    }
}

/// The content of the entry at `index`.
fn batch(index: u64, bytes: usize) -> Batch {
    let id = ProviderId(u128::from(index % PROVIDERS));
    let config = [("text".to_owned(), "x".repeat(bytes))];
    let command = match index {
        0 => Command::Bootstrap {
            settings: Settings {
                audit_retention: 100,
                ..Settings::default()
            },
            data_key: DataKeyId(1),
            wrapped: WrappedKey {
                kek: String::new(),
                nonce: [0; 12],
                ciphertext: Vec::new(),
            },
            installation: InstallationId(1),
            peer_address: String::new(),
            api_address: String::new(),
        },
        1..=PROVIDERS => Command::CreateProvider {
            id,
            workspace: Workspace::default_workspace(),
            name: Name::new(format!("p{index}")).expect("letters and digits"),
            kind: ProviderType::new("generic").expect("letters"),
            config: config.into(),
            notes: Default::default(),
            credentials: BTreeMap::new(),
        },
        _ => Command::UpdateProvider {
            id,
            expected_version: None,
            config: config.map(|(key, value)| (key, Some(value))).into(),
            credentials: BTreeMap::new(),
            expires_at: BTreeMap::new(),
        },
    };
    Batch {
        at: UnixMs(index),
        proposals: vec![Proposal {
            by: None,
            request: RequestId(u128::from(index)),
            command,
        }],
    }
}
