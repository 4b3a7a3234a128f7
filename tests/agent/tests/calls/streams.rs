//! Answers are streamed as they come, no faster than they are read, and no longer than they may be.

use std::time::Duration;

use evermint_agent::{Config, Limits};
use evermint_agent_tests::{Api, BOUND, Gateway, Running, bundle, route, token, within};
use futures::StreamExt;
use tokio::time::timeout;

async fn start(limits: Limits) -> (Gateway, Api, Running) {
    let (gateway, api) = (Gateway::start().await, Api::start().await);
    api.accept(&["live"]);
    let live = token("API_TOKEN", "live", 1, None);
    gateway.serve(bundle(
        1,
        vec![route("inference.local", &api.url(), live)],
        Vec::new(),
    ));
    let running = Running::start(
        &gateway,
        Config {
            limits,
            ..Config::default()
        },
    )
    .await;
    (gateway, api, running)
}

fn call(running: &Running, special: &'static str) -> reqwest::RequestBuilder {
    reqwest::Client::new()
        .post(running.url("/v1/chat/completions"))
        .header("x-test", special)
        .body(r#"{"stream":true}"#)
}

#[tokio::test]
async fn events_pass_untouched_and_at_once() {
    let (_gateway, api, running) = start(Limits::default()).await;
    let answer = call(&running, "gated").send().await.unwrap();
    assert_eq!(
        answer.headers()["content-type"],
        "text/event-stream; charset=utf-8"
    );
    let mut stream = answer.bytes_stream();
    // The API holds back the second event until the first was read here.
    let first = within("the first event", stream.next())
        .await
        .unwrap()
        .unwrap();
    assert!(
        first.starts_with(b"data: {") && first.ends_with(b"\n\n"),
        "{first:?}"
    );
    api.open();
    let mut text = first.to_vec();
    while let Some(bytes) = within("more events", stream.next()).await {
        text.extend_from_slice(&bytes.unwrap());
    }
    let direct = reqwest::Client::new()
        .post(format!("{}/v1/chat/completions", api.url()))
        .bearer_auth("live")
        .body(r#"{"stream":true}"#);
    let direct = direct.send().await.unwrap().bytes().await.unwrap();
    assert_eq!(text, direct);
}

#[tokio::test]
async fn a_slow_reader_slows_its_upstream_down() {
    let (_gateway, api, running) = start(Limits::default()).await;
    let answer = call(&running, "endless").send().await.unwrap();
    // Read a little, so that the stream flows; then not at all.
    let mut stream = answer.bytes_stream();
    within("a beginning", stream.next()).await.unwrap().unwrap();
    let mut before = u64::MAX;
    let settled = async {
        while api.produced() != before {
            before = api.produced();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    within("the upstream stands still", settled).await;
    assert!(before < 64 << 20, "{before} bytes are kept somewhere");
    // It goes on where it stood.
    let mut read = 0_u64;
    while read <= before + (1 << 20) {
        read += within("more", stream.next()).await.unwrap().unwrap().len() as u64;
    }
}

#[tokio::test]
async fn a_caller_that_leaves_ends_the_upstreams_work() {
    let (_gateway, api, running) = start(Limits::default()).await;
    for special in ["hang", "stall"] {
        let request = call(&running, special).send();
        let caller = tokio::spawn(async move {
            let mut stream = request.await.unwrap().bytes_stream();
            while stream.next().await.is_some() {}
        });
        api.until_streams(1).await;
        caller.abort();
        api.until_streams(0).await;
    }
}

#[tokio::test]
async fn an_upstream_that_falls_silent_is_cut_off() {
    let limits = Limits {
        idle: Duration::from_millis(300),
        ..Limits::default()
    };
    let (_gateway, api, running) = start(limits).await;
    let answer = call(&running, "stall").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(
        within("its end", answer.bytes()).await.is_err(),
        "half an answer is no answer"
    );
    api.until_streams(0).await;
}

#[tokio::test]
async fn a_call_ends_when_its_time_is_over() {
    let limits = Limits {
        call: Duration::from_millis(300),
        ..Limits::default()
    };
    let (_gateway, api, running) = start(limits).await;
    let late = call(&running, "hang").send().await.unwrap();
    assert_eq!(late.status(), 504);
    assert_eq!(late.headers()["x-evermint-reason"], "upstream-late");
    let torn = call(&running, "stall").send().await.unwrap();
    assert!(within("its end", torn.bytes()).await.is_err());
    api.until_streams(0).await;
}

#[tokio::test]
async fn calls_under_way_end_when_the_agent_is_stopped_and_no_others_begin() {
    let (_gateway, api, running) = start(Limits::default()).await;
    let answer = call(&running, "gated").send().await.unwrap();
    let url = running.url("/v1/models");
    let stopping = tokio::spawn(running.agent.shutdown(BOUND));
    let refused = async {
        // A new connection each time.
        while reqwest::Client::new().get(&url).send().await.is_ok() {}
    };
    within("nothing new is taken", refused).await;
    api.open();
    let text = within("the rest", answer.text()).await.unwrap();
    assert!(text.ends_with("data: [DONE]\n\n"));
    assert!(
        timeout(BOUND, stopping).await.unwrap().unwrap(),
        "it was drained"
    );
}
