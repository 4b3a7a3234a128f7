//! Placeholders in requests that go through the proxy: resolved, or the request is refused. Which
//! resolve where is decided in `evermint-client`.

use evermint_client::Snapshot;
use evermint_client::placeholder::{Body as Kind, Refused, Resolver};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use hyper::body::Incoming;

use crate::answer::Refusal;
use crate::body::{self, Outgoing, Unread};
use crate::proxy::Endpoint;
use crate::upstream::Limits;

/// A request without its placeholders.
pub(crate) struct Resolved {
    /// With a URI that holds only path and query.
    pub(crate) head: Request<()>,
    pub(crate) body: Outgoing,
    /// Whether there were any.
    pub(crate) any: bool,
}

/// Resolves every placeholder of a request to `endpoint`.
///
/// # Errors
/// Why the request must not be sent on.
pub(crate) async fn resolve(
    snapshot: &Snapshot,
    endpoint: &Endpoint,
    mut head: Request<()>,
    body: Incoming,
    limits: &Limits,
) -> Result<Resolved, Refusal> {
    let target = head.uri().path_and_query().cloned();
    let target = target.unwrap_or_else(|| PathAndQuery::from_static("/"));
    let resolver = snapshot
        .resolver(&endpoint.host, endpoint.port, target.as_str())
        .map_err(refusal)?;
    let mut any = false;
    let mut uri = Uri::from(target.clone());
    if let Some(resolved) = resolver.target(target.as_str()).map_err(refusal)? {
        any = true;
        uri = Uri::try_from(resolved.expose()).map_err(|_| unfit())?;
    }
    *head.uri_mut() = uri;
    any |= headers(&resolver, head.headers_mut())?;
    let kind = head
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|v| Kind::of(v.to_str().ok()?));
    let body = match kind {
        Some(kind)
            if resolver.rewrites_body() && !head.headers().contains_key(CONTENT_ENCODING) =>
        {
            let bytes = body::read(body, limits.body_max)
                .await
                .map_err(|e| unread(&e))?;
            match resolver.body(kind, &bytes).map_err(refusal)? {
                Some(resolved) => {
                    any = true;
                    Outgoing::Again(resolved.expose().to_vec().into())
                }
                None => Outgoing::Again(bytes),
            }
        }
        _ => Outgoing::of(body, limits.replay_max)
            .await
            .map_err(|e| unread(&e))?,
    };
    Ok(Resolved { head, body, any })
}

fn headers(resolver: &Resolver<'_>, headers: &mut HeaderMap) -> Result<bool, Refusal> {
    let mut any = false;
    for name in headers.keys() {
        resolver
            .verbatim(name.as_str().as_bytes())
            .map_err(refusal)?;
    }
    for value in headers.values_mut() {
        if let Some(resolved) = resolver.header(value.as_bytes()).map_err(refusal)? {
            any = true;
            *value = HeaderValue::from_bytes(resolved.expose()).map_err(|_| unfit())?;
            value.set_sensitive(true);
        }
    }
    Ok(any)
}

fn refusal(refused: Refused) -> Refusal {
    let status =
        StatusCode::from_u16(refused.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Refusal::new(status, refused.reason(), refused.to_string())
}

fn unfit() -> Refusal {
    let text = "a value cannot stand where its placeholder does";
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "credential_unfit", text)
}

fn unread(unread: &Unread) -> Refusal {
    let status = match unread {
        Unread::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        Unread::Broken(_) => StatusCode::BAD_REQUEST,
    };
    Refusal::new(
        status,
        "unreadable-body",
        format!("the body cannot be read: {unread}"),
    )
}
