//! Refreshes of credentials.

use std::time::Duration;

use evermint_core::command::Command;
use evermint_core::mint::{Failure, FailureClass};
use evermint_proto::openshell::v1;
use evermint_proto::openshell::v1::ProviderCredentialRefreshStrategy as Strategy;
use tonic::Code;

use super::profiles::{acme, item};
use super::strings;
use crate::harness::Harness;

const HOUR: Duration = Duration::from_secs(3600);
const KEY: &str = "ACME_TOKEN";

/// A provider of an imported type.
async fn start() -> Harness {
    let harness = Harness::start().await;
    let import = v1::ImportProviderProfilesRequest {
        profiles: vec![item(acme())],
        workspace: "default".to_owned(),
    };
    let imported = harness.openshell().import_provider_profiles(import).await;
    assert!(imported.unwrap().into_inner().imported);
    harness.create("main", "acme", &[]).await;
    harness
}

fn configure(material: &[(&str, &str)]) -> v1::ConfigureProviderRefreshRequest {
    v1::ConfigureProviderRefreshRequest {
        provider: " main ".to_owned(),
        credential_key: KEY.to_owned(),
        strategy: Strategy::Oauth2ClientCredentials.into(),
        material: strings(material),
        ..Default::default()
    }
}

const GOOD: [(&str, &str); 2] = [("client_id", "me"), ("client_secret", "s3cret-canary")];

async fn status(harness: &Harness, key: &str) -> Vec<v1::ProviderCredentialRefreshStatus> {
    let request = v1::GetProviderRefreshStatusRequest {
        provider: "main".to_owned(),
        credential_key: key.to_owned(),
        workspace: String::new(),
    };
    let got = harness
        .openshell()
        .get_provider_refresh_status(request)
        .await;
    got.unwrap().into_inner().credentials
}

fn rotate(key: &str) -> v1::RotateProviderCredentialRequest {
    v1::RotateProviderCredentialRequest {
        provider: "main".to_owned(),
        credential_key: key.to_owned(),
        workspace: String::new(),
    }
}

fn delete(key: &str) -> v1::DeleteProviderRefreshRequest {
    v1::DeleteProviderRefreshRequest {
        provider: "main".to_owned(),
        credential_key: key.to_owned(),
        workspace: String::new(),
    }
}

/// Runs `then` once another wish to rotate is in the log.
fn once_wished(harness: &Harness, then: impl FnOnce() + Send + 'static) {
    let cluster = harness.cluster.clone();
    let wished = |c: &Command| matches!(c, Command::RotateCredential { .. });
    let before = cluster.log().into_iter().filter(wished).count();
    tokio::spawn(async move {
        while cluster.log().into_iter().filter(wished).count() == before {
            tokio::task::yield_now().await;
        }
        then();
    });
}

#[tokio::test]
async fn the_endpoints_of_a_platforms_profile_are_fixed_and_those_of_a_workspaces_are_not() {
    for (workspace, fixed) in [
        ("", &["https://issuer.example/token"][..]),
        ("default", &[]),
    ] {
        let harness = Harness::start().await;
        let import = v1::ImportProviderProfilesRequest {
            profiles: vec![item(acme())],
            workspace: workspace.to_owned(),
        };
        let imported = harness.openshell().import_provider_profiles(import).await;
        assert!(imported.unwrap().into_inner().imported);
        harness.create("main", "acme", &[]).await;
        let request = configure(&GOOD);
        let configured = harness
            .openshell()
            .configure_provider_refresh(request)
            .await;
        configured.unwrap();
        let id = harness.credential("main", KEY);
        let state = harness.cluster.committed();
        let config = &state.credentials[&id].refresh.as_ref().unwrap().config;
        let found: Vec<_> = config.fixed_urls.iter().map(String::as_str).collect();
        assert_eq!(found, fixed, "{workspace:?}");
    }
}

#[tokio::test]
async fn a_refresh_is_configured_rotated_watched_and_deleted() {
    let harness = start().await;
    let mut client = harness.openshell();
    assert_eq!(status(&harness, "").await, []);
    let mut request = configure(&[
        ("scope", "a, b"),
        ("refresh_before_seconds", "600"),
        ("unheard_of", "x"),
    ]);
    request.material.extend(strings(&GOOD));
    request.secret_material_keys = vec!["client_secret".to_owned()];
    let configured = client.configure_provider_refresh(request).await.unwrap();
    let configured = configured.into_inner().status.unwrap();
    assert_eq!(configured.provider_name, "main");
    assert_eq!(configured.credential_key, KEY);
    assert_eq!(configured.strategy(), Strategy::Oauth2ClientCredentials);
    assert_eq!(configured.status, "configured");
    assert_eq!(
        (configured.expires_at_ms, configured.next_refresh_at_ms),
        (0, 0)
    );
    let id = harness.credential("main", KEY);
    let state = harness.cluster.committed();
    let refresh = state.credentials[&id].refresh.clone().unwrap();
    assert_eq!(refresh.config.token_url, "https://issuer.example/token");
    assert_eq!(refresh.config.scopes, ["a", "b"]);
    assert_eq!(refresh.config.refresh_before_ms, Some(600_000));
    assert_eq!(refresh.config.max_lifetime_ms, Some(3_600_000));
    let names: Vec<_> = refresh.config.material.keys().collect();
    assert_eq!(names, ["client_id"], "what nobody knows is left out");
    assert!(refresh.material.contains_key("client_secret"), "sealed");

    let cluster = harness.cluster.clone();
    let minted = id.clone();
    once_wished(&harness, move || drop(cluster.mint(&minted, "t1", HOUR)));
    let rotated = client
        .rotate_provider_credential(rotate(KEY))
        .await
        .unwrap();
    let rotated = rotated.into_inner().status.unwrap();
    assert_eq!(
        (rotated.status.as_str(), rotated.last_error.as_str()),
        ("refreshed", "")
    );
    assert!(rotated.last_refresh_at_ms > 0);
    let lead = rotated.expires_at_ms - rotated.next_refresh_at_ms;
    assert!((540_000..=660_000).contains(&lead), "{lead}");
    assert_eq!(status(&harness, KEY).await, [rotated]);
    assert_eq!(status(&harness, "OTHER").await, []);

    for deleted in [true, false] {
        let answer = client.delete_provider_refresh(delete(KEY)).await.unwrap();
        assert_eq!(answer.into_inner().deleted, deleted);
    }
    assert_eq!(status(&harness, "").await, []);
    let value = harness.cluster.committed().credentials[&id].value.clone();
    assert!(value.is_some(), "the value stays");
}

#[tokio::test]
async fn a_configuration_that_cannot_be_is_refused() {
    let harness = start().await;
    let with = |entry: (&'static str, &'static str)| configure(&[GOOD[0], GOOD[1], entry]);
    let of = |strategy: Strategy| v1::ConfigureProviderRefreshRequest {
        strategy: strategy.into(),
        ..configure(&GOOD)
    };
    let named = |provider: &str, key: &str| v1::ConfigureProviderRefreshRequest {
        provider: provider.to_owned(),
        credential_key: key.to_owned(),
        ..configure(&GOOD)
    };
    for (request, code, words) in [
        (
            named(" ", KEY),
            Code::InvalidArgument,
            "provider is required",
        ),
        (
            named("main", " "),
            Code::InvalidArgument,
            "credential_key is required",
        ),
        (named("main", "9"), Code::InvalidArgument, "credential_key"),
        (named("nobody", KEY), Code::NotFound, "provider not found"),
        (
            of(Strategy::Unspecified),
            Code::InvalidArgument,
            "strategy is required",
        ),
        (
            of(Strategy::Static),
            Code::InvalidArgument,
            "cannot be minted",
        ),
        (
            of(Strategy::External),
            Code::InvalidArgument,
            "cannot be minted",
        ),
        (
            of(Strategy::AwsStsAssumeRole),
            Code::FailedPrecondition,
            "providers_v2_enabled=true",
        ),
        (
            of(Strategy::Oauth2RefreshToken),
            Code::InvalidArgument,
            "strategy",
        ),
        (
            with(("token_url", "https://evil.example")),
            Code::InvalidArgument,
            "'token_url'",
        ),
        (
            with(("token_uri", "https://evil.example")),
            Code::InvalidArgument,
            "'token_uri'",
        ),
        (
            with(("sts_endpoint_url", "")),
            Code::InvalidArgument,
            "'sts_endpoint_url'",
        ),
        (
            with(("aws_access_key_id", "x")),
            Code::InvalidArgument,
            "given together",
        ),
        (
            with(("aws_session_token", "x")),
            Code::InvalidArgument,
            "aws_session_token needs",
        ),
        (
            with(("refresh_before_seconds", "-1")),
            Code::InvalidArgument,
            "refresh_before_seconds",
        ),
        (
            with(("max_lifetime_seconds", "soon")),
            Code::InvalidArgument,
            "max_lifetime_seconds",
        ),
        (
            configure(&GOOD[..1]),
            Code::InvalidArgument,
            "client_secret",
        ),
        (
            v1::ConfigureProviderRefreshRequest {
                expires_at_ms: Some(-1),
                ..configure(&GOOD)
            },
            Code::InvalidArgument,
            "expires_at_ms",
        ),
        (
            v1::ConfigureProviderRefreshRequest {
                secret_material_keys: vec!["elsewhere".to_owned()],
                ..configure(&GOOD)
            },
            Code::InvalidArgument,
            "'elsewhere' is not in material",
        ),
    ] {
        harness
            .refuses("ConfigureProviderRefresh", request, code, words)
            .await;
    }
    let state = harness.cluster.committed();
    assert!(state.credentials.values().all(|c| c.refresh.is_none()));
}

#[tokio::test]
async fn a_tenant_mints_at_its_own_endpoint() {
    let harness = start().await;
    let mut request = configure(&GOOD);
    request
        .material
        .extend(strings(&[("tenant_id", "contoso")]));
    harness
        .openshell()
        .configure_provider_refresh(request)
        .await
        .unwrap();
    let id = harness.credential("main", KEY);
    let refresh = harness.cluster.committed().credentials[&id].refresh.clone();
    assert_eq!(
        refresh.unwrap().config.token_url,
        "https://login.microsoftonline.com/contoso/oauth2/v2.0/token"
    );
}

#[tokio::test]
async fn a_rotation_that_fails_says_why() {
    let harness = start().await;
    let mut client = harness.openshell();
    let missing = "provider credential refresh is not configured";
    for (request, code, words) in [
        (
            rotate(" "),
            Code::InvalidArgument,
            "credential_key is required",
        ),
        (rotate(KEY), Code::NotFound, missing),
    ] {
        harness
            .refuses("RotateProviderCredential", request, code, words)
            .await;
    }
    let nobody = v1::RotateProviderCredentialRequest {
        provider: "nobody".to_owned(),
        ..rotate(KEY)
    };
    harness
        .refuses(
            "RotateProviderCredential",
            nobody,
            Code::NotFound,
            "provider not found",
        )
        .await;
    client
        .configure_provider_refresh(configure(&GOOD))
        .await
        .unwrap();
    for (class, cause, code, words) in [
        (
            FailureClass::Transient,
            "issuer.example could not be reached: refused",
            Code::Unavailable,
            "could not be reached",
        ),
        (
            FailureClass::Transient,
            "HTTP 503: try later",
            Code::FailedPrecondition,
            "token endpoint returned HTTP 503",
        ),
        (
            FailureClass::ConfigRefused,
            "HTTP 400: invalid_client",
            Code::FailedPrecondition,
            "token endpoint returned HTTP 400",
        ),
    ] {
        let (cluster, id) = (harness.cluster.clone(), harness.credential("main", KEY));
        let failure = Failure {
            class,
            cause: cause.to_owned(),
            remedy: String::new(),
            retry_after_ms: None,
        };
        once_wished(&harness, move || drop(cluster.fail(&id, failure)));
        harness
            .refuses("RotateProviderCredential", rotate(KEY), code, words)
            .await;
        let [shown] = status(&harness, KEY).await.try_into().unwrap();
        assert_eq!(
            (shown.status.as_str(), shown.last_error.as_str()),
            ("error", cause)
        );
    }
}

#[tokio::test]
async fn what_has_no_refresh_has_none_to_look_at_or_delete() {
    let harness = start().await;
    let of = |provider: &str| v1::GetProviderRefreshStatusRequest {
        provider: provider.to_owned(),
        ..Default::default()
    };
    for (request, code, words) in [
        (of(""), Code::InvalidArgument, "provider is required"),
        (of("nobody"), Code::NotFound, "provider not found"),
    ] {
        harness
            .refuses("GetProviderRefreshStatus", request, code, words)
            .await;
    }
    harness
        .refuses(
            "DeleteProviderRefresh",
            delete(""),
            Code::InvalidArgument,
            "credential_key is required",
        )
        .await;
    let answer = harness
        .openshell()
        .delete_provider_refresh(delete(KEY))
        .await;
    assert!(!answer.unwrap().into_inner().deleted);
}

#[tokio::test]
async fn a_rotation_is_not_waited_for_once_the_mint_before_it_was_refused() {
    let harness = start().await;
    let mut client = harness.openshell();
    let configure = configure(&GOOD);
    client.configure_provider_refresh(configure).await.unwrap();
    let id = harness.credential("main", KEY);
    // The first mint runs when the wish comes, and ends so that no other is tried.
    let ticket = harness.cluster.grant(&id);
    let cluster = harness.cluster.clone();
    once_wished(&harness, move || {
        let failure = Failure {
            class: FailureClass::ConfigRefused,
            cause: "HTTP 401: invalid_client".to_owned(),
            remedy: String::new(),
            retry_after_ms: None,
        };
        cluster.apply(Command::FailMint {
            credential: id,
            ticket,
            failure,
        });
    });
    let words = "token endpoint returned HTTP 401";
    harness
        .refuses(
            "RotateProviderCredential",
            rotate(KEY),
            Code::FailedPrecondition,
            words,
        )
        .await;
}

#[tokio::test]
async fn the_end_of_the_value_is_kept_told_or_taken_away() {
    let harness = start().await;
    let mut client = harness.openshell();
    client
        .configure_provider_refresh(configure(&GOOD))
        .await
        .unwrap();
    harness
        .cluster
        .mint(&harness.credential("main", KEY), "t1", HOUR);
    let minted = status(&harness, KEY).await[0].expires_at_ms;
    let later = minted + 7_000;
    for (given, end) in [
        (None, minted),
        (Some(later), later),
        (None, later),
        (Some(0), 0),
        (None, 0),
    ] {
        let request = v1::ConfigureProviderRefreshRequest {
            expires_at_ms: given,
            ..configure(&GOOD)
        };
        let configured = client.configure_provider_refresh(request).await.unwrap();
        let configured = configured.into_inner().status.unwrap();
        assert_eq!(configured.expires_at_ms, end, "{given:?}");
        let get = v1::GetProviderRequest {
            name: "main".to_owned(),
            ..Default::default()
        };
        let provider = client.get_provider(get).await.unwrap().into_inner();
        let ends = provider.provider.unwrap().credential_expires_at_ms;
        assert_eq!(ends.get(KEY).copied().unwrap_or_default(), end, "{given:?}");
    }
}
