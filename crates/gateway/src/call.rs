//! What happens around every call: the caller is identified, a span tells of the call, and an
//! error that was not made here gets its reason. Contents of requests and answers are never told.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use tonic::{Code, Status};
use tracing::Instrument as _;
use tracing::field::Empty;

use crate::caller::Door;
use crate::{names, status};

/// The header that holds the code of a call that failed at once.
const GRPC_STATUS: &str = "grpc-status";

/// Wraps a call.
pub(crate) async fn wrap(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let span = tracing::info_span!(
        "call",
        { names::METHOD } = request.uri().path(),
        { names::CODE } = Empty,
        { names::LATENCY_MS } = Empty,
    );
    let started = Instant::now();
    let inner = span.clone();
    async move {
        let mut response = answer(&door, request, next).await;
        let code = code(response.headers());
        give_reason(code, response.headers_mut());
        let latency_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        span.record(names::CODE, tracing::field::debug(code));
        span.record(names::LATENCY_MS, latency_ms);
        match code {
            Code::Internal | Code::Unknown | Code::DataLoss => tracing::warn!("call failed"),
            _ => tracing::debug!("call answered"),
        }
        response
    }
    .instrument(inner)
    .await
}

async fn answer(door: &Door, mut request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let authorization = request.headers().get(header::AUTHORIZATION).cloned();
    let shown = authorization.as_ref().map(HeaderValue::as_bytes);
    match door.admit(&path, shown).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(status) => Status::into_http::<Body>(status),
    }
}

/// The code in an answer's head; one that comes later, in trailers, is a success so far.
fn code(head: &HeaderMap) -> Code {
    head.get(GRPC_STATUS)
        .map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()))
}

fn give_reason(code: Code, head: &mut HeaderMap) {
    if code != Code::Ok && !head.contains_key(status::REASON) {
        let reason = HeaderValue::from_static(status::default_reason(code));
        head.insert(status::REASON, reason);
    }
}
