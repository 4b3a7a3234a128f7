//! What happens around every call: the caller is identified, a span tells of the call, and an
//! error that was not made here gets its reason. Contents of requests and answers are never told.

use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use tonic::{Code, Status};
use tracing::Instrument as _;
use tracing::field::Empty;

use crate::access::{self, Who};
use crate::caller::Door;
use crate::passthrough::{self, Passage};
use crate::server::{REQUEST_MAX, REQUEST_TIME};
use crate::target::FRAME;
use crate::{names, status};

/// The header that holds the code of a call that failed at once.
const GRPC_STATUS: &str = "grpc-status";

/// What stands before every call.
pub(crate) struct Around {
    pub(crate) door: Door,
    /// Where calls go that are not ours.
    pub(crate) passage: Option<Passage>,
}

/// Wraps a call.
pub(crate) async fn wrap(
    State(around): State<Arc<Around>>,
    request: Request,
    next: Next,
) -> Response {
    let span = tracing::info_span!(
        "call",
        { names::METHOD } = request.uri().path(),
        { names::CODE } = Empty,
        { names::LATENCY_MS } = Empty,
    );
    let started = Instant::now();
    let inner = span.clone();
    async move {
        let mut response = answer(&around, request, next).await;
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

async fn answer(around: &Around, request: Request, next: Next) -> Response {
    if let Some(passage) = &around.passage
        && !passthrough::is_own(request.uri().path())
    {
        // Who calls is the other gateway's to find out.
        return passage.clone().call(request).await;
    }
    match admit(&around.door, request).await {
        Ok(request) => next.run(request).await,
        Err(status) => Status::into_http::<Body>(status),
    }
}

/// The request with its caller, who may make it. It is read before it is passed on: who may make
/// it hangs on what it says, and a caller who is slow to say it holds up nobody else.
async fn admit(door: &Door, request: Request) -> Result<Request, Status> {
    let (mut head, body) = request.into_parts();
    let method = access::method(head.uri.path()).ok_or_else(status::unimplemented)?;
    let shown = head.headers.get(header::AUTHORIZATION);
    let caller = door.admit(method, shown.map(HeaderValue::as_bytes)).await?;
    head.extensions.insert(caller.clone());
    if method.who == Who::Anyone {
        return Ok(Request::from_parts(head, body));
    }
    let body = whole(body).await?;
    door.admit_request(method, &caller, &body).await?;
    Ok(Request::from_parts(head, Body::from(body)))
}

/// All of a request's body.
async fn whole(body: Body) -> Result<Bytes, Status> {
    let read = axum::body::to_bytes(body, FRAME + REQUEST_MAX);
    match tokio::time::timeout(REQUEST_TIME, read).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) if is_too_large(&error) => Err(status::too_large(REQUEST_MAX)),
        // The caller went away.
        Ok(Err(_)) => Err(Status::cancelled("the request broke off")),
        Err(_) => Err(status::too_slow()),
    }
}

fn is_too_large(error: &axum::Error) -> bool {
    let source = std::error::Error::source(error);
    source.is_some_and(|e| e.is::<http_body_util::LengthLimitError>())
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
