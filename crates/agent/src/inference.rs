//! `inference.local`: a caller's call, with the caller's credentials taken out and the route's token
//! put in.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evermint_client::{Auth, Route};
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, EXPECT};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use crate::answer::{Refusal, json_response};
use crate::body::{self, Answer, Body, Outgoing, Unread, full};
use crate::call::{Call, Dialect};
use crate::members::Members;
use crate::metrics::InFlight;
use crate::names;
use crate::rewrite::segment;
use crate::rotation::Refused;
use crate::shared::Shared;
use crate::upstream::Failure;
use crate::{route, strip};

/// Anthropic refuses calls without a version; SDKs send one.
const ANTHROPIC_VERSION: (HeaderName, HeaderValue) = (
    HeaderName::from_static("anthropic-version"),
    HeaderValue::from_static("2023-06-01"),
);

/// Answers a call, by its route's upstream or with a refusal.
pub(crate) async fn serve(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let in_flight = shared.counters.enter();
    let (head, body) = request.into_parts();
    let (prefixed, path) = route::prefix(head.uri.path());
    let named = head.headers.get(route::HEADER).map(HeaderValue::as_bytes);
    let named = named
        .map(String::from_utf8_lossy)
        .or(prefixed.map(Into::into));
    let call = Call::of(&head.method, path);
    let dialect = Dialect::of(call.as_ref(), &head.headers);
    let answered = match &call {
        None => Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "no-such-call",
            format!("{} {path} is no call that can be routed", head.method),
        )),
        Some(Call::Models) => Ok(models(shared)),
        Some(call) => {
            let named = named.as_deref();
            let passed = Passage {
                shared,
                call,
                named,
                head: &head,
            };
            Box::pin(passed.pass(body, in_flight)).await
        }
    };
    answered.unwrap_or_else(|refusal| {
        shared.counters.refused.add();
        tracing::warn!(
            { names::REASON } = refusal.reason,
            { names::CAUSE } = refusal.message,
            "a call got no upstream's answer"
        );
        refusal.response(dialect)
    })
}

/// The models that calls are sent to, in a shape that SDKs of both kinds read.
fn models(shared: &Shared) -> Response<Body> {
    let snapshot = shared.client.snapshot();
    let mut names: Vec<_> = snapshot.routes().map(Route::model).collect();
    names.sort_unstable();
    names.dedup();
    let entry = |name: &&str| {
        json!({
            "id": name, "object": "model", "type": "model", "display_name": name,
            "created": 0, "created_at": "1970-01-01T00:00:00Z", "owned_by": "evermint",
        })
    };
    let list = json!({
        "object": "list",
        "data": names.iter().map(entry).collect::<Vec<_>>(),
        "has_more": false,
        "first_id": names.first(),
        "last_id": names.last(),
    });
    json_response(StatusCode::OK, &list)
}

/// A call on its way.
struct Passage<'a> {
    shared: &'a Arc<Shared>,
    call: &'a Call,
    named: Option<&'a str>,
    head: &'a Parts,
}

/// What a call carries.
enum Content {
    /// An object in which the model is set.
    Members { members: Members, streamed: bool },
    /// Anything.
    Raw(Outgoing),
}

impl Content {
    fn is_left(&self) -> bool {
        match self {
            Self::Members { .. } => true,
            Self::Raw(outgoing) => outgoing.is_left(),
        }
    }
}

impl Passage<'_> {
    async fn pass(&self, body: Incoming, in_flight: InFlight) -> Result<Response<Body>, Refusal> {
        let Shared {
            client,
            upstream,
            limits,
            rotations,
            counters,
            ..
        } = &**self.shared;
        let began = Instant::now();
        let deadline = {
            let snapshot = client.snapshot();
            let route = route::choose(&snapshot, self.named, self.call)?;
            began + route::timeout(route, limits.call)
        };
        let mut content = timeout_at(deadline, self.content(body))
            .await
            .map_err(|_| late())??;
        let mut refused = None;
        let mut unreachable = false;
        loop {
            let snapshot = client.snapshot();
            let route = route::choose(&snapshot, self.named, self.call)?;
            let request = self.request(route, &mut content)?;
            match upstream.call(request, deadline).await {
                Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED => {
                    counters.unauthorized.add();
                    let now = Refused::of(route);
                    let again = refused.replace(now.clone()).is_none() && content.is_left();
                    let newer = rotations.newer(client, &now, again, deadline).await;
                    if !(newer && again) {
                        return Err(Refusal::passing(
                            "token-refused",
                            format!(
                                "the upstream of route {:?} refuses the token of provider {:?}",
                                route.name(),
                                route.provider()
                            ),
                        ));
                    }
                    counters.retried.add();
                }
                Ok(answer) => {
                    tracing::debug!(
                        { names::ROUTE } = route.name(),
                        { names::STATUS } = answer.status().as_u16(),
                        { names::ELAPSED_MS } = began.elapsed().as_millis(),
                        "a call is answered"
                    );
                    counters.answered.add();
                    return Ok(passed_on(answer, limits.idle, deadline, in_flight));
                }
                // Nothing was sent, so that nothing is done twice.
                Err(Failure::Unreachable(_)) if !unreachable && content.is_left() => {
                    unreachable = true;
                    counters.retried.add();
                }
                Err(failure) => return Err(failed(route, &failure)),
            }
        }
    }

    /// Reads the body as far as it has to be read.
    async fn content(&self, body: Incoming) -> Result<Content, Refusal> {
        let limits = &self.shared.limits;
        if !self.call.is_in_the_body() {
            let outgoing = Outgoing::of(body, limits.replay_max)
                .await
                .map_err(unread)?;
            return Ok(Content::Raw(outgoing));
        }
        if self.head.headers.contains_key(CONTENT_ENCODING) {
            return Err(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "encoded-body",
                "the body names a model and has to be read: send it without a content-encoding",
            ));
        }
        let bytes = body::read(body, limits.body_max).await.map_err(unread)?;
        let members = Members::parse(&bytes).map_err(|problem| {
            Refusal::new(
                StatusCode::BAD_REQUEST,
                "bad-body",
                format!("the body is not a JSON object: {problem}"),
            )
        })?;
        let streamed = match self.call {
            Call::Messages {
                streamed: Some(streamed),
            } => *streamed,
            _ => members.is_true("stream"),
        };
        Ok(Content::Members { members, streamed })
    }

    /// The request to the route's upstream, with its token of now.
    fn request(&self, route: Route<'_>, content: &mut Content) -> Result<Request<Body>, Refusal> {
        let target = route::target(route);
        let (streamed, body) = match content {
            Content::Members { members, streamed } => {
                target.body(self.call, members);
                (*streamed, Some(full(members.to_vec())))
            }
            Content::Raw(outgoing) => {
                let streamed = matches!(self.call, Call::Generate { action, .. } if action.starts_with("stream"));
                (streamed, outgoing.take())
            }
        };
        let own_parameter = match route.auth() {
            Auth::Query(name) => Some(name.as_str()),
            Auth::Header { .. } | Auth::Basic { .. } | Auth::Path(_) => None,
        };
        let query = strip::query(self.head.uri.query(), own_parameter);
        let uri = target
            .uri(self.call, streamed, query.as_deref())
            .map_err(|problem| unusable(route, &problem))?;
        let mut headers = self.head.headers.clone();
        strip::hop_by_hop(&mut headers);
        strip::origin(&mut headers);
        strip::credentials(&mut headers, route.passthrough_headers());
        headers.remove(CONTENT_LENGTH);
        headers.remove(EXPECT);
        add(route, &mut headers)?;
        if matches!(self.call, Call::Messages { .. } | Call::CountTokens) && !target.model_in_path {
            let (name, version) = ANTHROPIC_VERSION;
            headers.entry(name).or_insert(version);
        }
        let mut request = Request::new(body.unwrap_or_else(body::empty));
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = authorize(route, uri, &mut headers)?;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// Adds the headers that the route gives every call; the caller's own win where they are passed on.
fn add(route: Route<'_>, headers: &mut HeaderMap) -> Result<(), Refusal> {
    for (name, value) in route.headers() {
        let unfit = || unusable(route, "one of its headers is none");
        let is_passed_on = route.passthrough_headers().contains(name);
        let name: HeaderName = name.parse().map_err(|_| unfit())?;
        let value: HeaderValue = value.parse().map_err(|_| unfit())?;
        if !(is_passed_on && headers.contains_key(&name)) {
            headers.insert(name, value);
        }
    }
    Ok(())
}

/// Puts the route's token where its upstream wants it.
fn authorize(route: Route<'_>, uri: Uri, headers: &mut HeaderMap) -> Result<Uri, Refusal> {
    let token = route.token();
    token.usable().map_err(|why| {
        Refusal::passing(
            "no-token",
            format!(
                "provider {:?} of route {:?} has no token now: {why}",
                route.provider(),
                route.name()
            ),
        )
    })?;
    let value = token.value().and_then(|secret| secret.expose_str());
    let value =
        value.ok_or_else(|| unusable(route, "its credential has no single value in text"))?;
    let unfit = || unusable(route, "its token does not fit into its place");
    let mut set = |name: HeaderName, text: String| {
        let mut value: HeaderValue = text.parse().map_err(|_| unfit())?;
        value.set_sensitive(true);
        headers.insert(name, value);
        Ok::<_, Refusal>(())
    };
    match route.auth() {
        Auth::Header { name, prefix } => {
            set(
                name.parse().map_err(|_| unfit())?,
                format!("{prefix}{value}"),
            )?;
            Ok(uri)
        }
        Auth::Basic { user } => {
            let pair = if user.is_empty() {
                value.to_owned()
            } else {
                format!("{user}:{value}")
            };
            set(AUTHORIZATION, format!("Basic {}", STANDARD.encode(pair)))?;
            Ok(uri)
        }
        Auth::Query(name) => {
            let join = if uri.query().is_some() { '&' } else { '?' };
            let (name, value) = (segment(name), segment(value));
            format!("{uri}{join}{name}={value}")
                .parse()
                .map_err(|_| unfit())
        }
        Auth::Path(path) => {
            let path = path.replace("{credential}", &segment(value));
            let query = uri
                .query()
                .map(|query| format!("?{query}"))
                .unwrap_or_default();
            format!("{}{path}{query}", route.base_url())
                .parse()
                .map_err(|_| unfit())
        }
    }
}

/// An upstream's answer, as it goes to the caller.
fn passed_on(
    answer: Response<Incoming>,
    idle: std::time::Duration,
    deadline: Instant,
    in_flight: InFlight,
) -> Response<Body> {
    use http_body_util::BodyExt as _;
    let (mut head, body) = answer.into_parts();
    strip::answer(&mut head.headers);
    let mut response = Response::new(Answer::new(body, idle, deadline, in_flight).boxed_unsync());
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
}

fn failed(route: Route<'_>, failure: &Failure) -> Refusal {
    let text = format!("the upstream of route {:?}: {failure}", route.name());
    match failure {
        Failure::Late => Refusal::new(StatusCode::GATEWAY_TIMEOUT, "upstream-late", text),
        Failure::Unreachable(_) => Refusal::passing("upstream-unreachable", text),
        Failure::Broken(_) => Refusal::new(StatusCode::BAD_GATEWAY, "upstream-broken", text),
    }
}

fn unusable(route: Route<'_>, problem: &str) -> Refusal {
    let text = format!("route {:?} cannot be used: {problem}", route.name());
    Refusal::new(StatusCode::BAD_GATEWAY, "bad-route", text)
}

fn late() -> Refusal {
    Refusal::new(
        StatusCode::REQUEST_TIMEOUT,
        "slow-body",
        "the body was not there in the time that the whole call may take",
    )
}

fn unread(unread: Unread) -> Refusal {
    let (status, reason) = match unread {
        Unread::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "large-body"),
        Unread::Broken(_) => (StatusCode::BAD_REQUEST, "torn-body"),
    };
    Refusal::new(status, reason, format!("the body cannot be read: {unread}"))
}
