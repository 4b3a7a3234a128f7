//! Profiles of providers.

use evermint_proto::openshell::sandbox::v1::NetworkEndpoint;
use evermint_proto::openshell::v1;
use evermint_proto::openshell::v1::ProviderCredentialRefreshStrategy as Strategy;
use tonic::Code;

use crate::harness::Harness;

pub(super) fn acme() -> v1::ProviderProfile {
    v1::ProviderProfile {
        id: "acme".to_owned(),
        display_name: "Acme".to_owned(),
        credentials: vec![v1::ProviderProfileCredential {
            name: "token".to_owned(),
            env_vars: vec!["ACME_TOKEN".to_owned()],
            required: true,
            auth_style: "bearer".to_owned(),
            refresh: Some(v1::ProviderCredentialRefresh {
                strategy: Strategy::Oauth2ClientCredentials.into(),
                token_url: "https://issuer.example/token".to_owned(),
                material: vec![
                    material("client_id", false),
                    material("client_secret", true),
                ],
                ..Default::default()
            }),
            ..Default::default()
        }],
        endpoints: vec![NetworkEndpoint {
            host: "api.acme.example".to_owned(),
            port: 443,
            protocol: "rest".to_owned(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn material(name: &str, secret: bool) -> v1::ProviderCredentialRefreshMaterial {
    v1::ProviderCredentialRefreshMaterial {
        name: name.to_owned(),
        required: true,
        secret,
        ..Default::default()
    }
}

pub(super) fn item(profile: v1::ProviderProfile) -> v1::ProviderProfileImportItem {
    v1::ProviderProfileImportItem {
        profile: Some(profile),
        source: "acme.yaml".to_owned(),
    }
}

fn import(profiles: Vec<v1::ProviderProfile>) -> v1::ImportProviderProfilesRequest {
    v1::ImportProviderProfilesRequest {
        profiles: profiles.into_iter().map(item).collect(),
        workspace: "default".to_owned(),
    }
}

fn get(id: &str) -> v1::GetProviderProfileRequest {
    v1::GetProviderProfileRequest {
        id: id.to_owned(),
        workspace: "default".to_owned(),
    }
}

#[tokio::test]
async fn a_profile_is_linted_imported_updated_and_deleted() {
    let harness = Harness::start().await;
    let mut client = harness.openshell();
    let lint = v1::LintProviderProfilesRequest {
        profiles: vec![item(acme())],
        workspace: "default".to_owned(),
    };
    let linted = client
        .lint_provider_profiles(lint)
        .await
        .unwrap()
        .into_inner();
    assert_eq!((linted.valid, linted.diagnostics), (true, vec![]));

    let imported = client
        .import_provider_profiles(import(vec![acme()]))
        .await
        .unwrap();
    let imported = imported.into_inner();
    assert!(
        imported.imported && imported.diagnostics.is_empty(),
        "{imported:?}"
    );
    let got = client.get_provider_profile(get("acme")).await.unwrap();
    let got = got.into_inner().profile.unwrap();
    assert_eq!(imported.profiles.first(), Some(&got));
    assert_eq!(
        (got.source.as_str(), got.scope.as_str()),
        ("user", "workspace")
    );
    assert_eq!(got.resource_version, 1);
    assert_eq!(got.credentials, acme().credentials);
    assert_eq!(got.endpoints, acme().endpoints);

    let mut changed = acme();
    changed.display_name = "Acme II".to_owned();
    let update = |version, id: &str| v1::UpdateProviderProfilesRequest {
        profile: Some(item(changed.clone())),
        expected_resource_version: version,
        id: id.to_owned(),
        workspace: "default".to_owned(),
    };
    for (version, id, field) in [(0, "acme", "resource_version"), (1, "other", "id")] {
        let answer = client.update_provider_profiles(update(version, id)).await;
        let answer = answer.unwrap().into_inner();
        assert!(!answer.updated);
        let [told] = answer.diagnostics.as_slice() else {
            panic!("{:?}", answer.diagnostics)
        };
        assert_eq!(
            (told.field.as_str(), told.severity.as_str()),
            (field, "error")
        );
    }
    harness
        .refuses(
            "UpdateProviderProfiles",
            update(7, "acme"),
            Code::Aborted,
            "profile was modified concurrently (current resource_version: 1)",
        )
        .await;
    let updated = client
        .update_provider_profiles(update(1, "acme"))
        .await
        .unwrap()
        .into_inner();
    assert!(updated.updated);
    let profile = updated.profile.unwrap();
    assert_eq!(
        (profile.display_name.as_str(), profile.resource_version),
        ("Acme II", 2)
    );

    let delete = |id: &str| v1::DeleteProviderProfileRequest {
        id: id.to_owned(),
        workspace: "default".to_owned(),
    };
    harness.create("user", "acme", &[("ACME_TOKEN", "1")]).await;
    for (id, code, words) in [
        ("acme", Code::FailedPrecondition, "in use by provider"),
        ("openai", Code::FailedPrecondition, "built in"),
        ("nobody", Code::NotFound, "provider profile not found"),
        ("", Code::InvalidArgument, "id is required"),
        ("Ac me", Code::InvalidArgument, "kebab-case"),
    ] {
        harness
            .refuses("DeleteProviderProfile", delete(id), code, words)
            .await;
    }
    let provider = v1::DeleteProviderRequest {
        name: "user".to_owned(),
        workspace: String::new(),
    };
    client.delete_provider(provider).await.unwrap();
    let deleted = client
        .delete_provider_profile(delete("acme"))
        .await
        .unwrap();
    assert!(deleted.into_inner().deleted);
    for (id, code, words) in [
        ("acme", Code::NotFound, "provider profile not found"),
        (" ", Code::InvalidArgument, "id is required"),
        ("-acme", Code::InvalidArgument, "kebab-case"),
    ] {
        harness
            .refuses("GetProviderProfile", get(id), code, words)
            .await;
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_profile_is_told_and_nothing_is_stored() {
    let harness = Harness::start().await;
    let mut bad = acme();
    bad.credentials[0].env_vars = vec!["9".to_owned()];
    bad.credentials[0].auth_style = "nonsense".to_owned();
    for (profiles, fields) in [
        (
            vec![bad],
            &["credentials[0].auth_style", "credentials[0].env_vars[0]"][..],
        ),
        (vec![acme(), acme()], &["id"]),
        (vec![], &["profiles"]),
    ] {
        let mut client = harness.openshell();
        let answer = client
            .import_provider_profiles(import(profiles.clone()))
            .await;
        let answer = answer.unwrap().into_inner();
        assert!(!answer.imported && answer.profiles.is_empty());
        let told: Vec<_> = answer
            .diagnostics
            .iter()
            .map(|d| d.field.as_str())
            .collect();
        for field in fields {
            assert!(
                told.contains(field),
                "{field} not in {:?}",
                answer.diagnostics
            );
        }
        assert!(answer.diagnostics.iter().any(|d| d.severity == "error"));
        let lint = v1::LintProviderProfilesRequest {
            profiles: profiles.into_iter().map(item).collect(),
            workspace: "default".to_owned(),
        };
        let linted = client
            .lint_provider_profiles(lint)
            .await
            .unwrap()
            .into_inner();
        assert!(!linted.valid);
    }
    assert!(harness.cluster.committed().profiles.is_empty());
}

#[tokio::test]
async fn a_list_holds_built_in_platform_and_workspace_profiles_by_id() {
    let harness = Harness::start().await;
    let mut client = harness.openshell();
    for workspace in ["", "default"] {
        let request = v1::ImportProviderProfilesRequest {
            workspace: workspace.to_owned(),
            ..import(vec![acme()])
        };
        let answer = client.import_provider_profiles(request).await.unwrap();
        assert!(answer.into_inner().imported);
    }
    let list = async |workspace: &str, limit, offset| {
        let request = v1::ListProviderProfilesRequest {
            limit,
            offset,
            workspace: workspace.to_owned(),
        };
        let list = harness.openshell().list_provider_profiles(request).await;
        let profiles = list.unwrap().into_inner().profiles.into_iter();
        profiles
            .map(|p| (p.id, p.scope, p.source))
            .collect::<Vec<_>>()
    };
    let all = list("default", 0, 0).await;
    let row =
        |id: &str, scope: &str, source: &str| (id.to_owned(), scope.to_owned(), source.to_owned());
    assert_eq!(all[0], row("acme", "workspace", "user"));
    assert_eq!(
        all[1],
        row("acme", "platform", "user"),
        "the one that it shadows"
    );
    assert!(all.contains(&row("google-vertex-ai", "", "builtin")));
    assert!(all.is_sorted_by_key(|(id, _, _)| id));
    assert_eq!(list("default", 1, 1).await, all[1..2]);
    assert_eq!(list("", 0, 0).await, all[1..], "the platform's");
}
