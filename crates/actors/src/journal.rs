//! The mint journal: what this replica knows about its own mints and nobody else does.
//!
//! One small file for each credential with an unsettled mint of this replica, replaced as a
//! whole: written beside, synced, renamed, and the directory synced. So a crash leaves the old
//! entry or the new one. Tokens and rotated material in it are sealed already, as they go into
//! the log. Silence of the journal is taken for a proof that nothing was sent; therefore a file
//! that cannot be read is an error that stops the replica, never a missing entry.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use evermint_core::id::{CredentialId, TicketId};
use evermint_protocol::journal::JournalEntry;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// First bytes of every file: what it is, and the version of its format.
const MAGIC: &[u8; 8] = b"EVMINTJ1";
const SUFFIX: &str = "mint";

/// The journal of one data directory.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    entries: Mutex<BTreeMap<CredentialId, JournalEntry>>,
    /// Held while a file and its entry change together: a removal that came in between would
    /// take a newer file for the one that it was told to remove.
    disk: Mutex<()>,
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The directory or a file cannot be read.
    #[error("cannot read the mint journal {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds no entry. Its mint may have spent a grant; without it nobody can tell.
    #[error(
        "the mint journal {path} is damaged ({problem}); this replica can no longer tell which of its mints were sent: remove its data directory and let it join as a new replica"
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl Journal {
    /// Reads the journal in `dir`, which is made if it is not there.
    ///
    /// # Errors
    /// [`JournalError`] if any entry cannot be read.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, JournalError> {
        let dir = dir.into();
        let entries = load(&dir).map_err(|(path, problem)| match problem {
            Problem::Io(source) => JournalError::Read { path, source },
            Problem::Damaged(problem) => JournalError::Damaged { path, problem },
        })?;
        Ok(Self {
            dir,
            entries: Mutex::new(entries),
            disk: Mutex::new(()),
        })
    }

    /// Every entry.
    pub fn entries(&self) -> Vec<JournalEntry> {
        self.lock().values().cloned().collect()
    }

    /// The entry of one credential.
    pub fn entry(&self, credential: &CredentialId) -> Option<JournalEntry> {
        self.lock().get(credential).cloned()
    }

    /// Writes `entry` over the credential's former one. On disk when this returns.
    ///
    /// # Errors
    /// What the file system said; the former entry may then stand or not.
    pub async fn write(self: &Arc<Self>, entry: JournalEntry) -> io::Result<()> {
        let journal = Arc::clone(self);
        blocking(move || {
            let _disk = journal.disk.lock().unwrap_or_else(PoisonError::into_inner);
            store(&journal.path(&entry.credential), &entry)?;
            sync_dir(&journal.dir)?;
            journal.lock().insert(entry.credential.clone(), entry);
            Ok(())
        })
        .await
    }

    /// Removes the credential's entry if it is that of `ticket`.
    ///
    /// # Errors
    /// What the file system said. An entry that stays by accident does no harm.
    pub async fn forget(
        self: &Arc<Self>,
        credential: CredentialId,
        ticket: TicketId,
    ) -> io::Result<()> {
        let journal = Arc::clone(self);
        blocking(move || {
            let _disk = journal.disk.lock().unwrap_or_else(PoisonError::into_inner);
            if journal
                .entry(&credential)
                .is_some_and(|e| e.ticket == ticket)
            {
                fs::remove_file(journal.path(&credential))?;
                journal.lock().remove(&credential);
            }
            Ok(())
        })
        .await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<CredentialId, JournalEntry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, credential: &CredentialId) -> PathBuf {
        let key = xxh3_128(credential.key.as_str().as_bytes());
        self.dir
            .join(format!("{}-{key:032x}.{SUFFIX}", credential.provider))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::other("the journal's thread was stopped")),
    }
}

enum Problem {
    Io(io::Error),
    Damaged(&'static str),
}

type Loaded = Result<BTreeMap<CredentialId, JournalEntry>, (PathBuf, Problem)>;

fn load(dir: &Path) -> Loaded {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |e| (path, Problem::Io(e))
    };
    fs::create_dir_all(dir).map_err(io(dir))?;
    if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        sync_dir(parent).map_err(io(parent))?;
    }
    let mut entries = BTreeMap::new();
    for file in fs::read_dir(dir).map_err(io(dir))? {
        let path = file.map_err(io(dir))?.path();
        if path.extension().is_none_or(|e| e != SUFFIX) {
            // What a crash left of a write that never counted.
            fs::remove_file(&path).map_err(io(&path))?;
            continue;
        }
        let bytes = fs::read(&path).map_err(io(&path))?;
        let entry = decode(&bytes).map_err(|problem| (path, Problem::Damaged(problem)))?;
        entries.insert(entry.credential.clone(), entry);
    }
    Ok(entries)
}

fn store(path: &Path, entry: &JournalEntry) -> io::Result<()> {
    let beside = path.with_extension("tmp");
    let mut file = File::create(&beside)?;
    file.write_all(&encode(entry))?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Magic, checksum, entry.
fn encode(entry: &JournalEntry) -> Vec<u8> {
    let body = postcard::to_stdvec(entry).expect("entries are plain data, which postcard encodes");
    [&MAGIC[..], &xxh3_64(&body).to_be_bytes(), &body].concat()
}

fn decode(bytes: &[u8]) -> Result<JournalEntry, &'static str> {
    let rest = bytes
        .strip_prefix(MAGIC)
        .ok_or("it does not begin as a journal entry of this version does")?;
    let (sum, body) = rest.split_first_chunk::<8>().ok_or("it is too short")?;
    if xxh3_64(body).to_be_bytes() != *sum {
        return Err("its checksum does not match");
    }
    postcard::from_bytes(body).map_err(|_| "it cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;
    use evermint_core::id::{CredentialKey, Position, ProviderId};
    use evermint_protocol::journal::Progress;

    fn entry(provider: u128, ticket: u128) -> JournalEntry {
        JournalEntry {
            credential: CredentialId {
                provider: ProviderId(provider),
                key: CredentialKey::new("TOKEN").unwrap(),
            },
            ticket: TicketId(ticket),
            granted: Position(7),
            progress: Progress::Sending,
        }
    }

    async fn written(dir: &Path, entries: &[JournalEntry]) -> Arc<Journal> {
        let journal = Arc::new(Journal::open(dir.join("journal")).unwrap());
        for entry in entries {
            journal.write(entry.clone()).await.unwrap();
        }
        journal
    }

    fn file(dir: &Path) -> PathBuf {
        let mut files = fs::read_dir(dir.join("journal")).unwrap();
        files.next().unwrap().unwrap().path()
    }

    #[tokio::test]
    async fn an_entry_outlives_the_process_and_replaces_its_predecessor() {
        let dir = tempfile::tempdir().unwrap();
        let first = entry(1, 1);
        let (second, other) = (entry(1, 2), entry(2, 9));
        drop(written(dir.path(), &[first.clone(), second.clone(), other.clone()]).await);
        let again = Arc::new(Journal::open(dir.path().join("journal")).unwrap());
        assert_eq!(again.entries(), [second.clone(), other.clone()]);

        // Forgetting an older ticket leaves the newer entry alone.
        let id = second.credential.clone();
        again.forget(id.clone(), first.ticket).await.unwrap();
        assert_eq!(again.entry(&id), Some(second.clone()));
        again.forget(id, second.ticket).await.unwrap();
        let last = Journal::open(dir.path().join("journal")).unwrap();
        assert_eq!(last.entries(), [other]);
    }

    #[tokio::test]
    async fn a_write_that_was_cut_short_never_counted() {
        let dir = tempfile::tempdir().unwrap();
        let journal = written(dir.path(), &[]).await;
        fs::write(journal.dir.join("x.tmp"), b"half").unwrap();
        let again = Journal::open(dir.path().join("journal")).unwrap();
        assert!(again.entries().is_empty());
    }

    #[tokio::test]
    async fn a_damaged_entry_is_an_error_and_never_silence() {
        for damage in [0, 9, 17] {
            let dir = tempfile::tempdir().unwrap();
            drop(written(dir.path(), &[entry(1, 1)]).await);
            let path = file(dir.path());
            let mut bytes = fs::read(&path).unwrap();
            bytes[damage] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let error = Journal::open(dir.path().join("journal")).unwrap_err();
            assert!(matches!(&error, JournalError::Damaged { path: p, .. } if *p == path));
        }
    }

    #[tokio::test]
    async fn a_write_that_fails_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let journal = written(dir.path(), &[]).await;
        fs::remove_dir(&journal.dir).unwrap();
        assert!(journal.write(entry(1, 1)).await.is_err());
        assert_eq!(journal.entries(), []);
    }
}
