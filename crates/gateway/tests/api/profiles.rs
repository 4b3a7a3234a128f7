//! `evermint.v1.Profiles`, and what profiles mean for providers and refreshes.

use evermint_core::strategy::ReplayPolicy;
use evermint_gateway::REASON;
use evermint_proto::v1;
use tonic::Code;

use crate::harness::{Harness, client_credentials, strings};

/// A profile with a tenant in its token endpoint.
const CRM: &str = "\
id: crm
aliases: [crm-api]
credentials:
  - name: access_token
    env_vars: [CRM_TOKEN]
    auth_style: bearer
    refresh:
      strategy: oauth2-client-credentials
      token_url: https://login.crm.example/{tenant}/token
      scopes: [contacts.read]
      refresh_before_seconds: 60
      max_lifetime_seconds: 1800
      replay: safe
      material:
        - {name: client_id, description: the client, required: true}
        - {name: client_secret, required: true, secret: true}
        - {name: tenant, format: segment}
config:
  - {name: tenant, aliases: [t], format: segment, default: common}
  - {name: url, format: url}
endpoints:
  - {host: api.crm.example, port: 443}
inference:
  - {base_url_from: [url], protocols: [openai_chat_completions]}
";

fn text(yaml: &str) -> v1::ProfileText {
    v1::ProfileText {
        source: "crm.yaml".to_owned(),
        yaml: yaml.to_owned(),
    }
}

async fn import(harness: &Harness, yaml: &str, platform: bool) -> v1::ImportProfilesResponse {
    let request = v1::ImportProfilesRequest {
        platform,
        texts: vec![text(yaml)],
        ..Default::default()
    };
    let response = harness.profiles().import_profiles(request).await.unwrap();
    response.into_inner()
}

async fn create(
    harness: &Harness,
    name: &str,
    kind: &str,
    config: &[(&str, &str)],
) -> Result<v1::Provider, tonic::Status> {
    let request = v1::CreateProviderRequest {
        name: name.to_owned(),
        r#type: kind.to_owned(),
        config: strings(config),
        ..Default::default()
    };
    let response = harness.providers().create_provider(request).await?;
    Ok(response.into_inner().provider.unwrap())
}

/// Without a token endpoint.
fn configure(provider: &str, key: &str) -> v1::ConfigureRefreshRequest {
    v1::ConfigureRefreshRequest {
        token_url: String::new(),
        ..client_credentials(provider, key)
    }
}

#[tokio::test]
async fn built_in_profiles_are_listed_and_shown_under_every_name() {
    let harness = Harness::start().await;
    let listed = harness
        .profiles()
        .list_profiles(v1::ListProfilesRequest::default())
        .await
        .unwrap()
        .into_inner()
        .profiles;
    assert!(listed.iter().any(|p| p.id == "google-vertex-ai"));
    assert!(
        listed
            .iter()
            .all(|p| p.source() == v1::ProfileSource::BuiltIn && p.version == 0)
    );
    for name in ["google-vertex-ai", "vertex", "gcp-vertex"] {
        let request = v1::GetProfileRequest {
            id: name.to_owned(),
            ..Default::default()
        };
        let shown = harness.profiles().get_profile(request).await.unwrap();
        let profile = shown.into_inner().profile.unwrap();
        assert_eq!(profile.id, "google-vertex-ai");
        assert!(profile.yaml.contains("VERTEX_AI_TOKEN"));
    }
    for (name, code) in [("nope", Code::NotFound), ("No_Id", Code::InvalidArgument)] {
        let request = v1::GetProfileRequest {
            id: name.to_owned(),
            ..Default::default()
        };
        let refused = harness.profiles().get_profile(request).await.unwrap_err();
        assert_eq!(refused.code(), code);
    }
}

#[tokio::test]
async fn an_import_tells_every_problem_and_takes_all_or_nothing() {
    let harness = Harness::start().await;
    let half = format!("{CRM}---\nid: broken\ncolour: red\n");
    let refused = import(&harness, &half, false).await;
    assert!(!refused.imported && refused.position == 0);
    let found = refused
        .findings
        .iter()
        .find(|f| f.field == "colour")
        .unwrap();
    assert_eq!(
        (found.source.as_str(), found.profile.as_str()),
        ("crm.yaml", "broken")
    );
    assert!(found.line > 20 && !found.warning);

    let imported = import(&harness, CRM, false).await;
    assert!(imported.imported, "{:?}", imported.findings);
    assert_eq!(imported.profiles[0].version, 1);
    let again = import(&harness, CRM, false).await;
    assert!(!again.imported && again.findings[0].message.contains("already"));
    // For all workspaces it is another one.
    assert!(import(&harness, CRM, true).await.imported);

    let shadow = "id: openai\ncredentials: [{name: k, env_vars: [K]}]\nendpoints: [{host: a.example, port: 1}]\n";
    let lint = |texts: Vec<v1::ProfileText>| v1::LintProfilesRequest {
        texts,
        ..Default::default()
    };
    let mut profiles = harness.profiles();
    let warned = profiles
        .lint_profiles(lint(vec![text(shadow)]))
        .await
        .unwrap()
        .into_inner();
    assert!(warned.valid && warned.findings[0].warning);
    for yaml in ["", "# nothing\n", "a: &x [*x]\n"] {
        let judged = profiles
            .lint_profiles(lint(vec![text(yaml)]))
            .await
            .unwrap()
            .into_inner();
        assert!(!judged.valid && !judged.findings.is_empty(), "{yaml:?}");
    }
    let huge = profiles
        .lint_profiles(lint(vec![text(&"#".repeat(2 << 20))]))
        .await;
    assert_eq!(huge.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_imported_profile_is_updated_and_deleted_when_nobody_uses_it() {
    let harness = Harness::start().await;
    import(&harness, CRM, false).await;
    let provider = create(&harness, "sales", "CRM-API", &[]).await.unwrap();
    assert_eq!(provider.r#type, "crm");

    let update = |expected_version| v1::UpdateProfileRequest {
        text: Some(text(&CRM.replace("contacts.read", "contacts.write"))),
        expected_version,
        ..Default::default()
    };
    let mut profiles = harness.profiles();
    let updated = profiles
        .update_profile(update(Some(1)))
        .await
        .unwrap()
        .into_inner();
    assert!(updated.updated);
    assert_eq!(updated.profile.unwrap().version, 2);
    let refused = profiles.update_profile(update(Some(1))).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted);

    let delete = |id: &str| v1::DeleteProfileRequest {
        id: id.to_owned(),
        ..Default::default()
    };
    let in_use = profiles.delete_profile(delete("crm")).await.unwrap_err();
    assert_eq!(in_use.code(), Code::FailedPrecondition);
    assert!(
        in_use.message().contains("provider default/sales"),
        "{in_use}"
    );
    let built_in = profiles.delete_profile(delete("openai")).await.unwrap_err();
    assert_eq!(built_in.metadata().get(REASON).unwrap(), "built-in");
    let request = v1::DeleteProviderRequest {
        name: "sales".to_owned(),
        ..Default::default()
    };
    harness.providers().delete_provider(request).await.unwrap();
    for there in [true, false] {
        let deleted = profiles.delete_profile(delete("crm")).await.unwrap();
        assert_eq!(deleted.into_inner().deleted, there);
    }
}

#[tokio::test]
async fn the_endpoints_of_a_platforms_profile_are_fixed_and_those_of_a_workspaces_are_not() {
    let free = CRM
        .replace("id: crm", "id: free")
        .replace("crm-api", "free-api")
        .replace(
            "https://login.crm.example/{tenant}/token",
            "https://{tenant}/token",
        )
        .replace("format: segment", "format: host");
    for (platform, yaml, kind, tenant, fixed) in [
        (
            true,
            CRM,
            "crm",
            "acme",
            &["https://login.crm.example/acme/token"][..],
        ),
        (false, CRM, "crm", "acme", &[]),
        // Whoever fills a placeholder with a whole host names the endpoint.
        (true, &free, "free", "evil.example", &[]),
    ] {
        let harness = Harness::start().await;
        import(&harness, yaml, platform).await;
        let created = create(&harness, "sales", kind, &[("t", tenant)]).await;
        created.unwrap();
        let request = v1::ConfigureRefreshRequest {
            revoke_url: "https://idp.example/revoke".to_owned(),
            ..configure("sales", "CRM_TOKEN")
        };
        let configured = harness.refreshes().configure_refresh(request).await;
        configured.unwrap();
        let id = harness.credential("sales", "CRM_TOKEN");
        let state = harness.cluster.committed();
        let config = &state.credentials[&id].refresh.as_ref().unwrap().config;
        let found: Vec<_> = config.fixed_urls.iter().map(String::as_str).collect();
        assert_eq!(found, fixed, "{platform} {kind}");
        assert_eq!(config.revoke_url, "https://idp.example/revoke");
    }
}

#[tokio::test]
async fn a_refresh_takes_from_the_profile_what_nobody_said() {
    let harness = Harness::start().await;
    import(&harness, CRM, false).await;
    create(&harness, "sales", "crm", &[("t", "acme")])
        .await
        .unwrap();
    let request = configure("sales", "CRM_TOKEN");
    harness
        .refreshes()
        .configure_refresh(request)
        .await
        .unwrap();
    let id = harness.credential("sales", "CRM_TOKEN");
    let config = |harness: &Harness| {
        let state = harness.cluster.committed();
        state.credentials[&id]
            .refresh
            .as_ref()
            .unwrap()
            .config
            .clone()
    };
    let stored = config(&harness);
    assert_eq!(stored.token_url, "https://login.crm.example/acme/token");
    assert_eq!(stored.scopes, ["contacts.read"]);
    assert_eq!(stored.replay, ReplayPolicy::Safe);
    assert_eq!(stored.refresh_before_ms, Some(60_000));
    assert_eq!(stored.max_lifetime_ms, Some(1_800_000));

    let mut request = v1::ConfigureRefreshRequest {
        scopes: vec!["other".to_owned()],
        refresh_before_ms: Some(5_000),
        ..configure("sales", "CRM_TOKEN")
    };
    // Material stands before config, and what only fills the template goes no further.
    request
        .material
        .insert("tenant".to_owned(), "emca".to_owned());
    harness
        .refreshes()
        .configure_refresh(request)
        .await
        .unwrap();
    let stored = config(&harness);
    assert_eq!(stored.token_url, "https://login.crm.example/emca/token");
    assert_eq!(stored.scopes, ["other"]);
    assert_eq!(stored.refresh_before_ms, Some(5_000));
    assert!(!stored.material.contains_key("tenant"));

    // What was configured stays as it is when the profile changes.
    let request = v1::UpdateProfileRequest {
        text: Some(text(
            &CRM.replace("login.crm.example", "login.evil.example"),
        )),
        ..Default::default()
    };
    harness.profiles().update_profile(request).await.unwrap();
    assert_eq!(
        config(&harness).token_url,
        "https://login.crm.example/emca/token"
    );
}

#[tokio::test]
async fn the_token_endpoint_is_the_profiles() {
    let harness = Harness::start().await;
    import(&harness, CRM, false).await;
    create(&harness, "sales", "crm", &[]).await.unwrap();
    create(&harness, "other", "unheard-of", &[]).await.unwrap();
    let refused = async |request: v1::ConfigureRefreshRequest, told: &[&str]| {
        let status = harness
            .refreshes()
            .configure_refresh(request)
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        for part in told {
            assert!(
                status.message().contains(part),
                "{part} not in {}",
                status.message()
            );
        }
        assert!(!status.message().contains("s3cret"));
    };
    refused(
        client_credentials("sales", "CRM_TOKEN"),
        &["token_url comes from the profile crm"],
    )
    .await;
    for evil in ["a/../b", "a@evil.example", "..", "a?b", "a#", "%2f", "x/"] {
        let mut request = configure("sales", "CRM_TOKEN");
        request
            .material
            .insert("tenant".to_owned(), evil.to_owned());
        refused(request, &["material[\"tenant\"] must consist of"]).await;
    }
    let bare = v1::ConfigureRefreshRequest {
        material: strings(&[]),
        secret_material: strings(&[]),
        ..configure("sales", "CRM_TOKEN")
    };
    let missing = [
        "material[\"client_id\"] is missing: the client",
        "material[\"client_secret\"] is missing",
    ];
    refused(bare, &missing).await;
    let strategy = v1::ConfigureRefreshRequest {
        strategy: "oauth2-refresh-token".to_owned(),
        ..configure("sales", "CRM_TOKEN")
    };
    refused(
        strategy,
        &["strategy is not one of profile crm, which has oauth2-client-credentials"],
    )
    .await;
    refused(
        client_credentials("other", "T"),
        &["unheard-of, which no profile describes"],
    )
    .await;
}

#[tokio::test]
async fn settings_are_checked_by_the_profile() {
    let harness = Harness::start().await;
    let required = CRM.replace("default: common", "required: true");
    import(&harness, &required, false).await;
    for (config, told) in [
        (
            &[("tenant", "a/b")][..],
            "config[\"tenant\"] must consist of",
        ),
        (&[("t", "a"), ("tenant", "b")], "is the same as"),
        (
            &[("t", "a"), ("url", "http://a.example")],
            "config[\"url\"] must be an https URL",
        ),
        (&[], "config[\"tenant\"] is missing"),
    ] {
        let refused = create(&harness, "sales", "crm", config).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(told), "{}", refused.message());
    }
    create(&harness, "sales", "crm", &[("t", "a"), ("free", "b")])
        .await
        .unwrap();
    let update = |key: &str, value: &str| v1::UpdateProviderRequest {
        name: "sales".to_owned(),
        config: strings(&[(key, value)]),
        ..Default::default()
    };
    let mut providers = harness.providers();
    let refused = providers
        .update_provider(update("t", "a b"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    providers.update_provider(update("t", "b")).await.unwrap();
}
