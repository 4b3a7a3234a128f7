//! A request is written inside its ticket, at most once, or not at all, and what is reported of it
//! is true. Every test reads at the issuer what really arrived.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use evermint_core::mint::{Failure, FailureClass};
use support::{
    Deadline, EndsAtAsk, EndsAtWrite, EndsWhenTold, Issuer, Reply, http, json, minter, refresh,
};
use tokio::net::TcpListener;

const TOKEN: &str = r#"{"access_token":"at-1","token_type":"Bearer","expires_in":60}"#;

fn class(result: Result<evermint_core::mint::Minted, Failure>) -> (FailureClass, String) {
    let failure = result.expect_err("the mint should fail");
    (failure.class, failure.cause)
}

/// Stands for a process that is stopped between connecting and writing, and whose connection is
/// the first to wake, behind the deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_that_ended_after_connecting_writes_nothing() {
    let issuer = Issuer::start(Reply::Raw(json(200, TOKEN))).await;
    let fence = Arc::new(EndsAtWrite::default());
    let (class, cause) =
        class(refresh(&minter(|_| ()), &issuer.url, Arc::clone(&fence) as _).await);
    assert!(fence.has_passed(), "nobody asked before the writing");
    assert_eq!(class, FailureClass::Unsent, "{cause}");
    let seen = issuer
        .until("closed", |seen| seen.iter().any(|s| s.closed))
        .await;
    assert_eq!(seen.len(), 1);
    assert!(
        seen[0].head.is_empty() && seen[0].body.is_empty(),
        "{seen:?}"
    );
}

/// Lets the ticket end at the first, the second, the third… time that anybody asks, so at every
/// point of the request in turn: while it waits, between connecting and writing, while the answer
/// comes. Stands for a process that is stopped there and wakes behind its deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_the_ticket_ends_nothing_is_written_behind_it_and_the_report_is_true() {
    // A request asks about six times; how often exactly depends on how its bytes come.
    const ASKS: usize = 12;
    let minter = minter(|c| c.breaker_failures = 1_000);
    for end in (0..20 * ASKS).map(|round| round % ASKS) {
        let issuer = Issuer::start(Reply::Raw(json(200, TOKEN))).await;
        let fence = EndsAtAsk::new(end);
        let result = refresh(&minter, &issuer.url, Arc::clone(&fence) as _).await;
        // What is under way on a connection is over when the connection is.
        let seen = issuer
            .until("closed", |seen| {
                seen.iter().all(|s| s.closed || !s.body.is_empty())
            })
            .await;
        assert!(seen.len() <= 1, "one connection at most");
        let sent = seen.iter().any(|s| !s.body.is_empty());
        let Err(failure) = result else {
            assert!(sent);
            continue;
        };
        assert!(fence.has_passed(), "{failure:?}");
        if failure.class == FailureClass::Unclear {
            continue;
        }
        assert_eq!(failure.class, FailureClass::Unsent);
        assert!(!sent, "reported as unsent, and the issuer has it: {seen:?}");
        let silent = seen.iter().all(|s| s.head.is_empty());
        assert!(silent, "not even a head: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connection_is_cut_at_the_deadline() {
    let issuer = Issuer::start(Reply::Hold).await;
    let began = Instant::now();
    let result = refresh(&minter(|_| ()), &issuer.url, Deadline::after(400)).await;
    assert!(began.elapsed() < Duration::from_secs(5));
    let (class, cause) = class(result);
    assert_eq!(class, FailureClass::Unclear, "{cause}");
    assert!(
        cause.contains("did not answer before the ticket ended"),
        "{cause}"
    );
    let seen = issuer.until("closed", |seen| seen[0].closed).await;
    assert!(!seen[0].body.is_empty());
}

/// Stands for a process that is stopped after it sent, and wakes behind its deadline with the
/// answer in its buffers: a deadline makes no answer worthless.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_arrived_behind_the_deadline_is_taken() {
    let minter = minter(|_| ());
    for _ in 0..20 {
        let fence = Arc::new(EndsWhenTold::default());
        let ending = Arc::clone(&fence);
        let issuer = Issuer::start(Reply::Echo(Arc::new(move |_| {
            // From here on the fence has passed at whatever asks it, and the answer comes.
            ending.end();
            json(200, TOKEN)
        })))
        .await;
        let minted = refresh(&minter, &issuer.url, fence).await.unwrap();
        assert_eq!(minted.token.expose(), b"at-1");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mint_that_is_dropped_drops_its_connection() {
    let issuer = Issuer::start(Reply::Hold).await;
    let url = issuer.url.clone();
    let mint =
        tokio::spawn(async move { refresh(&minter(|_| ()), &url, Deadline::after(60_000)).await });
    issuer
        .until("sent", |seen| seen.iter().any(|s| !s.body.is_empty()))
        .await;
    mint.abort();
    issuer.until("closed", |seen| seen[0].closed).await;
}

#[tokio::test]
async fn a_ticket_that_is_over_sends_nothing() {
    let issuer = Issuer::start(Reply::Raw(json(200, TOKEN))).await;
    let (class, cause) = class(refresh(&minter(|_| ()), &issuer.url, Deadline::after(0)).await);
    assert_eq!(class, FailureClass::Unsent, "{cause}");
    assert!(issuer.seen().is_empty());
}

#[tokio::test]
async fn what_was_not_sent_is_reported_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = format!("http://{}/token", listener.local_addr().unwrap());
    drop(listener);
    let (class, cause) = class(refresh(&minter(|_| ()), &closed, Deadline::after(5_000)).await);
    assert_eq!(class, FailureClass::Unsent);
    assert!(cause.contains("could not be reached"), "{cause}");
}

#[tokio::test]
async fn a_connection_that_does_not_come_about_is_given_up_unsent() {
    // TLS against a server that says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/token", listener.local_addr().unwrap());
    let minter = minter(|c| c.connect_timeout_ms = 200);
    let (class, cause) = class(refresh(&minter, &url, Deadline::after(60_000)).await);
    assert_eq!(class, FailureClass::Unsent, "{cause}");
    assert!(cause.contains("not established in time"), "{cause}");
}

#[tokio::test]
async fn an_answer_that_is_lost_torn_or_too_long_is_unclear_and_never_asked_for_again() {
    let long = "x".repeat(1024 * 1024 + 1);
    for (name, reply) in [
        ("closed", Reply::Close),
        (
            "torn head",
            Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-".to_vec()),
        ),
        (
            "torn body",
            Reply::Raw(
                b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"access_token\":\"a".to_vec(),
            ),
        ),
        (
            "torn chunk",
            Reply::Raw(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"acc".to_vec(),
            ),
        ),
        ("no http", Reply::Raw(b"SSH-2.0-OpenSSH\r\n\r\n".to_vec())),
        ("too long", Reply::Raw(http(200, "", &long))),
        ("empty", Reply::Raw(http(200, "", ""))),
        ("bad gateway", Reply::Raw(http(502, "", "<html>"))),
    ] {
        let issuer = Issuer::start(reply).await;
        let result = refresh(&minter(|_| ()), &issuer.url, Deadline::after(20_000)).await;
        let (class, cause) = class(result);
        assert_eq!(class, FailureClass::Unclear, "{name}: {cause}");
        assert_eq!(issuer.seen().len(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_refusal_is_not_asked_for_again() {
    for (status, headers) in [
        (408, ""),
        (429, "Retry-After: 0\r\n"),
        (503, "Retry-After: 0\r\n"),
        (421, ""),
    ] {
        let issuer = Issuer::start(Reply::Raw(http(status, headers, ""))).await;
        refresh(&minter(|_| ()), &issuer.url, Deadline::after(20_000))
            .await
            .unwrap_err();
        assert_eq!(issuer.seen().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn every_mint_has_a_connection_of_its_own() {
    let issuer = Issuer::start(Reply::KeepAlive(json(200, TOKEN))).await;
    let minter = minter(|_| ());
    for mints in 1..4 {
        refresh(&minter, &issuer.url, Deadline::after(20_000))
            .await
            .unwrap();
        let seen = issuer
            .until("closed", |seen| seen.iter().all(|s| s.closed))
            .await;
        assert_eq!(seen.len(), mints);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_a_turn_counts_within_the_ticket_and_sends_nothing() {
    let issuer = Issuer::start(Reply::Hold).await;
    let minter = Arc::new(minter(|c| c.concurrency = 1));
    let first = tokio::spawn({
        let (minter, url) = (Arc::clone(&minter), issuer.url.clone());
        async move { refresh(&minter, &url, Deadline::after(60_000)).await }
    });
    issuer
        .until("sent", |seen| seen.iter().any(|s| !s.body.is_empty()))
        .await;
    let (class, cause) = class(refresh(&minter, &issuer.url, Deadline::after(100)).await);
    assert_eq!(class, FailureClass::Unsent);
    assert!(cause.contains("still busy"), "{cause}");
    assert_eq!(issuer.seen().len(), 1);
    first.abort();
}

#[tokio::test]
async fn an_issuer_that_is_down_is_left_alone() {
    let issuer = Issuer::start(Reply::Raw(http(500, "", ""))).await;
    let minter = minter(|c| {
        c.breaker_failures = 3;
        c.breaker_pause_ms = 60_000;
    });
    for _ in 0..3 {
        let (class, _) = class(refresh(&minter, &issuer.url, Deadline::after(20_000)).await);
        assert_eq!(class, FailureClass::Unclear);
    }
    let failure = refresh(&minter, &issuer.url, Deadline::after(20_000))
        .await
        .unwrap_err();
    assert_eq!(failure.class, FailureClass::Unsent);
    assert!(failure.cause.contains("left alone"), "{}", failure.cause);
    assert!(
        failure
            .retry_after_ms
            .is_some_and(|ms| (50_000..=60_000).contains(&ms))
    );
    assert_eq!(issuer.seen().len(), 3);
}
