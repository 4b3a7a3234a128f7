//! The replicated state machine: the state in memory, and its records in the store.
//!
//! Applying writes one atomic batch: the records that changed, with the position in the log and
//! the membership that they belong to. It waits for no disk: what a power cut takes from here is
//! in the log, and is applied again.
//!
//! The records live in a table of one *generation*. A snapshot that comes from the leader is
//! written under the next one; only when all of it is on the disk, a pointer is moved.
//!
//! With the position stands a [`Digest`] of all records, so that one that is missing or stale is
//! noticed when the table is read back.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use evermint_core::apply::apply;
use evermint_core::command::Answer;
use evermint_core::record::Key;
use evermint_core::state::State;
use evermint_failpoint::{Point, hold, reach};
use openraft::storage::RaftStateMachine;
use openraft::{
    AnyError, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageError,
    StorageIOError,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::clock::Timekeeper;
use crate::durable::{Change, Damage, Digest, Store, StoreError, Table};
use crate::raft::{Entry, SnapshotMeta, StoredMembership, TypeConfig};
use crate::snapshot::SnapshotData;
use crate::stored::{Mark, Members};
use crate::view::Views;

/// The most bytes of records that are written in one batch while a snapshot is installed.
const INSTALL_BYTES: usize = 256 * 1024;

const GENERATION: &[u8] = b"machine";
/// Sorts before all records, whose keys begin with [`RECORD`].
const SEAL: &[u8] = b"!seal";
const RECORD: u8 = b'r';

/// The newest snapshot.
type Current = Arc<Mutex<Option<(SnapshotMeta, Arc<State>)>>>;

/// The state machine of one replica.
pub(crate) struct Machine {
    store: Store,
    table: Table,
    generation: u64,
    state: State,
    applied: Option<LogId<u64>>,
    membership: StoredMembership,
    digest: Digest,
    snapshot: Current,
    snapshots_taken: u64,
    /// The index up to which the store has what was applied.
    written: watch::Sender<Option<u64>>,
    views: Arc<Views>,
    clock: Timekeeper,
}

/// What a table of records says of itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Seal {
    applied: Option<Mark>,
    members: Members,
    digest: Digest,
}

impl Machine {
    /// Reads the state from the store. Blocks.
    ///
    /// # Errors
    /// [`Damage`] names the record, or the table, that is damaged.
    pub(crate) fn open(store: &Store, clock: Timekeeper) -> Result<Self, StoreError> {
        let generation = match store.meta()?.get(GENERATION)? {
            None => 0,
            Some(bytes) => bytes
                .try_into()
                .map(u64::from_be_bytes)
                .map_err(|_| Damage::new("meta/machine", "not a number"))?,
        };
        let name = table_name(generation);
        for other in store.table_names() {
            if other.starts_with("sm-") && other != name {
                store.drop_table(&other)?;
            }
        }
        let table = store.table(&name)?;
        let (state, seal) = read(&table)?;
        clock.observe(state.meta.clock);
        let applied = seal.applied.map(LogId::from);
        let index = applied.map(|id| id.index);
        let views = Views::new(Arc::new(state.clone()), index);
        Ok(Self {
            store: store.clone(),
            table,
            generation,
            state,
            applied,
            membership: seal.members.into(),
            digest: seal.digest,
            snapshot: Current::default(),
            snapshots_taken: 0,
            written: watch::channel(index).0,
            views: Arc::new(views),
            clock,
        })
    }

    pub(crate) fn views(&self) -> Arc<Views> {
        self.views.clone()
    }

    pub(crate) fn applied(&self) -> Option<LogId<u64>> {
        self.applied
    }

    /// The index up to which the store has what was applied. It ends with the machine.
    pub(crate) fn written(&self) -> watch::Receiver<Option<u64>> {
        self.written.subscribe()
    }

    fn try_apply(
        &mut self,
        entries: impl Iterator<Item = Entry>,
    ) -> Result<Vec<Vec<Answer>>, StoreError> {
        let mut touched = BTreeSet::new();
        let mut answers = Vec::new();
        for entry in entries {
            let mut given = Vec::new();
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(batch) => {
                    let batch = batch.decode().map_err(|e| {
                        Damage::new(format!("log entry {}", entry.log_id.index), e.to_string())
                    })?;
                    self.views.clock_pushed(self.clock.observe(batch.at));
                    for proposal in &batch.proposals {
                        let (answer, keys) = apply(&mut self.state, proposal, batch.at);
                        touched.extend(keys);
                        given.push(answer);
                    }
                }
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                }
            }
            self.applied = Some(entry.log_id);
            answers.push(given);
        }
        let changes = touched
            .iter()
            .map(|key| (record_key(key), self.state.record(key)));
        let mut digest = self.digest;
        let mut staged = self.table.stage(changes.collect(), &mut digest)?;
        self.digest = digest;
        staged.seal(&self.table, SEAL, &self.seal());
        self.table.commit(staged)?;
        check_invariants(&self.state);
        let index = self.applied.map(|id| id.index);
        self.written.send_replace(index);
        self.views
            .publish(&self.state, index, touched.into_iter().collect());
        Ok(answers)
    }

    fn seal(&self) -> Vec<u8> {
        seal(self.applied, &self.membership, self.digest)
    }

    async fn try_install(
        &mut self,
        meta: &SnapshotMeta,
        state: Arc<State>,
    ) -> Result<(), StoreError> {
        reach(Point::BeforeInstall, "");
        let generation = self.generation + 1;
        let table = self.store.table(&table_name(generation))?;
        let writing = (table.clone(), meta.clone(), state.clone());
        let written = tokio::task::spawn_blocking(move || {
            let (table, meta, state) = writing;
            write(&table, &meta, &state)
        });
        let digest = written
            .await
            .map_err(|e| Damage::new(table.name(), e.to_string()))??;
        self.store.barrier().await?;
        reach(Point::BeforeSwitch, "");
        let pointer = generation.to_be_bytes().to_vec();
        let meta_table = self.store.meta()?;
        meta_table.apply(vec![(GENERATION.to_vec(), Some(pointer))])?;
        self.store.barrier().await?;
        reach(Point::AfterInstall, "");

        let old = std::mem::replace(&mut self.table, table);
        let name = old.name().to_owned();
        drop(old);
        self.store.drop_table(&name)?;
        self.generation = generation;
        self.state = state.as_ref().clone();
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.digest = digest;
        *lock(&self.snapshot) = Some((meta.clone(), state));
        self.views
            .clock_pushed(self.clock.observe(self.state.meta.clock));
        let index = self.applied.map(|id| id.index);
        self.written.send_replace(index);
        self.views.replace(&self.state, index);
        Ok(())
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<u64>>, StoredMembership), StorageError<u64>> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Vec<Answer>>, StorageError<u64>>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        hold(Point::BeforeApply).await;
        let applied = self.try_apply(entries.into_iter());
        applied.map_err(|e| StorageIOError::write_state_machine(AnyError::new(&e)).into())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.snapshots_taken += 1;
        let last = self.applied.map_or("none".to_owned(), |id| id.to_string());
        Builder {
            store: self.store.clone(),
            meta: SnapshotMeta {
                last_log_id: self.applied,
                last_membership: self.membership.clone(),
                snapshot_id: format!("{last}-{}", self.snapshots_taken),
            },
            state: Arc::new(self.state.clone()),
            slot: self.snapshot.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotData>, StorageError<u64>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<SnapshotData>,
    ) -> Result<(), StorageError<u64>> {
        let installed = self.try_install(meta, snapshot.0).await;
        installed.map_err(|e| {
            StorageIOError::write_snapshot(Some(meta.signature()), AnyError::new(&e)).into()
        })
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<Snapshot<TypeConfig>>, StorageError<u64>> {
        let current = lock(&self.snapshot).clone();
        Ok(current.map(|(meta, state)| Snapshot {
            meta,
            snapshot: Box::new(SnapshotData(state)),
        }))
    }
}

/// Takes one snapshot.
pub(crate) struct Builder {
    store: Store,
    meta: SnapshotMeta,
    state: Arc<State>,
    slot: Current,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError<u64>> {
        // The log is cut behind a snapshot, so the machine's records must be on the disk first.
        self.store.barrier().await.map_err(|e| {
            StorageIOError::write_snapshot(Some(self.meta.signature()), AnyError::new(&e))
        })?;
        self.store.alarm_on_blobs();
        *lock(&self.slot) = Some((self.meta.clone(), self.state.clone()));
        Ok(Snapshot {
            meta: self.meta.clone(),
            snapshot: Box::new(SnapshotData(self.state.clone())),
        })
    }
}

fn lock(current: &Current) -> std::sync::MutexGuard<'_, Option<(SnapshotMeta, Arc<State>)>> {
    // A whole value is put in at once, so a panic elsewhere leaves it whole.
    current.lock().unwrap_or_else(PoisonError::into_inner)
}

fn table_name(generation: u64) -> String {
    format!("sm-{generation}")
}

fn record_key(key: &Key) -> Vec<u8> {
    [&[RECORD], &key.to_bytes()[..]].concat()
}

fn seal(applied: Option<LogId<u64>>, membership: &StoredMembership, digest: Digest) -> Vec<u8> {
    let seal = Seal {
        applied: applied.map(Mark::from),
        members: membership.into(),
        digest,
    };
    postcard::to_stdvec(&seal).expect("seals are plain data")
}

/// Writes all records of a snapshot, and the seal last.
fn write(table: &Table, meta: &SnapshotMeta, state: &State) -> Result<Digest, StoreError> {
    // An installation that was cut off may have left something.
    let old: Vec<Change> = table
        .all()
        .map(|record| record.map(|(key, _)| (key, None)))
        .collect::<Result<_, _>>()?;
    table.apply(old)?;
    let mut digest = Digest::default();
    let mut changes: Vec<Change> = Vec::new();
    let mut bytes = 0;
    for (key, value) in state.records() {
        bytes += value.len();
        changes.push((record_key(&key), Some(value)));
        if bytes >= INSTALL_BYTES {
            let staged = table.stage(std::mem::take(&mut changes), &mut digest)?;
            table.commit(staged)?;
            bytes = 0;
        }
    }
    let mut staged = table.stage(changes, &mut digest)?;
    staged.seal(
        table,
        SEAL,
        &seal(meta.last_log_id, &meta.last_membership, digest),
    );
    table.commit(staged)?;
    Ok(digest)
}

/// Reads all records back.
fn read(table: &Table) -> Result<(State, Seal), StoreError> {
    let damage = |problem: String| Damage::new(format!("table {}", table.name()), problem);
    let seal = match table.get(SEAL)? {
        None => Seal::default(),
        Some(bytes) => postcard::from_bytes(&bytes)
            .map_err(|e| Damage::new(format!("{}/!seal", table.name()), e.to_string()))?,
    };
    let start = [RECORD];
    let mut records = table.range(
        std::ops::Bound::Included(&start),
        std::ops::Bound::Unbounded,
    );
    let mut all = Vec::new();
    for record in &mut records {
        let (key, value) = record?;
        let parsed = Key::from_bytes(&key[1..]);
        all.push((parsed.map_err(|e| damage(e.to_string()))?, value));
    }
    let found = records.digest();
    if found.chunks != seal.digest.chunks {
        let problem = format!(
            "{} chunks of records are there, {} must be",
            found.chunks, seal.digest.chunks
        );
        return Err(damage(problem).into());
    }
    if found != seal.digest {
        return Err(damage("a record is stale".to_owned()).into());
    }
    let state = State::from_records(all).map_err(|e| damage(e.to_string()))?;
    Ok((state, seal))
}

/// In debug builds, stops at the first broken promise rather than build on it.
fn check_invariants(state: &State) {
    if cfg!(debug_assertions)
        && let Err(violation) = evermint_core::invariant::check(state)
    {
        panic!("{violation}");
    }
}
