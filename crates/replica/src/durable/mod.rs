//! The one place that knows sled, and that knows when bytes are on the disk.
//!
//! sled's `flush` writes and calls `sync_file_range`: after a power cut, what it wrote may be
//! gone. So [`Store::barrier`] flushes and then syncs the database file through a descriptor of
//! its own; a single thread does so for all who wait at that moment. Everything in one store is
//! one log in sled, so what survives is always a prefix of what was written.
//!
//! Damage shows as an error, never as an absence: every chunk of a record carries a checksum
//! ([`chunk`]), and those who keep a [`table`] keep count of what must be in it.

mod chunk;
mod table;

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak, mpsc};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use evermint_failpoint::{Point, check, reach};
use tokio::sync::{oneshot, watch};

pub(crate) use self::chunk::Digest;
pub(crate) use self::table::{Change, Table};

/// The version of the layout. A store with another one is refused.
pub(crate) const FORMAT: u32 = 1;

/// How long to wait for a former holder of the store to let go of it.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// How often sled reclaims space; never off, or it reclaims none.
const RECLAIM_EVERY_MS: u64 = 500;

const META: &str = "meta";
const FORMAT_KEY: &[u8] = b"format";

/// Whether a barrier makes durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncPolicy {
    /// It does: flush, then sync.
    #[default]
    Durable,
    /// It does not: the classic mistake, for the power test to catch.
    #[cfg(feature = "test-faults")]
    FlushOnly,
}

impl SyncPolicy {
    /// Syncs a file's content, unless the policy is not to.
    pub(crate) fn sync(self, file: &File) -> io::Result<()> {
        match self {
            Self::Durable => file.sync_data(),
            #[cfg(feature = "test-faults")]
            Self::FlushOnly => Ok(()),
        }
    }
}

/// A record that cannot be trusted, or is not where it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{record}: {problem}")]
pub struct Damage {
    /// Which one.
    pub record: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Damage {
    pub(crate) fn new(record: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            record: record.into(),
            problem: problem.into(),
        }
    }
}

/// Why the store did not do as told.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "as in crate::Error")]
pub enum StoreError {
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    #[error("the store has format {found}, this build knows {known}")]
    Format { found: u32, known: u32 },
    #[error("damaged: {0}")]
    Damaged(#[from] Damage),
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
}

impl StoreError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    fn sled(record: impl Into<String>) -> impl FnOnce(sled::Error) -> Self {
        let record = record.into();
        move |error| match error {
            sled::Error::Io(source) => Self::Io {
                what: record,
                source,
            },
            other => Self::Damaged(Damage::new(record, other.to_string())),
        }
    }
}

/// Called when everything written before is on the disk, or is known not to be.
pub(crate) type Waiter = Box<dyn FnOnce(io::Result<()>) + Send>;

/// One sled database. Clones share it; it is closed when the last one is gone.
#[derive(Clone)]
pub(crate) struct Store(Arc<Inner>);

struct Inner {
    db: sled::Db,
    path: PathBuf,
    // After `db`: when the queue ends, the thread's handle on the database is the last one.
    queue: mpsc::Sender<Waiter>,
    // Each thread that writes has a clone, and drops it when nothing is left to write.
    writers: watch::Sender<()>,
}

impl Store {
    /// Opens the store in `path`, or creates it there. Blocks.
    ///
    /// # Errors
    /// See [`StoreError`]; a sled that panics on what it finds counts as damage.
    pub(crate) fn open(path: &Path, cache: u64, policy: SyncPolicy) -> Result<Self, StoreError> {
        let file = path.join("db");
        let existed = file.exists();
        if existed {
            // A process that was killed left pages behind that no barrier covered. sled is about
            // to build on them, so they have to be on the disk first.
            let fd = File::open(&file).map_err(StoreError::io("open the database file"))?;
            policy
                .sync(&fd)
                .map_err(StoreError::io("sync the database file"))?;
        } else {
            create_dir(path)?;
        }
        let db = open_sled(path, cache)?;
        let fd = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&file)
            .map_err(StoreError::io("open the database file"))?;
        if !existed {
            sync_dir(path)?;
        }

        let (queue, waiters) = mpsc::channel();
        let (writers, _) = watch::channel(());
        let syncer = Syncer {
            db: db.clone(),
            fd,
            policy,
            _writes: writers.clone(),
        };
        thread::Builder::new()
            .name("evermint-sync".to_owned())
            .spawn(move || syncer.run(&waiters))
            .map_err(StoreError::io("start the thread that syncs"))?;
        let store = Self(Arc::new(Inner {
            db,
            path: path.to_owned(),
            queue,
            writers,
        }));
        store.check_format(existed)?;
        store.alarm_on_blobs();
        store.barrier_blocking()?;
        Ok(store)
    }

    fn check_format(&self, existed: bool) -> Result<(), StoreError> {
        let meta = self.table(META)?;
        match meta.get(FORMAT_KEY)? {
            Some(bytes) => {
                let found = bytes.try_into().map_or(0, u32::from_be_bytes);
                match found == FORMAT {
                    true => Ok(()),
                    false => Err(StoreError::Format {
                        found,
                        known: FORMAT,
                    }),
                }
            }
            // A crash right after the creation leaves no format, and nothing else.
            None if !existed || self.is_empty()? => {
                let format = FORMAT.to_be_bytes().to_vec();
                meta.apply(vec![(FORMAT_KEY.to_vec(), Some(format))])
            }
            None => Err(Damage::new("meta/format", "missing").into()),
        }
    }

    fn is_empty(&self) -> Result<bool, StoreError> {
        for name in self.table_names() {
            let table = self.table(&name)?;
            if !table.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The table with votes and pointers.
    pub(crate) fn meta(&self) -> Result<Table, StoreError> {
        self.table(META)
    }

    /// A table by name, created if need be.
    pub(crate) fn table(&self, name: &str) -> Result<Table, StoreError> {
        let tree = self
            .0
            .db
            .open_tree(name)
            .map_err(StoreError::sled(format!("table {name}")))?;
        Ok(Table::new(tree, name, self))
    }

    /// The names of all tables.
    pub(crate) fn table_names(&self) -> Vec<String> {
        let own = |name: &sled::IVec| name.as_ref() != b"__sled__default";
        let names = self.0.db.tree_names().into_iter().filter(own);
        names
            .map(|name| String::from_utf8_lossy(&name).into_owned())
            .collect()
    }

    /// Removes a table with all its records.
    pub(crate) fn drop_table(&self, name: &str) -> Result<(), StoreError> {
        self.0
            .db
            .drop_tree(name)
            .map(|_| ())
            .map_err(StoreError::sled(format!("table {name}")))
    }

    /// Calls `waiter` on another thread once everything written so far is on the disk.
    pub(crate) fn barrier_then(&self, waiter: Waiter) {
        if let Err(mpsc::SendError(waiter)) = self.0.queue.send(waiter) {
            waiter(Err(io::Error::other("the thread that syncs has died")));
        }
    }

    /// Returns once everything written so far is on the disk.
    pub(crate) async fn barrier(&self) -> Result<(), StoreError> {
        let (done, wait) = oneshot::channel();
        // Who does not wait any more does not care.
        self.barrier_then(Box::new(move |result| drop(done.send(result))));
        wait.await
            .unwrap_or_else(|_| Err(io::Error::other("the thread that syncs has died")))
            .map_err(StoreError::io("sync the database file"))
    }

    /// As [`barrier`](Self::barrier), outside of any runtime.
    pub(crate) fn barrier_blocking(&self) -> Result<(), StoreError> {
        let (done, wait) = mpsc::channel();
        self.barrier_then(Box::new(move |result| drop(done.send(result))));
        wait.recv()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that syncs has died")))
            .map_err(StoreError::io("sync the database file"))
    }

    /// A handle that does not keep the store open.
    pub(crate) fn downgrade(&self) -> WeakStore {
        WeakStore(Arc::downgrade(&self.0))
    }

    /// sled never syncs blob files, so that what is in them is not durable. Values are kept
    /// small enough that there are none; should there be one all the same, a person must know.
    pub(crate) fn alarm_on_blobs(&self) {
        let blobs = fs::read_dir(self.0.path.join("blobs")).map_or(0, Iterator::count);
        if blobs > 0 {
            tracing::error!(blobs, "the store has blob files, which no sync covers");
        }
    }

    /// Resolves when the store is closed: every clone gone, everything written, the lock free.
    pub(crate) fn closed(&self) -> impl Future<Output = ()> + 'static + use<> {
        let mut writers = self.0.writers.subscribe();
        async move { while writers.changed().await.is_ok() {} }
    }

    /// For a thread that writes beside the store: it is not [`closed`](Self::closed) before this
    /// is dropped.
    pub(crate) fn writer(&self) -> watch::Sender<()> {
        self.0.writers.clone()
    }
}

/// A handle on a store that does not keep it open.
pub(crate) struct WeakStore(Weak<Inner>);

impl WeakStore {
    /// Bytes on disk; 0 once the store is closed.
    pub(crate) fn disk_bytes(&self) -> u64 {
        let store = self.0.upgrade();
        store.map_or(0, |store| store.db.size_on_disk().unwrap_or(0))
    }
}

/// The thread behind [`Store::barrier`].
struct Syncer {
    db: sled::Db,
    fd: File,
    policy: SyncPolicy,
    // Last: dropped when the database is closed.
    _writes: watch::Sender<()>,
}

impl Syncer {
    fn run(self, waiters: &mpsc::Receiver<Waiter>) {
        // After a failed sync the kernel may have dropped the pages that it could not write, and
        // the next sync says nothing of them. So the first failure is the last word.
        let failed = AtomicBool::new(false);
        while let Ok(first) = waiters.recv() {
            let others: Vec<_> = waiters.try_iter().collect();
            let result = match failed.load(Ordering::Relaxed) {
                true => Err("an earlier sync failed".to_owned()),
                false => self.sync().map_err(|e| e.to_string()),
            };
            failed.store(result.is_err(), Ordering::Relaxed);
            for waiter in std::iter::once(first).chain(others) {
                waiter(result.clone().map_err(io::Error::other));
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        check(Point::BeforeSync, "")?;
        self.db.flush().map_err(io::Error::other)?;
        self.policy.sync(&self.fd)?;
        reach(Point::AfterSync, "");
        Ok(())
    }
}

/// Opens sled, waiting for a former holder to let go, and once without its own snapshot files:
/// they only shorten recovery, and sled gives up on one that is torn.
fn open_sled(path: &Path, cache: u64) -> Result<sled::Db, StoreError> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(cache)
        .flush_every_ms(Some(RECLAIM_EVERY_MS));
    let patience = Instant::now() + LOCK_PATIENCE;
    let mut without_snapshots = false;
    loop {
        let config = config.clone();
        let opened = thread::spawn(move || config.open()).join();
        match opened {
            Ok(Ok(db)) => return Ok(db),
            Ok(Err(sled::Error::Io(e))) if e.to_string().contains("acquire lock") => {
                if Instant::now() > patience {
                    return Err(StoreError::InUse(path.to_owned()));
                }
                thread::sleep(Duration::from_millis(20));
            }
            Ok(Err(sled::Error::Corruption { .. })) | Err(_) if !without_snapshots => {
                tracing::warn!("the store does not open; trying without sled's snapshot files");
                remove_snapshots(path).map_err(StoreError::io("remove sled's snapshot files"))?;
                without_snapshots = true;
            }
            Ok(Err(e)) => return Err(StoreError::sled("database")(e)),
            Err(_) => return Err(Damage::new("database", "sled panicked on it").into()),
        }
    }
}

fn remove_snapshots(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("snap.") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Creates a directory that is there after a power cut, too.
pub(crate) fn create_dir(path: &Path) -> Result<(), StoreError> {
    let what = || format!("create {}", path.display());
    fs::create_dir_all(path).map_err(StoreError::io(what()))?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    sync_dir(parent.unwrap_or(Path::new(".")))
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(StoreError::io(format!("sync {}", path.display())))
}

/// Writes a whole file so that after a power cut either the old or the new one is there.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let what = || format!("write {}", path.display());
    let new = path.with_extension("new");
    let written = File::create(&new).and_then(|mut file| {
        io::Write::write_all(&mut file, bytes)?;
        file.sync_all()
    });
    written.map_err(StoreError::io(what()))?;
    fs::rename(&new, path).map_err(StoreError::io(what()))?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}
