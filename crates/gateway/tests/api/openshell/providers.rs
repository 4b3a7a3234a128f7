//! Create, get, list, update and delete.

use std::collections::BTreeMap;

use evermint_proto::openshell::datamodel::v1 as datamodel;
use evermint_proto::openshell::v1;
use tonic::Code;

use super::{provider, strings};
use crate::harness::Harness;

fn create(provider: datamodel::Provider) -> v1::CreateProviderRequest {
    v1::CreateProviderRequest {
        provider: Some(provider),
        workspace: String::new(),
    }
}

fn get(name: &str) -> v1::GetProviderRequest {
    v1::GetProviderRequest {
        name: name.to_owned(),
        workspace: String::new(),
    }
}

fn update(provider: datamodel::Provider) -> v1::UpdateProviderRequest {
    v1::UpdateProviderRequest {
        provider: Some(provider),
        ..Default::default()
    }
}

/// A change of the provider `main`.
fn main(values: &[(&str, &str)]) -> datamodel::Provider {
    provider("main", "", values)
}

#[tokio::test]
async fn a_created_provider_is_shown_without_its_secrets() {
    let harness = Harness::start().await;
    let given = datamodel::Provider {
        metadata: Some(datamodel::ObjectMeta {
            id: "chosen-by-the-client".to_owned(),
            name: "main".to_owned(),
            labels: strings(&[("team", "a")]),
            annotations: strings(&[("note", "b")]),
            workspace: "elsewhere".to_owned(),
            resource_version: 9,
            ..Default::default()
        }),
        config: strings(&[("OPENAI_BASE_URL", "https://api.example/v1")]),
        credential_expires_at_ms: BTreeMap::from([(
            "OPENAI_API_KEY".to_owned(),
            1_900_000_000_000,
        )]),
        profile_workspace: "default".to_owned(),
        ..provider("main", "openai", &[("OPENAI_API_KEY", "sk-canary")])
    };
    let mut client = harness.openshell();
    let created = client.create_provider(create(given.clone())).await.unwrap();
    let shown = created.into_inner().provider.unwrap();
    let metadata = shown.metadata.clone().unwrap();
    assert_eq!(metadata.id.len(), 36);
    assert_ne!(metadata.id, "chosen-by-the-client");
    assert_eq!(metadata.workspace, "default");
    assert_eq!(metadata.resource_version, 1);
    assert_eq!(metadata.labels, strings(&[("team", "a")]));
    assert_eq!(metadata.annotations, strings(&[("note", "b")]));
    assert!(metadata.created_at_ms > 0);
    assert_eq!(
        shown.credentials,
        strings(&[("OPENAI_API_KEY", "REDACTED")])
    );
    assert_eq!(
        shown.credential_expires_at_ms,
        given.credential_expires_at_ms
    );
    assert_eq!(shown.profile_workspace, "default");
    assert!(shown.credential_handles.is_empty());
    assert_eq!(
        (shown.r#type.as_str(), &shown.config),
        ("openai", &given.config)
    );

    let got = client.get_provider(get("main")).await.unwrap();
    assert_eq!(got.into_inner().provider, Some(shown));
}

#[tokio::test]
async fn a_provider_without_a_name_is_given_one() {
    let harness = Harness::start().await;
    let mut request = create(provider("", "openai", &[("OPENAI_API_KEY", "1")]));
    let mut client = harness.openshell();
    let mut names = Vec::new();
    for metadata in [None, Some(datamodel::ObjectMeta::default())] {
        request.provider.as_mut().unwrap().metadata = metadata;
        let created = client.create_provider(request.clone()).await.unwrap();
        let metadata = created.into_inner().provider.unwrap().metadata.unwrap();
        names.push(metadata.name);
    }
    assert!(
        names[0].starts_with("openai-") && names[0] != names[1],
        "{names:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_created_is_refused() {
    let harness = Harness::start().await;
    harness
        .create("main", "openai", &[("OPENAI_API_KEY", "1")])
        .await;
    let values = [("TOKEN", "1")];
    let handle = BTreeMap::from([("TOKEN".to_owned(), datamodel::CredentialHandle::default())]);
    let many: BTreeMap<String, String> =
        (0..65).map(|n| (format!("K{n}"), "v".to_owned())).collect();
    let good = || provider("other", "acme", &values);
    for (given, code, words) in [
        (
            provider("x", " ", &values),
            Code::InvalidArgument,
            "type is required",
        ),
        (
            datamodel::Provider {
                credential_handles: handle,
                ..good()
            },
            Code::InvalidArgument,
            "credential_handles must not be supplied",
        ),
        (
            datamodel::Provider {
                profile_workspace: "elsewhere".to_owned(),
                ..good()
            },
            Code::InvalidArgument,
            "profile_workspace",
        ),
        (
            provider("x", "acme", &[]),
            Code::InvalidArgument,
            "provider.credentials must not be empty",
        ),
        (
            provider("x", "openai", &[]),
            Code::InvalidArgument,
            "provider.credentials must not be empty",
        ),
        (
            provider(&"x".repeat(254), "acme", &values),
            Code::InvalidArgument,
            "254 > 253",
        ),
        (
            provider("x", &"t".repeat(65), &values),
            Code::InvalidArgument,
            "65 > 64",
        ),
        (
            datamodel::Provider {
                config: many.clone(),
                ..good()
            },
            Code::InvalidArgument,
            "65 > 64",
        ),
        (
            datamodel::Provider {
                credentials: many.into_iter().take(33).collect(),
                ..good()
            },
            Code::InvalidArgument,
            "33 > 32",
        ),
        (
            provider("x", "acme", &[(&"K".repeat(257), "v")]),
            Code::InvalidArgument,
            "257 > 256",
        ),
        (
            provider("x", "acme", &[("K", &"v".repeat(8193))]),
            Code::InvalidArgument,
            "8193 > 8192",
        ),
        (
            provider("x", "acme", &[("9K", "v")]),
            Code::InvalidArgument,
            "credential key",
        ),
        (
            provider("main", "openai", &values),
            Code::AlreadyExists,
            "provider already exists",
        ),
    ] {
        harness
            .refuses("CreateProvider", create(given), code, words)
            .await;
    }
    let nothing = v1::CreateProviderRequest::default();
    harness
        .refuses(
            "CreateProvider",
            nothing,
            Code::InvalidArgument,
            "provider is required",
        )
        .await;
    let elsewhere = v1::CreateProviderRequest {
        workspace: "nowhere".to_owned(),
        ..create(good())
    };
    harness
        .refuses(
            "CreateProvider",
            elsewhere,
            Code::NotFound,
            "workspace 'nowhere' not found",
        )
        .await;
}

#[tokio::test]
async fn a_provider_whose_credentials_are_minted_needs_no_values() {
    let harness = Harness::start().await;
    let created = harness.create("cloud", "vertex", &[]).await;
    assert_eq!(created.r#type, "google-vertex-ai", "an alias is replaced");
    assert!(created.credentials.is_empty());
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let harness = Harness::start().await;
    for (name, code, words) in [
        ("", Code::InvalidArgument, "name is required"),
        ("nobody", Code::NotFound, "provider not found"),
        ("no body/at all", Code::NotFound, "provider not found"),
    ] {
        harness.refuses("GetProvider", get(name), code, words).await;
    }
}

#[tokio::test]
async fn a_list_is_ordered_by_age_and_paged() {
    let harness = Harness::start().await;
    for name in ["c", "a", "b"] {
        harness.create(name, "acme", &[("TOKEN", "1")]).await;
    }
    let list = async |limit, offset, all_workspaces| {
        let request = v1::ListProvidersRequest {
            limit,
            offset,
            all_workspaces,
            workspace: String::new(),
        };
        let list = harness.openshell().list_providers(request).await.unwrap();
        let providers = list.into_inner().providers.into_iter();
        let names: Vec<String> = providers.map(|p| p.metadata.unwrap().name).collect();
        names
    };
    let all = list(0, 0, false).await;
    assert_eq!(all.len(), 3);
    assert_eq!(list(1, 1, false).await, all[1..2]);
    assert_eq!(list(5, 2, true).await, all[2..]);
    let both = v1::ListProvidersRequest {
        workspace: "default".to_owned(),
        all_workspaces: true,
        ..Default::default()
    };
    harness
        .refuses(
            "ListProviders",
            both,
            Code::InvalidArgument,
            "all_workspaces",
        )
        .await;
}

#[tokio::test]
async fn an_update_merges() {
    let harness = Harness::start().await;
    let mut given = provider("main", "openai", &[("A", "1"), ("B", "2")]);
    given.config = strings(&[("x", "1"), ("y", "2")]);
    let mut client = harness.openshell();
    client.create_provider(create(given)).await.unwrap();

    let mut change = main(&[("B", ""), ("C", "3")]);
    change.config = strings(&[("y", ""), ("z", "3")]);
    change.credential_expires_at_ms =
        BTreeMap::from([("A".to_owned(), 1_900_000_000_001), ("C".to_owned(), 5)]);
    let request = v1::UpdateProviderRequest {
        credential_expires_at_ms: BTreeMap::from([("C".to_owned(), 1_900_000_000_002)]),
        ..update(change)
    };
    let updated = client.update_provider(request).await.unwrap();
    let updated = updated.into_inner().provider.unwrap();
    let redacted = [("A", "REDACTED"), ("C", "REDACTED")];
    assert_eq!(updated.credentials, strings(&redacted));
    assert_eq!(updated.config, strings(&[("x", "1"), ("z", "3")]));
    let ends = [("A", 1_900_000_000_001), ("C", 1_900_000_000_002)];
    let ends = ends.map(|(key, end)| (key.to_owned(), end));
    assert_eq!(
        updated.credential_expires_at_ms,
        BTreeMap::from(ends.clone())
    );
    assert_eq!(updated.metadata.unwrap().resource_version, 2);

    // The command line's `--credential-expires-at` alone; 0 takes an end away, and a value that is
    // replaced keeps its end.
    let mut change = main(&[("C", "4")]);
    change.r#type = "OpenAI".to_owned();
    let request = v1::UpdateProviderRequest {
        credential_expires_at_ms: BTreeMap::from([("A".to_owned(), 0)]),
        ..update(change)
    };
    let updated = client.update_provider(request).await.unwrap();
    let updated = updated.into_inner().provider.unwrap();
    assert_eq!(
        updated.credential_expires_at_ms,
        BTreeMap::from([ends[1].clone()])
    );
}

#[tokio::test]
async fn what_cannot_be_updated_is_refused() {
    let harness = Harness::start().await;
    harness
        .create("main", "generic-oauth2", &[("STATIC", "1")])
        .await;
    harness.refresh("main", "MINTED").await;
    let versioned = |version| {
        let mut change = main(&[("STATIC", "2")]);
        change.metadata.as_mut().unwrap().resource_version = version;
        change
    };
    let minted = |value| main(&[("MINTED", value)]);
    for (change, code, words) in [
        (
            provider("", "", &[]),
            Code::InvalidArgument,
            "name is required",
        ),
        (
            provider("other", "", &[]),
            Code::NotFound,
            "provider not found",
        ),
        (
            provider("main", "openai", &[]),
            Code::InvalidArgument,
            "type cannot be changed",
        ),
        (
            datamodel::Provider {
                profile_workspace: "other".to_owned(),
                ..main(&[])
            },
            Code::InvalidArgument,
            "profile_workspace cannot be changed",
        ),
        (
            datamodel::Provider {
                credential_handles: BTreeMap::from([("A".to_owned(), Default::default())]),
                ..main(&[])
            },
            Code::InvalidArgument,
            "credential_handles",
        ),
        (
            minted("mine"),
            Code::FailedPrecondition,
            "managed by a refresh",
        ),
        (minted(""), Code::FailedPrecondition, "managed by a refresh"),
        (
            versioned(7),
            Code::Aborted,
            "provider was modified concurrently (current resource_version: 2)",
        ),
    ] {
        harness
            .refuses("UpdateProvider", update(change), code, words)
            .await;
    }
    harness
        .refuses(
            "UpdateProvider",
            v1::UpdateProviderRequest::default(),
            Code::InvalidArgument,
            "provider is required",
        )
        .await;
    let current = update(versioned(2));
    harness.openshell().update_provider(current).await.unwrap();
}

#[tokio::test]
async fn a_provider_is_deleted_once_nobody_uses_it() {
    let harness = Harness::start().await;
    harness
        .create("main", "openai", &[("OPENAI_API_KEY", "1")])
        .await;
    let delete = |name: &str| v1::DeleteProviderRequest {
        name: name.to_owned(),
        workspace: String::new(),
    };
    let sandbox = evermint_proto::v1::CreateSandboxRequest {
        name: "box".to_owned(),
        providers: vec!["main".to_owned()],
        ..Default::default()
    };
    harness.sandboxes().create_sandbox(sandbox).await.unwrap();
    for (name, code, words) in [
        ("", Code::InvalidArgument, "name is required"),
        ("main", Code::FailedPrecondition, "sandbox box"),
    ] {
        harness
            .refuses("DeleteProvider", delete(name), code, words)
            .await;
    }
    let detach = evermint_proto::v1::DetachProviderRequest {
        sandbox: "box".to_owned(),
        provider: "main".to_owned(),
        ..Default::default()
    };
    harness.sandboxes().detach_provider(detach).await.unwrap();
    let route = evermint_proto::v1::SetRouteRequest {
        provider: "main".to_owned(),
        model: "gpt".to_owned(),
        ..Default::default()
    };
    harness.inference().set_route(route).await.unwrap();
    for deleted in [true, false] {
        let answer = harness.openshell().delete_provider(delete("main")).await;
        assert_eq!(answer.unwrap().into_inner().deleted, deleted);
    }
    assert!(
        harness.cluster.committed().routes.is_empty(),
        "its route goes with it"
    );
}
