//! Several replicas: killed, hung, lagging, forgetful, cut off by a proxy, moved by DNS.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evermint_client::{Client, Resolve, Timing};
use evermint_core::id::Position;
use support::{
    Hand, Mood, Replica, builder, bundle, ready, timing, until, until_counted, until_value, value,
    within,
};
use tonic::Code;

/// Three replicas that serve the same.
fn three(clock: &Arc<Hand>) -> [Replica; 3] {
    std::array::from_fn(|_| Replica::start(clock, bundle(7, "one")))
}

fn serve(replicas: &[Replica], generation: u64, value: &str) {
    for replica in replicas {
        replica.serve(bundle(generation, value));
    }
}

/// The one at which the client follows a stream.
async fn followed(replicas: &[Replica]) -> usize {
    let waits = replicas
        .iter()
        .map(|r| Box::pin(r.until_asked(|asked| asked.iter().any(|a| a.stream))));
    within(futures::future::select_all(waits)).await.1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replica_is_replaced_by_another_which_resumes() {
    let clock = Hand::new();
    let mut replicas = three(&clock);
    let (client, mut changes) = ready(builder(&clock, &replicas.each_ref())).await;
    let first = followed(&replicas).await;
    replicas[first].kill();
    let others: Vec<_> = (0..3).filter(|i| *i != first).collect();
    for (generation, text) in [(8, "two"), (9, "three")] {
        for other in &others {
            replicas[*other].serve(bundle(generation, text));
        }
        until_value(&client, &mut changes, text).await;
    }
    let resumed = others.iter().flat_map(|i| replicas[*i].asked());
    assert!(resumed.into_iter().all(|a| a.min_generation >= 7));
    assert!(client.metrics().failovers >= 1);
    assert_eq!(client.metrics().blackouts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_blackout_the_client_goes_on_where_it_was() {
    let clock = Hand::new();
    let mut replicas = three(&clock);
    let (client, mut changes) = ready(builder(&clock, &replicas.each_ref())).await;
    followed(&replicas).await;
    for replica in &mut replicas {
        replica.kill();
    }
    until_counted(&client, |m| m.blackouts > 0).await;
    assert_eq!(value(&client.snapshot()).as_deref(), Some("one"));
    serve(&replicas, 8, "two");
    replicas[1].restart();
    until_value(&client, &mut changes, "two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_behind_is_passed_over() {
    let clock = Hand::new();
    let mut ahead = Replica::start(&clock, bundle(9, "new"));
    let (client, mut changes) = {
        let behind = Replica::start(&clock, bundle(7, "old"));
        let (client, mut changes) = ready(builder(&clock, &[&behind, &ahead])).await;
        behind.mood(Mood::Refuses(Code::Unavailable, "cut-off"));
        until_value(&client, &mut changes, "new").await;
        behind.mood(Mood::Well);
        ahead.kill();
        behind
            .until_asked(|asked| asked.iter().filter(|a| a.min_generation == 9).count() > 2)
            .await;
        assert_eq!(value(&client.snapshot()).as_deref(), Some("new"));
        behind.serve(bundle(10, "newer"));
        until_value(&client, &mut changes, "newer").await;
        (client, changes)
    };
    // Both are gone. What is left is the newest that was seen.
    assert_eq!(client.snapshot().generation(), Some(Position(10)));
    ahead.serve(bundle(11, "newest"));
    ahead.restart();
    until_value(&client, &mut changes, "newest").await;
    assert_eq!(client.metrics().older_refused, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_goes_back_in_generation_is_refused() {
    let clock = Hand::new();
    for again in ["on a stream", "after its restart"] {
        let mut liar = Replica::start(&clock, bundle(9, "new"));
        let (client, mut changes) = ready(builder(&clock, &[&liar])).await;
        followed(std::slice::from_ref(&liar)).await;
        liar.mood(Mood::Forgetful);
        if again == "after its restart" {
            liar.kill();
            liar.serve(bundle(8, "old"));
            liar.restart();
        } else {
            liar.serve(bundle(8, "old"));
        }
        // It is asked again and again, and not believed.
        let asked = liar.asked().len();
        liar.until_asked(|all| all.len() > asked + 3).await;
        assert_eq!(value(&client.snapshot()).as_deref(), Some("new"), "{again}");
        assert!(client.metrics().older_refused >= 3, "{again}");
        liar.serve(bundle(10, "newer"));
        until_value(&client, &mut changes, "newer").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_replica_serves_when_one_goes_back_in_generation() {
    let clock = Hand::new();
    let replicas = three(&clock);
    let (client, mut changes) = ready(builder(&clock, &replicas.each_ref())).await;
    let first = followed(&replicas).await;
    replicas[first].mood(Mood::Forgetful);
    replicas[first].serve(bundle(3, "ancient"));
    for other in (0..3).filter(|i| *i != first) {
        replicas[other].serve(bundle(8, "two"));
    }
    until_value(&client, &mut changes, "two").await;
    assert!(client.metrics().older_refused >= 1);
    assert_eq!(client.metrics().blackouts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_replica_is_passed_over_at_the_deadline() {
    let clock = Hand::new();
    let replicas = three(&clock);
    replicas[0].mood(Mood::Hung);
    replicas[1].mood(Mood::Hung);
    let quick = Timing {
        attempt: Duration::from_millis(300),
        ..timing()
    };
    let (client, mut changes) = ready(builder(&clock, &replicas.each_ref()).timing(quick)).await;
    serve(&replicas, 8, "two");
    until_value(&client, &mut changes, "two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_falls_silent_is_given_up() {
    let clock = Hand::new();
    let replicas = three(&clock);
    let quick = Timing {
        silence: Duration::from_millis(500),
        ..timing()
    };
    let (client, mut changes) = ready(builder(&clock, &replicas.each_ref()).timing(quick)).await;
    let first = followed(&replicas).await;
    replicas[first].mood(Mood::Hung);
    serve(&replicas, 8, "two");
    let snapshot = until_value(&client, &mut changes, "two").await;
    assert_eq!(snapshot.generation(), Some(Position(8)));
    assert!(client.metrics().streams_cut >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_streams_are_cut_or_held_back_the_client_polls() {
    for mood in [Mood::CutsStreams, Mood::HoldsStreams, Mood::Mute] {
        let clock = Hand::new();
        let replica = Replica::start(&clock, bundle(7, "one"));
        replica.mood(mood.clone());
        let quick = Timing {
            attempt: Duration::from_millis(500),
            silence: Duration::from_millis(300),
            ..timing()
        };
        let (client, mut changes) = ready(builder(&clock, &[&replica]).timing(quick)).await;
        replica
            .until_asked(|asked| asked.iter().rev().take(3).filter(|a| !a.stream).count() == 3)
            .await;
        assert_eq!(client.metrics().fallbacks_to_polling, 1, "{mood:?}");
        replica.serve(bundle(8, "two"));
        until_value(&client, &mut changes, "two").await;
        let streams = replica.asked().iter().filter(|a| a.stream).count();
        assert_eq!(streams, 3, "{mood:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_streams_work_again_the_client_follows_them_again() {
    let clock = Hand::new();
    let replica = Replica::start(&clock, bundle(7, "one"));
    replica.mood(Mood::CutsStreams);
    let quick = Timing {
        rewatch: Duration::from_millis(100),
        ..timing()
    };
    let (client, mut changes) = ready(builder(&clock, &[&replica]).timing(quick)).await;
    replica
        .until_asked(|asked| asked.iter().filter(|a| a.stream).count() > 3)
        .await;
    assert!(client.metrics().fallbacks_to_polling >= 1);
    replica.mood(Mood::Well);
    // Sooner or later, many changes come without a poll between.
    let calls = || replica.asked().iter().filter(|a| !a.stream).count();
    let followed = async {
        let mut generations = 8..;
        let mut before = usize::MAX;
        while calls() != before {
            before = calls();
            for generation in generations.by_ref().take(30) {
                replica.serve(bundle(generation, &generation.to_string()));
                until_value(&client, &mut changes, &generation.to_string()).await;
            }
        }
    };
    within(followed).await;
}

/// Names whose addresses are set by hand.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<Vec<SocketAddr>>>);

#[tonic::async_trait]
impl Resolve for Names {
    async fn resolve(&self, host: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        assert_eq!(host, "evermint.example");
        let addresses = self.0.lock().unwrap().clone();
        if addresses.is_empty() {
            return Err(io::Error::other("no such name"));
        }
        Ok(addresses)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_address_of_a_name_is_used_and_new_ones_are_found() {
    let clock = Hand::new();
    let mut old = [7, 7].map(|g| Replica::start(&clock, bundle(g, "one")));
    let new = Replica::start(&clock, bundle(8, "two"));
    let names = Names::default();
    let client = Client::builder()
        .endpoints(["http://evermint.example:7600"])
        .allow_plaintext()
        .sandbox("agent-7")
        .resolver(names.clone())
        .clock(Arc::clone(&clock) as _)
        .timing(timing())
        .build()
        .unwrap();
    let mut changes = client.subscribe();
    // The name comes to be known while the client runs already.
    *names.0.lock().unwrap() = old.iter().map(|r| r.address).collect();
    until_value(&client, &mut changes, "one").await;

    // Either address serves.
    let first = followed(&old).await;
    old[first].kill();
    old[1 - first].serve(bundle(8, "other"));
    until_value(&client, &mut changes, "other").await;

    // A failing lookup takes no address away.
    names.0.lock().unwrap().clear();
    let failed = client.metrics().resolutions_failed;
    until_counted(&client, |m| m.resolutions_failed > failed + 1).await;
    old[1 - first].serve(bundle(9, "still"));
    until_value(&client, &mut changes, "still").await;

    // The replicas have moved.
    new.serve(bundle(10, "moved"));
    *names.0.lock().unwrap() = vec![new.address];
    old[1 - first].kill();
    until_value(&client, &mut changes, "moved").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_killed_in_turn_never_take_the_client_back_nor_out() {
    let clock = Hand::new();
    let mut replicas = three(&clock);
    let (client, mut changes) = ready(builder(&clock, &replicas.each_ref())).await;
    let mut newest = Position(7);
    for round in 0..12_usize {
        let down = round % 3;
        replicas[down].kill();
        let generation = 8 + u64::try_from(round).unwrap();
        for up in [(down + 1) % 3, (down + 2) % 3] {
            replicas[up].serve(bundle(generation, &generation.to_string()));
        }
        let snapshot = until(&client, &mut changes, |s| {
            s.generation() >= Some(Position(generation))
        })
        .await;
        assert!(value(&snapshot).is_some());
        assert!(snapshot.generation().unwrap() >= newest);
        newest = snapshot.generation().unwrap();
        // It comes back with what it had, and lags until the next round.
        replicas[down].restart();
    }
    assert_eq!(client.metrics().older_refused, 0);
    assert_eq!(client.metrics().fallbacks_to_polling, 0);
}

/// An authority of its own, and a certificate that it issued to `localhost`.
fn certificates() -> [Vec<u8>; 3] {
    let dir = tempfile::tempdir().unwrap();
    let openssl = |arguments: &str| {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(dir.path())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
    };
    std::fs::write(dir.path().join("san"), "subjectAltName=DNS:localhost").unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!(
        "req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=ca"
    ));
    openssl(&format!(
        "req {key} -keyout key.pem -out csr.pem -subj /CN=replica"
    ));
    openssl(
        "x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out cert.pem",
    );
    ["ca.pem", "cert.pem", "key.pem"].map(|f| std::fs::read(dir.path().join(f)).unwrap())
}

/// `localhost` is where the replica is, whichever address the system has for it.
struct Localhost(SocketAddr);

#[tonic::async_trait]
impl Resolve for Localhost {
    async fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![self.0])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_has_to_show_a_certificate_of_the_authority_for_its_name() {
    let [ca, certificate, key] = certificates();
    let [other_ca, ..] = certificates();
    let clock = Hand::new();
    let tls = Some((certificate, key));
    let replica = Replica::start_at("127.0.0.1:0", &clock, bundle(7, "one"), tls);
    let client = |url: &str, ca: &[u8]| {
        builder(&clock, &[])
            .endpoints([url])
            .ca_certificate(ca)
            .resolver(Localhost(replica.address))
            .build()
            .unwrap()
    };
    let good = client("https://localhost:7600", &ca);
    assert_eq!(
        value(&within(good.wait_ready()).await.unwrap()).as_deref(),
        Some("one")
    );

    for (what, url, ca) in [
        ("another authority", "https://localhost:7600", &other_ca),
        ("another name", "https://evermint.example:7600", &ca),
    ] {
        let asked = replica.asked().len();
        let bad = client(url, ca);
        until_counted(&bad, |m| m.calls_failed > 2).await;
        assert!(!bad.snapshot().is_ready(), "{what}");
        drop(bad);
        let streams_of_good = |all: &[support::Asked]| all.iter().all(|a| a.min_generation == 7);
        assert!(streams_of_good(&replica.asked()[asked..]), "{what}");
    }
}
