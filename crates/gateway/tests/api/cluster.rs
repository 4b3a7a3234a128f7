//! `evermint.v1.Cluster` and `evermint.v1.Audit`.

use std::time::Duration;

use evermint_core::command::Command;
use evermint_core::id::InstallationId;
use evermint_gateway::REASON;
use evermint_proto::v1;
use evermint_proto::v1::audit_record::Event;
use tonic::Code;

use crate::harness::Harness;

#[tokio::test]
async fn the_status_tells_of_members_positions_and_settings() {
    let harness = Harness::start().await;
    harness.provider("cloud", "A", "1").await;
    harness.cluster.apply(Command::RegisterReplica {
        installation: InstallationId(2),
        peer_address: "127.0.0.1:3".to_owned(),
        api_address: "http://127.0.0.1:4".to_owned(),
    });
    let request = v1::GetClusterStatusRequest {
        consistent: true,
        state_hash: true,
    };
    let status = harness.cluster().get_cluster_status(request).await;
    let status = status.unwrap().into_inner();
    let hash = harness.cluster.committed().hash();
    assert_eq!(status.state_hash, format!("{hash:016x}"));
    assert_eq!((status.replica, status.leader), (1, Some(1)));
    assert_eq!(status.role(), v1::Role::Leader);
    assert_eq!(status.position, harness.cluster.committed().meta.position.0);
    assert_eq!(status.staleness_ms, Some(0));
    assert_eq!(status.settings.unwrap().shards, 4);
    assert_eq!(status.unowned_shards, 0);
    assert_eq!(status.version, "9.9.9-test");
    let counts = status.counts.unwrap();
    assert_eq!((counts.providers, counts.credentials), (1, 1));
    let [one, two] = status.replicas.as_slice() else {
        panic!("two members");
    };
    assert_eq!(
        (one.id, one.voter, one.shards, one.lag),
        (1, true, 4, Some(0))
    );
    assert!(!one.session.is_empty());
    assert_eq!(
        (two.id, two.voter, two.shards, two.lag),
        (2, false, 0, None)
    );
    assert_eq!(two.api_address, "http://127.0.0.1:4");
}

#[tokio::test]
async fn a_replica_is_removed_unless_that_does_harm() {
    let harness = Harness::start().await;
    harness.cluster.apply(Command::RegisterReplica {
        installation: InstallationId(2),
        peer_address: String::new(),
        api_address: String::new(),
    });
    let mut cluster = harness.cluster();
    for removed in [true, false] {
        let response = cluster
            .remove_replica(v1::RemoveReplicaRequest { replica: 2 })
            .await;
        assert_eq!(response.unwrap().into_inner().removed, removed);
    }
    let status = cluster
        .remove_replica(v1::RemoveReplicaRequest { replica: 1 })
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(status.metadata().get(REASON).unwrap(), "refused");
}

#[tokio::test]
async fn the_audit_trail_is_filtered_and_bounded() {
    let harness = Harness::start().await;
    harness.provider("cloud", "STATIC", "1").await;
    harness.provider("other", "STATIC", "1").await;
    harness.refresh("cloud", "TOKEN").await;
    harness.refresh("cloud", "SECOND").await;
    let token = harness.credential("cloud", "TOKEN");
    let hour = Duration::from_secs(3600);
    harness.cluster.mint(&token, "t1", hour);
    harness
        .cluster
        .mint(&harness.credential("cloud", "SECOND"), "t2", hour);
    harness.cluster.mint(&token, "t3", hour);

    let list = async |request: v1::ListAuditRequest| {
        let response = harness.audit().list_audit(request).await.unwrap();
        let response = response.into_inner();
        let told: Vec<String> = response
            .records
            .iter()
            .map(|record| match record.event.as_ref().unwrap() {
                Event::Mint(mint) => format!(
                    "{} {} {:?} {}",
                    mint.provider,
                    mint.credential_key,
                    mint.end(),
                    mint.generation
                ),
                Event::Change(change) => change.command.clone(),
                Event::Revocation(revocation) => format!("{:?}", revocation.end()),
                Event::Refused(refused) => refused.method.clone(),
            })
            .collect();
        (told, response.more)
    };
    let of = |provider: &str, key: &str| v1::ListAuditRequest {
        provider: provider.to_owned(),
        credential_key: key.to_owned(),
        ..Default::default()
    };
    assert_eq!(
        list(of("cloud", "TOKEN")).await.0,
        [
            "configure-refresh",
            "cloud TOKEN Committed 1",
            "rotate-credential",
            "cloud TOKEN Committed 2"
        ]
    );
    assert_eq!(list(of("other", "")).await.0, ["create-provider"]);
    let (all_of_cloud, _) = list(of("cloud", "")).await;
    assert_eq!(all_of_cloud.len(), 7);
    assert_eq!(all_of_cloud[0], "create-provider");
    // A provider is also known by its id, which outlives it.
    assert_eq!(
        list(of(&token.provider.to_string(), "TOKEN")).await.0.len(),
        4
    );
    assert_eq!(
        list(v1::ListAuditRequest {
            limit: 2,
            newest: true,
            ..Default::default()
        })
        .await,
        (
            vec![
                "rotate-credential".to_owned(),
                "cloud TOKEN Committed 2".to_owned()
            ],
            true
        )
    );
    let (everything, more) = list(v1::ListAuditRequest::default()).await;
    assert!(!more);
    let since = harness
        .cluster
        .committed()
        .audit
        .values()
        .nth(2)
        .unwrap()
        .position
        .0;
    let (rest, _) = list(v1::ListAuditRequest {
        since_position: since,
        ..Default::default()
    })
    .await;
    assert_eq!(rest, everything[3..]);
}
