//! Sandboxes' tokens: given, renewed, revoked, and in strange hands.

use std::time::Duration;

use evermint_core::secret::Secret;
use evermint_gateway::{AdminToken, Config, REASON};
use evermint_proto::v1;
use evermint_proto::v1::bundles_client::BundlesClient;
use evermint_proto::v1::sandbox_tokens_client::SandboxTokensClient;
use evermint_proto::v1::sandboxes_client::SandboxesClient;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::calls::{by, call};
use crate::harness::{Harness, config};

const ADMIN: &str = "the-operator";

async fn guarded() -> Harness {
    let admin = Some(AdminToken::new(&Secret::from(ADMIN)));
    let mut config = Config { admin, ..config() };
    config.limits.heartbeat = Duration::from_millis(300);
    Harness::with(config).await
}

fn tokens(harness: &Harness) -> SandboxTokensClient<Channel> {
    SandboxTokensClient::new(harness.channel.clone())
}

async fn sandbox(harness: &Harness, name: &str) -> v1::Sandbox {
    let create = v1::CreateSandboxRequest {
        name: name.to_owned(),
        ..Default::default()
    };
    let mut sandboxes = SandboxesClient::new(harness.channel.clone());
    let created = sandboxes.create_sandbox(by(ADMIN, create)).await.unwrap();
    created.into_inner().sandbox.unwrap()
}

async fn issue(harness: &Harness, name: &str) -> v1::IssueSandboxTokenResponse {
    let issue = v1::IssueSandboxTokenRequest {
        sandbox: name.to_owned(),
        ..Default::default()
    };
    let issued = tokens(harness).issue_sandbox_token(by(ADMIN, issue)).await;
    issued.unwrap().into_inner()
}

async fn read(harness: &Harness, token: &str, name: &str) -> Result<v1::Bundle, Status> {
    let get = v1::GetBundleRequest {
        sandbox: name.to_owned(),
        ..Default::default()
    };
    let mut bundles = BundlesClient::new(harness.channel.clone());
    let got = bundles.get_bundle(by(token, get)).await?;
    Ok(got.into_inner().bundle.unwrap())
}

#[tokio::test]
async fn the_authorization_header_is_a_bearer_token_to_the_letter() {
    let harness = guarded().await;
    let path = "/evermint.v1.Providers/ListProviders";
    for (header, message) in [
        (Some("Bearer the-operator"), None),
        (None, Some("missing authorization header")),
        (Some("Bearer the-operato"), Some("invalid token")),
        (Some("Bearer the-operatorr"), Some("invalid token")),
        (Some("Bearer "), Some("invalid token")),
        (Some("Bearer a.b.c"), Some("invalid token")),
        (
            Some("bearer the-operator"),
            Some("the authorization header is no bearer token"),
        ),
        (
            Some("Basic dGhlLW9wZXJhdG9y"),
            Some("the authorization header is no bearer token"),
        ),
    ] {
        let refused = call(&harness, path, header).await.err();
        let said = refused.as_ref().map(Status::message);
        assert_eq!(said, message, "{header:?}");
    }
}

#[tokio::test]
async fn a_sandbox_reads_its_own_bundle_by_any_name_and_no_other() {
    let harness = guarded().await;
    let (own, other) = (
        sandbox(&harness, "own").await,
        sandbox(&harness, "other").await,
    );
    let token = issue(&harness, "own").await.token;
    for name in ["", "own", own.id.as_str()] {
        read(&harness, &token, name).await.unwrap();
    }
    for name in ["other", other.id.as_str(), "nowhere"] {
        let refused = read(&harness, &token, name).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{name}");
        assert_eq!(
            refused.message(),
            "a sandbox may read its own bundle, and no other"
        );
    }
}

#[tokio::test]
async fn a_token_is_renewed_while_it_is_good() {
    let harness = guarded().await;
    sandbox(&harness, "box").await;
    let first = issue(&harness, "box").await;
    assert_eq!(
        first.expires_at_ms / 1_000,
        first.server_time_ms / 1_000 + 3_600
    );
    let renew = |token: String| {
        let mut tokens = tokens(&harness);
        async move {
            let renew = by(&token, v1::RenewSandboxTokenRequest {});
            tokens.renew_sandbox_token(renew).await
        }
    };
    harness.cluster.push_clock(Duration::from_secs(3_000));
    let second = renew(first.token.clone()).await.unwrap().into_inner();
    assert!(second.expires_at_ms > first.expires_at_ms);
    harness.cluster.push_clock(Duration::from_secs(601));
    let late = renew(first.token.clone()).await.unwrap_err();
    assert_eq!(late.code(), Code::Unauthenticated);
    assert_eq!(late.message(), "the token has expired");
    assert_eq!(late.metadata().get(REASON).unwrap(), "token-expired");
    read(&harness, &second.token, "").await.unwrap();
}

#[tokio::test]
async fn revoked_tokens_open_nothing_and_end_their_streams() {
    let harness = guarded().await;
    sandbox(&harness, "box").await;
    let old = issue(&harness, "box").await.token;
    let mut bundles = BundlesClient::new(harness.channel.clone());
    let watch = by(&old, v1::WatchBundleRequest::default());
    let mut stream = bundles.watch_bundle(watch).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());

    let revoke = v1::RevokeSandboxTokensRequest {
        sandbox: "box".to_owned(),
        ..Default::default()
    };
    let mut tokens = tokens(&harness);
    tokens
        .revoke_sandbox_tokens(by(ADMIN, revoke))
        .await
        .unwrap();
    let refused = read(&harness, &old, "").await.unwrap_err();
    assert_eq!(refused.message(), "the token was revoked");
    let ended = stream.message().await.unwrap_err();
    assert_eq!(ended.metadata().get(REASON).unwrap(), "token-revoked");

    let new = issue(&harness, "box").await.token;
    read(&harness, &new, "").await.unwrap();
}

#[tokio::test]
async fn a_deleted_sandbox_is_let_in_no_more() {
    let harness = guarded().await;
    sandbox(&harness, "box").await;
    let token = issue(&harness, "box").await.token;
    let delete = v1::DeleteSandboxRequest {
        name: "box".to_owned(),
        ..Default::default()
    };
    let mut sandboxes = SandboxesClient::new(harness.channel.clone());
    sandboxes.delete_sandbox(by(ADMIN, delete)).await.unwrap();
    // A new one of the same name is another one.
    sandbox(&harness, "box").await;
    let refused = read(&harness, &token, "").await.unwrap_err();
    assert_eq!(refused.message(), "the token's sandbox is gone");
}

#[tokio::test]
async fn without_an_operators_token_a_sandboxs_token_still_binds_its_bearer() {
    let harness = Harness::start().await;
    sandbox(&harness, "own").await;
    sandbox(&harness, "other").await;
    let token = issue(&harness, "own").await.token;
    read(&harness, "", "other").await.unwrap();
    let refused = read(&harness, &token, "other").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let forged = format!("{}x", &token[..token.len() - 4]);
    let refused = read(&harness, &forged, "own").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}
