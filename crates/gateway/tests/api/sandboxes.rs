//! `evermint.v1.Sandboxes`, and their bundles over the wire.

use evermint_gateway::REASON;
use evermint_proto::v1;
use tonic::Code;

use crate::harness::Harness;

fn create(name: &str, providers: &[&str]) -> v1::CreateSandboxRequest {
    v1::CreateSandboxRequest {
        name: name.to_owned(),
        providers: providers.iter().map(|p| (*p).to_owned()).collect(),
        ..Default::default()
    }
}

fn attach(provider: &str, expected_version: Option<u64>) -> v1::AttachProviderRequest {
    v1::AttachProviderRequest {
        sandbox: "box".to_owned(),
        provider: provider.to_owned(),
        expected_version,
        ..Default::default()
    }
}

#[tokio::test]
async fn a_sandbox_is_created_shown_listed_and_deleted() {
    let harness = Harness::start().await;
    harness.provider("cloud", "A", "1").await;
    let mut sandboxes = harness.sandboxes();
    let created = sandboxes
        .create_sandbox(create("box", &["cloud"]))
        .await
        .unwrap()
        .into_inner()
        .sandbox
        .unwrap();
    assert_eq!(created.providers, ["cloud"]);
    let taken = sandboxes.create_sandbox(create("box", &[])).await;
    assert_eq!(taken.unwrap_err().code(), Code::AlreadyExists);
    let unknown = sandboxes.create_sandbox(create("b", &["nowhere"])).await;
    assert_eq!(unknown.unwrap_err().message(), "provider nowhere not found");

    let get = || v1::GetSandboxRequest {
        name: "box".to_owned(),
        consistent: true,
        ..Default::default()
    };
    let got = sandboxes.get_sandbox(get()).await.unwrap().into_inner();
    assert_eq!(got.sandbox, Some(created.clone()));
    let listed = sandboxes
        .list_sandboxes(v1::ListSandboxesRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.sandboxes, [created]);
    for deleted in [true, false] {
        let response = sandboxes
            .delete_sandbox(v1::DeleteSandboxRequest {
                name: "box".to_owned(),
                ..Default::default()
            })
            .await
            .unwrap();
        assert_eq!(response.into_inner().deleted, deleted);
    }
    let gone = sandboxes.get_sandbox(get()).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test]
async fn providers_are_attached_and_detached_once() {
    let harness = Harness::start().await;
    harness.provider("one", "A", "1").await;
    harness.provider("two", "B", "2").await;
    harness.provider("rival", "A", "3").await;
    let mut sandboxes = harness.sandboxes();
    sandboxes.create_sandbox(create("box", &[])).await.unwrap();
    for attached in [true, false] {
        let response = sandboxes.attach_provider(attach("one", None)).await;
        assert_eq!(response.unwrap().into_inner().attached, attached);
    }
    let stale = sandboxes.attach_provider(attach("two", Some(1))).await;
    assert_eq!(stale.unwrap_err().code(), Code::Aborted);
    let response = sandboxes.attach_provider(attach("two", Some(2))).await;
    let sandbox = response.unwrap().into_inner().sandbox.unwrap();
    assert_eq!(sandbox.providers, ["one", "two"]);

    let rival = sandboxes.attach_provider(attach("rival", None)).await;
    let rival = rival.unwrap_err();
    assert_eq!(rival.code(), Code::FailedPrecondition);
    assert_eq!(rival.metadata().get(REASON).unwrap(), "key-collision");
    assert_eq!(
        rival.message(),
        "credential A is already given by provider one"
    );

    for detached in [true, false] {
        let response = sandboxes
            .detach_provider(v1::DetachProviderRequest {
                sandbox: "box".to_owned(),
                provider: "one".to_owned(),
                ..Default::default()
            })
            .await;
        assert_eq!(response.unwrap().into_inner().detached, detached);
    }
}

#[tokio::test]
async fn a_bundle_is_read_and_watched_over_the_wire() {
    let harness = Harness::start().await;
    harness.provider("cloud", "A", "the-value").await;
    let created = harness
        .sandboxes()
        .create_sandbox(create("box", &["cloud"]))
        .await
        .unwrap()
        .into_inner();
    let mut bundles = harness.bundles();
    let read = bundles
        .get_bundle(v1::GetBundleRequest {
            sandbox: "box".to_owned(),
            min_generation: created.position,
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    let bundle = read.bundle.unwrap();
    assert_eq!(bundle.sandbox, created.sandbox.unwrap().id);
    assert_eq!(bundle.generation, created.position);
    assert_eq!(bundle.revision.len(), 16);
    let token = bundle.credentials[0].token.as_ref().unwrap();
    assert_eq!(token.values["A"], "the-value");

    let mut stream = bundles
        .watch_bundle(v1::WatchBundleRequest {
            sandbox: "box".to_owned(),
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(first.bundle.as_ref(), Some(&bundle));
    let detached = harness
        .sandboxes()
        .detach_provider(v1::DetachProviderRequest {
            sandbox: "box".to_owned(),
            provider: "cloud".to_owned(),
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    let next = stream.message().await.unwrap().unwrap();
    assert_eq!(next.generation, detached.position);
    assert!(next.bundle.unwrap().credentials.is_empty());
}
