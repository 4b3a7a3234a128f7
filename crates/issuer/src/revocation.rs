//! The revocation endpoint, [RFC 7009](https://www.rfc-editor.org/rfc/rfc7009): the client proves
//! itself as at the token endpoint, and a token that is not known is one that is worth nothing.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::{
    desk::Desk,
    refusal::{Code, Refusal},
    request::TokenRequest,
};

/// `POST /revoke`: a refresh token takes its whole family along, an access token nothing else.
pub(crate) async fn revoke(
    State(desk): State<Arc<Desk>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request = TokenRequest::parse(&headers, &body);
    match decide(&desk, &request) {
        Ok(()) => StatusCode::OK.into_response(),
        Err(refusal) => {
            let status = StatusCode::from_u16(refusal.code.status());
            let error = json!({
                "error": refusal.code.name(),
                "error_description": refusal.description,
            });
            (status.unwrap_or(StatusCode::BAD_REQUEST), Json(error)).into_response()
        }
    }
}

fn decide(desk: &Desk, request: &TokenRequest) -> Result<(), Refusal> {
    let claimed = request.claimed_client();
    let claimed =
        claimed.ok_or(Code::InvalidClient { challenge: false }.because("client_id is missing"))?;
    let token = request.field("token");
    let token = token.ok_or(Code::InvalidRequest.because("token is missing"))?;
    desk.change(|state| {
        request.authenticate(state.ledger.client(&claimed))?;
        let unix_ms = desk.now().unix_ms;
        state.ledger.end(unix_ms, &claimed, token);
        Ok(())
    })
}
