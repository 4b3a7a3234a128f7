//! Whatever a caller shows, its route's token is what the upstream sees.

use evermint_agent::Config;
use evermint_agent_tests::{Api, Gateway, Running, bundle, route, token};
use evermint_proto::v1;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const VERTEX: &str = "/v1/projects/p/locations/l/publishers/anthropic/models";

fn live() -> v1::Token {
    token("API_TOKEN", "live-token", 1, None)
}

fn header(name: &str, prefix: &str) -> Option<v1::Auth> {
    let header = v1::HeaderAuth {
        name: name.to_owned(),
        prefix: prefix.to_owned(),
    };
    Some(v1::Auth {
        place: Some(v1::auth::Place::Header(header)),
    })
}

/// An agent with these routes to a stand-in API.
async fn start(routes: impl Fn(&str) -> Vec<v1::ResolvedRoute>) -> (Gateway, Api, Running) {
    let (gateway, api) = (Gateway::start().await, Api::start().await);
    api.accept(&["live-token"]);
    gateway.serve(bundle(1, routes(&api.url()), Vec::new()));
    let running = Running::start(&gateway, Config::default()).await;
    (gateway, api, running)
}

async fn post(
    running: &Running,
    path: &str,
    body: &Value,
    headers: &[(&str, &str)],
) -> reqwest::Response {
    let mut request = reqwest::Client::new()
        .post(running.url(path))
        .body(body.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

#[tokio::test]
async fn the_callers_credentials_are_taken_out_and_the_routes_are_put_in() {
    for (auth, path) in [
        (header("authorization", "Bearer "), CHAT),
        (header("x-api-key", ""), "/v1/messages"),
        (
            header("x-goog-api-key", ""),
            "/v1beta/models/x:generateContent",
        ),
        (
            Some(v1::Auth {
                place: Some(v1::auth::Place::Query("key".to_owned())),
            }),
            "/v1beta/models/x:generateContent",
        ),
        (
            Some(v1::Auth {
                place: Some(v1::auth::Place::Basic(v1::BasicAuth {
                    user: "robot".to_owned(),
                })),
            }),
            CHAT,
        ),
    ] {
        let (_gateway, api, running) = start(|url| {
            vec![v1::ResolvedRoute {
                auth: auth.clone(),
                ..route("inference.local", url, live())
            }]
        })
        .await;
        let shown = [
            ("authorization", "Bearer caller-secret"),
            ("x-api-key", "caller-secret"),
            ("api-key", "caller-secret"),
            ("x-goog-api-key", "caller-secret"),
            ("cookie", "session=caller-secret"),
            ("x-kept", "yes"),
        ];
        let path_shown = format!("{path}?key=caller-secret&alt=sse");
        let answer = post(&running, &path_shown, &json!({"model": "mine"}), &shown).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert!(
            !answer.headers().contains_key("set-cookie"),
            "an upstream's cookie"
        );
        let seen = api.last();
        assert_eq!(seen.token, "live-token");
        assert!(
            !format!("{:?} {}", seen.headers, seen.path).contains("caller-secret"),
            "{seen:?}"
        );
        assert_eq!(seen.headers["x-kept"], "yes");
        assert!(seen.path.contains("alt=sse"));
    }
}

#[tokio::test]
async fn the_routes_model_replaces_the_callers() {
    let (_gateway, api, running) = start(|url| {
        let vertex = format!("{url}{VERTEX}");
        vec![
            route("inference.local", url, live()),
            v1::ResolvedRoute {
                model_in_path: true,
                ..route("vertex", &vertex, live())
            },
            v1::ResolvedRoute {
                request_path_override: Some("/elsewhere".to_owned()),
                ..route("override", url, live())
            },
        ]
    })
    .await;
    let raw = format!("{VERTEX}/any:streamRawPredict");
    for (path, body, expected_path, expected_body) in [
        (
            CHAT,
            json!({"model": "mine", "n": 1.0}),
            CHAT,
            json!({"model": "routed", "n": 1.0}),
        ),
        (
            "/chat/completions",
            json!({}),
            CHAT,
            json!({"model": "routed"}),
        ),
        (
            "/v1beta/models/x:generateContent",
            json!({"contents": []}),
            "/v1beta/models/routed:generateContent",
            json!({"contents": []}),
        ),
        (
            "/route/vertex/v1/messages",
            json!({"model": "mine"}),
            &*format!("{VERTEX}/routed:rawPredict"),
            json!({"anthropic_version": "vertex-2023-10-16"}),
        ),
        (
            "/route/vertex/v1/messages",
            json!({"model": "mine", "stream": true}),
            &*format!("{VERTEX}/routed:streamRawPredict"),
            json!({"stream": true, "anthropic_version": "vertex-2023-10-16"}),
        ),
        (
            &*raw,
            json!({"anthropic_version": "v"}),
            "/v1/messages",
            json!({"model": "routed", "stream": true}),
        ),
        (
            "/route/override/v1/responses",
            json!({"input": "x"}),
            "/elsewhere",
            json!({"input": "x", "model": "routed"}),
        ),
    ] {
        let answer = post(&running, path, &body, &[]).await;
        assert_eq!(answer.status(), 200, "{path}");
        let seen = api.last();
        assert_eq!(
            (seen.path.as_str(), &seen.body),
            (expected_path, &expected_body),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_route_is_named_or_the_first_that_speaks_the_protocol() {
    let (_gateway, api, running) = start(|url| {
        let speaking = |name: &str, protocols: &[&str]| v1::ResolvedRoute {
            model: name.to_owned(),
            protocols: protocols.iter().map(|p| (*p).to_owned()).collect(),
            ..route(name, url, live())
        };
        vec![
            speaking("a", &["anthropic_messages"]),
            speaking("b", &["anthropic_messages", "openai_chat_completions"]),
            speaking("inference.local", &["openai_chat_completions"]),
        ]
    })
    .await;
    for (path, named, expected) in [
        (CHAT, None, Ok("inference.local")),
        (CHAT, Some("b"), Ok("b")),
        ("/route/b/v1/chat/completions", None, Ok("b")),
        (
            "/route/b/v1/chat/completions",
            Some("inference.local"),
            Ok("inference.local"),
        ),
        ("/v1/messages", None, Ok("a")),
        (CHAT, Some("a"), Err(404)),
        (CHAT, Some("none"), Err(404)),
        ("/v1/embeddings", None, Err(503)),
        ("/v1/files", None, Err(404)),
    ] {
        let headers: Vec<_> = named
            .map(|name| ("x-evermint-route", name))
            .into_iter()
            .collect();
        let answer = post(&running, path, &json!({"model": "mine"}), &headers).await;
        let found = match answer.status().as_u16() {
            200 => {
                let seen = api.last();
                assert!(!seen.headers.contains_key("x-evermint-route"));
                Ok(seen.body["model"].as_str().unwrap().to_owned())
            }
            status => Err(status),
        };
        assert_eq!(found, expected.map(str::to_owned), "{path} {named:?}");
    }
}

#[tokio::test]
async fn models_are_listed_without_asking_anybody() {
    let (_gateway, api, running) = start(|url| vec![route("inference.local", url, live())]).await;
    let answer = reqwest::get(running.url("/v1/models")).await.unwrap();
    let list: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(list["data"][0]["id"], "routed");
    assert!(api.seen().is_empty());
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_refused_before_anything_is_sent() {
    let (_gateway, api, running) = start(|url| vec![route("inference.local", url, live())]).await;
    for (body, encoding, status) in [
        ("[]", None, 400),
        ("{", None, 400),
        (r#"{"model":1,"model":2}"#, None, 400),
        ("{}", Some("gzip"), 415),
    ] {
        let mut request = reqwest::Client::new().post(running.url(CHAT)).body(body);
        if let Some(encoding) = encoding {
            request = request.header("content-encoding", encoding);
        }
        assert_eq!(request.send().await.unwrap().status(), status, "{body}");
    }
    assert!(api.seen().is_empty());
}

#[tokio::test]
async fn a_page_in_a_browser_is_not_served() {
    let (_gateway, api, running) = start(|url| vec![route("inference.local", url, live())]).await;
    for (name, value, status) in [
        // A name that somebody has made to point here.
        ("host", "evil.example", 421),
        ("sec-fetch-site", "cross-site", 421),
        ("sec-fetch-site", "same-site", 421),
        ("host", "localhost:1234", 200),
        ("host", "inference.local", 200),
        ("sec-fetch-site", "none", 200),
    ] {
        let answer = post(&running, CHAT, &json!({}), &[(name, value)]).await;
        assert_eq!(answer.status(), status, "{name}: {value}");
        let local = reqwest::Client::new()
            .get(running.local_url("/healthz"))
            .header(name, value);
        assert_eq!(
            local.send().await.unwrap().status(),
            status,
            "{name}: {value}"
        );
    }
    assert_eq!(api.seen().len(), 3);
}
