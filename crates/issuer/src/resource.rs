//! A resource that takes the tokens issued here, and introspection: proof that a token works.

use std::sync::Arc;

use axum::{
    Form, Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::json;

use crate::desk::Desk;

/// `GET /resource`: who the bearer token is for, and its generation; 401 otherwise ([RFC 6750 §3.1]).
///
/// [RFC 6750 §3.1]: https://www.rfc-editor.org/rfc/rfc6750#section-3.1
pub(crate) async fn resource(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Response {
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    let state = desk.lock();
    let now = state.ledger_time(desk.now());
    match token.map(|token| state.ledger.active(now, token)) {
        Some(Some(token)) => Json(token).into_response(),
        presented => {
            let challenge = match presented {
                None => "Bearer",
                Some(_) => "Bearer error=\"invalid_token\"",
            };
            let headers = [(header::WWW_AUTHENTICATE, challenge)];
            (
                StatusCode::UNAUTHORIZED,
                headers,
                Json(json!({ "error": "invalid_token" })),
            )
                .into_response()
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct Introspection {
    token: String,
}

/// `POST /introspect` ([RFC 7662 §2](https://www.rfc-editor.org/rfc/rfc7662#section-2)); open to all, on loopback.
pub(crate) async fn introspect(
    State(desk): State<Arc<Desk>>,
    Form(form): Form<Introspection>,
) -> Response {
    let state = desk.lock();
    let moment = desk.now();
    let now = state.ledger_time(moment);
    let Some(token) = state.ledger.active(now, &form.token) else {
        return Json(json!({ "active": false })).into_response();
    };
    let left = token.expires_at.saturating_sub(now);
    Json(json!({
        "active": true,
        "client_id": token.client_id,
        "grant_id": token.grant_id,
        "generation": token.generation,
        "token_type": "Bearer",
        "exp": moment.unix_ms / 1000 + left.as_secs(),
    }))
    .into_response()
}
