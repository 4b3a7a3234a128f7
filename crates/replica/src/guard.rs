//! The guard record: what the store must at least contain, kept apart from the store.
//!
//! A store that lost its tail looks like a shorter store, and a replica that votes with it breaks
//! the promise of an acknowledged write. So a small file of its own says which vote and which
//! last entry were made durable. A store that has less is damaged.
//!
//! *The order makes every crash point safe.* The guard never claims what is not durable: a claim
//! grows only after the barrier that covers it, and shrinks, durably, before entries are removed.
//!
//! *The cost.* [`Guard::settle`] returns when the claims are durable: votes and truncations, which
//! are rare, wait for that. Appends do not: [`Guard::trail`] lets the claims follow on a thread of
//! their own, so that a commit costs one sync and not two. The claims are behind the acknowledged
//! log by the time of one small write; only what was acknowledged in that moment is not guarded
//! against a store that then loses it *in spite of* its sync.
//!
//! The file has two slots of one block, written in turn, each under a checksum and numbered: a
//! torn write leaves the other one, whose claims are the older ones.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use crate::durable::{Damage, StoreError, SyncPolicy, write_file};
use crate::stored::{Ballot, Mark};

/// One block: a write of it is not torn on any disk that we know, and if so, noticed.
const SLOT: usize = 4_096;
const MAGIC: &[u8; 8] = b"evmguard";

/// What the store must at least contain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    /// The layout of the store.
    pub(crate) format: u32,
    /// The vote.
    pub(crate) vote: Option<Ballot>,
    /// The last entry: stored, or cut off.
    pub(crate) last: Option<Mark>,
    /// The last entry that was cut off.
    pub(crate) purged: Option<Mark>,
}

type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// The guard record of one store.
pub(crate) struct Guard {
    queue: mpsc::Sender<(Claims, Option<Done>)>,
    failed: Arc<AtomicBool>,
}

impl Guard {
    /// The claims in the file; `None` if there is no file.
    pub(crate) fn read(path: &Path) -> Result<Option<Claims>, StoreError> {
        match std::fs::read(path) {
            Ok(bytes) => newest(&bytes)
                .map(|(_, claims)| Some(claims))
                .ok_or_else(|| Damage::new("guard", "no slot has a valid checksum").into()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StoreError::io("read the guard record")(e)),
        }
    }

    /// Goes on with the file at `path`, or begins it with `claims`. Its thread drops `writes` when
    /// nothing is left to write.
    pub(crate) fn open(
        path: &Path,
        claims: Claims,
        policy: SyncPolicy,
        writes: watch::Sender<()>,
    ) -> Result<Self, StoreError> {
        let number = match std::fs::read(path) {
            Ok(bytes) => newest(&bytes).map_or(0, |(number, _)| number),
            Err(_) => {
                let mut bytes = slot(1, &claims);
                bytes.resize(2 * SLOT, 0);
                write_file(path, &bytes)?;
                1
            }
        };
        let file = File::options()
            .write(true)
            .open(path)
            .map_err(StoreError::io("open the guard record"))?;
        let (queue, requests) = mpsc::channel();
        let failed = Arc::new(AtomicBool::new(false));
        let writer = Writer {
            path: path.to_owned(),
            file,
            number,
            policy,
            failed: failed.clone(),
            _writes: writes,
        };
        thread::Builder::new()
            .name("evermint-guard".to_owned())
            .spawn(move || writer.run(&requests))
            .map_err(StoreError::io("start the thread of the guard record"))?;
        Ok(Self { queue, failed })
    }

    /// Lets the file follow to `claims`, soon.
    ///
    /// # Errors
    /// When an earlier write of the file failed.
    pub(crate) fn trail(&self, claims: Claims) -> io::Result<()> {
        if self.failed.load(Ordering::Acquire) {
            return Err(io::Error::other("the guard record could not be written"));
        }
        self.queue
            .send((claims, None))
            .map_err(|_| io::Error::other("the thread of the guard record has died"))
    }

    /// Returns when the file says `claims`, durably.
    pub(crate) async fn settle(&self, claims: Claims) -> Result<(), StoreError> {
        let (done, wait) = oneshot::channel();
        let done: Done = Box::new(move |result| drop(done.send(result)));
        // A queue without its thread drops `done`, which ends the wait.
        drop(self.queue.send((claims, Some(done))));
        wait.await
            .unwrap_or_else(|_| Err(io::Error::other("its thread has died")))
            .map_err(StoreError::io("write the guard record"))
    }
}

/// The thread that writes the file.
struct Writer {
    path: PathBuf,
    file: File,
    number: u64,
    policy: SyncPolicy,
    failed: Arc<AtomicBool>,
    _writes: watch::Sender<()>,
}

impl Writer {
    fn run(mut self, requests: &mpsc::Receiver<(Claims, Option<Done>)>) {
        while let Ok(first) = requests.recv() {
            let mut waiting = Vec::new();
            let mut newest = first.0;
            for (claims, done) in std::iter::once(first).chain(requests.try_iter()) {
                newest = claims;
                waiting.extend(done);
            }
            let result = self.write(&newest).map_err(|e| e.to_string());
            if let Err(error) = &result {
                tracing::error!(path = %self.path.display(), error, "cannot write the guard record");
                self.failed.store(true, Ordering::Release);
            }
            for done in waiting {
                done(result.clone().map_err(io::Error::other));
            }
        }
    }

    fn write(&mut self, claims: &Claims) -> io::Result<()> {
        if self.failed.load(Ordering::Acquire) {
            return Err(io::Error::other("an earlier write failed"));
        }
        self.number += 1;
        // Number 1 went into the first slot.
        let offset = (self.number - 1) % 2 * SLOT as u64;
        self.file.write_all_at(&slot(self.number, claims), offset)?;
        self.policy.sync(&self.file)
    }
}

/// A slot: magic, number, length, claims, zeros, checksum.
fn slot(number: u64, claims: &Claims) -> Vec<u8> {
    let claims = postcard::to_stdvec(claims).expect("claims are plain data");
    let len = u16::try_from(claims.len()).expect("claims are short");
    let mut bytes = Vec::with_capacity(SLOT);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(&claims);
    bytes.resize(SLOT - 4, 0);
    let sum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&sum.to_be_bytes());
    bytes
}

/// The slot with the highest number among the intact ones.
fn newest(bytes: &[u8]) -> Option<(u64, Claims)> {
    let slots = bytes.chunks_exact(SLOT).filter_map(parse);
    slots.max_by_key(|(number, _)| *number)
}

fn parse(slot: &[u8]) -> Option<(u64, Claims)> {
    let (body, sum) = slot.split_at_checked(SLOT - 4)?;
    if u32::from_be_bytes(sum.try_into().ok()?) != crc32c::crc32c(body) {
        return None;
    }
    let rest = body.strip_prefix(MAGIC)?;
    let (number, rest) = rest.split_first_chunk()?;
    let (len, rest) = rest.split_first_chunk()?;
    let claims = rest.get(..usize::from(u16::from_be_bytes(*len)))?;
    let claims = postcard::from_bytes(claims).ok()?;
    Some((u64::from_be_bytes(*number), claims))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(index: u64) -> Claims {
        Claims {
            format: 1,
            last: Some(Mark {
                term: 1,
                leader: 1,
                index,
            }),
            ..Claims::default()
        }
    }

    fn written(path: &Path, last: u64) {
        let (writes, _) = watch::channel(());
        let guard = Guard::open(path, claims(1), SyncPolicy::Durable, writes).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        for index in 2..=last {
            runtime.block_on(guard.settle(claims(index))).unwrap();
        }
    }

    #[test]
    fn it_says_what_was_settled_last() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("guard");
        assert_eq!(Guard::read(&path).unwrap(), None);
        written(&path, 5);
        assert_eq!(Guard::read(&path).unwrap(), Some(claims(5)));
        written(&path, 3);
        assert_eq!(Guard::read(&path).unwrap(), Some(claims(3)));
    }

    #[test]
    fn it_lets_go_only_when_everything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("guard");
        let (writes, mut writing) = watch::channel(());
        let guard = Guard::open(&path, claims(1), SyncPolicy::Durable, writes).unwrap();
        for index in 2..=200 {
            guard.trail(claims(index)).unwrap();
        }
        drop(guard);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async { while writing.changed().await.is_ok() {} });
        assert_eq!(Guard::read(&path).unwrap(), Some(claims(200)));
    }

    #[test]
    fn a_torn_slot_leaves_the_older_one_and_two_are_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("guard");
        written(&path, 5);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(Guard::read(&path).unwrap(), Some(claims(4)));
        bytes[SLOT + 20] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(
            Guard::read(&path),
            Err(StoreError::Damaged(damage)) if damage.record == "guard"
        ));
    }
}
