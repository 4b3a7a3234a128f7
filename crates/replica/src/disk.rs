//! The data directory of a replica: who it is, its store and its guard record.

use std::path::Path;

use evermint_core::id::InstallationId;

use crate::clock::Timekeeper;
use crate::config::Config;
use crate::durable::{Damage, Store, SyncPolicy, create_dir};
use crate::error::Error;
use crate::identity::Identity;
use crate::log::LogStore;
use crate::machine::Machine;

/// The file that says who the directory is.
pub(crate) const IDENTITY: &str = "identity";
const GUARD: &str = "guard";
const STORE: &str = "raft";
const INSTALLATION: &[u8] = b"installation";

/// Everything on the disk of a replica, open and checked.
pub(crate) struct Disk {
    pub(crate) identity: Identity,
    pub(crate) store: Store,
    pub(crate) log: LogStore,
    pub(crate) machine: Machine,
}

impl Disk {
    /// Opens the data directory, or begins a new one.
    ///
    /// # Errors
    /// As [`Node::start`](crate::Node::start).
    pub(crate) async fn open(config: &Config, clock: Timekeeper) -> Result<Self, Error> {
        let (path, cache) = (config.data_dir.clone(), config.cache_bytes);
        let opening = tokio::task::spawn_blocking(move || open(&path, cache, clock));
        // sled panics on some kinds of damage.
        let opened = opening
            .await
            .map_err(|e| Damage::new("store", e.to_string()));
        opened?
    }
}

fn open(path: &Path, cache: u64, clock: Timekeeper) -> Result<Disk, Error> {
    create_dir(path)?;
    let (store_path, guard_path) = (path.join(STORE), path.join(GUARD));
    let known = Identity::read(&path.join(IDENTITY))?;
    check_complete(known, store_path.join("db").exists(), guard_path.exists())?;
    let policy = SyncPolicy::Durable;
    let store = Store::open(&store_path, cache, policy)?;
    let mut log = LogStore::open(&store, &guard_path, policy)?;
    let machine = Machine::open(&store, clock)?;
    log.follow(machine.written());
    let cut = log.extent().purged.map(|mark| mark.index);
    let applied = machine.applied().map(|id| id.index);
    if cut > applied {
        let problem = format!("applied up to {applied:?}, but the log is cut off at {cut:?}");
        return Err(Damage::new("state machine", problem).into());
    }
    let identity = known.unwrap_or_else(Identity::new);
    bind(&store, identity.installation)?;
    if known.is_none() {
        // Last: an identity says that all the rest is there.
        identity.write(&path.join(IDENTITY))?;
    }
    Ok(Disk {
        identity,
        store,
        log,
        machine,
    })
}

/// An id must never be used with an empty store: a replica that forgot its vote and its log could
/// split the cluster. And a store must not get another identity.
fn check_complete(identity: Option<Identity>, store: bool, guard: bool) -> Result<(), Damage> {
    match identity {
        Some(_) if !store => Err(Damage::new("store", "missing, but the identity is there")),
        Some(_) if !guard => Err(Damage::new("guard", "missing")),
        // Or neither: a first start, perhaps one after another that was cut off.
        Some(_) | None => Ok(()),
    }
}

/// The store and the identity belong together.
fn bind(store: &Store, installation: InstallationId) -> Result<(), Error> {
    let meta = store.meta()?;
    let own = installation.0.to_be_bytes().to_vec();
    match meta.get(INSTALLATION)? {
        Some(found) if found == own => Ok(()),
        Some(_) => Err(Damage::new("identity", "the store belongs to another one").into()),
        None => {
            meta.apply(vec![(INSTALLATION.to_vec(), Some(own))])?;
            Ok(store.barrier_blocking()?)
        }
    }
}
