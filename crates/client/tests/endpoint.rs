//! The endpoint that is asked: one that hangs or freezes is left within a bound, the preferred one
//! is gone back to, and a refused token is reported to the one that serves.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evermint_client::{Client, Error, Report, Timing};
use evermint_core::id::Generation;
use evermint_core::port::Clock;
use evermint_core::time::{Clocks, UnixMs};
use support::{
    Hand, Mood, Replica, builder, bundle, bundle_until, ready, timing, until_counted, until_value,
    value, within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tonic::Code;

const HOUR: u64 = 3_600_000;

/// Passes bytes on to a replica until it is frozen: then it holds what it has, and says nothing, as
/// a machine that was stopped.
struct Relay {
    address: SocketAddr,
    frozen: watch::Sender<bool>,
}

impl Relay {
    async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let frozen = watch::Sender::new(false);
        let freezing = frozen.subscribe();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(to).await.unwrap();
                let (near_in, near_out) = near.into_split();
                let (far_in, far_out) = far.into_split();
                tokio::spawn(pass(near_in, far_out, freezing.clone()));
                tokio::spawn(pass(far_in, near_out, freezing.clone()));
            }
        });
        Self { address, frozen }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn pass(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut frozen: watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 4096];
    while let Ok(n @ 1..) = from.read(&mut bytes).await {
        // Whoever waits here keeps both sockets open.
        if frozen.wait_for(|frozen| !frozen).await.is_err() {
            std::future::pending::<()>().await;
        }
        if to.write_all(&bytes[..n]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_freezes_is_left_once_its_pings_are_not_answered() {
    let clock = Hand::new();
    let (frozen, other) = (
        Replica::start(&clock, bundle(7, "one")),
        Replica::start(&clock, bundle(7, "one")),
    );
    let relay = Relay::start(frozen.address).await;
    let quick = Timing {
        keepalive: Duration::from_millis(500),
        keepalive_timeout: Duration::from_millis(1_000),
        // Neither of these finds it out.
        silence: Duration::from_secs(600),
        attempt: Duration::from_secs(600),
        ..timing()
    };
    let client = builder(&clock, &[&other])
        .endpoints([relay.url(), other.url()])
        .prefer(relay.url())
        .timing(quick);
    let (client, mut changes) = ready(client).await;
    frozen.until_asked(|all| all.iter().any(|a| a.stream)).await;
    let since = Instant::now();
    relay.frozen.send_replace(true);
    other.serve(bundle(8, "two"));
    until_value(&client, &mut changes, "two").await;
    // An interval and a timeout, and what a busy machine adds.
    assert!(since.elapsed() < Duration::from_secs(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_accepts_and_never_answers_is_left_at_the_deadline() {
    let clock = Hand::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let replica = Replica::start(&clock, bundle(7, "one"));
    let client = builder(&clock, &[])
        .endpoints([url.clone(), replica.url()])
        .prefer(url)
        // Connecting takes a second at most, and the rest of a call three.
        .timing(Timing::default());
    let since = Instant::now();
    let (client, _) = ready(client).await;
    assert_eq!(value(&client.snapshot()).as_deref(), Some("one"));
    assert!(client.metrics().calls_failed > 0);
    assert!(since.elapsed() < Duration::from_secs(15));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_preferred_endpoint_is_gone_back_to_without_a_gap() {
    let clock = Hand::new();
    let mut replicas = [0; 3].map(|_| Replica::start(&clock, bundle(7, "one")));
    let quick = Timing {
        failback: Duration::from_millis(50),
        ..timing()
    };
    let client = builder(&clock, &replicas.each_ref())
        .prefer(replicas[1].url())
        .timing(quick);
    let (client, mut changes) = ready(client).await;
    replicas[1]
        .until_asked(|all| all.iter().any(|a| a.stream))
        .await;
    assert!(replicas[0].asked().is_empty() && replicas[2].asked().is_empty());

    replicas[1].kill();
    for other in [0, 2] {
        replicas[other].serve(bundle(8, "two"));
    }
    until_value(&client, &mut changes, "two").await;
    // It is behind when it comes back, and not gone back to before it has caught up.
    let streams = |r: &Replica| r.asked().iter().filter(|a| a.stream).count();
    let before = streams(&replicas[1]);
    replicas[1].restart();
    replicas[1]
        .until_asked(|all| all.iter().filter(|a| a.min_generation == 8).count() > 2)
        .await;
    assert_eq!(
        (streams(&replicas[1]), client.metrics().failbacks),
        (before, 0)
    );
    replicas[1].serve(bundle(8, "two"));
    until_counted(&client, |m| m.failbacks == 1).await;
    replicas[1]
        .until_asked(|all| all.iter().filter(|a| a.stream).count() > before)
        .await;
    replicas[1].serve(bundle(9, "three"));
    until_value(&client, &mut changes, "three").await;
    assert_eq!(client.metrics().blackouts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_reported_to_the_endpoint_that_serves() {
    let clock = Hand::new();
    let replica = Replica::start(&clock, bundle(7, "one"));
    let nobody = Client::builder()
        .endpoints(["http://127.0.0.1:1"])
        .sandbox("agent-7")
        .build()
        .unwrap();
    let early = nobody.report("vertex", "API_TOKEN", Generation(7)).await;
    assert!(matches!(early, Err(Error::Unanswered(_))), "{early:?}");

    let (client, _) = ready(builder(&clock, &[&replica])).await;
    let report = || within(client.report("vertex", "API_TOKEN", Generation(7)));
    assert_eq!(report().await, Ok(Report::Due));
    let told = replica.reported();
    assert_eq!(told.len(), 1);
    assert_eq!(
        (&*told[0].sandbox, &*told[0].workspace, &*told[0].provider),
        ("agent-7", "team-a", "vertex")
    );
    assert_eq!(
        (&*told[0].credential_key, told[0].generation),
        ("API_TOKEN", 7)
    );
    assert_eq!(client.metrics().reports, 1);
    replica.mood(Mood::Refuses(Code::PermissionDenied, "permission-denied"));
    assert!(matches!(report().await, Err(Error::Refused(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandboxs_own_token_is_renewed_while_a_stream_goes_on() {
    let clock = Hand::new();
    let mut replica = Replica::start(&clock, bundle(7, "one"));
    let (client, mut changes) = ready(builder(&clock, &[&replica]).sandbox_token("t0")).await;
    assert_eq!(replica.asked()[0].authorization, "Bearer t0");
    replica
        .until_asked(|all| all.iter().any(|a| a.stream))
        .await;
    // It is renewed as soon as somebody serves, and then after four fifths of its life.
    clock.advance(2_000);
    replica.renewed("Bearer t1").await;
    clock.advance(HOUR * 4 / 5 + 1_000);
    replica.renewed("Bearer t2").await;
    let asked = replica.asked().len();
    replica.kill();
    replica.serve(bundle(8, "two"));
    replica.restart();
    until_value(&client, &mut changes, "two").await;
    let after = &replica.asked()[asked..];
    assert!(
        after.iter().all(|a| a.authorization == "Bearer t2"),
        "{after:?}"
    );
}

/// A clock whose wall clock is wrong, and steps while the client runs.
#[derive(Debug)]
struct Wrong {
    right: Arc<Hand>,
    off_ms: i64,
}

impl Clock for Wrong {
    fn read(&self) -> Clocks {
        let clocks = self.right.read();
        // Every other reading is off the other way.
        let sign = if clocks.boot.0.is_multiple_of(2) {
            1
        } else {
            -1
        };
        Clocks {
            wall: UnixMs(self.right.now().saturating_add_signed(sign * self.off_ms)),
            ..clocks
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_two_hours_off_uses_no_expired_token_and_refuses_no_valid_one() {
    let two_hours = 2 * 3_600_000_i64;
    for off_ms in [0, two_hours, -two_hours] {
        let right = Hand::new();
        let end = right.now() + HOUR;
        let replica = Replica::start(&right, bundle_until(7, "one", Some(end)));
        let wrong = Arc::new(Wrong {
            right: Arc::clone(&right),
            off_ms,
        });
        let client = builder(&right, &[&replica])
            .clock(wrong)
            .max_staleness(Duration::MAX);
        let (client, mut changes) = ready(client).await;
        // Whatever is on its way while the time passes would be late.
        until_counted(&client, |m| m.streams_begun > 0).await;
        // The estimate errs by the round trip and the clock's rounding, here a millisecond, and on
        // the side of ending early.
        for (step, usable) in [(1, true), (HOUR - 3, true), (2, false), (2 * HOUR, false)] {
            right.advance(step);
            let found = value(&client.snapshot());
            assert_eq!(found.is_some(), usable, "{off_ms} {step}");
        }
        let end = right.now() + HOUR;
        replica.serve(bundle_until(8, "two", Some(end)));
        until_value(&client, &mut changes, "two").await;
        right.advance(HOUR - 2);
        assert!(value(&client.snapshot()).is_some(), "{off_ms}");
        right.advance(2);
        assert!(value(&client.snapshot()).is_none(), "{off_ms}");
    }
}
