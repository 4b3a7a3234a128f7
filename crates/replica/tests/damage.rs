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
    let expected = {
        let node = home.restart().await;
        let hash = node.state().hash();
        node.shutdown().await;
        hash
    };
    let data = whole.iter().rposition(|byte| *byte != 0).unwrap();
    for part in 1..8 {
        fs::write(&file, &whole[..data * part / 8]).unwrap();
        for snapshot in files(&home.dir.path().join("raft")) {
            if snapshot
                .file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("snap.")
            {
                fs::remove_file(snapshot).unwrap();
            }
        }
        match Node::start(home.config()).await {
            Err(Error::Damaged(damage)) => assert!(!damage.record.is_empty()),
            Err(e) => panic!("another error: {e}"),
            Ok(node) => assert_eq!(node.state().hash(), expected, "part {part}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_never_changes_what_a_replica_knows() {
    let home = stopped().await;
    let file = home.dir.path().join("raft/db");
    let (expected, term) = {
        let node = home.restart().await;
        let hash = node.state().hash();
        let term = node.status().await.term;
        node.shutdown().await;
        (hash, term)
    };
    let whole = fs::read(&file).unwrap();
    let data = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let guard = fs::read(home.dir.path().join("guard")).unwrap();
    let mut noticed = 0;
    let trials = 40;
    for trial in 0..trials {
        let mut bytes = whole.clone();
        bytes[data * (2 * trial + 1) / (2 * trials)] ^= 0x10;
        fs::write(&file, &bytes).unwrap();
        fs::write(home.dir.path().join("guard"), &guard).unwrap();
        match Node::start(home.config()).await {
            Err(Error::Damaged(damage)) => {
                assert!(!damage.record.is_empty());
                noticed += 1;
            }
            Err(e) => panic!("another error: {e}"),
            Ok(node) => {
                // It hit something that is no longer, or never was, of use.
                assert_eq!(node.state().hash(), expected, "trial {trial}");
                assert!(node.status().await.term >= term);
                node.shutdown().await;
            }
        }
    }
    assert!(noticed > 0, "some of {trials} must have hit something");
}
