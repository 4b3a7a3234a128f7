//! `evermint.v1.Inference`.

use evermint_proto::v1;
use tonic::Code;

use crate::harness::Harness;

fn route(name: &str) -> v1::SetRouteRequest {
    v1::SetRouteRequest {
        name: name.to_owned(),
        provider: "cloud".to_owned(),
        model: "large".to_owned(),
        timeout_secs: 30,
        ..Default::default()
    }
}

#[tokio::test]
async fn a_route_is_set_shown_replaced_and_deleted() {
    let harness = Harness::start().await;
    harness.provider("cloud", "A", "1").await;
    let mut inference = harness.inference();
    let set = inference.set_route(route("")).await.unwrap().into_inner();
    let shown = set.route.unwrap();
    assert_eq!(
        (shown.name.as_str(), shown.provider.as_str(), shown.version),
        ("inference.local", "cloud", 1)
    );
    let replaced = inference
        .set_route(v1::SetRouteRequest {
            credential_key: "A".to_owned(),
            model: "small".to_owned(),
            ..route("inference.local")
        })
        .await
        .unwrap()
        .into_inner()
        .route
        .unwrap();
    assert_eq!((replaced.model.as_str(), replaced.version), ("small", 2));

    let get = || v1::GetRouteRequest {
        consistent: true,
        ..Default::default()
    };
    let got = inference.get_route(get()).await.unwrap().into_inner();
    assert_eq!(got.route, Some(replaced));
    for deleted in [true, false] {
        let response = inference
            .delete_route(v1::DeleteRouteRequest::default())
            .await
            .unwrap();
        assert_eq!(response.into_inner().deleted, deleted);
    }
    let status = inference.get_route(get()).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn routes_are_listed_by_name_in_pages() {
    let harness = Harness::start().await;
    harness.provider("cloud", "A", "1").await;
    let mut inference = harness.inference();
    for name in ["c", "a", "e", "b", "d"] {
        inference.set_route(route(name)).await.unwrap();
    }
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = inference
            .list_routes(v1::ListRoutesRequest {
                page_size: 2,
                page_token,
                ..Default::default()
            })
            .await
            .unwrap()
            .into_inner();
        seen.extend(page.routes.into_iter().map(|r| r.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["a", "b", "c", "d", "e"]);
}

#[tokio::test]
async fn a_route_leads_to_what_there_is() {
    let harness = Harness::start().await;
    let mut inference = harness.inference();
    let status = inference.set_route(route("")).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::NotFound, "provider cloud not found")
    );
    harness.provider("cloud", "A", "1").await;
    let status = inference
        .set_route(v1::SetRouteRequest {
            credential_key: "B".to_owned(),
            ..route("")
        })
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::NotFound, "credential not found")
    );
}
