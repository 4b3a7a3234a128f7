//! What a caller is told when there is no answer: in its SDK's own shape, and nothing secret.

use evermint_agent::Config;
use evermint_agent_tests::{Api, Gateway, Running, bundle, credential, route, token, within};
use evermint_proto::v1;
use serde_json::{Value, json};

async fn ask(running: &Running, path: &str) -> (u16, Option<String>, Value) {
    let request = reqwest::Client::new().post(running.url(path)).body("{}");
    let answer = within("an answer", request.send()).await.unwrap();
    let status = answer.status().as_u16();
    let retry = answer
        .headers()
        .get("retry-after")
        .map(|v| v.to_str().unwrap().to_owned());
    let body = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    (status, retry, body)
}

#[tokio::test]
async fn without_a_token_the_answer_is_503_and_says_why_and_when_to_ask_again() {
    let gone = v1::Unavailable {
        verdict: v1::Verdict::NeedsReauthorization as i32,
        cause: "the grant is gone".to_owned(),
    };
    let api = Api::start().await;
    let expired = token("API_TOKEN", "old-secret", 1, Some(0));
    let good = || {
        route(
            "inference.local",
            &api.url(),
            token("API_TOKEN", "x", 1, None),
        )
    };
    for (routes, says) in [
        (None, "no gateway"),
        (
            Some(vec![route("inference.local", &api.url(), expired)]),
            "expired",
        ),
        (
            Some(vec![v1::ResolvedRoute {
                token: None,
                unavailable: Some(gone),
                ..good()
            }]),
            "the grant is gone",
        ),
        (Some(Vec::new()), "no route"),
    ] {
        let gateway = Gateway::start().await;
        let running = Running::begin(&gateway, Config::default()).await;
        if let Some(routes) = routes {
            gateway.serve(bundle(1, routes, Vec::new()));
            running.has(1).await;
        }
        for (path, message) in [
            ("/v1/chat/completions", "/error/message"),
            ("/v1/messages", "/error/message"),
            ("/v1beta/models/x:generateContent", "/error/message"),
        ] {
            let (status, retry, body) = ask(&running, path).await;
            assert_eq!((status, retry.as_deref()), (503, Some("2")), "{says}");
            let text = body
                .pointer(message)
                .and_then(Value::as_str)
                .unwrap_or_default();
            assert!(text.contains(says), "{text:?} should say {says:?}");
            assert!(!body.to_string().contains("old-secret"));
        }
        let (_, _, anthropic) = ask(&running, "/v1/messages").await;
        assert_eq!(anthropic["type"], "error");
        assert_eq!(anthropic["error"]["type"], "overloaded_error");
    }
    assert!(api.seen().is_empty());
}

#[tokio::test]
async fn an_upstream_that_cannot_be_reached_is_said() {
    let gateway = Gateway::start().await;
    // A port on which nobody listens: it was just given back.
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for (base_url, status, reason) in [
        (format!("http://{closed}"), 503, "upstream-unreachable"),
        (String::new(), 502, "bad-route"),
    ] {
        let live = token("API_TOKEN", "live-secret", 1, None);
        let generation = status;
        gateway.serve(bundle(
            generation,
            vec![route("inference.local", &base_url, live)],
            Vec::new(),
        ));
        let running = Running::start(&gateway, Config::default()).await;
        let (found, _, body) = ask(&running, "/v1/chat/completions").await;
        assert_eq!(
            (u64::from(found), &body["error"]["code"]),
            (status, &json!(reason))
        );
        assert!(!body.to_string().contains("live-secret"));
    }
}

#[tokio::test]
async fn health_and_readiness_are_told_on_loopback_and_metrics_where_they_are_asked_for() {
    let gateway = Gateway::start().await;
    let config = Config {
        metrics: true,
        ..Config::default()
    };
    let running = Running::begin(&gateway, config).await;
    let get = async |path: &str| {
        let answer = reqwest::get(running.local_url(path)).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(get("/healthz").await.0, 200);
    assert_eq!(get("/readyz").await.0, 503);
    let live = token("API_TOKEN", "live-secret", 1, Some(3_600_000));
    let credentials = vec![credential("test", "API_TOKEN", live)];
    gateway.serve(bundle(5, Vec::new(), credentials));
    running.has(5).await;
    assert_eq!(get("/readyz").await.0, 200);
    let (status, text) = get("/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "# TYPE evermint_agent_answered_total counter\nevermint_agent_answered_total 0\n",
        "evermint_agent_in_flight 0\n",
        "# HELP evermint_client_changes_total Contents that replaced another one.\n",
        "evermint_client_ready 1\n",
        "evermint_client_bundle_generation 5\n",
        "evermint_client_token_usable{provider=\"test\",key=\"API_TOKEN\"} 1\n",
        "evermint_client_token_seconds_left{provider=\"test\",key=\"API_TOKEN\"} 35",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    assert!(!text.contains("live-secret"), "{text}");
    let quiet = Running::begin(&gateway, Config::default()).await;
    let answer = reqwest::get(quiet.local_url("/metrics")).await.unwrap();
    assert_eq!(answer.status(), 404);
    for path in [
        "/",
        "/computeMetadata/v1/project/project-id",
        "/aws/credentials",
        "/azure/token",
    ] {
        assert_eq!(
            get(path).await.0,
            404,
            "{path} is off unless it is asked for"
        );
    }
}
