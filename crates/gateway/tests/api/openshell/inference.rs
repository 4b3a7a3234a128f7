//! Inference routes.

use evermint_proto::openshell::inference::v1;
use tonic::Code;

use crate::harness::Harness;

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
