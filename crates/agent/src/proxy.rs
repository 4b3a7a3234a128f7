//! The forward proxy: what its callers reach through it, opened only where a credential is bound.
//!
//! | request | where to | what happens |
//! | --- | --- | --- |
//! | `CONNECT`, `http://…` | `inference.local` | it is a call |
//! | `CONNECT` | a bound endpoint | the tunnel ends here, with a certificate of the local authority; placeholders in its requests are resolved |
//! | `http://…` | a bound endpoint | placeholders are resolved if the endpoint is on loopback; otherwise, a secret would go over the network in the clear, and it is refused |
//! | `CONNECT` | anywhere else | a tunnel, or refused, as the setting says |
//! | `http://…` | anywhere else | passed on if it holds no placeholder, or refused, as the setting says |

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, EXPECT, HOST};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::answer::{REASON, Refusal, json_response};
use crate::body::{self, Answer, Body};
use crate::ca::{OWN, host_of};
use crate::config::Unbound;
use crate::names;
use crate::placeholder;
use crate::server::{Face, Server};
use crate::shared::Shared;
use crate::upstream::Failure;
use crate::{inference, strip};

/// A host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// A name in lower case, or an address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Endpoint {
    fn of(authority: &Authority, default_port: Option<u16>) -> Option<Self> {
        let port = authority
            .port_u16()
            .or(default_port)
            .filter(|port| *port > 0)?;
        let host = host_of(authority);
        (!host.is_empty()).then_some(Self { host, port })
    }

    fn is_inference(&self) -> bool {
        self.host == OWN[0]
    }

    fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.host == "localhost",
        }
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

fn is_bound(shared: &Shared, endpoint: &Endpoint) -> bool {
    shared
        .client
        .snapshot()
        .binds(&endpoint.host, endpoint.port)
}

/// Answers `CONNECT`.
pub(crate) async fn connect(server: &Server, request: Request<Incoming>) -> Response<Body> {
    let endpoint = request
        .uri()
        .authority()
        .and_then(|a| Endpoint::of(a, None));
    let Some(endpoint) = endpoint else {
        return refuse(&bad("CONNECT needs a host and a port"));
    };
    if endpoint.is_inference() {
        return open(server, request, endpoint, Face::Inference);
    }
    if is_bound(&server.shared, &endpoint) {
        let face = Face::Bound(endpoint.clone());
        return open(server, request, endpoint, face);
    }
    if server.shared.unbound == Unbound::Refuse {
        return refuse(&unbound(&endpoint));
    }
    let connecting = TcpStream::connect((endpoint.host.as_str(), endpoint.port));
    let upstream = match timeout(server.shared.limits.connect, connecting).await {
        Ok(Ok(upstream)) => upstream,
        Ok(Err(error)) => return refuse(&unreachable(&endpoint, &error.to_string())),
        Err(_) => return refuse(&unreachable(&endpoint, "it does not answer")),
    };
    server.shared.counters.tunnelled.add();
    server.spawn(pass_on(request, upstream));
    Response::new(body::empty())
}

/// Passes bytes on, both ways, until both ends are done.
async fn pass_on(request: Request<Incoming>, mut upstream: TcpStream) {
    let _ = upstream.set_nodelay(true);
    if let Ok(upgraded) = hyper::upgrade::on(request).await {
        // Either end may break off.
        let _ = copy_bidirectional(&mut TokioIo::new(upgraded), &mut upstream).await;
    }
}

/// Ends a tunnel here, and takes the requests in it.
fn open(
    server: &Server,
    request: Request<Incoming>,
    endpoint: Endpoint,
    face: Face,
) -> Response<Body> {
    let inside = server.clone();
    server.spawn(async move {
        if let Ok(upgraded) = hyper::upgrade::on(request).await {
            Box::pin(inside.secure(TokioIo::new(upgraded), endpoint.host, face)).await;
        }
    });
    Response::new(body::empty())
}

/// Answers a request for a whole URL.
pub(crate) async fn absolute(server: &Server, request: Request<Incoming>) -> Response<Body> {
    let shared = &server.shared;
    let uri = request.uri();
    let endpoint = uri.authority().and_then(|a| Endpoint::of(a, Some(80)));
    let (Some(endpoint), true) = (endpoint, uri.scheme() == Some(&Scheme::HTTP)) else {
        return refuse(&bad("only http:// and CONNECT are proxied"));
    };
    if endpoint.is_inference() {
        return inference::serve(shared, request).await;
    }
    if is_bound(shared, &endpoint) {
        if !endpoint.is_loopback() {
            return refuse(&Refusal::new(
                StatusCode::FORBIDDEN,
                "plain-text",
                format!(
                    "a credential is bound to {}, and is not sent there without TLS: use https",
                    endpoint.authority()
                ),
            ));
        }
        return forward(shared, &endpoint, Scheme::HTTP, request).await;
    }
    if shared.unbound == Unbound::Refuse {
        return refuse(&unbound(&endpoint));
    }
    forward(shared, &endpoint, Scheme::HTTP, request).await
}

/// Answers a request in a tunnel to a bound endpoint.
pub(crate) async fn bound(
    shared: &Arc<Shared>,
    endpoint: &Endpoint,
    request: Request<Incoming>,
) -> Response<Body> {
    // Another host at the same address might be another party.
    let host = request.uri().authority().cloned().or_else(|| {
        let host = request.headers().get(HOST)?.to_str().ok()?;
        host.parse().ok()
    });
    let meant = host.and_then(|authority| Endpoint::of(&authority, Some(443)));
    if meant.as_ref() != Some(endpoint) {
        return refuse(&bad(&format!(
            "this tunnel leads to {}, and nowhere else",
            endpoint.authority()
        )));
    }
    forward(shared, endpoint, Scheme::HTTPS, request).await
}

async fn forward(
    shared: &Arc<Shared>,
    endpoint: &Endpoint,
    scheme: Scheme,
    request: Request<Incoming>,
) -> Response<Body> {
    let forwarded = Box::pin(exchange(shared, endpoint, scheme, request)).await;
    forwarded.unwrap_or_else(|refusal| {
        shared.counters.refused.add();
        tracing::warn!(
            { names::ENDPOINT } = endpoint.authority(),
            { names::REASON } = refusal.reason,
            { names::CAUSE } = refusal.message,
            "a request got no upstream's answer"
        );
        refuse(&refusal)
    })
}

async fn exchange(
    shared: &Arc<Shared>,
    endpoint: &Endpoint,
    scheme: Scheme,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let in_flight = shared.counters.enter();
    let deadline = Instant::now() + shared.limits.call;
    let (mut head, incoming) = request.into_parts();
    strip::hop_by_hop(&mut head.headers);
    strip::origin(&mut head.headers);
    head.headers.remove(EXPECT);
    let snapshot = shared.client.snapshot();
    let head = Request::from_parts(head, ());
    let resolved = placeholder::resolve(&snapshot, endpoint, head, incoming, &shared.limits);
    let mut resolved = timeout_at(deadline, resolved)
        .await
        .map_err(|_| bad("the body was not there in time"))??;
    if resolved.any {
        shared.counters.resolved.add();
    }
    let mut outgoing = resolved.head;
    let path = outgoing.uri().path_and_query().cloned();
    *outgoing.uri_mut() = Uri::builder()
        .scheme(scheme)
        .authority(endpoint.authority())
        .path_and_query(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
        .build()
        .map_err(|_| bad("the URL cannot be used"))?;
    outgoing.headers_mut().remove(CONTENT_LENGTH);
    *outgoing.version_mut() = Version::HTTP_11;
    let body = resolved.body.take().unwrap_or_else(body::empty);
    let answer = shared
        .upstream
        .call(outgoing.map(|()| body), deadline)
        .await
        .map_err(|failure| failed(endpoint, &failure))?;
    let (mut parts, incoming) = answer.into_parts();
    strip::hop_by_hop(&mut parts.headers);
    shared.counters.answered.add();
    let answer = Answer::new(incoming, shared.limits.idle, deadline, in_flight);
    let mut response = Response::new(answer.boxed_unsync());
    *response.status_mut() = parts.status;
    *response.headers_mut() = parts.headers;
    Ok(response)
}

fn failed(endpoint: &Endpoint, failure: &Failure) -> Refusal {
    match failure {
        Failure::Late => Refusal::new(
            StatusCode::GATEWAY_TIMEOUT,
            "upstream-late",
            format!("{}: {failure}", endpoint.authority()),
        ),
        Failure::Unreachable(_) | Failure::Broken(_) => unreachable(endpoint, &failure.to_string()),
    }
}

fn unreachable(endpoint: &Endpoint, cause: &str) -> Refusal {
    let text = format!("{}: {cause}", endpoint.authority());
    Refusal::new(StatusCode::BAD_GATEWAY, "upstream-unreachable", text)
}

fn unbound(endpoint: &Endpoint) -> Refusal {
    let text = format!(
        "no credential is bound to {}, and nothing else is passed on",
        endpoint.authority()
    );
    Refusal::new(StatusCode::FORBIDDEN, "unbound", text)
}

fn bad(text: &str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "bad-request", text)
}

/// The answer to a workload whose SDK may be any.
fn refuse(refusal: &Refusal) -> Response<Body> {
    let body = json!({"error": refusal.reason, "message": refusal.message});
    let mut response = json_response(refusal.status, &body);
    response
        .headers_mut()
        .insert(REASON, HeaderValue::from_static(refusal.reason));
    response
}
