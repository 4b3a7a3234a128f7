//! `evermint.v1.Refreshes`.

use std::time::Duration;

use evermint_core::command::Command;
use evermint_core::credential::RefreshConfig;
use evermint_core::mint::{Failure, FailureClass};
use evermint_core::port::StateView;
use evermint_core::strategy::Strategy;
use evermint_gateway::REASON;
use evermint_proto::v1;
use evermint_proto::v1::rotate_credential_response::Outcome;
use tonic::Code;

use crate::harness::{Harness, client_credentials, credentials, strings};

const HOUR: Duration = Duration::from_secs(3600);

async fn status(harness: &Harness, key: &str) -> Vec<v1::RefreshStatus> {
    let response = harness
        .refreshes()
        .get_refresh_status(v1::GetRefreshStatusRequest {
            provider: "cloud".to_owned(),
            credential_key: key.to_owned(),
            consistent: true,
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    assert!(response.server_time_ms > 0);
    assert_eq!(response.staleness_ms, Some(0));
    response.refreshes
}

#[tokio::test]
async fn a_refresh_is_configured_watched_and_deleted() {
    let harness = Harness::start().await;
    harness.provider("cloud", "STATIC", "1").await;
    let configured = harness.refresh("cloud", "TOKEN").await;
    assert_eq!(configured.verdict(), v1::Verdict::Pending);
    assert_eq!(configured.strategy, "oauth2-client-credentials");
    assert_eq!(configured.material, ["client_id", "client_secret"]);
    assert_eq!(configured.due_reason(), v1::Reason::First);
    assert_eq!(
        configured.replay.unwrap().kind(),
        v1::replay_policy::Kind::Strict
    );
    assert_eq!(configured.owner.as_ref().unwrap().replica, 1);

    let id = harness.credential("cloud", "TOKEN");
    let ticket = harness.cluster.grant(&id);
    let [minting] = status(&harness, "TOKEN").await.try_into().unwrap();
    let shown = minting.ticket.unwrap();
    assert_eq!(
        (shown.id, shown.attempt, shown.replica),
        (ticket.to_string(), 1, 1)
    );
    assert_eq!(minting.due_at_ms, None);
    harness.cluster.apply(Command::AbandonTicket {
        credential: id.clone(),
        ticket,
    });

    harness.cluster.mint(&id, "t1", HOUR);
    let [fresh] = status(&harness, "").await.try_into().unwrap();
    assert_eq!(fresh.verdict(), v1::Verdict::Fresh);
    assert_eq!((fresh.generation, fresh.attempt), (1, 2));
    assert_eq!(
        fresh.expires_at_ms.unwrap() - fresh.issued_at_ms.unwrap(),
        3_600_000
    );
    assert!(fresh.due_at_ms.unwrap() < fresh.expires_at_ms.unwrap());
    assert!(fresh.last_mint_at_ms.is_some());
    assert!(status(&harness, "STATIC").await.is_empty());

    let mut refreshes = harness.refreshes();
    for deleted in [true, false] {
        let response = refreshes
            .delete_refresh(v1::DeleteRefreshRequest {
                provider: "cloud".to_owned(),
                credential_key: "TOKEN".to_owned(),
                ..Default::default()
            })
            .await
            .unwrap();
        assert_eq!(response.into_inner().deleted, deleted);
    }
    assert!(status(&harness, "").await.is_empty());
}

#[tokio::test]
async fn the_outputs_of_a_mint_are_told_and_served_together() {
    let harness = Harness::start().await;
    harness.provider("cloud", "STATIC", "1").await;
    let outputs = strings(&[
        ("secret_access_key", "SECRET"),
        ("session_token", "SESSION"),
    ]);
    let request = v1::ConfigureRefreshRequest {
        outputs: outputs.clone(),
        ..client_credentials("cloud", "TOKEN")
    };
    let configured = harness
        .refreshes()
        .configure_refresh(request)
        .await
        .unwrap();
    assert_eq!(configured.into_inner().status.unwrap().outputs, outputs);
    let id = harness.credential("cloud", "TOKEN");
    harness.cluster.mint(&id, "t1", HOUR);
    let created = harness
        .sandboxes()
        .create_sandbox(v1::CreateSandboxRequest {
            name: "box".to_owned(),
            providers: vec!["cloud".to_owned()],
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    let read = harness
        .bundles()
        .get_bundle(v1::GetBundleRequest {
            sandbox: "box".to_owned(),
            min_generation: created.position,
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    let bundle = read.bundle.unwrap();
    let minted = bundle
        .credentials
        .iter()
        .find(|c| c.key == "TOKEN")
        .unwrap();
    let expected = strings(&[("SECRET", "t1"), ("SESSION", "t1"), ("TOKEN", "t1")]);
    assert_eq!(minted.token.as_ref().unwrap().values, expected);

    let alone = v1::UpdateProviderRequest {
        name: "cloud".to_owned(),
        credentials: credentials(&[("SECRET", "x")]),
        ..Default::default()
    };
    let refused = harness
        .providers()
        .update_provider(alone)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(refused.metadata().get(REASON).unwrap(), "refresh-managed");
}

#[tokio::test]
async fn the_end_of_material_is_announced_before_it_comes() {
    let harness = Harness::start().await;
    harness.provider("cloud", "STATIC", "1").await;
    let day = 86_400_000;
    let end = harness.cluster.now().0 + 40 * day;
    let request = |name: &str| v1::ConfigureRefreshRequest {
        material_expires_at_ms: [(name.to_owned(), end)].into(),
        ..client_credentials("cloud", "TOKEN")
    };
    let refused = harness
        .refreshes()
        .configure_refresh(request("nothing"))
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    let mut refreshes = harness.refreshes();
    refreshes
        .configure_refresh(request("client_secret"))
        .await
        .unwrap();
    let [far] = status(&harness, "TOKEN").await.try_into().unwrap();
    assert_eq!(far.material_expires_at_ms["client_secret"], end);
    assert_eq!((far.cause.as_str(), far.remedy.as_str()), ("", ""));
    harness.cluster.push_clock(Duration::from_millis(20 * day));
    let [near] = status(&harness, "TOKEN").await.try_into().unwrap();
    assert!(
        near.cause.starts_with("material client_secret ends in"),
        "{}",
        near.cause
    );
    assert!(near.remedy.contains("replace it"), "{}", near.remedy);
}

#[tokio::test]
async fn a_pushed_value_that_is_overdue_is_told() {
    let harness = Harness::start().await;
    harness.provider("cloud", "STATIC", "1").await;
    let id = harness.credential("cloud", "STATIC");
    let config = RefreshConfig::new(Strategy::External, "");
    harness.cluster.apply(Command::ConfigureRefresh {
        credential: id,
        config,
        material: Default::default(),
        expires_at: None,
    });
    let [shown] = status(&harness, "STATIC").await.try_into().unwrap();
    assert_eq!(
        (shown.cause.as_str(), shown.due_at_ms),
        ("", None),
        "it has no end"
    );
    let push = |value: &str, end: Option<u64>| v1::UpdateProviderRequest {
        name: "cloud".to_owned(),
        credentials: [(
            "STATIC".to_owned(),
            v1::StaticCredential {
                value: value.to_owned(),
                expires_at_ms: end,
            },
        )]
        .into(),
        ..Default::default()
    };
    let end = harness.cluster.now().0 + 3_600_000;
    let pushed = harness
        .providers()
        .update_provider(push("2", Some(end)))
        .await;
    pushed.unwrap();
    let [shown] = status(&harness, "STATIC").await.try_into().unwrap();
    assert_eq!(shown.verdict(), v1::Verdict::Fresh);
    assert!(shown.due_at_ms.unwrap() < end);
    harness.cluster.push_clock(Duration::from_secs(3_599));
    let [shown] = status(&harness, "STATIC").await.try_into().unwrap();
    assert!(shown.cause.contains("overdue"), "{}", shown.cause);
    assert!(shown.remedy.contains("provider update"), "{}", shown.remedy);
    assert_eq!(shown.verdict(), v1::Verdict::Fresh, "it is still good");
}

#[tokio::test]
async fn a_failure_is_told_with_cause_and_remedy() {
    let harness = Harness::start().await;
    harness.provider("cloud", "STATIC", "1").await;
    harness.refresh("cloud", "TOKEN").await;
    let id = harness.credential("cloud", "TOKEN");
    harness.cluster.fail(
        &id,
        Failure {
            class: FailureClass::ConfigRefused,
            cause: "the issuer answered invalid_client".to_owned(),
            remedy: "check client_id and client_secret".to_owned(),
            retry_after_ms: None,
        },
    );
    let [shown] = status(&harness, "TOKEN").await.try_into().unwrap();
    assert_eq!(shown.verdict(), v1::Verdict::Misconfigured);
    assert_eq!(shown.cause, "the issuer answered invalid_client");
    assert_eq!(shown.remedy, "check client_id and client_secret");
    assert_eq!(shown.failures, 1);
}

async fn rotate(harness: &Harness, wait_ms: u64) -> Result<v1::RotateCredentialResponse, Code> {
    let response = harness
        .refreshes()
        .rotate_credential(v1::RotateCredentialRequest {
            provider: "cloud".to_owned(),
            credential_key: "TOKEN".to_owned(),
            wait_ms,
            ..Default::default()
        })
        .await;
    response
        .map(tonic::Response::into_inner)
        .map_err(|status| status.code())
}

/// Runs `then` once the wish to rotate is in the log.
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
async fn a_rotation_is_waited_for_as_long_as_asked() {
    let harness = Harness::start().await;
    harness.provider("cloud", "STATIC", "1").await;
    harness.refresh("cloud", "TOKEN").await;
    let id = harness.credential("cloud", "TOKEN");
    harness.cluster.mint(&id, "t1", HOUR);

    let due = rotate(&harness, 0).await.unwrap();
    assert_eq!(due.outcome(), Outcome::Due);
    assert_eq!(due.status.unwrap().due_reason(), v1::Reason::Rotate);

    let (cluster, credential) = (harness.cluster.clone(), id.clone());
    once_wished(&harness, move || {
        cluster.mint(&credential, "t2", HOUR);
    });
    let minted = rotate(&harness, 30_000).await.unwrap();
    assert_eq!(minted.outcome(), Outcome::Minted);
    assert_eq!(minted.status.unwrap().generation, 2);

    let (cluster, credential) = (harness.cluster.clone(), id.clone());
    once_wished(&harness, move || {
        cluster.fail(
            &credential,
            Failure {
                class: FailureClass::Transient,
                cause: "the issuer answered 503".to_owned(),
                remedy: String::new(),
                retry_after_ms: None,
            },
        );
    });
    let failed = rotate(&harness, 30_000).await.unwrap();
    assert_eq!(failed.outcome(), Outcome::Failed);
    assert_eq!(failed.status.unwrap().cause, "the issuer answered 503");
}

#[tokio::test]
async fn a_mint_that_was_under_way_does_not_meet_the_wish_to_rotate() {
    let harness = Harness::start().await;
    harness.provider("cloud", "STATIC", "1").await;
    harness.refresh("cloud", "TOKEN").await;
    let id = harness.credential("cloud", "TOKEN");
    let ticket = harness.cluster.grant(&id);
    let cluster = harness.cluster.clone();
    once_wished(&harness, move || {
        cluster.apply(Command::AbandonTicket {
            credential: id.clone(),
            ticket,
        });
        // Only this one was asked for after the wish.
        cluster.mint(&id, "t1", HOUR);
    });
    let rotated = rotate(&harness, 30_000).await.unwrap();
    assert_eq!(rotated.outcome(), Outcome::Minted);
    assert_eq!(rotated.status.unwrap().attempt, 2);
}

#[tokio::test]
async fn what_has_no_refresh_cannot_be_rotated() {
    let harness = Harness::start().await;
    assert_eq!(rotate(&harness, 0).await.unwrap_err(), Code::NotFound);
    harness.provider("cloud", "TOKEN", "1").await;
    assert_eq!(
        rotate(&harness, 0).await.unwrap_err(),
        Code::FailedPrecondition
    );
}

#[tokio::test]
async fn what_the_strategy_knows_to_be_secret_is_sealed_wherever_it_stands() {
    let harness = Harness::start().await;
    harness.provider("cloud", "STATIC", "1").await;
    let configured = harness
        .refreshes()
        .configure_refresh(v1::ConfigureRefreshRequest {
            material: strings(&[("client_id", "me"), ("client_secret", "canary-9d1")]),
            secret_material: strings(&[("extra", "canary-9d2")]),
            ..client_credentials("cloud", "TOKEN")
        })
        .await
        .unwrap()
        .into_inner()
        .status
        .unwrap();
    assert_eq!(configured.material, ["client_id", "client_secret", "extra"]);
    let state = harness.cluster.committed();
    let credential = &state.credentials[&harness.credential("cloud", "TOKEN")];
    let refresh = credential.refresh.as_ref().unwrap();
    assert_eq!(refresh.config.material, strings(&[("client_id", "me")]));
    let sealed: Vec<_> = refresh.material.keys().collect();
    assert_eq!(sealed, ["client_secret", "extra"]);
}

#[tokio::test]
async fn a_refresh_of_an_unknown_provider_is_not_found() {
    let harness = Harness::start().await;
    let status = harness
        .refreshes()
        .configure_refresh(client_credentials("nowhere", "TOKEN"))
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::NotFound, "provider nowhere not found")
    );
    assert_eq!(status.metadata().get(REASON).unwrap(), "not-found");
}
