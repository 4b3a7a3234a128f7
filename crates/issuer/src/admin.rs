//! `/admin`: the powers of [`Handle`] over HTTP, in the shape of the real provider's fixture, so that
//! one test client drives both. Times are seconds where a client is configured, milliseconds elsewhere.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Client, Fault, Handle, Record, Release, desk::Desk};

/// The longest that `GET /admin/held` waits, in milliseconds.
const HELD_WAIT_MS_MAX: u64 = 60_000;
/// The most families that one `POST /admin/seed` makes.
const SEED_MAX: u32 = 100_000;

type Desks = State<Arc<Desk>>;

pub(crate) fn router() -> Router<Arc<Desk>> {
    Router::new()
        .route("/health", get(health))
        .route("/clients", get(clients))
        .route("/client", post(client))
        .route("/seed", post(seed))
        .route("/service-account", post(service_account))
        .route("/ttl", post(ttl))
        .route("/latency", post(latency))
        .route("/advance", post(advance))
        .route("/revoke", post(revoke))
        .route("/fault", get(faults).post(fault).delete(clear_faults))
        .route("/held", get(held))
        .route("/release", post(release))
        .route("/history", get(history))
        .route("/overlaps", get(overlaps))
        .route("/presentations", get(presentations))
        .route("/stats", get(stats))
        .route("/families", get(families))
        .route("/reset", post(reset))
}

fn handle(State(desk): Desks) -> Handle {
    Handle::new(desk)
}

fn not_found(what: &str) -> Response {
    (StatusCode::NOT_FOUND, Json(json!({ "error": what }))).into_response()
}

async fn health(desk: Desks) -> Json<Value> {
    Json(json!({ "ok": true, "issuer": handle(desk).url() }))
}

async fn clients(desk: Desks) -> Json<Vec<Client>> {
    Json(handle(desk).clients())
}

/// Registers or replaces a client.
async fn client(desk: Desks, Json(client): Json<Client>) -> Json<Value> {
    let registered = json!({ "registered": client.id });
    handle(desk).register(client);
    Json(registered)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Seed {
    client_id: String,
    #[serde(default = "one")]
    n: u32,
}

fn one() -> u32 {
    1
}

/// First refresh tokens; an unknown client is made, with the secret `<client_id>-secret`.
async fn seed(desk: Desks, Json(seed): Json<Seed>) -> Response {
    let handle = handle(desk);
    if seed.n > SEED_MAX {
        return (
            StatusCode::BAD_REQUEST,
            Json(json!({ "error": "n is too large" })),
        )
            .into_response();
    }
    if !handle
        .clients()
        .iter()
        .any(|client| client.id == seed.client_id)
    {
        let secret = format!("{}-secret", seed.client_id);
        handle.register(Client::new(&seed.client_id).secret(secret));
    }
    let seeded: Vec<_> = (0..seed.n)
        .filter_map(|_| handle.seed_again(&seed.client_id))
        .collect();
    Json(seeded).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Account {
    email: String,
    public_key: Option<String>,
}

/// Trusts a public key; without one makes a key pair and answers with Google's key file.
async fn service_account(desk: Desks, Json(account): Json<Account>) -> Response {
    let handle = handle(desk);
    let made = match account.public_key {
        Some(key) => handle
            .trust(&account.email, &key)
            .map(|()| json!({ "trusted": account.email })),
        None => handle
            .service_account(&account.email)
            .map(|made| made.key_file(handle.url())),
    };
    match made {
        Ok(body) => Json(body).into_response(),
        Err(error) => (
            StatusCode::BAD_REQUEST,
            Json(json!({ "error": error.to_string() })),
        )
            .into_response(),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ttl {
    client_id: String,
    access: Option<f64>,
    refresh: Option<f64>,
}

async fn ttl(desk: Desks, Json(ttl): Json<Ttl>) -> Response {
    let seconds = |value: Option<f64>| value.map(Duration::try_from_secs_f64).transpose();
    let (Ok(access), Ok(refresh)) = (seconds(ttl.access), seconds(ttl.refresh)) else {
        return (
            StatusCode::BAD_REQUEST,
            Json(json!({ "error": "not a duration" })),
        )
            .into_response();
    };
    match handle(desk).ttl(&ttl.client_id, access, refresh) {
        true => Json(json!({ "ok": true })).into_response(),
        false => not_found("no such client"),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Milliseconds {
    ms: u64,
}

async fn latency(desk: Desks, Json(time): Json<Milliseconds>) -> Json<Value> {
    handle(desk).latency(Duration::from_millis(time.ms));
    Json(json!({ "ok": true }))
}

async fn advance(desk: Desks, Json(time): Json<Milliseconds>) -> Json<Value> {
    handle(desk).advance(Duration::from_millis(time.ms));
    Json(json!({ "ok": true }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    grant_id: String,
}

async fn revoke(desk: Desks, Json(revoke): Json<Revoke>) -> Response {
    match handle(desk).revoke(&revoke.grant_id) {
        true => Json(json!({ "revoked": revoke.grant_id })).into_response(),
        false => not_found("no such family"),
    }
}

async fn faults(desk: Desks) -> Json<Vec<Fault>> {
    Json(handle(desk).faults())
}

async fn fault(desk: Desks, Json(fault): Json<Fault>) -> Json<Vec<Fault>> {
    let handle = handle(desk);
    handle.fault(fault);
    Json(handle.faults())
}

async fn clear_faults(desk: Desks) -> Json<Vec<Fault>> {
    let handle = handle(desk);
    handle.clear_faults();
    Json(handle.faults())
}

#[derive(Deserialize)]
struct Waiting {
    client: Option<String>,
    /// With `client`: waits so long for a request to be held.
    #[serde(default)]
    wait_ms: u64,
}

async fn held(desk: Desks, Query(waiting): Query<Waiting>) -> Json<Value> {
    let handle = handle(desk);
    let Some(client) = waiting.client else {
        return Json(json!(handle.holding()));
    };
    let bound = Duration::from_millis(waiting.wait_ms.min(HELD_WAIT_MS_MAX));
    // Whether it came in time shows in the list.
    let _ = tokio::time::timeout(bound, handle.held(&client)).await;
    let held: Vec<_> = handle
        .holding()
        .into_iter()
        .filter(|held| held.client.as_deref() == Some(&client))
        .collect();
    Json(json!(held))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Releasing {
    client: Option<String>,
    #[serde(default, rename = "as")]
    how: Release,
}

async fn release(desk: Desks, Json(releasing): Json<Releasing>) -> Json<Value> {
    let handle = handle(desk);
    let released = match &releasing.client {
        Some(client) => handle.release(client, releasing.how),
        None => handle.release_all(releasing.how),
    };
    Json(json!({ "released": released }))
}

#[derive(Deserialize)]
struct Range {
    client: Option<String>,
    /// Only records with a greater `seq`.
    #[serde(default)]
    since: u64,
}

async fn history(desk: Desks, Query(range): Query<Range>) -> Json<Vec<Record>> {
    let wanted = |record: &&Record| {
        record.seq > range.since && (range.client.is_none() || record.client == range.client)
    };
    Json(
        handle(desk)
            .history()
            .records()
            .filter(wanted)
            .cloned()
            .collect(),
    )
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "snake_case")]
enum By {
    #[default]
    Client,
    Family,
}

#[derive(Deserialize)]
struct Grouping {
    #[serde(default)]
    by: By,
}

async fn overlaps(desk: Desks, Query(grouping): Query<Grouping>) -> Json<Value> {
    let history = handle(desk).history();
    Json(json!(match grouping.by {
        By::Client => history.overlaps(),
        By::Family => history.overlaps_in_families(),
    }))
}

async fn presentations(desk: Desks) -> Json<Value> {
    Json(json!(handle(desk).history().presentations()))
}

async fn stats(desk: Desks) -> Json<Value> {
    let handle = handle(desk);
    let (history, families) = (handle.history(), handle.families());
    Json(json!({
        "issuer": handle.url(),
        "seq": history.records().next_back().map_or(0, |record| record.seq),
        "counts": history.counts(),
        "totals": {
            "families": families.len(),
            "reuse_detected": families.iter().map(|family| family.reuse_detected).sum::<u64>(),
            "forks": families.iter().map(|family| family.forks).sum::<u64>(),
            "revoked": families.iter().filter(|family| !family.is_alive()).count(),
            "overlaps": history.overlaps().len(),
        },
        "reuse_events": history.records().filter(|record| record.reuse).collect::<Vec<_>>(),
    }))
}

#[derive(Deserialize)]
struct Of {
    client: Option<String>,
}

async fn families(desk: Desks, Query(of): Query<Of>) -> Json<Value> {
    let mut families = handle(desk).families();
    families.retain(|family| {
        of.client
            .as_ref()
            .is_none_or(|client| *client == family.client)
    });
    Json(json!(families))
}

async fn reset(desk: Desks) -> Json<Value> {
    handle(desk).reset();
    Json(json!({ "ok": true }))
}
