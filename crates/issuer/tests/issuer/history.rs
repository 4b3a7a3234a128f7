//! The evidence: when requests were open, and what became of them.

use std::time::Duration;

use evermint_issuer::{Client, End, Fault, History, Mode, Release};

use crate::support::*;

#[tokio::test]
async fn an_overlap_is_seen_and_requests_in_a_row_are_none() {
    let (issuer, seed) =
        issuer_with(Client::new("c").rotation(evermint_issuer::Rotation::Off)).await;
    let (handle, token) = (issuer.handle(), seed.refresh_token.expose());
    for _ in 0..20 {
        refresh(issuer.url(), token).await.unwrap();
    }
    assert_eq!(
        handle.history().overlaps(),
        [],
        "a client that waits for its answers never overlaps itself"
    );

    handle.fault(Fault::once("c", Mode::HoldBefore));
    let first = refreshing(issuer.url(), token);
    let held = within(handle.held("c")).await;
    refresh(issuer.url(), token).await.unwrap();
    handle.release("c", Release::Answer);
    first.await.unwrap().unwrap();

    let overlaps = handle.history().overlaps();
    assert_eq!(overlaps.len(), 1);
    assert_eq!(
        (overlaps[0].first, overlaps[0].second),
        (held.seq, held.seq + 1)
    );
    let in_families = handle.history().overlaps_in_families();
    assert_eq!(in_families.len(), 1);
    assert_eq!(in_families[0].of, seed.grant_id);
}

#[tokio::test]
async fn a_client_that_hangs_up_is_seen_while_its_answer_is_held() {
    let (issuer, seed) = issuer().await;
    let handle = issuer.handle();
    handle.fault(Fault::once("c", Mode::HoldAfter));
    let request = refreshing(issuer.url(), seed.refresh_token.expose());
    let held = within(handle.held("c")).await;
    request.abort();

    let record = ended(handle, held.seq).await;
    assert_eq!(record.end, Some(End::ClientGone));
    assert!(record.served_ms.unwrap() <= record.ended_ms.unwrap());
    assert!(
        record.issued.is_some(),
        "the refresh token was rotated for nobody"
    );
    assert_eq!(handle.holding(), [held], "it stays held until released");
    assert_eq!(handle.release("c", Release::Answer), 1);
}

#[tokio::test]
async fn a_request_held_before_is_served_even_when_its_client_has_gone() {
    let (issuer, seed) = issuer().await;
    let handle = issuer.handle();
    handle.fault(Fault::once("c", Mode::HoldBefore));
    let request = refreshing(issuer.url(), seed.refresh_token.expose());
    let held = within(handle.held("c")).await;
    request.abort();
    let gone = ended(handle, held.seq).await;
    assert_eq!(gone.end, Some(End::ClientGone));
    assert_eq!(gone.served_ms, None);

    handle.release("c", Release::Answer);
    let served = within(handle.until(|history| {
        history
            .records()
            .find(|record| record.seq == held.seq && record.served_ms.is_some())
            .cloned()
    }))
    .await;
    assert!(
        served.served_ms > served.ended_ms,
        "a server that is slow to read still spends the token"
    );
    assert!(
        refresh(issuer.url(), seed.refresh_token.expose())
            .await
            .unwrap()
            .status
            == 400
    );
}

#[tokio::test]
async fn a_client_that_hangs_up_is_seen_during_a_delay_and_a_drip() {
    for mode in [Mode::DelayAfter { ms: 600_000 }, Mode::Drip { ms: 600_000 }] {
        let (issuer, seed) = issuer().await;
        let handle = issuer.handle();
        handle.fault(Fault::once("c", mode));
        let request = refreshing(issuer.url(), seed.refresh_token.expose());
        within(handle.until(|history| {
            history
                .records()
                .find(|record| record.served_ms.is_some())
                .map(drop)
        }))
        .await;
        request.abort();
        assert_eq!(ended(handle, 1).await.end, Some(End::ClientGone));
        issuer.shutdown().await;
    }
}

#[tokio::test]
async fn a_record_says_everything_but_the_token() {
    let (issuer, seed) = issuer().await;
    let token = seed.refresh_token.expose();
    let answer = refresh(issuer.url(), token).await.unwrap();
    let record = ended(issuer.handle(), 1).await;
    assert_eq!(
        (record.client.as_deref(), record.grant.as_deref()),
        (Some("c"), Some("refresh_token"))
    );
    assert_eq!(record.grant_id.as_deref(), Some(seed.grant_id.as_str()));
    assert_eq!(
        (record.presented_generation, record.generation),
        (Some(0), Some(1))
    );
    assert_eq!(
        (record.showing, record.status, record.end),
        (Some(1), Some(200), Some(End::Answered))
    );
    assert!(record.arrived_ms <= record.ended_ms.unwrap());
    assert_eq!(record.presented.unwrap().len(), 12);

    let told = format!(
        "{:?}{}{seed:?}",
        issuer.handle().history(),
        history_json(&issuer.handle().history())
    );
    for secret in [
        token,
        &answer.text("access_token"),
        &answer.text("refresh_token"),
    ] {
        assert!(!told.contains(secret));
    }
}

fn history_json(history: &History) -> String {
    serde_json::to_string(history).unwrap()
}

#[tokio::test]
async fn shutdown_ends_held_requests_as_dropped() {
    let (issuer, seed) = issuer().await;
    let handle = issuer.handle().clone();
    handle.fault(Fault::once("c", Mode::HoldAfter));
    let request = refreshing(issuer.url(), seed.refresh_token.expose());
    within(handle.held("c")).await;
    within(issuer.shutdown()).await;
    assert!(request.await.unwrap().is_err());
    assert_eq!(ended(&handle, 1).await.end, Some(End::Dropped));
}

#[tokio::test]
async fn latency_is_part_of_every_request() {
    let (issuer, seed) = issuer().await;
    issuer.handle().latency(Duration::from_millis(30));
    refresh(issuer.url(), seed.refresh_token.expose())
        .await
        .unwrap();
    let record = ended(issuer.handle(), 1).await;
    assert!(record.served_ms.unwrap() - record.arrived_ms >= 30.0);
}
