//! A token that is replaced, in time or too late.

use std::time::Duration;

use evermint_agent::{Config, Limits};
use evermint_agent_tests::{Api, Gateway, Running, bundle, route, token, within};
use evermint_proto::v1::report_token_response::Outcome;

async fn start(limits: Limits) -> (Gateway, Api, Running) {
    let (gateway, api) = (Gateway::start().await, Api::start().await);
    gateway.serve(with(&api, 1, "one"));
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

fn with(api: &Api, generation: u64, value: &str) -> evermint_proto::v1::Bundle {
    let live = token("API_TOKEN", value, generation, None);
    bundle(
        generation,
        vec![route("inference.local", &api.url(), live)],
        Vec::new(),
    )
}

fn call(running: &Running) -> reqwest::RequestBuilder {
    reqwest::Client::new()
        .post(running.url("/v1/chat/completions"))
        .body(r#"{"stream":true}"#)
}

#[tokio::test]
async fn a_rotation_during_a_stream_breaks_nothing_and_the_next_call_uses_the_new_token() {
    let (gateway, api, running) = start(Limits::default()).await;
    api.accept(&["one"]);
    let answer = call(&running)
        .header("x-test", "gated")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    gateway.serve(with(&api, 2, "two"));
    api.accept(&["two"]);
    running.has(2).await;
    api.open();
    let text = within("the rest of the stream", answer.text())
        .await
        .unwrap();
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    assert_eq!(call(&running).send().await.unwrap().status(), 200);
    assert_eq!(api.last().token, "two");
}

#[tokio::test]
async fn a_call_whose_token_is_refused_waits_for_another_one() {
    let (gateway, api, running) = start(Limits::default()).await;
    api.accept(&["two"]);
    let caller = tokio::spawn(call(&running).send());
    api.until_seen(1).await;
    assert_eq!(api.last().token, "one");
    gateway.serve(with(&api, 2, "two"));
    let answer = within("the answer", caller).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    let tokens: Vec<_> = api.seen().into_iter().map(|seen| seen.token).collect();
    assert_eq!(tokens, ["one", "two"]);
}

#[tokio::test]
async fn a_call_whose_token_is_refused_twice_is_given_up_and_nothing_secret_is_told() {
    let (gateway, api, running) = start(Limits::default()).await;
    api.accept(&["three"]);
    let caller = tokio::spawn(call(&running).send());
    api.until_seen(1).await;
    gateway.serve(with(&api, 2, "two-secret"));
    let answer = within("the answer", caller).await.unwrap().unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["x-evermint-reason"], "token-refused");
    assert!(answer.headers().contains_key("retry-after"));
    // The API says in its answer which token it refuses.
    let text = answer.text().await.unwrap();
    assert!(
        !text.contains("two-secret") && text.contains("provider-of-inference.local"),
        "{text}"
    );
    assert_eq!(api.seen().len(), 2);
}

#[tokio::test]
async fn a_call_does_not_wait_for_another_token_for_ever() {
    let limits = Limits {
        rotation: Duration::from_millis(200),
        ..Limits::default()
    };
    let (_gateway, api, running) = start(limits).await;
    let answer = within("the answer", call(&running).send()).await.unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(api.seen().len(), 1);
}

#[tokio::test]
async fn a_refused_token_is_told_to_the_gateway_once() {
    let (gateway, api, running) = start(Limits::default()).await;
    api.accept(&["two"]);
    let callers: Vec<_> = (0..4)
        .map(|_| tokio::spawn(call(&running).send()))
        .collect();
    api.until_seen(4).await;
    gateway.serve(with(&api, 2, "two"));
    for caller in callers {
        let answer = within("the answer", caller).await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
    }
    let reported = gateway.reported();
    assert_eq!(reported.len(), 1, "{reported:?}");
    let told = &reported[0];
    assert_eq!(
        (&*told.provider, &*told.credential_key, told.generation),
        ("provider-of-inference.local", "API_TOKEN", 1)
    );
}

#[tokio::test]
async fn no_call_waits_for_a_token_that_does_not_come() {
    let limits = Limits {
        rotation: Duration::from_secs(3600),
        ..Limits::default()
    };
    let (gateway, api, running) = start(limits).await;
    gateway.answer_reports(Outcome::Stuck);
    for seen in 1..=2 {
        let answer = within("the answer", call(&running).send()).await.unwrap();
        assert_eq!((answer.status().as_u16(), api.seen().len()), (503, seen));
    }
    assert_eq!(gateway.reported().len(), 1);
}
