//! Inference routes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use evermint_gateway::{Post, Web};
use evermint_proto::openshell::inference::v1;
use serde_json::{Value, json};
use tonic::Code;

use crate::harness::{Harness, config};

fn set(provider: &str, model: &str, route: &str) -> v1::SetInferenceRouteRequest {
    v1::SetInferenceRouteRequest {
        provider_name: provider.to_owned(),
        model_id: model.to_owned(),
        route_name: route.to_owned(),
        no_verify: true,
        ..Default::default()
    }
}

fn get(route: &str) -> v1::GetInferenceRouteRequest {
    v1::GetInferenceRouteRequest {
        route_name: route.to_owned(),
        workspace: String::new(),
    }
}

#[tokio::test]
async fn a_route_is_set_looked_at_and_deleted() {
    let harness = Harness::start().await;
    harness
        .create("main", "openai", &[("OPENAI_API_KEY", "1")])
        .await;
    let mut client = harness.routes();
    harness
        .refuses(
            "GetInferenceRoute",
            get(""),
            Code::NotFound,
            "is not configured",
        )
        .await;
    for version in [1, 2] {
        let request = v1::SetInferenceRouteRequest {
            timeout_secs: 30 * version,
            ..set("main", "gpt-5", "")
        };
        let answer = client
            .set_inference_route(request)
            .await
            .unwrap()
            .into_inner();
        let expected = v1::SetInferenceRouteResponse {
            provider_name: "main".to_owned(),
            model_id: "gpt-5".to_owned(),
            version,
            route_name: "inference.local".to_owned(),
            timeout_secs: 30 * version,
            workspace: "default".to_owned(),
            ..Default::default()
        };
        assert_eq!(answer, expected);
    }
    client
        .set_inference_route(set("main", "small", "sandbox-system"))
        .await
        .unwrap();
    for (route, name, model, version, timeout_secs) in [
        ("", "inference.local", "gpt-5", 2, 60),
        ("inference.local", "inference.local", "gpt-5", 2, 60),
        ("sandbox-system", "sandbox-system", "small", 1, 0),
    ] {
        let got = client
            .get_inference_route(get(route))
            .await
            .unwrap()
            .into_inner();
        let expected = v1::GetInferenceRouteResponse {
            provider_name: "main".to_owned(),
            model_id: model.to_owned(),
            version,
            route_name: name.to_owned(),
            timeout_secs,
            workspace: "default".to_owned(),
        };
        assert_eq!(got, expected);
    }
    for deleted in [true, false] {
        let request = v1::DeleteInferenceRouteRequest::default();
        let answer = client.delete_inference_route(request).await.unwrap();
        assert_eq!(answer.into_inner().deleted, deleted);
    }
}

#[tokio::test]
async fn a_route_that_leads_nowhere_is_refused() {
    let harness = Harness::start().await;
    harness
        .create("main", "openai", &[("OPENAI_API_KEY", "1")])
        .await;
    harness.create("acme", "acme", &[("TOKEN", "1")]).await;
    harness.create("cloud", "google-vertex-ai", &[]).await;
    for (request, code, words) in [
        (
            set("", "m", ""),
            Code::InvalidArgument,
            "provider_name is required",
        ),
        (
            set("main", " ", ""),
            Code::InvalidArgument,
            "model_id is required",
        ),
        (
            set("main", "m", "other"),
            Code::InvalidArgument,
            "route_name must be one of",
        ),
        (
            set("nobody", "m", ""),
            Code::FailedPrecondition,
            "provider 'nobody' not found",
        ),
        (
            set("acme", "m", ""),
            Code::InvalidArgument,
            "unsupported type 'acme'",
        ),
        (
            set("cloud", "m", ""),
            Code::InvalidArgument,
            "no usable credential",
        ),
    ] {
        harness
            .refuses("SetInferenceRoute", request, code, words)
            .await;
    }
    let other = get("other");
    harness
        .refuses(
            "GetInferenceRoute",
            other,
            Code::InvalidArgument,
            "route_name must be one of",
        )
        .await;
    let delete = v1::DeleteInferenceRouteRequest {
        route_name: "other".to_owned(),
        workspace: String::new(),
    };
    harness
        .refuses(
            "DeleteInferenceRoute",
            delete,
            Code::InvalidArgument,
            "route_name must be one of",
        )
        .await;
}

/// Inference endpoints that answer as a test says, in order, and keep what they were sent: URL,
/// headers, and body.
#[derive(Default)]
struct Endpoints {
    answers: Mutex<VecDeque<Result<u16, String>>>,
    calls: Mutex<Vec<(String, Vec<String>, Value)>>,
}

#[async_trait]
impl Web for Endpoints {
    async fn get(&self, _: &str) -> Result<Vec<u8>, String> {
        Err("nothing to read".to_owned())
    }

    async fn post(&self, call: Post) -> Result<u16, String> {
        let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            format!("{name}: {}", value.to_str().unwrap())
        };
        let headers = call.headers.iter().map(header).collect();
        self.calls
            .lock()
            .unwrap()
            .push((call.url, headers, call.body));
        let answer = self.answers.lock().unwrap().pop_front();
        answer.unwrap_or_else(|| Err("it was asked once too often".to_owned()))
    }
}

impl Endpoints {
    fn answer(&self, answers: &[Result<u16, &str>]) {
        let answers = answers.iter().cloned();
        let answers = answers.map(|answer| answer.map_err(str::to_owned));
        self.answers.lock().unwrap().extend(answers);
    }

    fn calls(&self) -> Vec<(String, Vec<String>, Value)> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }
}

fn verified(provider: &str, model: &str) -> v1::SetInferenceRouteRequest {
    v1::SetInferenceRouteRequest {
        no_verify: false,
        ..set(provider, model, "")
    }
}

#[tokio::test]
async fn an_endpoint_is_tried_before_a_route_leads_there() {
    let endpoints = Arc::new(Endpoints::default());
    let harness = Harness::with_web(config(), Arc::clone(&endpoints) as _).await;
    harness
        .create("main", "openai", &[("OPENAI_API_KEY", "sk-canary")])
        .await;
    harness
        .create("claude", "anthropic", &[("ANTHROPIC_API_KEY", "sk-ant")])
        .await;
    let ping = json!([{"role": "user", "content": "ping"}]);
    let chat = "https://api.openai.com/v1/chat/completions";
    let first = (
        chat.to_owned(),
        vec!["authorization: Bearer sk-canary".to_owned()],
        json!({"model": "gpt-5", "messages": ping, "max_completion_tokens": 32}),
    );
    let second = (
        chat.to_owned(),
        vec!["authorization: Bearer sk-canary".to_owned()],
        json!({"model": "gpt-5", "messages": ping, "max_tokens": 32}),
    );
    let messages = (
        "https://api.anthropic.com/v1/messages".to_owned(),
        vec![
            "anthropic-version: 2023-06-01".to_owned(),
            "x-api-key: sk-ant".to_owned(),
        ],
        json!({"model": "opus", "messages": ping, "max_tokens": 32}),
    );
    for (request, answers, calls, protocol) in [
        (
            verified("main", "gpt-5"),
            &[Ok(200)][..],
            vec![first.clone()],
            "openai_chat_completions",
        ),
        (
            verified("main", "gpt-5"),
            &[Ok(400), Ok(201)],
            vec![first, second],
            "openai_chat_completions",
        ),
        (
            verified("claude", "opus"),
            &[Ok(200)],
            vec![messages],
            "anthropic_messages",
        ),
    ] {
        endpoints.answer(answers);
        let url = calls[0].0.clone();
        let set = harness.routes().set_inference_route(request).await;
        let set = set.unwrap().into_inner();
        assert!(set.validation_performed);
        let protocol = protocol.to_owned();
        assert_eq!(
            set.validated_endpoints,
            [v1::ValidatedEndpoint { url, protocol }]
        );
        assert_eq!(endpoints.calls(), calls);
    }
    // Nobody asked for it; `verify` alone says nothing.
    let skipped = v1::SetInferenceRouteRequest {
        verify: true,
        ..set("main", "gpt-5", "")
    };
    let skipped = harness.routes().set_inference_route(skipped).await;
    assert!(!skipped.unwrap().into_inner().validation_performed);
    assert!(endpoints.calls().is_empty());
}

#[tokio::test]
async fn a_route_is_not_set_when_its_endpoint_does_not_take_calls() {
    let endpoints = Arc::new(Endpoints::default());
    let harness = Harness::with_web(config(), Arc::clone(&endpoints) as _).await;
    harness
        .create("main", "openai", &[("OPENAI_API_KEY", "sk-canary")])
        .await;
    for (answers, words) in [
        (&[Ok(401)][..], "it refused the credential (HTTP 401)"),
        (&[Ok(429)], "(HTTP 429)"),
        (&[Ok(503)], "(HTTP 503)"),
        (&[Ok(302)], "(HTTP 302)"),
        (&[Ok(404), Ok(404)], "does not take such a call (HTTP 404)"),
        (&[Ok(400), Ok(401)], "refused the credential (HTTP 401)"),
        (
            &[Err("the endpoint has a private address (10.0.0.1)")],
            "has a private address",
        ),
        (&[Err("there was no answer within 30 s")], "within 30 s"),
    ] {
        endpoints.answer(answers);
        let mut routes = harness.routes();
        let refused = routes.set_inference_route(verified("main", "gpt-5"));
        let refused = refused.await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
        let message = refused.message();
        assert!(message.contains(words), "{message}");
        assert!(message.contains("'https://api.openai.com/v1'"), "{message}");
        assert!(message.contains("--no-verify"), "{message}");
        assert!(!format!("{refused:?}").contains("canary"), "{refused:?}");
        assert_eq!(endpoints.calls().len(), answers.len());
        harness
            .refuses(
                "GetInferenceRoute",
                get(""),
                Code::NotFound,
                "is not configured",
            )
            .await;
    }
}

#[tokio::test]
async fn a_route_uses_the_credential_that_its_profile_names_first() {
    let harness = Harness::start().await;
    let key = async |provider: &str| {
        let set = harness
            .routes()
            .set_inference_route(set(provider, "m", ""))
            .await;
        set.map(|_| {
            let state = harness.cluster.committed();
            let route = state.routes.values().next().unwrap();
            route.credential.as_ref().unwrap().to_string()
        })
    };
    for (name, kind, values, expected) in [
        (
            "both",
            "openai",
            &[("A_TOKEN", "1"), ("OPENAI_API_KEY", "2")][..],
            Ok("OPENAI_API_KEY"),
        ),
        ("own", "openai", &[("B", "1"), ("A", "2")], Ok("A")),
        (
            "account",
            "google-vertex-ai",
            &[("A", "1")],
            Err("no usable credential"),
        ),
        (
            "regionless",
            "google-vertex-ai",
            &[("A", "1"), ("GOOGLE_VERTEX_AI_TOKEN", "2")],
            Err("cannot be used for inference: the base URL"),
        ),
    ] {
        harness.create(name, kind, values).await;
        match (key(name).await, expected) {
            (Ok(chosen), Ok(expected)) => assert_eq!(chosen, expected, "{name}"),
            (Err(refused), Err(words)) => {
                assert_eq!(refused.code(), Code::InvalidArgument, "{name}");
                assert!(refused.message().contains(words), "{refused:?}");
            }
            (got, _) => panic!("{name}: {got:?}"),
        }
    }
}
