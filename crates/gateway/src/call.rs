//! What happens around every call: the caller is identified, a span tells of the call, and an
//! error that was not made here gets its reason. Contents of requests and answers are never told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use evermint_core::audit::Origin;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Code, Status};
use tracing::Instrument as _;
use tracing::field::Empty;

use crate::access::{self, Method, Who};
use crate::caller::{Caller, Door, Shown};
use crate::passthrough::{self, Passage};
use crate::refusals::{self, Kind};
use crate::shared::Shared;
use crate::target::FRAME;
use crate::{names, origin, status};

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
    let door = &around.door;
    let path = request.uri().path().to_owned();
    let (replica, _) = door.shared.ports.view.identity();
    let shown = shown(&request);
    let from = shown.address;
    let (by, response) = match identify(door, &path, shown).await {
        Ok((method, caller)) => {
            let by = origin::of(Some(&caller), from, replica);
            let response = match admit(door, method, caller, request).await {
                Ok(request) => origin::scope(by.clone(), next.run(request)).await,
                Err(status) => Status::into_http::<Body>(status),
            };
            (by, response)
        }
        // A sandbox that is not known here is known to the gateway that runs it, or to nobody.
        Err(Unknown { method, status }) => match &around.passage {
            Some(passage)
                if method.is_some_and(Method::is_for_openshell_sandboxes)
                    && status::is_stranger(&status) =>
            {
                return passage.clone().call(request).await;
            }
            _ => {
                let by = origin::of(None, from, replica);
                (by, Status::into_http::<Body>(status))
            }
        },
    };
    let code = code(response.headers());
    if refusals::is_refusal(code) {
        note_refusal(&door.shared, by, path, code, response.headers());
    }
    response
}

/// Counts a refused call, for the audit trail. A path that is no method's is not repeated.
fn note_refusal(shared: &Shared, by: Origin, method: String, code: Code, head: &HeaderMap) {
    let reason = head.get(status::REASON).and_then(|r| r.to_str().ok());
    let kind = Kind {
        by,
        method: match access::method(&method) {
            Some(_) => method,
            None => "(none)".to_owned(),
        },
        reason: reason
            .unwrap_or_else(|| status::default_reason(code))
            .to_owned(),
    };
    shared.refusals.note(kind, shared.ports.view.now());
}

/// What a call shows of its caller.
fn shown(request: &Request) -> Shown {
    let connection = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>();
    let plain = || request.extensions().get::<TcpConnectInfo>();
    let address = connection.map(TlsConnectInfo::get_ref).or_else(plain);
    Shown {
        address: address.and_then(|tcp| Some(tcp.remote_addr()?.ip())),
        authorization: request.headers().get(header::AUTHORIZATION).cloned(),
        certificates: connection.and_then(TlsConnectInfo::peer_certs),
    }
}

/// A caller who is not let in.
struct Unknown {
    /// What it wanted to call, if that is a method of ours.
    method: Option<&'static Method>,
    status: Status,
}

/// What is called, and by whom.
async fn identify(
    door: &Door,
    path: &str,
    shown: Shown,
) -> Result<(&'static Method, Caller), Unknown> {
    let Some(method) = access::method(path) else {
        return Err(Unknown {
            method: None,
            status: status::unimplemented(),
        });
    };
    let identified = door.identify(method, &shown).await;
    let caller = identified.map_err(|status| Unknown {
        method: Some(method),
        status,
    })?;
    Ok((method, caller))
}

/// The request with its caller, who may make it. It is read before it is passed on: who may make
/// it hangs on what it says, and a caller who is slow to say it holds up nobody else.
async fn admit(
    door: &Door,
    method: &Method,
    caller: Caller,
    request: Request,
) -> Result<Request, Status> {
    access::check(method, &caller)?;
    let (mut head, body) = request.into_parts();
    head.extensions.insert(caller.clone());
    if method.who == Who::Anyone {
        return Ok(Request::from_parts(head, body));
    }
    let counted = door.shared.rates.count(&caller);
    counted.map_err(status::too_fast)?;
    let bounds = &door.shared.bounds;
    let body = whole(body, bounds.request_bytes, bounds.request_time).await?;
    door.admit_request(method, &caller, &body).await?;
    Ok(Request::from_parts(head, Body::from(body)))
}

/// All of a request's body.
async fn whole(body: Body, max: usize, time: Duration) -> Result<Bytes, Status> {
    let read = axum::body::to_bytes(body, FRAME + max);
    match tokio::time::timeout(time, read).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) if is_too_large(&error) => Err(status::too_large(max)),
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
