//! How replicas come, go, and come back.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use evermint_core::command::Refusal;
use evermint_core::id::ReplicaId;
use evermint_core::port::StateView;
use evermint_replica::{Config, Error, Node};
use support::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_replica_that_is_behind_the_log_gets_a_snapshot() {
    let home = Home::new();
    let config = Config {
        bootstrap: Some(bootstrap()),
        snapshots: small_snapshots(),
        ..home.config()
    };
    let first = start(config).await;
    for id in 0..100 {
        write(&first, id).await;
    }
    until("the log is cut", || async {
        (first.status().await.log.purged? > 50).then_some(())
    })
    .await;

    let second_home = Home::new();
    let second = join(&second_home, &first).await;
    all_vote([&first, &second]).await;
    let hash = all_equal([&first, &second]).await;
    assert!((0..100).all(|id| has(&second, id)));
    assert!(second.status().await.log.purged.is_some());

    // What was installed is on the disk.
    let id = second.identity().0;
    second.shutdown().await;
    let second = second_home.restart().await;
    assert_eq!(second.identity().0, id);
    assert_eq!(second.state().hash(), hash);
    write(&second, 100).await;
    all_equal([&first, &second]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_three_newcomers_that_may_all_found_one_does() {
    let homes: Vec<_> = (0..3).map(|_| Home::new()).collect();
    let peers: Vec<_> = homes.iter().map(|h| h.address.to_string()).collect();
    let starts = homes.iter().map(|home| {
        start(Config {
            bootstrap: Some(bootstrap()),
            peers: peers.clone(),
            ..home.config()
        })
    });
    let nodes = futures::future::join_all(starts).await;
    all_vote(&nodes).await;
    let mut ids: Vec<_> = nodes.iter().map(|n| n.identity().0).collect();
    ids.sort();
    assert_eq!(ids, [1, 2, 3].map(ReplicaId));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_may_found_joins_a_cluster_that_is_there() {
    let cluster = cluster(1).await;
    let home = Home::new();
    let node = start(Config {
        bootstrap: Some(bootstrap()),
        peers: vec![cluster[0].1.peer_address().to_owned()],
        ..home.config()
    })
    .await;
    all_vote([&cluster[0].1, &node]).await;
    assert_eq!(node.identity().0, ReplicaId(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_does_not_found_while_a_peer_does_not_answer() {
    let (home, absent) = (Home::new(), Home::new());
    let starting = Node::start(Config {
        bootstrap: Some(bootstrap()),
        peers: vec![absent.address.to_string()],
        ..home.config()
    });
    let waited = tokio::time::timeout(Duration::from_secs(2), starting).await;
    assert!(waited.is_err(), "it waits for its peer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_disk_comes_back_as_another_replica_in_the_old_ones_place() {
    let mut cluster = cluster(3).await;
    for id in 0..10 {
        write(&cluster[0].1, id).await;
    }
    let place = (leader(&cluster).await + 1) % 3;
    let (mut home, node) = cluster.remove(place);
    let old = node.identity().0;
    node.shutdown().await;
    drop(node);
    home.wipe();
    let node = join(&home, &cluster[0].1).await;
    assert_eq!(node.identity().0, ReplicaId(4));
    cluster.push((home, node));
    all_vote(cluster.iter().map(|(_, node)| node)).await;
    until("the old one is forgotten", || async {
        (!cluster[0].1.state().replicas.contains_key(&old)).then_some(())
    })
    .await;
    all_equal(cluster.iter().map(|(_, node)| node)).await;
    write(&cluster[2].1, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_replica_votes_no_more_and_says_so() {
    let mut cluster = cluster(3).await;
    let (_home, removed) = cluster.remove(2);
    let id = removed.identity().0;
    cluster[0].1.remove_replica(None, id).await.unwrap();
    all_vote(cluster.iter().map(|(_, node)| node)).await;
    until("it knows", || async { removed.status().await.stopped }).await;
    let again = cluster[0].1.remove_replica(None, id).await;
    assert!(matches!(again, Err(Error::Refused(Refusal::NotFound(_)))));
    write(&cluster[1].1, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_can_be_removed() {
    let mut cluster = cluster(3).await;
    let place = leader(&cluster).await;
    let (_home, removed) = cluster.remove(place);
    removed
        .remove_replica(None, removed.identity().0)
        .await
        .unwrap();
    all_vote(cluster.iter().map(|(_, node)| node)).await;
    write(&cluster[0].1, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_replica_cannot_be_removed() {
    let cluster = cluster(1).await;
    let refused = cluster[0].1.remove_replica(None, ReplicaId(1)).await;
    assert!(matches!(refused, Err(Error::Config(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_moved_is_found_at_its_new_address() {
    let mut cluster = cluster(3).await;
    let place = (leader(&cluster).await + 1) % 3;
    let (home, node) = cluster.remove(place);
    let id = node.identity().0;
    node.shutdown().await;
    drop(node);
    let moved = Home {
        dir: home.dir,
        ..Home::new()
    };
    let node = moved.restart().await;
    assert_eq!(node.identity().0, id);
    until("the others know where it is", || async {
        let state = cluster[0].1.state();
        (state.replicas[&id].peer_address == moved.address.to_string()).then_some(())
    })
    .await;
    write(&cluster[0].1, 1).await;
    all_equal([&cluster[0].1, &cluster[1].1, &node]).await;
}
