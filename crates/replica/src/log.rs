//! The Raft log and the vote, in the store.
//!
//! What is acknowledged is on the disk: an append calls back after the barrier; a vote and a
//! truncation return after it. The [guard](crate::guard) follows.
//!
//! Opening reads the whole log: every entry intact, none missing, none of an older term than
//! the one before it, and no less than the guard claims.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use evermint_core::id::ReplicaId;
use evermint_failpoint::{Bug, planted};
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{
    AnyError, LogId, LogState, OptionalSend, RaftLogReader, StorageError, StorageIOError, Vote,
};
use tokio::sync::watch;

use crate::durable::{Change, Damage, FORMAT, Store, StoreError, SyncPolicy, Table};
use crate::guard::{Claims, Guard};
use crate::raft::{Entry, TypeConfig};
use crate::stored::{Ballot, Mark, entry, payload_bytes};

/// The most bytes of entries that one append carries to a peer, unless one entry is longer.
pub(crate) const READ_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The most entries that are removed in one step.
const REMOVE_MAX: usize = 1_000;

const LOG: &str = "log";
const VOTE: &[u8] = b"vote";
const PURGED: &[u8] = b"purged";

/// The log of one replica.
pub(crate) struct LogStore {
    store: Store,
    log: Table,
    meta: Table,
    guard: Arc<Guard>,
    claims: Claims,
    /// What Raft takes for its vote; the claims have what is on the disk.
    vote: Option<Ballot>,
    /// The index up to which the state machine is written.
    machine: Option<watch::Receiver<Option<u64>>>,
}

/// What the log contains, for those who check it against something else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The newest entry, stored or cut off.
    pub(crate) last: Option<Mark>,
    /// The newest entry that was cut off.
    pub(crate) purged: Option<Mark>,
}

impl LogStore {
    /// Reads the log in `store` and checks it against the guard record at `guard`. Blocks.
    ///
    /// # Errors
    /// [`Damage`] names the first record that is damaged or missing.
    pub(crate) fn open(
        store: &Store,
        guard: &Path,
        policy: SyncPolicy,
    ) -> Result<Self, StoreError> {
        let (log, meta) = (store.table(LOG)?, store.meta()?);
        let vote: Option<Ballot> = read(&meta, VOTE)?;
        let purged: Option<Mark> = read(&meta, PURGED)?;
        let last = check_entries(&log, purged)?;
        let claims = Claims {
            format: FORMAT,
            vote,
            last,
            purged,
        };
        match Guard::read(guard)? {
            Some(guarded) => check_guard(&log, &guarded, &claims)?,
            None if (vote, last) == (None, None) => {}
            None => return Err(Damage::new("guard", "missing").into()),
        }
        let this = Self {
            store: store.clone(),
            log,
            meta,
            guard: Arc::new(Guard::open(guard, claims, policy, store.writer())?),
            claims,
            vote,
            machine: None,
        };
        // What a purge that was cut off left behind.
        if let Some(purged) = purged {
            this.remove_up_to(purged.index)?;
        }
        Ok(this)
    }

    pub(crate) fn extent(&self) -> Extent {
        Extent {
            last: self.claims.last,
            purged: self.claims.purged,
        }
    }

    /// The mark of the entry at `index`, or of the purge point there.
    fn mark(&self, index: u64) -> Result<Option<Mark>, StoreError> {
        if let Some(purged) = self.claims.purged
            && purged.index == index
        {
            return Ok(Some(purged));
        }
        let record = self.log.get(&index.to_be_bytes())?;
        record
            .map(|bytes| parse(index, bytes).map(|(mark, _)| mark))
            .transpose()
    }

    fn remove_up_to(&self, index: u64) -> Result<(), StoreError> {
        let end = index.saturating_add(1).to_be_bytes();
        loop {
            let old = self.log.range(Bound::Unbounded, Bound::Excluded(&end));
            let changes: Vec<Change> = old
                .take(REMOVE_MAX)
                .map(|record| record.map(|(key, _)| (key, None)))
                .collect::<Result<_, _>>()?;
            if changes.is_empty() {
                return Ok(());
            }
            self.log.apply(changes)?;
        }
    }

    /// Cuts nothing off from now on that the state machine has not written.
    ///
    /// openraft cuts the log while the snapshot that is to replace it is still being installed: a
    /// replica that died in between had neither.
    pub(crate) fn follow(&mut self, machine: watch::Receiver<Option<u64>>) {
        self.machine = Some(machine);
    }

    /// Forgets that `me` was elected: a leader that is started again has to be elected again.
    ///
    /// What it had not on its disk yet may be committed by the others, under its term. openraft
    /// would let it lead on in that term: it would give the same log ids to other entries, and
    /// confirm reads by what it knew to be committed, which is less than was acknowledged.
    pub(crate) fn stand_down(&mut self, me: ReplicaId) {
        if let Some(vote) = self.vote.as_mut().filter(|vote| vote.candidate == me.0) {
            vote.committed = false;
        }
    }

    async fn try_save_vote(&mut self, vote: Ballot) -> Result<(), StoreError> {
        self.meta.apply(vec![write(VOTE, &vote)])?;
        self.store.barrier().await?;
        self.vote = Some(vote);
        self.claims.vote = Some(vote);
        self.guard.settle(self.claims).await
    }

    fn try_append(&mut self, entries: impl Iterator<Item = Entry>) -> Result<(), StoreError> {
        let mut changes = Vec::new();
        for entry in entries {
            let mark = Mark::from(entry.log_id);
            let mut value = Vec::new();
            value.extend_from_slice(&mark.term.to_be_bytes());
            value.extend_from_slice(&mark.leader.to_be_bytes());
            value.extend_from_slice(&payload_bytes(&entry));
            changes.push((mark.index.to_be_bytes().to_vec(), Some(value)));
            self.claims.last = self.claims.last.max(Some(mark));
        }
        self.log.apply(changes)
    }

    async fn try_truncate(&mut self, since: u64) -> Result<(), StoreError> {
        let before = match since.checked_sub(1) {
            Some(index) => self.mark(index)?,
            None => None,
        };
        self.claims.last = before.max(self.claims.purged);
        self.guard.settle(self.claims).await?;
        let start = since.to_be_bytes();
        let gone = self.log.range(Bound::Included(&start), Bound::Unbounded);
        let changes = gone
            .map(|record| record.map(|(key, _)| (key, None)))
            .collect::<Result<_, _>>()?;
        self.log.apply(changes)?;
        self.store.barrier().await
    }

    fn try_purge(&mut self, up_to: Mark) -> Result<(), StoreError> {
        self.meta.apply(vec![write(PURGED, &up_to)])?;
        self.claims.purged = Some(up_to);
        self.claims.last = self.claims.last.max(Some(up_to));
        // The pointer first: what survives a power cut is a prefix of what was written. The guard
        // learns of it with the next append.
        self.remove_up_to(up_to.index)
    }
}

/// Reads entries of the log, beside those who write it.
#[derive(Clone)]
pub(crate) struct LogReader(Table);

impl LogReader {
    fn entries(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let start = match start {
            Bound::Included(index) => index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        }
        .to_be_bytes();
        let end = match end {
            Bound::Included(index) => Some(index.saturating_add(1).to_be_bytes()),
            Bound::Excluded(index) => Some(index.to_be_bytes()),
            Bound::Unbounded => None,
        };
        if end.is_some_and(|end| end <= start) {
            return Ok(Vec::new());
        }
        let end = end
            .as_ref()
            .map_or(Bound::Unbounded, |end| Bound::Excluded(&end[..]));
        let mut entries = Vec::new();
        let mut bytes = 0;
        for record in self.0.range(Bound::Included(&start), end) {
            let (key, value) = record?;
            bytes += value.len();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            let (mark, payload) = parse(index_of(&key)?, value)?;
            let entry = entry(mark.into(), payload)
                .map_err(|e| Damage::new(format!("log entry {}", mark.index), e.to_string()))?;
            entries.push(entry);
        }
        Ok(entries)
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError<u64>> {
        let (start, end) = (range.start_bound().cloned(), range.end_bound().cloned());
        self.entries(start, end, usize::MAX).map_err(reading)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError<u64>> {
        let (start, end) = (Bound::Included(start), Bound::Excluded(end));
        self.entries(start, end, READ_BYTES_MAX).map_err(reading)
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError<u64>> {
        LogReader(self.log.clone()).try_get_log_entries(range).await
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError<u64>> {
        Ok(LogState {
            last_purged_log_id: self.claims.purged.map(LogId::from),
            last_log_id: self.claims.last.map(LogId::from),
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader(self.log.clone())
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), StorageError<u64>> {
        let saved = self.try_save_vote((*vote).into()).await;
        saved.map_err(|e| StorageIOError::write_vote(AnyError::new(&e)).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, StorageError<u64>> {
        Ok(self.vote.map(Vote::from))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<TypeConfig>,
    ) -> Result<(), StorageError<u64>>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.try_append(entries.into_iter()).map_err(writing)?;
        let (guard, claims) = (self.guard.clone(), self.claims);
        if planted(Bug::AckBeforeFlush) {
            callback.log_io_completed(Ok(()));
            let trail = Box::new(move |synced: io::Result<()>| {
                drop(synced.and_then(|()| guard.trail(claims)));
            });
            self.store.barrier_then(trail);
            return Ok(());
        }
        self.store.barrier_then(Box::new(move |synced| {
            callback.log_io_completed(synced.and_then(|()| guard.trail(claims)));
        }));
        Ok(())
    }

    async fn truncate(&mut self, since: LogId<u64>) -> Result<(), StorageError<u64>> {
        self.try_truncate(since.index).await.map_err(writing)
    }

    async fn purge(&mut self, up_to: LogId<u64>) -> Result<(), StorageError<u64>> {
        if let Some(machine) = &mut self.machine {
            let has = machine.wait_for(|index| *index >= Some(up_to.index));
            let stopped = |e| StorageIOError::write_logs(AnyError::new(&e));
            has.await.map(drop).map_err(stopped)?;
        }
        self.try_purge(up_to.into()).map_err(writing)
    }
}

fn reading(error: StoreError) -> StorageError<u64> {
    StorageIOError::read_logs(AnyError::new(&error)).into()
}

fn writing(error: StoreError) -> StorageError<u64> {
    StorageIOError::write_logs(AnyError::new(&error)).into()
}

fn read<T: serde::de::DeserializeOwned>(meta: &Table, key: &[u8]) -> Result<Option<T>, StoreError> {
    let damaged = |e: postcard::Error| {
        let record = format!("meta/{}", String::from_utf8_lossy(key));
        Damage::new(record, e.to_string())
    };
    let bytes = meta.get(key)?;
    Ok(bytes
        .map(|bytes| postcard::from_bytes(&bytes).map_err(damaged))
        .transpose()?)
}

fn write<T: serde::Serialize>(key: &[u8], value: &T) -> Change {
    let value = postcard::to_stdvec(value).expect("pointers are plain data");
    (key.to_vec(), Some(value))
}

fn index_of(key: &[u8]) -> Result<u64, StoreError> {
    let index = key.try_into().map(u64::from_be_bytes);
    index.map_err(|_| Damage::new("log", "a key that is no index").into())
}

/// An entry's record: its leader's term and id, and its payload.
fn parse(index: u64, bytes: Vec<u8>) -> Result<(Mark, Bytes), StoreError> {
    let mut bytes = Bytes::from(bytes);
    if bytes.len() < 16 {
        return Err(Damage::new(format!("log entry {index}"), "too short").into());
    }
    let payload = bytes.split_off(16);
    let word = |at: usize| bytes[at..at + 8].try_into().map_or(0, u64::from_be_bytes);
    let mark = Mark {
        term: word(0),
        leader: word(8),
        index,
    };
    Ok((mark, payload))
}

/// Reads every entry; gives the mark of the last one, or the purge point.
fn check_entries(log: &Table, purged: Option<Mark>) -> Result<Option<Mark>, StoreError> {
    let mut last: Option<Mark> = purged;
    for record in log.all() {
        let (key, value) = record?;
        let (mark, payload) = parse(index_of(&key)?, value)?;
        if purged.is_some_and(|purged| mark.index <= purged.index) {
            continue;
        }
        let next = last.map_or(0, |last| last.index + 1);
        let damage = |problem: &str| Damage::new(format!("log entry {next}"), problem);
        // The first log of a cluster begins at 0 or 1.
        let begins = last.is_none() && mark.index <= 1;
        if mark.index != next && !begins {
            return Err(damage("missing").into());
        }
        if last.is_some_and(|last| mark.term < last.term) {
            return Err(damage("of an older term than the entry before it").into());
        }
        entry(mark.into(), payload).map_err(|e| damage(&e.to_string()))?;
        last = Some(mark);
    }
    Ok(last)
}

/// Checks that the store has at least what its guard claims.
fn check_guard(log: &Table, guarded: &Claims, found: &Claims) -> Result<(), StoreError> {
    let damage = |record: &str, problem: String| Err(Damage::new(record, problem).into());
    if guarded.format != FORMAT {
        return Err(StoreError::Format {
            found: guarded.format,
            known: FORMAT,
        });
    }
    if let Some(vote) = guarded.vote
        && !found.vote.is_some_and(|f| at_least(f, vote))
    {
        let problem = format!("the guard knows a later vote, in term {}", vote.term);
        return damage("meta/vote", problem);
    }
    if guarded.purged > found.purged {
        return damage("meta/purged", "the guard knows a later one".to_owned());
    }
    let Some(last) = guarded.last else {
        return Ok(());
    };
    let record = format!("log entry {}", last.index);
    if found.last.is_none_or(|f| f.index < last.index) {
        let end = found
            .last
            .map_or("empty".to_owned(), |f| format!("ends at {}", f.index));
        return damage(&record, format!("acknowledged, but the log {end}"));
    }
    if found
        .purged
        .is_some_and(|purged| purged.index >= last.index)
    {
        return Ok(());
    }
    let bytes = log.get(&last.index.to_be_bytes())?.unwrap_or_default();
    match parse(last.index, bytes)?.0 == last {
        true => Ok(()),
        false => damage(&record, "not the one that was acknowledged".to_owned()),
    }
}

fn at_least(found: Ballot, guarded: Ballot) -> bool {
    Vote::from(found) >= Vote::from(guarded)
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        Self::other(error)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use openraft::EntryPayload;
    use openraft::storage::RaftLogStorageExt;

    use super::*;

    struct Disk(tempfile::TempDir);

    impl Disk {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn guard(&self) -> PathBuf {
            self.0.path().join("guard")
        }

        fn store(&self) -> Store {
            let path = self.0.path().join("store");
            Store::open(&path, 1 << 20, SyncPolicy::Durable).unwrap()
        }

        fn try_log(&self) -> Result<LogStore, StoreError> {
            LogStore::open(&self.store(), &self.guard(), SyncPolicy::Durable)
        }

        fn log(&self) -> LogStore {
            self.try_log().unwrap()
        }

        fn damage(&self) -> String {
            match self.try_log() {
                Err(StoreError::Damaged(damage)) => damage.to_string(),
                Err(e) => panic!("{e}"),
                Ok(_) => panic!("the damage went unnoticed"),
            }
        }
    }

    fn id(term: u64, index: u64) -> LogId<u64> {
        let leader = 1;
        Mark {
            term,
            leader,
            index,
        }
        .into()
    }

    async fn append(log: &mut LogStore, term: u64, indices: std::ops::Range<u64>) {
        let entries = indices.map(|index| Entry {
            log_id: id(term, index),
            payload: EntryPayload::Blank,
        });
        log.blocking_append(entries).await.unwrap();
        log.guard.settle(log.claims).await.unwrap();
    }

    #[tokio::test]
    async fn a_log_is_there_again_after_a_restart() {
        let disk = Disk::new();
        let mut log = disk.log();
        log.save_vote(&Vote::new(3, 7)).await.unwrap();
        append(&mut log, 1, 0..10).await;
        append(&mut log, 2, 10..20).await;
        log.truncate(id(2, 15)).await.unwrap();
        log.purge(id(1, 4)).await.unwrap();
        drop(log);

        let mut log = disk.log();
        assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(3, 7)));
        let state = log.get_log_state().await.unwrap();
        assert_eq!(state.last_log_id, Some(id(2, 14)));
        assert_eq!(state.last_purged_log_id, Some(id(1, 4)));
        let entries = log.try_get_log_entries(..).await.unwrap();
        let ids: Vec<_> = entries.iter().map(|e| e.log_id.index).collect();
        assert_eq!(ids, (5..15).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn what_the_state_machine_has_not_written_is_not_cut_off() {
        let disk = Disk::new();
        let mut log = disk.log();
        append(&mut log, 1, 0..10).await;
        let (written, machine) = watch::channel(Some(3));
        log.follow(machine);
        {
            let mut purge = std::pin::pin!(log.purge(id(1, 4)));
            assert!(futures::poll!(purge.as_mut()).is_pending());
            written.send_replace(Some(4));
            purge.await.unwrap();
        }
        assert_eq!(log.extent().purged, Some(id(1, 4).into()));
        drop(written);
        log.purge(id(1, 4)).await.unwrap();
        log.purge(id(1, 5)).await.unwrap_err();
        assert_eq!(log.extent().purged, Some(id(1, 4).into()));
    }

    #[tokio::test]
    async fn who_was_elected_before_a_restart_was_not_and_who_voted_has_voted() {
        let disk = Disk::new();
        for (vote, me, expected) in [
            (Vote::new(3, 7), 7, Vote::new(3, 7)),
            (Vote::new_committed(3, 7), 7, Vote::new(3, 7)),
            (Vote::new_committed(4, 8), 7, Vote::new_committed(4, 8)),
        ] {
            disk.log().save_vote(&vote).await.unwrap();
            // Started twice: what is on the disk stays as it is, or the guard would know better.
            for _ in 0..2 {
                let mut log = disk.log();
                log.stand_down(ReplicaId(me));
                assert_eq!(log.read_vote().await.unwrap(), Some(expected));
            }
        }
    }

    #[tokio::test]
    async fn a_log_that_is_shorter_than_its_guard_is_refused() {
        let disk = Disk::new();
        let mut log = disk.log();
        append(&mut log, 1, 0..10).await;
        log.log
            .apply(vec![(9_u64.to_be_bytes().to_vec(), None)])
            .unwrap();
        drop(log);
        assert_eq!(
            disk.damage(),
            "log entry 9: acknowledged, but the log ends at 8"
        );
    }

    #[tokio::test]
    async fn a_log_whose_last_entry_is_another_one_is_refused() {
        let disk = Disk::new();
        let mut log = disk.log();
        append(&mut log, 3, 0..3).await;
        let old = [2_u64.to_be_bytes(), 1_u64.to_be_bytes()].concat();
        let old = [old, vec![0]].concat();
        let change = |index: u64| (index.to_be_bytes().to_vec(), Some(old.clone()));
        log.log
            .apply(vec![change(0), change(1), change(2)])
            .unwrap();
        drop(log);
        assert_eq!(
            disk.damage(),
            "log entry 2: not the one that was acknowledged"
        );
    }

    #[tokio::test]
    async fn a_hole_in_the_log_is_named() {
        let disk = Disk::new();
        let mut log = disk.log();
        append(&mut log, 1, 0..10).await;
        log.log
            .apply(vec![(4_u64.to_be_bytes().to_vec(), None)])
            .unwrap();
        drop(log);
        assert_eq!(disk.damage(), "log entry 4: missing");
    }

    #[tokio::test]
    async fn a_vote_that_went_back_is_refused() {
        let disk = Disk::new();
        let mut log = disk.log();
        log.save_vote(&Vote::new(3, 7)).await.unwrap();
        let old = Ballot::from(Vote::new(2, 7));
        log.meta.apply(vec![write(VOTE, &old)]).unwrap();
        drop(log);
        assert_eq!(
            disk.damage(),
            "meta/vote: the guard knows a later vote, in term 3"
        );
    }

    #[tokio::test]
    async fn a_store_without_its_guard_is_refused() {
        let disk = Disk::new();
        let mut log = disk.log();
        append(&mut log, 1, 0..3).await;
        drop(log);
        std::fs::remove_file(disk.guard()).unwrap();
        assert_eq!(disk.damage(), "guard: missing");
    }

    #[tokio::test]
    async fn a_read_for_a_peer_is_cut_at_a_limit() {
        let disk = Disk::new();
        let mut log = disk.log();
        let batch = evermint_core::command::Batch {
            at: evermint_core::time::UnixMs(1),
            proposals: vec![],
        };
        let big = crate::stored::EncodedBatch::padded(&batch, READ_BYTES_MAX / 2);
        let entries = (0..4).map(|index| Entry {
            log_id: id(1, index),
            payload: EntryPayload::Normal(big.clone()),
        });
        log.blocking_append(entries).await.unwrap();
        let mut reader = log.get_log_reader().await;
        assert_eq!(reader.limited_get_log_entries(0, 4).await.unwrap().len(), 1);
        assert_eq!(reader.try_get_log_entries(0..4).await.unwrap().len(), 4);
        assert_eq!(
            std::fs::read_dir(disk.0.path().join("store/blobs"))
                .unwrap()
                .count(),
            0
        );
    }
}
