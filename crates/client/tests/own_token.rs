//! The sandbox's own token in a file: who reads it when, and who writes it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use evermint_client::{Client, Renewals};
use support::{Hand, Mood, Replica, builder, bundle, ready, until_counted, until_seen, within};
use tempfile::TempDir;
use tonic::Code;

/// The tokens of a test's replica are good for an hour: four fifths of it, and a little.
const RENEWAL: u64 = 48 * 60_000 + 1_000;
/// What failed is tried again by then.
const RETRY: u64 = 11_000;

async fn start(clock: &Arc<Hand>, replica: &Replica, path: &Path, renewals: Renewals) -> Client {
    let builder = builder(clock, &[replica]).sandbox_token_file(path, renewals);
    ready(builder).await.0
}

fn holds(path: &Path, token: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text == token)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_is_written_only_if_that_is_asked_for() {
    for (renewals, expected) in [(Renewals::InMemory, "t0"), (Renewals::InFile, "t1")] {
        let (clock, dir) = (Hand::new(), TempDir::new().unwrap());
        let replica = Replica::start(&clock, bundle(7, "one"));
        let path = dir.path().join("token");
        fs::write(&path, "t0").unwrap();
        let client = start(&clock, &replica, &path, renewals).await;
        replica.renewed("Bearer t1").await;
        until_seen(|| holds(&path, expected)).await;
        // What is to be written is written before the next one is asked for.
        clock.advance(RENEWAL);
        replica.renewed("Bearer t2").await;
        assert!(client.metrics().renewals >= 1);
        if renewals == Renewals::InFile {
            until_seen(|| holds(&path, "t2")).await;
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        } else {
            assert!(holds(&path, "t0"));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_goes_on_from_the_file_that_another_one_kept() {
    let (clock, dir) = (Hand::new(), TempDir::new().unwrap());
    let replica = Replica::start(&clock, bundle(7, "one"));
    let path = dir.path().join("token");
    fs::write(&path, " t0\n").unwrap();
    let first = start(&clock, &replica, &path, Renewals::InFile).await;
    until_seen(|| holds(&path, "t1")).await;
    drop(first);
    let asked = replica.asked().len();
    let _second = start(&clock, &replica, &path, Renewals::InFile).await;
    assert_eq!(replica.asked()[asked].authorization, "Bearer t1");
    until_seen(|| holds(&path, "t2")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_put_into_the_file_counts_once_the_token_is_refused() {
    let (clock, dir) = (Hand::new(), TempDir::new().unwrap());
    let replica = Replica::start(&clock, bundle(7, "one"));
    let path = dir.path().join("token");
    fs::write(&path, "t0").unwrap();
    let _client = start(&clock, &replica, &path, Renewals::InMemory).await;
    replica.renewed("Bearer t1").await;
    fs::write(&path, "t70").unwrap();
    clock.advance(RENEWAL);
    replica.renewed("Bearer t2").await;

    replica.mood(Mood::Refuses(Code::Unauthenticated, "unauthenticated"));
    let shown = |all: &[support::Asked]| all.iter().any(|a| a.authorization == "Bearer t70");
    replica.until_asked(shown).await;
    replica.mood(Mood::Well);
    clock.advance(RETRY);
    replica.renewed("Bearer t71").await;
    assert!(holds(&path, "t70"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_written_stops_nothing_and_is_written_later() {
    let (clock, dir) = (Hand::new(), TempDir::new().unwrap());
    let replica = Replica::start(&clock, bundle(7, "one"));
    replica.mood(Mood::Hung);
    let path = dir.path().join("gone/token");
    fs::create_dir(dir.path().join("gone")).unwrap();
    fs::write(&path, "t0").unwrap();
    let builder = builder(&clock, &[&replica]).sandbox_token_file(&path, Renewals::InFile);
    let client = builder.build().unwrap();
    replica.until_asked(|all| !all.is_empty()).await;
    fs::remove_dir_all(dir.path().join("gone")).unwrap();
    replica.mood(Mood::Well);
    within(client.wait_ready()).await.unwrap();
    replica.renewed("Bearer t1").await;
    clock.advance(RENEWAL);
    replica.renewed("Bearer t2").await;
    fs::create_dir(dir.path().join("gone")).unwrap();
    until_counted(&client, |m| m.renewals == 2).await;
    until_seen(|| {
        clock.advance(10);
        holds(&path, "t2")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_there_yet_is_waited_for() {
    let (clock, dir) = (Hand::new(), TempDir::new().unwrap());
    let replica = Replica::start(&clock, bundle(7, "one"));
    let path = dir.path().join("token");
    let builder = builder(&clock, &[&replica]).sandbox_token_file(&path, Renewals::InMemory);
    let client = builder.build().unwrap();
    until_counted(&client, |m| m.calls_failed > 0).await;
    assert!(replica.asked().is_empty());
    fs::write(&path, "t0").unwrap();
    within(client.wait_ready()).await.unwrap();
    assert_eq!(replica.asked()[0].authorization, "Bearer t0");
}
