//! A replica that has lost its disk is another replica: it gets a new id, everything it needs as
//! a snapshot, and the old one is forgotten.

use std::time::Duration;

use evermint_cluster_tests::{Cluster, Options, eventually};
use evermint_proto::v1::providers_client::ProvidersClient;
use evermint_proto::v1::{CreateProviderRequest, GetProviderRequest, UpdateProviderRequest};

const BOUND: Duration = Duration::from_secs(40);
/// A snapshot is taken after so many entries.
const SNAPSHOT_AFTER: u64 = 50;

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_replica_comes_back_as_a_new_one_by_snapshot() {
    let mut cluster = Cluster::start(Options {
        snapshot_after: SNAPSHOT_AFTER,
        ..Options::default()
    })
    .await;
    let create = CreateProviderRequest {
        name: "counter".to_owned(),
        r#type: "generic-oauth2".to_owned(),
        ..CreateProviderRequest::default()
    };
    let call = async |channel| {
        let mut client = ProvidersClient::new(channel);
        client.create_provider(create.clone()).await
    };
    cluster.admin().call("create provider", call).await;

    let leader = cluster.leader().await;
    let wiped = cluster.others(leader).next().expect("a follower");
    let old = cluster.status(wiped).await.expect("it answers").replica;
    cluster.kill(wiped);
    std::fs::remove_dir_all(&cluster.replica(wiped).data_dir).expect("its disk is gone");
    // The log that a newcomer would need is cut behind a snapshot.
    for n in 0..3 * SNAPSHOT_AFTER {
        count(&cluster, n).await;
    }
    let snapshot = eventually("the leader has a snapshot", BOUND, async || {
        let status = cluster.status(leader).await.ok_or("no status")?;
        let index = status.snapshot_index;
        (index > SNAPSHOT_AFTER)
            .then_some(index)
            .ok_or(format!("{index}"))
    })
    .await;

    cluster.start_one(wiped);
    cluster.ready(BOUND).await;
    cluster.caught_up().await;

    let status = cluster.status(wiped).await.expect("it answers");
    let members: Vec<u64> = status.replicas.iter().map(|r| r.id).collect();
    assert!(!members.contains(&old), "{members:?} with the old id {old}");
    assert_eq!(members.len(), cluster.len(), "{members:?}");
    assert!(
        members.iter().all(|id| *id <= status.replica),
        "{members:?}"
    );
    assert!(
        status.snapshot_index >= snapshot,
        "a snapshot up to {}, and the leader's went up to {snapshot}",
        status.snapshot_index
    );
    let request = GetProviderRequest {
        name: "counter".to_owned(),
        ..GetProviderRequest::default()
    };
    let mut client = ProvidersClient::new(cluster.admin().on(wiped));
    let answer = client.get_provider(request).await.expect("it serves");
    let config = answer.into_inner().provider.expect("a provider").config;
    assert_eq!(config["n"], (3 * SNAPSHOT_AFTER - 1).to_string());
}

async fn count(cluster: &Cluster, n: u64) {
    let update = UpdateProviderRequest {
        name: "counter".to_owned(),
        config: [("n".to_owned(), n.to_string())].into(),
        ..UpdateProviderRequest::default()
    };
    let call = async |channel| {
        let mut client = ProvidersClient::new(channel);
        client.update_provider(update.clone()).await
    };
    cluster.admin().call("count", call).await;
}
