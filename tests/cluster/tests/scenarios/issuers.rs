//! The instruments before the experiment: both issuers hold, drop and count as the scenarios need.

use std::time::Duration;

use evermint_cluster_tests::{Grant, Idp, TTL_FOR_EVER, eventually};
use evermint_issuer::{End, Release};

const BOUND: Duration = Duration::from_secs(10);

/// Refreshes as a client does, and gives up after `patience`.
async fn refresh(idp: &Idp, grant: &Grant, patience: Duration) -> Option<serde_json::Value> {
    let form = format!(
        "grant_type=refresh_token&refresh_token={}",
        grant.refresh_token
    );
    let answer = reqwest::Client::new()
        .post(idp.token_url())
        .basic_auth(&grant.client, Some(&grant.secret))
        .header("content-type", "application/x-www-form-urlencoded")
        .timeout(patience)
        .body(form)
        .send()
        .await
        .ok()?;
    serde_json::from_slice(&answer.bytes().await.ok()?).ok()
}

async fn serves_what_the_scenarios_need(idp: Idp) {
    // A client that gives up while it is held is seen to be gone; dropped, its token is unspent.
    let kept = idp.grant("rt-000").await;
    idp.hold_before("rt-000").await;
    let gone = refresh(&idp, &kept, Duration::from_millis(300));
    let (gone, held) = tokio::join!(gone, idp.held("rt-000", BOUND));
    assert_eq!((gone, held.mode.as_str()), (None, "hold_before"));
    eventually("its end is recorded", BOUND, async || {
        let history = idp.history().await;
        let end = history.of("rt-000").next().and_then(|r| r.end);
        (end == Some(End::ClientGone))
            .then_some(())
            .ok_or(format!("{end:?}"))
    })
    .await;
    idp.release("rt-000", Release::Drop).await;
    let minted = refresh(&idp, &kept, BOUND).await.expect("an answer");
    assert!(minted["refresh_token"].is_string(), "{minted}");
    assert!(idp.family(&kept).await.is_alive());

    // Held after, the token is spent: showing it again is reuse, and ends the family.
    let lost = idp.grant("rt-001").await;
    idp.hold_after("rt-001").await;
    let gone = refresh(&idp, &lost, Duration::from_millis(300));
    let (gone, held) = tokio::join!(gone, idp.held("rt-001", BOUND));
    assert_eq!((gone, held.mode.as_str()), (None, "hold_after"));
    idp.release("rt-001", Release::Drop).await;
    let refused = refresh(&idp, &lost, BOUND).await.expect("an answer");
    assert_eq!(refused["error"], "invalid_grant", "{refused}");
    assert!(!idp.family(&lost).await.is_alive());

    // Two at once overlap.
    let shared = idp.grant("rt-002").await;
    idp.hold_before("rt-002").await;
    let first = refresh(&idp, &shared, BOUND);
    let second = async {
        idp.held("rt-002", BOUND).await;
        let second = refresh(&idp, &shared, BOUND).await;
        idp.release("rt-002", Release::Drop).await;
        second
    };
    let (first, second) = tokio::join!(first, second);
    assert!(first.is_none() && second.is_some());
    assert_eq!(idp.overlaps().await.len(), 1);
    assert_eq!(idp.history().await.reuse_detected(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_provider_holds_drops_and_counts() {
    serves_what_the_scenarios_need(Idp::real(TTL_FOR_EVER).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_built_in_issuer_holds_drops_and_counts() {
    serves_what_the_scenarios_need(Idp::built_in(TTL_FOR_EVER).await).await;
}
