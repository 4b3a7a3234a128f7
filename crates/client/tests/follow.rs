//! What a client shows of what replicas serve.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use evermint_client::{Error, Unusable};
use evermint_core::id::Position;
use evermint_core::secret::Secret;
use support::{
    Hand, Mood, Replica, builder, bundle, bundle_until, ready, until, until_counted, until_value,
    value, within,
};
use tonic::Code;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

#[tokio::test(flavor = "multi_thread")]
async fn routes_and_environment_are_there_once_it_is_ready() {
    let clock = Hand::new();
    let replica = Replica::start(&clock, bundle(7, "one"));
    let client = builder(&clock, &[&replica]).build().unwrap();
    assert!(!client.snapshot().is_ready());
    let snapshot = within(client.wait_ready()).await.unwrap();
    assert_eq!(snapshot.generation(), Some(Position(7)));
    let route = snapshot.route("inference.local").unwrap();
    assert_eq!((route.provider(), route.model()), ("vertex", "gemini"));
    assert_eq!(route.token().key(), "API_TOKEN");
    let token = route.token().value().and_then(Secret::expose_str);
    assert_eq!(token, Some("one"));
    let environment = snapshot.environment();
    assert_eq!(environment.len(), 1);
    assert_eq!(environment["API_TOKEN"].expose_str(), Some("one"));
    assert!(!format!("{client:?}").contains("\"one\""));

    let asked = &replica.asked()[0];
    assert_eq!((&*asked.sandbox, &*asked.workspace), ("agent-7", "team-a"));
    replica.until_asked(|asked| asked.len() == 2).await;
    let stream = &replica.asked()[1];
    assert!(stream.stream && stream.min_generation == 7);
    assert_eq!(stream.known_revision, "of one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_reaches_every_subscriber_and_the_newest_is_enough() {
    let clock = Hand::new();
    let replica = Replica::start(&clock, bundle(7, "one"));
    let (client, mut changes) = ready(builder(&clock, &[&replica])).await;
    let mut slow = client.subscribe();
    replica.serve(bundle(8, "two"));
    until_value(&client, &mut changes, "two").await;
    replica.serve(bundle(9, "three"));
    until_value(&client, &mut changes, "three").await;
    let snapshot = within(slow.changed()).await.unwrap();
    assert_eq!(value(&snapshot).as_deref(), Some("three"));
    drop(client);
    assert!(matches!(within(slow.changed()).await, Err(Error::Closed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_ends_by_the_cluster_clock_whatever_the_wall_clock_says() {
    // The cluster clock stands in 2001 here, and this machine's wall clock does not.
    let clock = Hand::new();
    let end = clock.now() + HOUR;
    let replica = Replica::start(&clock, bundle_until(7, "one", Some(end)));
    let (client, _) =
        ready(builder(&clock, &[&replica]).max_staleness(std::time::Duration::MAX)).await;
    assert_eq!(value(&client.snapshot()).as_deref(), Some("one"));
    clock.advance(HOUR - MINUTE);
    assert_eq!(value(&client.snapshot()).as_deref(), Some("one"));
    clock.advance(MINUTE);
    let snapshot = client.snapshot();
    assert_eq!(value(&snapshot), None);
    let token = snapshot.route("inference.local").unwrap().token();
    assert_eq!(token.usable(), Err(Unusable::Expired));
    assert!(snapshot.environment().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_stays_usable_while_nobody_serves_until_it_is_stale() {
    let clock = Hand::new();
    let mut replica = Replica::start(&clock, bundle(7, "one"));
    replica.staleness(MINUTE);
    let (client, mut changes) = ready(builder(&clock, &[&replica])).await;
    replica.kill();
    clock.advance(3 * MINUTE);
    assert_eq!(value(&client.snapshot()).as_deref(), Some("one"));
    // One minute by the replica's word, and four on this side.
    clock.advance(MINUTE + 100);
    let snapshot = client.snapshot();
    assert_eq!(value(&snapshot), None);
    let token = snapshot.credential("API_TOKEN").unwrap().token();
    assert!(matches!(token.usable(), Err(Unusable::Stale(_))));

    // What it serves again is confirmed by its revision, and usable again.
    replica.staleness(0);
    replica.restart();
    let asked = replica.asked().len();
    replica
        .until_asked(|all| all[asked..].iter().any(|a| a.stream))
        .await;
    replica.serve(bundle(8, "two"));
    until_value(&client, &mut changes, "two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_sandbox_has_nothing_and_a_new_one_of_its_name_has_its_own() {
    let clock = Hand::new();
    let replica = Replica::start(&clock, bundle(7, "one"));
    let (client, mut changes) = ready(builder(&clock, &[&replica])).await;
    replica.delete_sandbox();
    let snapshot = until(&client, &mut changes, |s| !s.is_ready()).await;
    assert!(snapshot.environment().is_empty());
    let Err(Error::Refused(refusal)) = within(client.wait_ready()).await else {
        panic!("there is no sandbox");
    };
    assert_eq!(refusal.code, Code::NotFound);
    replica.serve(bundle(9, "two"));
    until_value(&client, &mut changes, "two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_not_found_that_no_gateway_said_takes_nothing_away() {
    let clock = Hand::new();
    let replica = Replica::start(&clock, bundle(7, "one"));
    let (client, mut changes) = ready(builder(&clock, &[&replica])).await;
    replica.mood(Mood::Refuses(Code::NotFound, "somebody-else"));
    until_counted(&client, |m| m.refusals > 3).await;
    assert_eq!(value(&client.snapshot()).as_deref(), Some("one"));
    replica.mood(Mood::Well);
    replica.serve(bundle(8, "two"));
    until_value(&client, &mut changes, "two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_told_and_a_renewed_one_is_used() {
    let clock = Hand::new();
    let replica = Replica::start(&clock, bundle(7, "one"));
    replica.mood(Mood::Wants("new"));
    let renewed = Arc::new(AtomicBool::new(false));
    let source = {
        let renewed = Arc::clone(&renewed);
        move || {
            let text = if renewed.load(Ordering::SeqCst) {
                "new"
            } else {
                "old"
            };
            Ok(Secret::from(text))
        }
    };
    let client = builder(&clock, &[&replica])
        .token_source(source)
        .build()
        .unwrap();
    for _ in 0..2 {
        let Err(Error::Refused(refusal)) = within(client.wait_ready()).await else {
            panic!("the token is old");
        };
        assert_eq!(refusal.code, Code::Unauthenticated);
        assert_eq!(refusal.reason.as_deref(), Some("unauthenticated"));
    }
    renewed.store(true, Ordering::SeqCst);
    let ready = async { while client.wait_ready().await.is_err() {} };
    within(ready).await;
    assert_eq!(value(&client.snapshot()).as_deref(), Some("one"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_with_its_token_is_opened_anew_with_the_next_one() {
    let clock = Hand::new();
    let replica = Replica::start(&clock, bundle(7, "one"));
    let renewed = Arc::new(AtomicBool::new(false));
    let source = {
        let renewed = Arc::clone(&renewed);
        move || {
            let is_new = renewed.load(Ordering::SeqCst);
            Ok(Secret::from(if is_new { "new" } else { "old" }))
        }
    };
    let (client, mut changes) = ready(builder(&clock, &[&replica]).token_source(source)).await;
    until_counted(&client, |m| m.streams_begun > 0).await;
    renewed.store(true, Ordering::SeqCst);
    let before = replica.asked().len();
    replica.mood(Mood::Ended("old"));
    replica
        .until_asked(|all| all[before..].iter().any(|a| a.stream))
        .await;
    // At once, and by nothing but another stream: nobody was left, and nobody refused.
    let next = &replica.asked()[before];
    assert_eq!((next.stream, &*next.authorization), (true, "Bearer new"));
    replica.serve(bundle(8, "two"));
    until_value(&client, &mut changes, "two").await;
    assert_eq!(client.metrics().refusals, 0);

    // Without another token it is a refusal like any other.
    replica.mood(Mood::Ended("new"));
    until_counted(&client, |m| m.refusals > 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_never_see_half_an_update_nor_an_older_one() {
    const LAST: u64 = 300;
    let clock = Hand::new();
    let replica = Replica::start(&clock, bundle(7, "7"));
    let (client, mut changes) = ready(builder(&clock, &[&replica])).await;
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (client, done) = (client.clone(), Arc::clone(&done));
            std::thread::spawn(move || {
                let mut newest = Position(0);
                loop {
                    let last = done.load(Ordering::Relaxed);
                    let snapshot = client.snapshot();
                    let generation = snapshot.generation().unwrap();
                    let text = generation.to_string();
                    assert!(newest <= generation);
                    assert_eq!(snapshot.revision(), format!("of {text}"));
                    assert_eq!(value(&snapshot).as_ref(), Some(&text));
                    let route = snapshot.route("inference.local").unwrap().token();
                    assert_eq!(route.value().unwrap().expose(), text.as_bytes());
                    newest = generation;
                    if last {
                        break newest;
                    }
                }
            })
        })
        .collect();
    for generation in 8..=LAST {
        replica.serve(bundle(generation, &generation.to_string()));
        tokio::task::yield_now().await;
    }
    until_value(&client, &mut changes, &LAST.to_string()).await;
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        assert_eq!(reader.join().unwrap(), Position(LAST));
    }
}
