//! Each bound, run into, while others are served.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use evermint_core::secret::Secret;
use evermint_gateway::{AdminToken, Bounds, Config, REASON, RETRY};
use evermint_proto::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

use crate::calls::{bearer, call_with, sandbox_token};
use crate::harness::{Harness, config, credentials};

const READ: &str = "/evermint.v1.Providers/ListProviders";
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

async fn bounded(change: impl FnOnce(&mut Bounds)) -> Harness {
    let mut bounds = Bounds::default();
    change(&mut bounds);
    let harness = Harness::with(Config { bounds, ..config() }).await;
    served(&harness.channel).await;
    harness
}

/// Others are served.
async fn served(channel: &Channel) {
    let answer = timeout(PATIENCE, call_with(channel, READ, None, Vec::new())).await;
    answer.expect("an answer in time").expect("a good one");
}

fn other(harness: &Harness) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", harness.address));
    endpoint.unwrap().connect_lazy()
}

/// A connection from an address of this host.
async fn from(address: [u8; 4], harness: &Harness) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let address = SocketAddr::from((Ipv4Addr::from(address), 0));
    socket.bind(address).unwrap();
    socket.connect(harness.address).await.unwrap()
}

/// One frame ([RFC 9113 §4.1](https://www.rfc-editor.org/rfc/rfc9113#section-4.1)).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [&head[..], &stream.to_be_bytes(), payload].concat()
}

fn greeting() -> Vec<u8> {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    [&preface[..], &frame(4, 0, 0, &[])].concat()
}

/// The header of a call, from the static table of HPACK.
fn header(path: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend(path.as_bytes());
    block
}

/// Waits until the server has closed a connection, and gives what it said before.
async fn closed(mut connection: TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    let mut chunk = vec![0; 4096];
    let ended = timeout(PATIENCE, async {
        while let Ok(n @ 1..) = connection.read(&mut chunk).await {
            said.extend_from_slice(&chunk[..n]);
        }
    });
    ended.await.expect("the server closes the connection");
    said
}

/// Whether the server answers the greeting of a connection.
async fn is_greeted(connection: &mut TcpStream) -> bool {
    // A connection that was closed may take bytes, and may not.
    let _ = connection.write_all(&greeting()).await;
    let mut first = [0; 9];
    let read = timeout(PATIENCE, connection.read_exact(&mut first)).await;
    read.expect("an answer or an end").is_ok()
}

#[tokio::test]
async fn one_address_has_so_many_connections_and_others_have_theirs() {
    let harness = bounded(|b| b.connections_per_peer = 3).await;
    let mut first = from([127, 0, 0, 2], &harness).await;
    let mut second = from([127, 0, 0, 2], &harness).await;
    let mut third = from([127, 0, 0, 2], &harness).await;
    for connection in [&mut first, &mut second, &mut third] {
        assert!(is_greeted(connection).await);
    }
    let mut fourth = from([127, 0, 0, 2], &harness).await;
    assert!(!is_greeted(&mut fourth).await);
    assert!(is_greeted(&mut from([127, 0, 0, 3], &harness).await).await);
    served(&harness.channel).await;

    // A place that is left is free again.
    drop(first);
    let again = timeout(PATIENCE, async {
        while !is_greeted(&mut from([127, 0, 0, 2], &harness).await).await {
            tokio::task::yield_now().await;
        }
    });
    again.await.expect("room for one more");
}

#[tokio::test]
async fn there_are_so_many_connections_in_all() {
    let harness = bounded(|b| b.connections = 3).await;
    let mut held = Vec::new();
    for last in [2, 3] {
        let mut connection = from([127, 0, 0, last], &harness).await;
        assert!(is_greeted(&mut connection).await);
        held.push(connection);
    }
    assert!(!is_greeted(&mut from([127, 0, 0, 4], &harness).await).await);
    served(&harness.channel).await;
}

#[tokio::test]
async fn a_greeting_that_drips_or_stops_has_its_time() {
    let harness = bounded(|b| b.greeting = Duration::from_millis(300)).await;
    for start in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n\r\n"] {
        let mut connection = from([127, 0, 0, 2], &harness).await;
        connection.write_all(start).await.unwrap();
        closed(connection).await;
        served(&harness.channel).await;
    }
}

#[tokio::test]
async fn a_peer_that_gives_no_sign_of_life_is_dropped_wherever_it_stopped() {
    let harness = bounded(|b| {
        b.keepalive = Duration::from_millis(300);
        b.keepalive_timeout = Duration::from_secs(1);
    })
    .await;
    let path = header(READ);
    for (what, bytes) in [
        ("after its greeting", Vec::new()),
        // HEADERS without END_HEADERS, whose rest does not come.
        ("amid a header", frame(1, 0, 1, &path)),
        // HEADERS without END_STREAM, whose body does not come.
        ("amid a request", frame(1, 4, 1, &path)),
        ("amid a frame", frame(1, 4, 1, &path)[..12].to_vec()),
    ] {
        let mut connection = from([127, 0, 0, 2], &harness).await;
        assert!(is_greeted(&mut connection).await, "{what}");
        connection.write_all(&bytes).await.unwrap();
        closed(connection).await;
        served(&harness.channel).await;
    }
}

#[tokio::test]
async fn a_request_that_does_not_come_in_time_is_given_up() {
    let harness = bounded(|b| b.request_time = Duration::from_millis(300)).await;
    let mut grpc = tonic::client::Grpc::new(harness.channel.clone());
    grpc.ready().await.unwrap();
    let never = Request::new(tokio_stream::pending::<()>());
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let path = http::uri::PathAndQuery::from_static(READ);
    let slow = timeout(PATIENCE, grpc.client_streaming(never, path, codec)).await;
    let refused = slow.expect("an answer").unwrap_err();
    assert_eq!(refused.code(), Code::DeadlineExceeded);
    assert_eq!(refused.metadata().get(REASON).unwrap(), "request-too-slow");
    served(&harness.channel).await;
}

#[tokio::test]
async fn a_request_or_a_header_that_is_too_long_is_refused() {
    let harness = bounded(|b| b.request_bytes = 1_000).await;
    let channel = other(&harness);
    let long = call_with(&channel, READ, None, vec![0; 1_001])
        .await
        .unwrap_err();
    assert_eq!(long.code(), Code::OutOfRange);
    assert_eq!(long.metadata().get(REASON).unwrap(), "message-too-large");
    served(&harness.channel).await;
    // Nobody asks for a token here, so that it is the length alone that counts.
    let header = bearer(&"x".repeat(20_000));
    for (max, is_taken) in [(16 << 10, false), (64 << 10, true)] {
        let harness = bounded(|b| b.header_bytes = max).await;
        let called = call_with(&other(&harness), READ, Some(&header), Vec::new()).await;
        assert_eq!(called.is_ok(), is_taken, "{max}: {called:?}");
        served(&harness.channel).await;
    }
}

#[tokio::test]
async fn calls_that_are_taken_back_by_the_hundred_end_their_connection() {
    let harness = bounded(|b| b.resets = 20).await;
    let mut connection = from([127, 0, 0, 2], &harness).await;
    assert!(is_greeted(&mut connection).await);
    let mut flood = Vec::new();
    for stream in (1..4_000).step_by(2) {
        flood.extend(frame(1, 4, stream, &header(READ)));
        flood.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
    }
    // The server may close before all of it is written.
    let _ = connection.write_all(&flood).await;
    let said = closed(connection).await;
    // GOAWAY says ENHANCE_YOUR_CALM, where it arrives before the reset of the connection.
    let calm = 11_u32.to_be_bytes();
    assert!(said.is_empty() || said.windows(4).any(|w| w == calm) || said.len() < 9);
    served(&harness.channel).await;
}

#[tokio::test]
async fn calls_that_break_the_protocol_by_the_hundred_end_their_connection() {
    // One byte of content, says the header, and then there are five: an error of the call alone.
    let bad = [&header(READ)[..], &[0x0f, 0x0d, 1, b'1']].concat();
    for (errors, ends) in [(20, true), (100_000, false)] {
        let harness = bounded(|b| {
            b.errors = errors;
            b.resets = 100_000;
        })
        .await;
        let mut connection = from([127, 0, 0, 2], &harness).await;
        assert!(is_greeted(&mut connection).await);
        let mut flood = Vec::new();
        for stream in (1..400).step_by(2) {
            flood.extend(frame(1, 4, stream, &bad));
            flood.extend(frame(0, 1, stream, &[0; 5]));
        }
        let _ = connection.write_all(&flood).await;
        if ends {
            closed(connection).await;
        } else {
            // A ping is answered after all of it.
            connection
                .write_all(&frame(6, 0, 0, b"are-you?"))
                .await
                .unwrap();
            let mut said = Vec::new();
            let answered = timeout(PATIENCE, async {
                let mut chunk = vec![0; 4096];
                while !said.windows(8).any(|w| w == b"are-you?") {
                    match connection.read(&mut chunk).await {
                        Ok(n @ 1..) => said.extend_from_slice(&chunk[..n]),
                        _ => return false,
                    }
                }
                true
            });
            assert!(answered.await.expect("an answer"), "without the bound");
        }
        served(&harness.channel).await;
    }
}

#[tokio::test]
async fn a_flood_of_pings_and_settings_holds_up_nobody_else() {
    let harness = bounded(|_| {}).await;
    for flood in [frame(6, 0, 0, &[7; 8]), frame(4, 0, 0, &[])] {
        let mut connection = from([127, 0, 0, 2], &harness).await;
        connection.write_all(&greeting()).await.unwrap();
        // Nobody reads what it answers, until it takes no more.
        let flood = flood.repeat(1_000);
        let mut sent = 0;
        while sent < 2_000
            && matches!(
                timeout(Duration::from_millis(500), connection.write_all(&flood)).await,
                Ok(Ok(()))
            )
        {
            sent += 1;
            if sent % 500 == 0 {
                served(&harness.channel).await;
            }
        }
        served(&harness.channel).await;
    }
}

#[tokio::test]
async fn a_connection_has_so_many_calls_at_once_and_others_have_theirs() {
    let harness = bounded(|b| b.streams = 2).await;
    let sandbox = v1::CreateSandboxRequest {
        name: "box".to_owned(),
        ..Default::default()
    };
    harness.sandboxes().create_sandbox(sandbox).await.unwrap();
    let watch = || v1::WatchBundleRequest {
        sandbox: "box".to_owned(),
        ..Default::default()
    };
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = harness
            .bundles()
            .watch_bundle(watch())
            .await
            .unwrap()
            .into_inner();
        assert!(stream.message().await.unwrap().is_some());
        held.push(stream);
    }
    let third = timeout(
        Duration::from_millis(300),
        call_with(&harness.channel, READ, None, Vec::new()),
    );
    assert!(third.await.is_err(), "the third waits");
    served(&other(&harness)).await;
    held.pop();
    served(&harness.channel).await;
}

#[tokio::test]
async fn a_caller_who_calls_too_often_is_told_when_to_come_back_and_others_are_served() {
    let bounds = Bounds {
        calls_per_second: 1,
        calls_burst: 5,
        ..Bounds::default()
    };
    let admin = Some(AdminToken::new(&Secret::from("the-operator")));
    let harness = Harness::with(Config {
        bounds,
        admin,
        ..config()
    })
    .await;
    let token = sandbox_token(&harness, "the-operator", "box").await;
    let shown = bearer(&token);
    let own = "/evermint.v1.Bundles/GetBundle";
    let mut refused = None;
    for _ in 0..30 {
        if let Err(status) = call_with(&harness.channel, own, Some(&shown), Vec::new()).await {
            refused = Some(status);
            break;
        }
    }
    let refused = refused.expect("too many calls");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(refused.metadata().get(REASON).unwrap(), "rate-limited");
    let wait = refused.metadata().get(RETRY).unwrap().to_str().unwrap();
    let wait = Duration::from_millis(wait.parse().unwrap());
    assert!(
        wait > Duration::ZERO && wait <= Duration::from_millis(1_002),
        "{wait:?}"
    );
    let told = String::from_utf8_lossy(refused.details()).into_owned();
    assert!(told.contains("google.rpc.RetryInfo"), "{told}");

    let operator = bearer("the-operator");
    let answer = call_with(&harness.channel, READ, Some(&operator), Vec::new()).await;
    answer.expect("the operator is served");
    tokio::time::sleep(wait).await;
    let again = call_with(&harness.channel, own, Some(&shown), Vec::new()).await;
    again.expect("served when it was told to come back");
}

#[tokio::test]
async fn an_address_with_many_failed_logins_waits_and_is_not_shut_out() {
    const BURST: u32 = 5;
    let bounds = Bounds {
        failed_logins_per_minute: 1,
        failed_logins_burst: BURST,
        ..Bounds::default()
    };
    let harness = Harness::with(Config {
        bounds,
        admin: Some(AdminToken::new(&Secret::from("the-operator"))),
        ..config()
    })
    .await;
    let (good, bad) = (bearer("the-operator"), bearer("a-guess"));
    let guess = async || {
        let refused = call_with(&harness.channel, READ, Some(&bad), Vec::new()).await;
        refused.unwrap_err()
    };
    for _ in 0..=BURST {
        assert_eq!(guess().await.code(), Code::Unauthenticated);
    }
    // More at once than may wait: the rest is sent away unread, and those who wait are not many.
    let flood = futures::future::join_all((0..1_000).map(|_| guess())).await;
    let (mut looked_at, mut sent_away) = (0, 0);
    for refused in flood {
        match refused.code() {
            Code::Unauthenticated => looked_at += 1,
            code => {
                assert_eq!(code, Code::ResourceExhausted, "{refused:?}");
                let reason = refused.metadata().get(REASON).unwrap();
                assert_eq!(reason, "too-many-logins");
                assert!(refused.metadata().get(RETRY).is_some());
                sent_away += 1;
            }
        }
    }
    assert!(looked_at > 0 && sent_away > 0, "{looked_at} {sent_away}");
    // Whoever shows a good token from there is let in.
    let answer = call_with(&harness.channel, READ, Some(&good), Vec::new()).await;
    answer.expect("a good token");
}

#[tokio::test]
async fn a_workspace_holds_so_much_and_others_hold_theirs() {
    let harness = bounded(|b| {
        b.providers = 2;
        b.credentials = 3;
        b.sandboxes = 1;
        b.routes = 1;
        b.profiles = 2;
    })
    .await;
    let provider = |workspace: &str, name: &str, keys: &[(&str, &str)]| {
        let request = v1::CreateProviderRequest {
            workspace: workspace.to_owned(),
            name: name.to_owned(),
            r#type: "generic".to_owned(),
            credentials: credentials(keys),
            ..Default::default()
        };
        let mut providers = harness.providers();
        async move { providers.create_provider(request).await.map(drop) }
    };
    let full = |status: tonic::Status| {
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        assert_eq!(status.metadata().get(REASON).unwrap(), "workspace-full");
    };
    provider("a", "one", &[("A", "1"), ("B", "2")])
        .await
        .unwrap();
    full(
        provider("a", "two", &[("C", "1"), ("D", "2")])
            .await
            .unwrap_err(),
    );
    provider("a", "two", &[("C", "1")]).await.unwrap();
    full(provider("a", "three", &[]).await.unwrap_err());
    provider("b", "one", &[("A", "1")]).await.unwrap();

    let update = v1::UpdateProviderRequest {
        workspace: "a".to_owned(),
        name: "one".to_owned(),
        credentials: credentials(&[("E", "1")]),
        ..Default::default()
    };
    full(
        harness
            .providers()
            .update_provider(update.clone())
            .await
            .unwrap_err(),
    );
    // A new value takes no room.
    let same = v1::UpdateProviderRequest {
        credentials: credentials(&[("A", "3")]),
        ..update
    };
    harness.providers().update_provider(same).await.unwrap();

    let sandbox = |workspace: &str, name: &str| {
        let request = v1::CreateSandboxRequest {
            workspace: workspace.to_owned(),
            name: name.to_owned(),
            ..Default::default()
        };
        let mut sandboxes = harness.sandboxes();
        async move { sandboxes.create_sandbox(request).await.map(drop) }
    };
    sandbox("a", "one").await.unwrap();
    full(sandbox("a", "two").await.unwrap_err());
    sandbox("b", "one").await.unwrap();

    let route = |workspace: &str, name: &str| {
        let request = v1::SetRouteRequest {
            workspace: workspace.to_owned(),
            name: name.to_owned(),
            provider: "one".to_owned(),
            model: "m".to_owned(),
            credential_key: "A".to_owned(),
            ..Default::default()
        };
        let mut inference = harness.inference();
        async move { inference.set_route(request).await.map(drop) }
    };
    route("a", "one").await.unwrap();
    full(route("a", "two").await.unwrap_err());
    route("a", "one").await.unwrap();
    route("b", "one").await.unwrap();

    let profiles = |workspace: &str, platform: bool, ids: &[&str]| {
        let text = |id: &&str| v1::ProfileText {
            source: format!("{id}.yaml"),
            yaml: format!("id: {id}\ncredentials:\n  - name: key\n    env_vars: [K]\n"),
        };
        let request = v1::ImportProfilesRequest {
            workspace: workspace.to_owned(),
            platform,
            texts: ids.iter().map(text).collect(),
        };
        let mut profiles = harness.profiles();
        async move { profiles.import_profiles(request).await.map(drop) }
    };
    profiles("a", false, &["p1"]).await.unwrap();
    full(profiles("a", false, &["p2", "p3"]).await.unwrap_err());
    profiles("a", false, &["p2"]).await.unwrap();
    full(profiles("a", false, &["p3"]).await.unwrap_err());
    profiles("b", false, &["p1"]).await.unwrap();
    profiles("", true, &["p1", "p2"]).await.unwrap();
    full(profiles("", true, &["p3"]).await.unwrap_err());
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_not_queued_for() {
    let harness = bounded(|_| {}).await;
    harness.provider("cloud", "KEY", "first").await;
    let sandbox = v1::CreateSandboxRequest {
        name: "box".to_owned(),
        providers: vec!["cloud".to_owned()],
        ..Default::default()
    };
    harness.sandboxes().create_sandbox(sandbox).await.unwrap();
    let watch = v1::WatchBundleRequest {
        sandbox: "box".to_owned(),
        ..Default::default()
    };
    // With as much room for what it has not read as HTTP/2 gives at first.
    let channel = Endpoint::from_shared(format!("http://{}", harness.address));
    let channel = channel.unwrap().initial_stream_window_size(65_535);
    let mut bundles = v1::bundles_client::BundlesClient::new(channel.connect_lazy());
    let watching = bundles.watch_bundle(watch).await;
    let mut stream = watching.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();

    const CHANGES: usize = 300;
    let writer = other(&harness);
    let mut providers = v1::providers_client::ProvidersClient::new(writer);
    for i in 0..CHANGES {
        let value = format!("{i:08}").repeat(1_000);
        let update = v1::UpdateProviderRequest {
            name: "cloud".to_owned(),
            credentials: credentials(&[("KEY", &value)]),
            ..Default::default()
        };
        providers.update_provider(update).await.unwrap();
    }
    let newest = harness.cluster.committed().meta.position.0;
    let mut read = 0;
    loop {
        let message = timeout(PATIENCE, stream.message())
            .await
            .expect("the newest comes");
        read += 1;
        if message.unwrap().expect("no end").generation >= newest {
            break;
        }
    }
    // What lay in the buffers of the connection, and the newest.
    assert!(read < CHANGES / 2, "{read} of {CHANGES} were kept");
}
