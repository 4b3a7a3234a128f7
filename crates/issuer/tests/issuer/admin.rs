//! The same powers over HTTP.

use evermint_issuer::{Config, End, History, Issuer};
use serde_json::{Value, json};

use crate::support::*;

async fn get(url: &str, path: &str) -> Value {
    reply(http().get(format!("{url}/admin{path}")))
        .await
        .unwrap()
        .body
}

async fn posted(url: &str, path: &str, body: Value) -> Reply {
    let request = http()
        .post(format!("{url}/admin{path}"))
        .header("content-type", "application/json");
    reply(request.body(body.to_string())).await.unwrap()
}

async fn tell(url: &str, path: &str, body: Value) -> Value {
    let answer = posted(url, path, body).await;
    assert_eq!(answer.status, 200, "{path} {:?}", answer.body);
    answer.body
}

/// Refreshes as `rt-007` with the secret that seeding gives it.
async fn refresh_as_seeded(url: &str, token: &str) -> reqwest::Result<Reply> {
    let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
    reply(
        http()
            .post(format!("{url}/token"))
            .basic_auth("rt-007", Some("rt-007-secret"))
            .form(&form),
    )
    .await
}

#[tokio::test]
async fn a_test_out_of_process_seeds_faults_releases_and_reads_the_evidence() {
    let (issuer, _) = issuer().await;
    let url = issuer.url().to_owned();
    let seeded = tell(&url, "/seed", json!({ "client_id": "rt-007", "n": 2 })).await;
    let token = seeded[0]["refresh_token"].as_str().unwrap().to_owned();
    tell(&url, "/ttl", json!({ "client_id": "rt-007", "access": 2 })).await;
    tell(
        &url,
        "/fault",
        json!({ "client": "rt-007", "grant": "refresh_token", "mode": "hold_after", "count": 1 }),
    )
    .await;

    let request = tokio::spawn({
        let (url, token) = (url.clone(), token.clone());
        async move { refresh_as_seeded(&url, &token).await }
    });
    let held = get(&url, "/held?client=rt-007&wait_ms=10000").await;
    assert_eq!(held[0]["mode"], "hold_after");
    let reused = refresh_as_seeded(&url, &token).await.unwrap();
    assert_eq!(reused.status, 400);
    assert_eq!(
        tell(&url, "/release", json!({ "client": "rt-007" })).await,
        json!({ "released": 1 })
    );
    assert_eq!(request.await.unwrap().unwrap().body["expires_in"], 2);

    let overlaps = get(&url, "/overlaps").await;
    assert_eq!(
        overlaps,
        json!([{ "of": "rt-007", "first": 1, "second": 2 }])
    );
    assert_eq!(
        get(&url, "/overlaps?by=family")
            .await
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let stats = get(&url, "/stats").await;
    assert_eq!(
        stats["counts"]["rt-007"]["refresh_token"],
        json!({ "requests": 2, "ok": 1, "invalid_grant": 1, "injected": 1, "reuse_detected": 1 })
    );
    assert_eq!(stats["totals"]["revoked"], 1);
    let families = get(&url, "/families?client=rt-007").await;
    assert_eq!(families.as_array().unwrap().len(), 2);
    let presentations = get(&url, "/presentations").await;
    assert_eq!(
        presentations.as_object().unwrap().values().next().unwrap(),
        2
    );

    let history: History =
        serde_json::from_value(get(&url, "/history?client=rt-007&since=0").await).unwrap();
    assert_eq!(history.overlaps().len(), 1);
    assert!(
        history
            .records()
            .all(|record| record.end == Some(End::Answered))
    );
    tell(&url, "/reset", json!({})).await;
    assert_eq!(get(&url, "/history").await, json!([]));
}

#[tokio::test]
async fn a_client_and_a_service_account_can_be_made_over_http() {
    let (issuer, _) = issuer().await;
    let url = issuer.url();
    let client = json!({ "client_id": "rt-007", "client_secret": "rt-007-secret", "grace": 30, "expires_in": "text" });
    tell(url, "/client", client).await;
    let seeded = tell(url, "/seed", json!({ "client_id": "rt-007" })).await;
    let token = seeded[0]["refresh_token"].as_str().unwrap();
    assert_eq!(
        refresh_as_seeded(url, token).await.unwrap().body["expires_in"],
        "60"
    );
    assert_eq!(
        refresh_as_seeded(url, token).await.unwrap().status,
        200,
        "within grace"
    );
    tell(url, "/advance", json!({ "ms": 30_001 })).await;
    assert_eq!(refresh_as_seeded(url, token).await.unwrap().status, 400);

    let key_file = tell(url, "/service-account", json!({ "email": "robot@x.test" })).await;
    assert_eq!(key_file["client_email"], "robot@x.test");
    assert_eq!(key_file["token_uri"], issuer.token_url());
    let grant_id = seeded[0]["grant_id"].clone();
    tell(url, "/revoke", json!({ "grant_id": grant_id })).await;
    let unknown = posted(url, "/revoke", json!({ "grant_id": "none" })).await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn admin_is_absent_unless_asked_for() {
    let issuer = Issuer::start(Config::default()).await.unwrap();
    assert_eq!(
        reply(http().get(format!("{}/admin/health", issuer.url())))
            .await
            .unwrap()
            .status,
        404
    );
}
