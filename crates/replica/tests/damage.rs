//! A store that cannot be trusted is named, and its replica does not start.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;

use evermint_core::port::StateView;
use evermint_replica::{Damage, Error, Node};
use support::*;

/// One replica with some data, stopped.
async fn stopped() -> Home {
    let (home, node) = cluster(1).await.remove(0);
    for id in 0..50 {
        write(&node, id).await;
    }
    node.shutdown().await;
    home
}

async fn damage(home: &Home) -> Damage {
    match Node::start(home.config()).await {
        Err(Error::Damaged(damage)) => damage,
        Err(e) => panic!("another error: {e}"),
        Ok(_) => panic!("it started"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undamaged_store_opens() {
    let home = stopped().await;
    let node = home.restart().await;
    assert!((0..50).all(|id| has(&node, id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_piece_is_named() {
    for (file, record) in [
        ("guard", "guard"),
        ("raft", "store"),
        ("raft/db", "store"),
        ("identity", "identity"),
    ] {
        let home = stopped().await;
        let path = home.dir.path().join(file);
        match path.is_dir() {
            true => fs::remove_dir_all(path).unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
        assert_eq!(damage(&home).await.record, record, "{file}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_the_store_is_refused() {
    let (home, node) = cluster(1).await.remove(0);
    write(&node, 0).await;
    node.shutdown().await;
    let (store, copy) = (home.dir.path().join("raft"), home.dir.path().join("copy"));
    copy_dir(&store, &copy);
    let node = home.restart().await;
    for id in 1..50 {
        write(&node, id).await;
    }
    node.shutdown().await;
    fs::remove_dir_all(&store).unwrap();
    fs::rename(&copy, &store).unwrap();
    let damage = damage(&home).await;
    assert!(
        damage.to_string().contains("guard knows") || damage.record.contains("log entry"),
        "{damage}"
    );
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir(to).unwrap();
    copy_into(from, to);
}

fn copy_into(from: &std::path::Path, to: &std::path::Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_dir(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_off_store_never_starts_with_less() {
    let home = stopped().await;
    let file = home.dir.path().join("raft/db");
    let whole = fs::read(&file).unwrap();
    let data = whole.iter().rposition(|byte| *byte != 0).unwrap();
    for part in 1..8 {
        fs::write(&file, &whole[..data * part / 8]).unwrap();
        forget_sled_snapshots(&home);
        check(&home, &format!("{part}/8 of the file")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_never_changes_what_a_replica_knows() {
    let home = stopped().await;
    let (data_dir, backup) = (home.dir.path(), tempfile::tempdir().unwrap());
    let backup = backup.path().join("copy");
    copy_dir(data_dir, &backup);
    let whole = fs::read(backup.join("raft/db")).unwrap();
    let data = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let mut noticed = 0;
    let trials = 60;
    for trial in 0..trials {
        for name in ["raft", "guard", "identity"] {
            let path = data_dir.join(name);
            match path.is_dir() {
                true => fs::remove_dir_all(&path).unwrap(),
                false => fs::remove_file(&path).unwrap(),
            }
        }
        copy_into(&backup, data_dir);
        let at = data * (2 * trial + 1) / (2 * trials);
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(data_dir.join("raft/db"), &bytes).unwrap();
        if trial % 2 == 0 {
            forget_sled_snapshots(&home);
        }
        noticed += u32::from(!check(&home, &format!("byte {at}")).await);
    }
    assert!(noticed > 0, "some of {trials} must have hit something");
}

/// Either the damage is named, or it hit what is of no use any more and nothing is lost. Says
/// whether the replica started.
async fn check(home: &Home, what: &str) -> bool {
    match Node::start(home.config()).await {
        Err(Error::Damaged(damage)) => {
            assert!(!damage.record.is_empty());
            false
        }
        Err(e) => panic!("{what}: another error: {e}"),
        Ok(node) => {
            let index = node.read_index().await.unwrap();
            assert!(node.reached(index, BOUND).await);
            assert!((0..50).all(|id| has(&node, id)), "{what}: lost a write");
            node.shutdown().await;
            true
        }
    }
}

/// sled's own snapshot files are made from the database file; here, from another version of it.
fn forget_sled_snapshots(home: &Home) {
    for path in files(&home.dir.path().join("raft")) {
        if path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("snap.")
        {
            fs::remove_file(path).unwrap();
        }
    }
}
