//! An API that takes the calls of OpenAI's, Anthropic's and Google's SDKs, checks their tokens, and
//! remembers what it was sent.
//!
//! The header `x-test` asks for something special: `gated` waits before the second event of a stream
//! until [`Api::open`], `endless` streams for ever, `hang` never answers, `stall` stops in the middle.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, SET_COOKIE};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use http::request::Parts;
use http::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Decides whether a token is good now.
pub type Judge = Arc<dyn Fn(String) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// One request.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its method.
    pub method: String,
    /// Its path and query.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, if that is JSON.
    pub body: Value,
    /// The token that it bore.
    pub token: String,
}

/// A running API; stopped when it is dropped.
pub struct Api {
    address: SocketAddr,
    shared: Arc<Shared>,
    _server: JoinSet<()>,
}

struct Shared {
    good: Mutex<BTreeSet<String>>,
    judge: Option<Judge>,
    seen: watch::Sender<Vec<Seen>>,
    gate: watch::Sender<bool>,
    /// Bytes of endless streams that were taken off this API's hands.
    produced: AtomicU64,
    /// Streams that are under way.
    streams: watch::Sender<i64>,
}

impl Api {
    /// An API that takes the tokens of [`Api::accept`].
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start() -> Self {
        Self::with(None).await
    }

    /// An API that asks `judge` about every token, and remembers no requests.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn judged(judge: Judge) -> Self {
        Self::with(Some(judge)).await
    }

    async fn with(judge: Option<Judge>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            good: Mutex::default(),
            judge,
            seen: watch::Sender::new(Vec::new()),
            gate: watch::Sender::new(false),
            produced: AtomicU64::new(0),
            streams: watch::Sender::new(0),
        });
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        let mut server = JoinSet::new();
        server.spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self {
            address,
            shared,
            _server: server,
        }
    }

    /// Takes these tokens from now on, and no others.
    pub fn accept(&self, tokens: &[&str]) {
        let mut good = self
            .shared
            .good
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *good = tokens.iter().map(|t| (*t).to_owned()).collect();
    }

    /// Lets gated streams go on.
    pub fn open(&self) {
        self.shared.gate.send_replace(true);
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it was sent.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.borrow().clone()
    }

    /// What it was sent last.
    ///
    /// # Panics
    /// When it was sent nothing.
    pub fn last(&self) -> Seen {
        self.seen().pop().expect("a request")
    }

    /// Bytes of endless streams that were taken off its hands.
    pub fn produced(&self) -> u64 {
        self.shared.produced.load(Ordering::Relaxed)
    }

    /// Waits until it was sent so many requests.
    pub async fn until_seen(&self, count: usize) {
        let mut seen = self.shared.seen.subscribe();
        let _ = crate::within("a request", seen.wait_for(|seen| seen.len() >= count)).await;
    }

    /// Waits until so many streams are under way.
    pub async fn until_streams(&self, count: i64) {
        let mut streams = self.shared.streams.subscribe();
        let _ = crate::within("streams", streams.wait_for(|now| *now == count)).await;
    }
}

/// A stream that is under way, until it is dropped.
struct Underway(Arc<Shared>);

impl Underway {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.streams.send_modify(|n| *n += 1);
        Self(Arc::clone(shared))
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.streams.send_modify(|n| *n -= 1);
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 << 20)
        .await
        .unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let token = token_of(&head);
    let path = head.uri.path().to_owned();
    if shared.judge.is_none() {
        let seen = Seen {
            method: head.method.to_string(),
            path: head
                .uri
                .path_and_query()
                .map(ToString::to_string)
                .unwrap_or_default(),
            headers: head.headers.clone(),
            body: body.clone(),
            token: token.clone(),
        };
        shared.seen.send_modify(|all| all.push(seen));
    }
    let verdict = match &shared.judge {
        Some(judge) => judge(token.clone()).await,
        None => {
            let good = shared.good.lock().unwrap_or_else(PoisonError::into_inner);
            good.contains(&token)
                .then_some(())
                .ok_or_else(|| "it is not good".to_owned())
        }
    };
    if let Err(why) = verdict {
        // Some APIs say which token they refuse.
        let error = json!({"error": {"message": format!("bad token {token}: {why}")}});
        return (StatusCode::UNAUTHORIZED, axum::Json(error)).into_response();
    }
    let special = head
        .headers
        .get("x-test")
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    if special == "hang" {
        let _underway = Underway::new(&shared);
        return std::future::pending().await;
    }
    let streamed = body["stream"] == true || path.contains(":stream");
    if streamed || special == "endless" || special == "stall" {
        return events(&shared, &path, special);
    }
    let answer = whole(&path, &body);
    (
        [(SET_COOKIE, "session=of-the-upstream")],
        axum::Json(answer),
    )
        .into_response()
}

/// The token, wherever it stands.
fn token_of(head: &Parts) -> String {
    let header = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok());
    let query = || {
        let mut pairs = head
            .uri
            .query()?
            .split('&')
            .filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(name, _)| *name == "key")
            .map(|(_, value)| value)
    };
    let bearer = header(AUTHORIZATION.as_str()).and_then(|v| v.strip_prefix("Bearer "));
    let basic = || {
        let encoded = header(AUTHORIZATION.as_str())?.strip_prefix("Basic ")?;
        let pair = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
        Some(pair.strip_prefix("robot:")?.to_owned())
    };
    let token = bearer
        .or(header("x-api-key"))
        .or(header("x-goog-api-key"))
        .or_else(query);
    token.map(str::to_owned).or_else(basic).unwrap_or_default()
}

fn is_anthropic(path: &str) -> bool {
    path.ends_with("/messages") || path.contains("awPredict")
}

/// An answer at once.
fn whole(path: &str, body: &Value) -> Value {
    if path.ends_with("count_tokens") || path.contains("count-tokens") {
        json!({"input_tokens": 7})
    } else if is_anthropic(path) {
        json!({
            "id": "msg_1", "type": "message", "role": "assistant", "model": "routed",
            "content": [{"type": "text", "text": "hello"}],
            "stop_reason": "end_turn", "stop_sequence": null,
            "usage": {"input_tokens": 1, "output_tokens": 1},
        })
    } else if path.contains(":generateContent") {
        json!({"candidates": [{"content": {"role": "model", "parts": [{"text": "hello"}]}, "finishReason": "STOP"}]})
    } else if path.ends_with("/chat/completions") {
        json!({
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        })
    } else {
        json!({"ok": true})
    }
}

const WORDS: [&str; 3] = ["hel", "lo ", "there"];

/// The events of a streamed answer, as they stand on the wire.
fn wire(path: &str) -> Vec<String> {
    let event = |name: &str, data: Value| format!("event: {name}\ndata: {data}\n\n");
    if is_anthropic(path) {
        let mut all = vec![
            event(
                "message_start",
                json!({"type": "message_start", "message": {
                "id": "msg_1", "type": "message", "role": "assistant", "model": "routed", "content": [],
                "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 1, "output_tokens": 1}}}),
            ),
            event(
                "content_block_start",
                json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
            ),
        ];
        all.extend(WORDS.map(|word| event("content_block_delta", json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}))));
        all.push(event(
            "content_block_stop",
            json!({"type": "content_block_stop", "index": 0}),
        ));
        all.push(event("message_delta", json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null}, "usage": {"output_tokens": 3}})));
        all.push(event("message_stop", json!({"type": "message_stop"})));
        return all;
    }
    let chunk = |word: &str| {
        let data = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "routed",
            "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": null}]});
        format!("data: {data}\n\n")
    };
    let mut all: Vec<_> = WORDS.map(chunk).into();
    all.push("data: [DONE]\n\n".to_owned());
    all
}

fn events(shared: &Arc<Shared>, path: &str, special: &str) -> Response {
    let underway = Underway::new(shared);
    let headers = [(CONTENT_TYPE, "text/event-stream; charset=utf-8")];
    if special == "endless" {
        let counted = Arc::clone(shared);
        let block = Bytes::from(vec![b'x'; 64 << 10]);
        let endless = stream::repeat(()).map(move |()| {
            let _ = &underway;
            counted
                .produced
                .fetch_add(block.len() as u64, Ordering::Relaxed);
            Ok::<_, Infallible>(block.clone())
        });
        return (headers, Body::from_stream(endless)).into_response();
    }
    let gate = (special == "gated").then(|| shared.gate.subscribe());
    let stalls = special == "stall";
    let events = stream::iter(wire(path))
        .enumerate()
        .then(move |(at, event)| {
            let _ = &underway;
            let gate = gate.clone().filter(|_| at == 1);
            async move {
                if let Some(mut gate) = gate {
                    let _ = gate.wait_for(|open| *open).await;
                }
                if stalls && at == 1 {
                    std::future::pending::<()>().await;
                }
                Ok::<_, Infallible>(event)
            }
        });
    (headers, Body::from_stream(events)).into_response()
}
