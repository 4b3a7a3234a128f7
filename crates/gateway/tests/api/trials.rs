//! Dry runs: `TestCredential`.

use evermint_core::command::Command;
use evermint_proto::v1;
use evermint_proto::v1::test_step::Outcome::{self, Failed, Passed, Skipped};
use tonic::{Code, Status};

use crate::harness::{Harness, client_credentials, strings};

async fn test(harness: &Harness, key: &str) -> Result<v1::TestCredentialResponse, Status> {
    let request = v1::TestCredentialRequest {
        provider: "cloud".to_owned(),
        credential_key: key.to_owned(),
        ..Default::default()
    };
    let answer = harness.refreshes().test_credential(request).await;
    answer.map(tonic::Response::into_inner)
}

fn steps(answer: &v1::TestCredentialResponse) -> Vec<(&str, Outcome)> {
    let steps = answer.steps.iter();
    steps.map(|s| (s.name.as_str(), s.outcome())).collect()
}

#[tokio::test]
async fn a_strategy_that_consumes_nothing_is_tried_to_the_end() {
    let harness = Harness::start().await;
    harness.provider("cloud", "STATIC", "1").await;
    let configure = v1::ConfigureRefreshRequest {
        scopes: vec!["a".to_owned(), "b".to_owned()],
        ..client_credentials("cloud", "TOKEN")
    };
    harness
        .refreshes()
        .configure_refresh(configure)
        .await
        .unwrap();
    let before = harness.cluster.committed();

    let answer = test(&harness, "TOKEN").await.unwrap();
    let passed = ["material", "configuration", "endpoint", "mint"].map(|name| (name, Passed));
    assert_eq!(steps(&answer), passed);
    assert_eq!(answer.strategy, "oauth2-client-credentials");
    assert_eq!(answer.replica, 1);
    let mint = answer.mint.unwrap();
    assert_eq!(mint.lifetime_ms, Some(3_600_000));
    assert_eq!(mint.scopes, ["a", "b"]);
    assert_eq!(harness.cluster.committed(), before, "nothing was written");
}

#[tokio::test]
async fn what_is_for_single_use_is_not_sent() {
    let harness = Harness::start().await;
    harness.provider("cloud", "STATIC", "1").await;
    let configure = v1::ConfigureRefreshRequest {
        strategy: "oauth2-refresh-token".to_owned(),
        secret_material: strings(&[("refresh_token", "once")]),
        ..client_credentials("cloud", "TOKEN")
    };
    harness
        .refreshes()
        .configure_refresh(configure)
        .await
        .unwrap();
    let answer = test(&harness, "TOKEN").await.unwrap();
    assert_eq!(steps(&answer).last(), Some(&("mint", Skipped)));
    let last = answer.steps.last().unwrap();
    assert!(last.detail.contains("never sends it"), "{last:?}");
    assert_eq!(answer.mint, None);
}

#[tokio::test]
async fn a_refusal_is_told_with_its_remedy() {
    let harness = Harness::start().await;
    harness.provider("cloud", "STATIC", "1").await;
    let configure = v1::ConfigureRefreshRequest {
        secret_material: strings(&[("client_secret", "wrong")]),
        ..client_credentials("cloud", "TOKEN")
    };
    harness
        .refreshes()
        .configure_refresh(configure)
        .await
        .unwrap();
    let answer = test(&harness, "TOKEN").await.unwrap();
    let last = answer.steps.last().unwrap();
    assert_eq!(
        (last.outcome(), last.detail.as_str(), last.remedy.as_str()),
        (
            Failed,
            "the issuer answered invalid_client",
            "check the client secret"
        )
    );
}

#[tokio::test]
async fn a_static_value_is_opened_and_its_end_is_seen() {
    let harness = Harness::start().await;
    harness.provider("cloud", "STATIC", "1").await;
    let answer = test(&harness, "STATIC").await.unwrap();
    assert_eq!(steps(&answer), [("value", Passed)]);
    assert_eq!(answer.strategy, "");

    let id = harness.credential("cloud", "STATIC");
    let end = evermint_gateway::testing::START;
    harness.cluster.apply(Command::UpdateProvider {
        id: id.provider,
        expected_version: None,
        config: Default::default(),
        credentials: Default::default(),
        expires_at: [(id.key, Some(end))].into(),
    });
    let answer = test(&harness, "STATIC").await.unwrap();
    assert_eq!(steps(&answer), [("value", Failed)]);
}

#[tokio::test]
async fn what_is_not_there_and_a_replica_that_may_not_look_are_told_apart() {
    let harness = Harness::start().await;
    assert_eq!(
        test(&harness, "TOKEN").await.unwrap_err().code(),
        Code::NotFound
    );
    harness.provider("cloud", "STATIC", "1").await;
    assert_eq!(
        test(&harness, "TOKEN").await.unwrap_err().code(),
        Code::NotFound
    );
    harness.cluster.never_in_touch();
    let status = test(&harness, "STATIC").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(
        status.metadata().get(evermint_gateway::REASON).unwrap(),
        "never-caught-up"
    );
}
