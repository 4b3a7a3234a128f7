//! `evermint.v1.Providers`.

use evermint_core::port::ProposeError;
use evermint_gateway::{REASON, RETRY};
use evermint_proto::v1;
use tonic::Code;

use crate::harness::{Harness, credentials, strings};

#[tokio::test]
async fn a_provider_is_created_shown_changed_and_deleted() {
    let harness = Harness::start().await;
    let mut providers = harness.providers();
    let created = providers
        .create_provider(v1::CreateProviderRequest {
            name: "cloud".to_owned(),
            r#type: "vertex".to_owned(),
            config: strings(&[("region", "eu"), ("zone", "b")]),
            credentials: credentials(&[("A", "1"), ("B", "2")]),
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    let provider = created.provider.unwrap();
    assert_eq!(
        (
            provider.workspace.as_str(),
            provider.name.as_str(),
            provider.r#type.as_str()
        ),
        ("default", "cloud", "google-vertex-ai")
    );
    assert_eq!(provider.version, 1);
    let keys = |p: &v1::Provider| -> Vec<(String, bool, u64)> {
        let shown = |c: &v1::Credential| (c.key.clone(), c.live, c.generation);
        p.credentials.iter().map(shown).collect()
    };
    assert_eq!(
        keys(&provider),
        [("A".to_owned(), true, 1), ("B".to_owned(), true, 1)]
    );

    let get = || v1::GetProviderRequest {
        name: "cloud".to_owned(),
        ..Default::default()
    };
    let got = providers.get_provider(get()).await.unwrap().into_inner();
    assert_eq!(got.provider, Some(provider.clone()));
    assert!(got.position >= created.position);

    let updated = providers
        .update_provider(v1::UpdateProviderRequest {
            name: "cloud".to_owned(),
            expected_version: Some(1),
            config: strings(&[("region", "us")]),
            delete_config: vec!["zone".to_owned(), "never-there".to_owned()],
            credentials: credentials(&[("C", "3")]),
            delete_credentials: vec!["A".to_owned()],
            expires_at_ms: [("B".to_owned(), 4_000_000_000_000)].into(),
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner()
        .provider
        .unwrap();
    assert_eq!(updated.version, 2);
    assert_eq!(updated.config, strings(&[("region", "us")]));
    assert_eq!(
        keys(&updated),
        [("B".to_owned(), true, 1), ("C".to_owned(), true, 1)]
    );
    assert_eq!(
        updated.credentials[0].expires_at_ms,
        Some(4_000_000_000_000)
    );

    let delete = || v1::DeleteProviderRequest {
        name: "cloud".to_owned(),
        ..Default::default()
    };
    for deleted in [true, false] {
        let response = providers.delete_provider(delete()).await.unwrap();
        assert_eq!(response.into_inner().deleted, deleted);
    }
    let status = providers.get_provider(get()).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::NotFound, "provider cloud not found")
    );
}

#[tokio::test]
async fn providers_are_listed_in_pages_by_workspace() {
    let harness = Harness::start().await;
    let mut providers = harness.providers();
    for n in 0..7 {
        for workspace in ["", "other"] {
            providers
                .create_provider(v1::CreateProviderRequest {
                    workspace: workspace.to_owned(),
                    name: format!("p{n}"),
                    r#type: "generic".to_owned(),
                    ..Default::default()
                })
                .await
                .unwrap();
        }
    }
    for (workspace, all_workspaces, pages, total) in
        [("", false, 3, 7), ("other", false, 3, 7), ("", true, 5, 14)]
    {
        let (mut seen, mut page_token, mut count) = (Vec::new(), String::new(), 0);
        loop {
            let page = providers
                .list_providers(v1::ListProvidersRequest {
                    workspace: workspace.to_owned(),
                    all_workspaces,
                    page_size: 3,
                    page_token,
                })
                .await
                .unwrap()
                .into_inner();
            seen.extend(page.providers.into_iter().map(|p| p.id));
            page_token = page.next_page_token;
            count += 1;
            if page_token.is_empty() {
                break;
            }
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!((count, seen.len()), (pages, total), "{workspace:?}");
    }
}

#[tokio::test]
async fn a_conflict_says_what_it_is() {
    let harness = Harness::start().await;
    harness.provider("cloud", "A", "1").await;
    harness.refresh("cloud", "TOKEN").await;
    let mut providers = harness.providers();
    let taken = providers
        .create_provider(v1::CreateProviderRequest {
            name: "cloud".to_owned(),
            r#type: "generic".to_owned(),
            ..Default::default()
        })
        .await
        .unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists);
    assert_eq!(taken.metadata().get(REASON).unwrap(), "already-exists");

    let update = |change: v1::UpdateProviderRequest| v1::UpdateProviderRequest {
        name: "cloud".to_owned(),
        ..change
    };
    let stale = providers
        .update_provider(update(v1::UpdateProviderRequest {
            expected_version: Some(1),
            ..Default::default()
        }))
        .await
        .unwrap_err();
    assert_eq!(stale.code(), Code::Aborted);
    assert_eq!(stale.metadata().get(REASON).unwrap(), "version-mismatch");
    assert_eq!(
        stale.message(),
        "provider was modified concurrently (current version: 2)"
    );

    let managed = providers
        .update_provider(update(v1::UpdateProviderRequest {
            credentials: credentials(&[("TOKEN", "mine")]),
            ..Default::default()
        }))
        .await
        .unwrap_err();
    assert_eq!(managed.code(), Code::FailedPrecondition);
    assert_eq!(managed.metadata().get(REASON).unwrap(), "refresh-managed");
}

#[tokio::test]
async fn a_provider_in_use_is_not_deleted_and_its_users_are_named() {
    let harness = Harness::start().await;
    harness.provider("cloud", "A", "1").await;
    harness
        .sandboxes()
        .create_sandbox(v1::CreateSandboxRequest {
            name: "box".to_owned(),
            providers: vec!["cloud".to_owned()],
            ..Default::default()
        })
        .await
        .unwrap();
    let status = harness
        .providers()
        .delete_provider(v1::DeleteProviderRequest {
            name: "cloud".to_owned(),
            ..Default::default()
        })
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (
            Code::FailedPrecondition,
            "provider is in use by sandbox box"
        )
    );
}

#[tokio::test]
async fn a_write_without_an_outcome_says_whether_it_may_have_happened() {
    let harness = Harness::start().await;
    let mut providers = harness.providers();
    let create = |name: &str| v1::CreateProviderRequest {
        name: name.to_owned(),
        r#type: "generic".to_owned(),
        ..Default::default()
    };
    harness
        .cluster
        .fail_next(ProposeError::Unavailable("no leader".to_owned()));
    let status = providers.create_provider(create("a")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.metadata().contains_key(RETRY));
    assert!(harness.cluster.committed().providers.is_empty());

    harness
        .cluster
        .fail_next(ProposeError::Unknown("connection lost".to_owned()));
    let status = providers.create_provider(create("b")).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(status.metadata().get(REASON).unwrap(), "outcome-unknown");
    assert_eq!(harness.cluster.committed().providers.len(), 1);

    // Committed, but not applied here in time.
    harness.cluster.hold();
    let status = providers.create_provider(create("c")).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(status.metadata().get(REASON).unwrap(), "done-elsewhere");
}

#[tokio::test]
async fn a_write_waits_until_it_can_be_read_here() {
    let harness = Harness::start().await;
    harness.cluster.hold();
    let cluster = harness.cluster.clone();
    tokio::spawn(async move {
        while cluster.log().len() < 3 {
            tokio::task::yield_now().await;
        }
        cluster.release();
    });
    let provider = harness.provider("cloud", "A", "1").await;
    assert_eq!(provider.name, "cloud");
}

#[tokio::test]
async fn a_write_finds_what_another_replica_has_just_created() {
    let harness = Harness::start().await;
    harness.cluster.hold();
    let mut providers = harness.providers();
    let created = providers
        .create_provider(v1::CreateProviderRequest {
            name: "cloud".to_owned(),
            r#type: "generic".to_owned(),
            ..Default::default()
        })
        .await;
    assert!(created.is_err(), "it cannot be shown here yet");
    let update = || v1::UpdateProviderRequest {
        name: "cloud".to_owned(),
        config: strings(&[("region", "eu")]),
        ..Default::default()
    };
    // This replica cannot know whether there is such a provider.
    let status = providers.update_provider(update()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.metadata().get(REASON).unwrap(), "behind");

    let cluster = harness.cluster.clone();
    let (updated, ()) = tokio::join!(providers.update_provider(update()), async move {
        cluster.release();
    });
    assert_eq!(updated.unwrap().into_inner().provider.unwrap().version, 2);
}
