//! Calls that are not ours, with a gRPC server of another kind behind the gateway.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Response};
use axum::routing::post;
use evermint_core::secret::Secret;
use evermint_gateway::{AdminToken, Config, REASON, UpstreamGateway};
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::harness::{Harness, config};
use crate::secure;

/// Bodies that the other server still holds.
#[derive(Clone, Default)]
struct Open(Arc<AtomicUsize>);

/// Counts itself while it lives.
struct Held(Open);

impl Held {
    fn new(open: &Open) -> Self {
        open.0.fetch_add(1, Ordering::SeqCst);
        Self(open.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A server that knows nothing of protobuf: it sends back the frames that it gets, and what it saw
/// of the head.
async fn other(open: Open) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = router(open);
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

fn router(open: Open) -> Router {
    let echo = move |request: Request| {
        let held = Held::new(&open);
        async move {
            let seen = |name: &str| request.headers().get(name).cloned();
            let (token, timeout) = (seen("authorization"), seen("grpc-timeout"));
            let frames = request.into_body().into_data_stream().map(move |frame| {
                let _held = &held;
                frame
            });
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            trailers.insert("x-end", HeaderValue::from_static("well"));
            let body =
                Body::from_stream(frames).with_trailers(std::future::ready(Some(Ok(trailers))));
            let mut answer = Response::builder().header("content-type", "application/grpc");
            for (name, value) in [("x-token", token), ("x-timeout", timeout)] {
                if let Some(value) = value {
                    answer = answer.header(name, value);
                }
            }
            answer.body(Body::new(body)).unwrap()
        }
    };
    let fail = || async {
        Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "9")
            .header("grpc-message", "not%20now")
            .header("x-reason", "theirs")
            .body(Body::empty())
            .unwrap()
    };
    let hang = || std::future::pending::<Response<Body>>();
    Router::new()
        .route("/other.v1.Echo/Any", post(echo))
        .route("/other.v1.Echo/Fail", post(fail))
        .route("/other.v1.Echo/Hang", post(hang))
}

/// A gateway with an operator's token, in front of the server at `url`.
async fn before(url: &str) -> Harness {
    trusting(url, None).await
}

/// The same, with the authority that may vouch for that server.
async fn trusting(url: &str, ca: Option<PathBuf>) -> Harness {
    Harness::with(Config {
        admin: Some(AdminToken::new(&Secret::from("ours"))),
        upstream_gateway: Some(UpstreamGateway {
            url: url.to_owned(),
            ca,
        }),
        ..config()
    })
    .await
}

type Answer = Result<tonic::Response<Streaming<String>>, Status>;

/// A call that streams both ways, with a token that only the other server knows.
async fn call(harness: &Harness, path: &str, messages: mpsc::Receiver<String>) -> Answer {
    call_with("Bearer theirs", harness, path, messages).await
}

async fn call_with(
    token: &str,
    harness: &Harness,
    path: &str,
    messages: mpsc::Receiver<String>,
) -> Answer {
    let mut client = tonic::client::Grpc::new(harness.channel.clone());
    client.ready().await.unwrap();
    let mut request = tonic::Request::new(ReceiverStream::new(messages));
    let token = token.parse().unwrap();
    request.metadata_mut().insert("authorization", token);
    request.set_timeout(Duration::from_secs(20));
    let path: PathAndQuery = path.parse().unwrap();
    let codec = ProstCodec::<String, String>::default();
    client.streaming(request, path, codec).await
}

/// Messages that are all there, and no more to come.
fn all(messages: &[&str]) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(messages.len().max(1));
    for message in messages {
        sender.try_send((*message).to_owned()).unwrap();
    }
    receiver
}

#[tokio::test]
async fn messages_metadata_deadline_and_trailers_pass_both_ways() {
    let harness = before(&other(Open::default()).await).await;
    for messages in [vec!["one"], vec!["one", "two", "three"], vec![]] {
        let answer = call(&harness, "/other.v1.Echo/Any", all(&messages)).await;
        let answer = answer.unwrap();
        assert_eq!(answer.metadata().get("x-token").unwrap(), "Bearer theirs");
        assert!(answer.metadata().contains_key("x-timeout"));
        let mut stream = answer.into_inner();
        let mut got = Vec::new();
        while let Some(message) = stream.message().await.unwrap() {
            got.push(message);
        }
        assert_eq!(got, messages);
        let trailers = stream.trailers().await.unwrap().unwrap();
        assert_eq!(trailers.get("x-end").unwrap(), "well");
    }
}

#[tokio::test]
async fn a_message_passes_before_the_next_one_is_there() {
    let harness = before(&other(Open::default()).await).await;
    let (sender, receiver) = mpsc::channel(1);
    sender.send("ping 0".to_owned()).await.unwrap();
    let answer = call(&harness, "/other.v1.Echo/Any", receiver).await;
    let mut stream = answer.unwrap().into_inner();
    for turn in 1..=5 {
        let echoed = stream.message().await.unwrap().unwrap();
        assert_eq!(echoed, format!("ping {}", turn - 1));
        sender.send(format!("ping {turn}")).await.unwrap();
    }
}

#[tokio::test]
async fn calls_pass_over_tls_to_whom_the_authority_vouches_for_alone() {
    let url = secure::serve(router(Open::default())).await;
    let known = secure::tls_files().certificate;
    let harness = trusting(&url, Some(known)).await;
    let answer = call(&harness, "/other.v1.Echo/Any", all(&["safe"]));
    let mut stream = answer.await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().as_deref(), Some("safe"));

    let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), stranger.cert.pem()).unwrap();
    for ca in [Some(file.path().to_owned()), None] {
        let harness = trusting(&url, ca.clone()).await;
        let refused = call(&harness, "/other.v1.Echo/Any", all(&["safe"])).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{ca:?}: {refused:?}");
        let reason = refused.metadata().get(REASON);
        assert_eq!(reason.unwrap(), "upstream-unreachable", "{ca:?}");
    }
}

#[tokio::test]
async fn a_large_message_passes_whole() {
    let harness = before(&other(Open::default()).await).await;
    let large = "x".repeat(3 << 20);
    let answer = call(&harness, "/other.v1.Echo/Any", all(&[&large])).await;
    let echoed = answer.unwrap().into_inner().message().await.unwrap();
    assert!(echoed == Some(large));
}

#[tokio::test]
async fn a_failure_keeps_its_code_its_words_and_its_metadata() {
    let harness = before(&other(Open::default()).await).await;
    let status = call(&harness, "/other.v1.Echo/Fail", all(&[]))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(status.message(), "not now");
    assert_eq!(status.metadata().get("x-reason").unwrap(), "theirs");
}

#[tokio::test]
async fn a_caller_that_goes_away_is_gone_behind_the_gateway_too() {
    let open = Open::default();
    let harness = before(&other(open.clone()).await).await;
    let (sender, receiver) = mpsc::channel(1);
    sender.send("hello".to_owned()).await.unwrap();
    let answer = call(&harness, "/other.v1.Echo/Any", receiver).await;
    let mut stream = answer.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap(), "hello");
    assert_eq!(open.0.load(Ordering::SeqCst), 1);
    drop((stream, sender));
    let gone = async {
        while open.0.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let gone = tokio::time::timeout(Duration::from_secs(10), gone).await;
    gone.expect("the other server hears of it");
}

#[tokio::test]
async fn a_server_that_hangs_costs_its_caller_the_deadline_and_nobody_else_anything() {
    let harness = before(&other(Open::default()).await).await;
    let mut client = tonic::client::Grpc::new(harness.channel.clone());
    client.ready().await.unwrap();
    let mut request = tonic::Request::new(String::new());
    request.set_timeout(Duration::from_millis(300));
    let path = PathAndQuery::from_static("/other.v1.Echo/Hang");
    let codec = ProstCodec::<String, String>::default();
    let late = client.unary(request, path, codec).await.unwrap_err();
    let codes = [Code::DeadlineExceeded, Code::Cancelled];
    assert!(codes.contains(&late.code()), "{late:?}");
    let answer = call(&harness, "/other.v1.Echo/Any", all(&["still here"])).await;
    assert!(answer.is_ok());
}

#[tokio::test]
async fn an_unreachable_server_is_said_to_be_unavailable() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let harness = before(&url).await;
    let status = call(&harness, "/other.v1.Echo/Any", all(&[]))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(
        status.metadata().get(REASON).unwrap(),
        "upstream-unreachable"
    );
}

#[tokio::test]
async fn our_own_methods_are_answered_here_and_still_need_our_token() {
    let harness = before(&other(Open::default()).await).await;
    let path = "/evermint.v1.Providers/ListProviders";
    let refused = call(&harness, path, all(&[])).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    for unknown in [
        "/evermint.v1.Providers/Nonsense",
        "/evermint.v1.Nonsense/Get",
    ] {
        let refused = call(&harness, unknown, all(&[])).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{unknown}");
        let ours = call_with("Bearer ours", &harness, unknown, all(&[])).await;
        let refused = ours.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{unknown}");
    }
}

#[tokio::test]
async fn without_a_gateway_behind_it_a_foreign_method_is_unimplemented() {
    let harness = Harness::start().await;
    let status = call(&harness, "/other.v1.Echo/Any", all(&[]))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}
