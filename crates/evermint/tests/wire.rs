//! A replica in this process: starts, stops, starts again, and refuses what it cannot use.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use evermint::settings::Settings;
use evermint::wire::Replica;
use evermint_core::port::StateView as _;

const FREE: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

fn keygen(path: &Path) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evermint"));
    let made = command.arg("keygen").arg("--out").arg(path).output();
    assert!(made.expect("evermint runs").status.success());
}

fn settings(dir: &Path, kek: &str) -> Settings {
    let kek_file = dir.join(kek);
    if !kek_file.exists() {
        keygen(&kek_file);
    }
    Settings {
        data_dir: dir.join("data"),
        init: true,
        kek_file: Some(kek_file),
        api_listen: SocketAddr::from(FREE),
        peer_listen: SocketAddr::from(FREE),
        insecure_loopback: true,
        ..Settings::default()
    }
}

async fn start(settings: Settings) -> anyhow::Result<Replica> {
    let starting = Box::pin(Replica::start(settings));
    tokio::time::timeout(Duration::from_secs(30), starting).await?
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_starts_again_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let first = start(settings(dir.path(), "kek")).await.unwrap();
    let (id, session) = first.node.identity();
    assert!(first.keyring.active().is_some());
    assert!(first.shutdown().await, "nothing was in flight");
    let second = start(settings(dir.path(), "kek")).await.unwrap();
    let (same, another) = second.node.identity();
    assert_eq!(same, id);
    assert_ne!(another, session, "another life");
    assert!(second.keyring.active().is_some());
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replica_leaves_its_directory_to_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let first = start(settings(dir.path(), "kek")).await.unwrap();
    let id = first.node.identity().0;
    first.kill().await;
    let second = start(settings(dir.path(), "kek")).await.unwrap();
    assert_eq!(second.node.identity().0, id);
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_kek_is_refused_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let right = start(settings(dir.path(), "kek")).await.unwrap();
    right.shutdown().await;
    let wrong = start(settings(dir.path(), "other")).await.err();
    let error = format!("{:#}", wrong.expect("it cannot open the data key"));
    assert!(error.contains("the KEK is not the one"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replica_cannot_start_with_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let good = settings(dir.path(), "kek");
    let missing = dir.path().join("missing");
    let taken = std::net::TcpListener::bind(FREE).unwrap();
    let taken = taken.local_addr().unwrap();
    for (what, settings, named) in [
        (
            "no KEK",
            Settings {
                kek_file: Some(missing.clone()),
                ..good.clone()
            },
            "no key-encryption key at",
        ),
        (
            "no token file",
            Settings {
                admin_token_file: Some(missing.clone()),
                ..good.clone()
            },
            "admin token",
        ),
        (
            "no CA file",
            Settings {
                issuers_ca_files: vec![missing],
                ..good.clone()
            },
            "missing",
        ),
        (
            "an API address that is taken",
            Settings {
                api_listen: taken,
                ..good.clone()
            },
            "--api-listen",
        ),
        (
            "elections faster than heartbeats",
            Settings {
                raft_election_min: "50ms".parse().unwrap(),
                ..good.clone()
            },
            "election",
        ),
    ] {
        let error = start(settings).await.err().expect(what);
        let advice = evermint::exit::advice(&error).unwrap_or_default();
        let told = format!("{error:#} {advice}");
        assert!(told.contains(named), "{what}: {told}");
    }
}
