//! Each fault, as a client meets it, and what it leaves behind.

use std::{collections::BTreeMap, time::Duration};

use evermint_issuer::{End, Fault, Mode, Record, Release, Running};
use serde_json::json;

use crate::support::*;

/// Refreshes once under `mode`; the answer, the record, and whether the old token is still unspent.
async fn under(mode: Mode) -> (reqwest::Result<Reply>, Record, bool) {
    let (issuer, seed) = issuer().await;
    issuer.handle().fault(Fault::once("c", mode));
    let answer = refresh(issuer.url(), seed.refresh_token.expose()).await;
    let record = ended(issuer.handle(), 1).await;
    let unspent = refresh(issuer.url(), seed.refresh_token.expose())
        .await
        .unwrap()
        .status
        == 200;
    (answer, record, unspent)
}

#[tokio::test]
async fn a_drop_before_leaves_the_refresh_token_unspent() {
    let (answer, record, unspent) = under(Mode::DropBefore).await;
    assert!(answer.is_err());
    assert_eq!(
        (record.end, record.status, unspent),
        (Some(End::Dropped), None, true)
    );
}

#[tokio::test]
async fn a_drop_after_spends_it_and_the_retry_is_reuse() {
    let (answer, record, unspent) = under(Mode::DropAfter).await;
    assert!(answer.is_err());
    assert_eq!(
        (record.end, record.status, unspent),
        (Some(End::Dropped), Some(200), false)
    );
    assert!(record.issued.is_some());
}

#[tokio::test]
async fn a_status_is_answered_with_its_headers_and_nothing_is_spent() {
    let (answer, record, unspent) = under(Mode::too_many_requests(7)).await;
    let answer = answer.unwrap();
    assert_eq!(
        (
            answer.status,
            answer.headers["retry-after"].to_str().unwrap()
        ),
        (429, "7")
    );
    assert_eq!(
        (record.end, record.status, unspent),
        (Some(End::Answered), Some(429), true)
    );
    for status in [500, 503] {
        assert_eq!(under(Mode::status(status)).await.0.unwrap().status, status);
    }
    let headers = BTreeMap::from([("content-type".to_owned(), "text/html".to_owned())]);
    let html = Mode::Status {
        status: 403,
        headers,
        body: json!("<html>"),
    };
    let answer = under(html).await.0.unwrap();
    assert_eq!((answer.status, answer.body), (403, json!("<html>")));
    assert_eq!(answer.headers["content-type"], "text/html");
}

#[tokio::test]
async fn a_redirect_points_back_and_spends_nothing() {
    let (answer, _, unspent) = under(Mode::Redirect { location: None }).await;
    let answer = answer.unwrap();
    assert_eq!(answer.status, 307);
    assert!(
        answer.headers["location"]
            .to_str()
            .unwrap()
            .ends_with("/token")
    );
    assert!(unspent);
}

#[tokio::test]
async fn delays_come_before_or_after_the_token_is_spent() {
    let (_, before, _) = under(Mode::DelayBefore { ms: 30 }).await;
    assert!(before.served_ms.unwrap() - before.arrived_ms >= 30.0);
    let (_, after, _) = under(Mode::DelayAfter { ms: 30 }).await;
    assert!(after.ended_ms.unwrap() - after.served_ms.unwrap() >= 30.0);
}

#[tokio::test]
async fn a_drip_is_slow_and_whole() {
    let (answer, record, unspent) = under(Mode::Drip { ms: 1 }).await;
    assert!(answer.unwrap().body["access_token"].is_string());
    assert!(
        record.ended_ms.unwrap() - record.served_ms.unwrap() >= 100.0,
        "one byte at a time"
    );
    assert_eq!((record.end, unspent), (Some(End::Answered), false));
}

#[tokio::test]
async fn an_oversized_answer_has_no_length_and_all_its_bytes() {
    let (issuer, seed) = issuer().await;
    issuer
        .handle()
        .fault(Fault::once("c", Mode::Oversized { bytes: 1_000_000 }));
    let form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", seed.refresh_token.expose()),
        ("client_id", "c"),
        ("client_secret", "s"),
    ];
    let response = http()
        .post(issuer.token_url())
        .form(&form)
        .send()
        .await
        .unwrap();
    assert_eq!(response.content_length(), None);
    assert_eq!(response.bytes().await.unwrap().len(), 1_000_000);
}

#[tokio::test]
async fn an_answer_that_is_not_json_comes_with_200() {
    let (answer, record, unspent) = under(Mode::InvalidJson).await;
    let answer = answer.unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.body.is_string(), "it did not parse");
    assert_eq!((record.end, unspent), (Some(End::Answered), false));
}

#[tokio::test]
async fn a_torn_answer_has_a_head_and_half_a_body() {
    let (issuer, seed) = issuer().await;
    issuer.handle().fault(Fault::once("c", Mode::Torn));
    let form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", seed.refresh_token.expose()),
        ("client_id", "c"),
        ("client_secret", "s"),
    ];
    let mut response = within(http().post(issuer.token_url()).form(&form).send())
        .await
        .unwrap();
    let announced = response.content_length().unwrap();
    let mut got = 0;
    let torn = loop {
        match within(response.chunk()).await {
            Ok(Some(chunk)) => got += chunk.len() as u64,
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(torn);
    assert_eq!(got, announced / 2);
    assert_eq!(ended(issuer.handle(), 1).await.end, Some(End::Dropped));
}

async fn held_and_released(mode: Mode, how: Release) -> (reqwest::Result<Reply>, Record, Running) {
    let (issuer, seed) = issuer().await;
    issuer.handle().fault(Fault::once("c", mode));
    let request = refreshing(issuer.url(), seed.refresh_token.expose());
    let held = within(issuer.handle().held("c")).await;
    let record = issuer.handle().history().records().next().cloned().unwrap();
    assert_eq!(record.end, None, "it is open while it is held");
    assert_eq!(record.served_ms.is_some(), held.mode == "hold_after");
    assert_eq!(issuer.handle().release("c", how), 1);
    let answer = request.await.unwrap();
    let record = ended(issuer.handle(), held.seq).await;
    (answer, record, issuer)
}

#[tokio::test]
async fn a_held_request_is_answered_when_it_is_released() {
    for mode in [Mode::HoldBefore, Mode::HoldAfter] {
        let (answer, record, issuer) = held_and_released(mode, Release::Answer).await;
        let answer = answer.unwrap();
        assert_eq!((answer.status, record.end), (200, Some(End::Answered)));
        assert_eq!(
            resource(issuer.url(), &answer.text("access_token"))
                .await
                .status,
            200
        );
    }
}

#[tokio::test]
async fn a_held_request_can_be_dropped_instead() {
    for (mode, served) in [(Mode::HoldBefore, false), (Mode::HoldAfter, true)] {
        let (answer, record, _issuer) = held_and_released(mode, Release::Drop).await;
        assert!(answer.is_err());
        assert_eq!(
            (record.end, record.served_ms.is_some()),
            (Some(End::Dropped), served)
        );
    }
}

#[tokio::test]
async fn an_issuer_that_is_out_is_back_when_faults_are_cleared() {
    let (issuer, seed) = issuer().await;
    issuer.handle().fault(Fault::everybody(Mode::status(503)));
    for _ in 0..3 {
        assert_eq!(
            refresh(issuer.url(), seed.refresh_token.expose())
                .await
                .unwrap()
                .status,
            503
        );
    }
    issuer.handle().clear_faults();
    assert_eq!(
        refresh(issuer.url(), seed.refresh_token.expose())
            .await
            .unwrap()
            .status,
        200
    );
    within(tokio::time::timeout(
        Duration::from_secs(5),
        issuer.shutdown(),
    ))
    .await
    .unwrap();
}
