//! openraft's own storage suite, on the real store.

use openraft::StorageError;
use openraft::testing::{StoreBuilder, Suite};

use crate::clock::{SystemClock, Timekeeper};
use crate::durable::{Store, SyncPolicy};
use crate::log::LogStore;
use crate::machine::Machine;
use crate::raft::TypeConfig;

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Machine, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, Machine), StorageError<u64>> {
        let dir = tempfile::tempdir().unwrap();
        let policy = SyncPolicy::Durable;
        let store = Store::open(&dir.path().join("store"), 1 << 20, policy).unwrap();
        let log = LogStore::open(&store, &dir.path().join("guard"), policy).unwrap();
        let clock = Timekeeper::new(std::sync::Arc::new(SystemClock));
        let machine = Machine::open(&store, clock).unwrap();
        Ok((dir, log, machine))
    }
}

#[test]
fn the_store_passes_the_storage_suite_of_openraft() {
    Suite::test_all(Builder).unwrap();
}
