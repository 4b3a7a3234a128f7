//! From nothing to a cluster whose replicas know each other by certificates that it signs itself:
//! they join by tokens, renew while they work, and a leader dies in the middle of a join.

use std::time::{Duration, Instant};

use evermint_cluster_tests::{Cluster, Options};
use evermint_proto::v1::CreateProviderRequest;
use evermint_proto::v1::providers_client::ProvidersClient;
use tonic::{Code, Request};

/// Long enough for a loaded machine, and short enough that a test sees several.
const LIFETIME: Duration = Duration::from_secs(4);
/// How long the cluster works: longer than two lives of its certificates.
const WORK: Duration = Duration::from_secs(10);
/// How long it may take to be whole again.
const BOUND: Duration = Duration::from_secs(40);

/// Writes something through one replica after the other.
async fn write(cluster: &Cluster, n: usize) {
    let request = CreateProviderRequest {
        name: format!("p{n}"),
        r#type: "generic-oauth2".to_owned(),
        ..CreateProviderRequest::default()
    };
    let call = async |channel| {
        let request = Request::new(request.clone());
        ProvidersClient::new(channel).create_provider(request).await
    };
    match cluster.admin().attempt(call).await {
        Ok(_) => {}
        // The answer of the first try was lost.
        Err(status) if status.code() == Code::AlreadyExists => {}
        Err(status) => panic!("write {n}: {status:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_join_by_tokens_renew_under_load_and_survive_a_leader_that_dies_in_a_join() {
    let mut cluster = Cluster::start(Options {
        replicas: 4,
        later: 1,
        certificates: Some(LIFETIME),
        ..Options::default()
    })
    .await;
    let started = Instant::now();
    let mut writes = 0;
    while started.elapsed() < WORK {
        write(&cluster, writes).await;
        writes += 1;
    }
    assert!(writes > 3, "only {writes} writes in {WORK:?}");

    cluster.join_token(3).await;
    let leader = cluster.leader().await;
    cluster.start_one(3);
    cluster.kill(leader);
    write(&cluster, writes).await;
    cluster.start_one(leader);
    cluster.ready(BOUND).await;
    cluster.caught_up().await;

    // The token was for one replica. One with an empty disk is another.
    let joined = cluster.replica(3).data_dir.clone();
    cluster.kill(3);
    std::fs::rename(&joined, joined.with_extension("kept")).expect("the disk is taken away");
    let said = cluster.refused(3);
    assert!(said.contains("was used already"), "{said}");
    std::fs::remove_dir_all(&joined).expect("an empty disk");
    std::fs::rename(joined.with_extension("kept"), &joined).expect("the disk is back");
    cluster.start_one(3);
    cluster.ready(BOUND).await;
}
