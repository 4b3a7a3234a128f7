//! Three replicas: writes, loss of the leader, restarts, forwarding, reads.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use evermint_core::command::{Answer, Command, Proposal, Refusal};
use evermint_core::id::{Position, ProviderId, ReplicaId, RequestId, SessionId, ShardId};
use evermint_core::port::{Clock, ProposeError, Proposer, StateView, Touched};
use evermint_core::record::Key;
use evermint_core::time::Clocks;
use evermint_proto::replica::v1 as wire;
use evermint_proto::replica::v1::replica_client::ReplicaClient;
use evermint_replica::{Config, Error, Heard, Node, SystemClock};
use futures::StreamExt;
use support::*;
use tonic::Code;
use tonic::transport::Channel;

#[tokio::test(flavor = "multi_thread")]
async fn writes_survive_the_loss_of_the_leader_and_its_return() {
    let mut cluster = cluster(3).await;
    for id in 0..10 {
        write(&cluster[id as usize % 3].1, id).await;
    }
    let lost = leader(&cluster).await;
    let (home, node) = cluster.remove(lost);
    node.shutdown().await;
    drop(node);
    for id in 10..20 {
        write(&cluster[id as usize % 2].1, id).await;
    }
    let back = home.restart().await;
    cluster.push((home, back));
    all_vote(cluster.iter().map(|(_, node)| node)).await;
    all_equal(cluster.iter().map(|(_, node)| node)).await;
    for (_, node) in &cluster {
        assert!((0..20).all(|id| has(node, id)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_stopped_goes_on_with_equal_states_and_needs_no_list_of_peers() {
    let cluster = cluster(3).await;
    let mut written = Position(0);
    for id in 0..30 {
        written = write(&cluster[id as usize % 3].1, id).await.position;
    }
    let ids: Vec<_> = cluster.iter().map(|(_, n)| n.identity()).collect();
    let mut homes = Vec::new();
    for (home, node) in cluster {
        assert!(node.reached(written, BOUND).await);
        node.shutdown().await;
        homes.push(home);
    }
    let starts = homes.iter().map(|home| home.restart());
    let nodes = futures::future::join_all(starts).await;
    // What stopped first may lack what the others still wrote (the placement without it), but
    // nothing that it had applied itself.
    for node in &nodes {
        assert!((0..30).all(|id| has(node, id)), "from the disk alone");
    }
    for (node, (id, session)) in nodes.iter().zip(ids) {
        assert_eq!(node.identity().0, id);
        assert_ne!(node.identity().1, session, "a new life");
    }
    write(&nodes[1], 30).await;
    all_equal(&nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_that_arrives_twice_is_applied_once() {
    let cluster = cluster(3).await;
    let leader = &cluster[leader(&cluster).await].1;
    let proposal = Proposal {
        by: None,
        request: RequestId(77),
        command: create(1),
    };
    let first = send(leader, &proposal).await.unwrap().unwrap();
    let second = send(leader, &proposal).await.unwrap().unwrap();
    assert!(first.outcome.is_ok());
    assert_eq!(first, second);
    let other = leader.propose(create(1)).await.unwrap();
    assert!(
        matches!(other.outcome, Err(Refusal::AlreadyExists(_))),
        "{other:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_may_not_propose_what_is_for_the_leader_alone() {
    let cluster = cluster(3).await;
    let place = leader(&cluster).await;
    let assign = |request| Proposal {
        by: None,
        request: RequestId(request),
        command: Command::AssignShards {
            based_on: 0,
            moves: vec![(ShardId(0), ReplicaId(1), SessionId(1))],
        },
    };
    let refused = send(&cluster[place].1, &assign(1)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    // And what is forwarded to one that does not lead is not forwarded any further.
    let create = Proposal {
        by: None,
        request: RequestId(2),
        command: create(1),
    };
    let follower = &cluster[(place + 1) % 3].1;
    assert_eq!(send(follower, &create).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_for_another_replica_or_cluster_is_refused() {
    let cluster = cluster(1).await;
    let node = &cluster[0].1;
    let mut client = client(node).await;
    let hello = client
        .hello(wire::HelloRequest {})
        .await
        .unwrap()
        .into_inner();
    let mut other = hello.cluster.to_vec();
    other[0] ^= 1;
    for (what, cluster, to) in [
        ("replica", hello.cluster, 2),
        ("cluster", other.into(), hello.replica),
    ] {
        let envelope = Some(wire::Envelope {
            cluster,
            from: 9,
            to,
        });
        let refused = client.read_index(wire::ReadIndexRequest { envelope }).await;
        assert_eq!(
            refused.unwrap_err().code(),
            Code::FailedPrecondition,
            "{what}"
        );
    }
}

async fn client(node: &Node) -> ReplicaClient<Channel> {
    let address = format!("http://{}", node.peer_address());
    ReplicaClient::connect(address).await.unwrap()
}

/// Sends a proposal as a peer would. `None` means that the replica does not lead.
async fn send(node: &Node, proposal: &Proposal) -> Result<Option<Answer>, tonic::Status> {
    use wire::propose_response::Result as Proposed;
    let mut client = client(node).await;
    let hello = client.hello(wire::HelloRequest {}).await?.into_inner();
    let request = wire::ProposeRequest {
        envelope: Some(wire::Envelope {
            cluster: hello.cluster,
            from: 99,
            to: hello.replica,
        }),
        proposal: postcard::to_stdvec(proposal).unwrap().into(),
    };
    match client.propose(request).await?.into_inner().result.unwrap() {
        Proposed::Answer(answer) => Ok(Some(postcard::from_bytes(&answer).unwrap())),
        Proposed::NotLeader(_) => Ok(None),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_for_the_leader_alone_to_propose_is_not_forwarded() {
    let cluster = cluster(3).await;
    let place = leader(&cluster).await;
    let follower = &cluster[(place + 1) % 3].1;
    let assign = Command::AssignShards {
        based_on: 0,
        moves: vec![(ShardId(0), ReplicaId(1), SessionId(1))],
    };
    let refused = follower.propose(assign).await;
    assert!(
        matches!(refused, Err(ProposeError::Unavailable(_))),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_index_contains_every_write_that_was_answered_before() {
    let cluster = cluster(3).await;
    for id in 0..20 {
        let (writer, reader) = (
            &cluster[id as usize % 3].1,
            &cluster[(id as usize + 1) % 3].1,
        );
        let answer = write(writer, id).await;
        let index = reader.read_index().await.unwrap();
        assert!(index >= answer.position);
        assert!(reader.reached(index, BOUND).await);
        assert!(has(reader, id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_without_a_quorum_grows_stale_and_takes_no_writes() {
    let mut cluster = cluster(3).await;
    let (_, alone) = cluster.remove(0);
    until("it is fresh", || async {
        (alone.staleness()? < Duration::from_secs(1)).then_some(())
    })
    .await;
    let position = alone.state().meta.position;
    for (_, node) in &cluster {
        node.shutdown().await;
    }
    until("it is stale", || async {
        (alone.staleness()? > Duration::from_secs(2)).then_some(())
    })
    .await;
    let (read, written) = tokio::join!(alone.read_index(), alone.propose(create(1)));
    assert!(read.is_err() && written.is_err());
    assert!(alone.state().meta.position >= position, "reads go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_streamed_on_every_replica() {
    let cluster = cluster(3).await;
    let mut streams: Vec<_> = cluster.iter().map(|(_, node)| node.changes()).collect();
    let answer = write(&cluster[0].1, 7).await;
    for stream in &mut streams {
        let seen = async {
            while let Some(change) = stream.next().await {
                let touched = match &change.touched {
                    Touched::Keys(keys) => keys.iter().any(|k| matches!(k, Key::Provider(_))),
                    Touched::Everything => true,
                };
                if touched && change.state.meta.position >= answer.position {
                    return;
                }
            }
            panic!("the stream ended");
        };
        tokio::time::timeout(BOUND, seen).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_are_shared_and_move_when_a_replica_is_lost_or_drained() {
    let cluster = cluster(3).await;
    let nodes: Vec<_> = cluster.iter().map(|(_, node)| node).collect();
    let owners = |node: &Node| {
        let state = node.state();
        let lives: std::collections::BTreeSet<_> = state
            .shards
            .values()
            .map(|a| (a.replica, a.session))
            .collect();
        (state.shards.len(), lives)
    };
    let all: std::collections::BTreeSet<_> = nodes.iter().map(|n| n.identity()).collect();
    until("all own shards", || async {
        (owners(nodes[0]) == (16, all.clone())).then_some(())
    })
    .await;
    let place = leader(&cluster).await;
    let (drained, lost) = (nodes[(place + 1) % 3], nodes[(place + 2) % 3]);
    drained.drain().await;
    let mut left = all.clone();
    left.remove(&drained.identity());
    until("the drained one owns none", || async {
        (owners(nodes[place]) == (16, left.clone())).then_some(())
    })
    .await;
    // Both others are needed for a quorum: the lost one is stopped, the drained one still votes.
    left.remove(&lost.identity());
    lost.shutdown().await;
    until("the leader owns all", || async {
        (owners(nodes[place]) == (16, left.clone())).then_some(())
    })
    .await;
    let status = nodes[place].status().await;
    assert_eq!(status.shards.get(&nodes[place].identity().0), Some(&16));
    assert!(status.disk_bytes > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_proposals_share_log_entries() {
    let cluster = cluster(3).await;
    let before = cluster[0].1.status().await;
    let writes = (0..200_u128).map(|id| write(&cluster[id as usize % 3].1, id));
    futures::future::join_all(writes).await;
    let place = leader(&cluster).await;
    let after = cluster[place].1.status().await;
    let entries = after.log.last.unwrap() - before.log.last.unwrap();
    assert!(entries < 150, "{entries} entries for 200 proposals");
    all_equal(cluster.iter().map(|(_, node)| node)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_too_long_is_refused_at_once() {
    let cluster = cluster(1).await;
    let Command::CreateProvider {
        id,
        workspace,
        name,
        kind,
        credentials,
        ..
    } = create(1)
    else {
        unreachable!()
    };
    let config = [("big".to_owned(), "x".repeat(2 << 20))].into();
    let big = Command::CreateProvider {
        id,
        workspace,
        name,
        kind,
        config,
        notes: Default::default(),
        credentials,
    };
    let refused = cluster[0].1.propose(big).await;
    assert!(matches!(refused, Err(ProposeError::Unavailable(e)) if e.contains("at most")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_leaves_every_log_and_any_replica_can_tell() {
    let cluster = cluster(3).await;
    write(&cluster[0].1, 1).await;
    let delete = Command::DeleteProvider { id: ProviderId(1) };
    let deleted = cluster[1].1.propose(delete).await.unwrap();
    for (_, node) in &cluster {
        let status = until("all logs are cut behind it", || async {
            let status = node.status().await;
            let cut = |heard: &Heard| heard.erased >= deleted.position;
            let all = status.heard.len() == 3 && status.heard.values().all(cut);
            all.then_some(status)
        })
        .await;
        assert!(status.log.purged.is_some(), "{:?}", status.log);
    }
    // And the cluster goes on, also from what is left on the disk.
    write(&cluster[2].1, 2).await;
    let (home, node) = cluster.into_iter().next().unwrap();
    node.shutdown().await;
    drop(node);
    let back = home.restart().await;
    until("it has caught up", || async { has(&back, 2).then_some(()) }).await;
    assert!(!has(&back, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_data_is_refused() {
    let cluster = cluster(1).await;
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        ..cluster[0].0.config()
    };
    let refused = Node::start(config).await;
    assert!(matches!(refused, Err(Error::InUse(_))));
}

/// The clocks of this machine, an hour later by the wall.
struct AnHourLater;

impl Clock for AnHourLater {
    fn read(&self) -> Clocks {
        let now = SystemClock.read();
        Clocks {
            wall: now.wall + HOUR,
            ..now
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_started_again_leads_in_a_new_term() {
    // Found by `chaos power`: it led on in its old term, and confirmed reads without what the others
    // had committed while its own disk was behind.
    let (home, node) = cluster(1).await.remove(0);
    write(&node, 0).await;
    let before = node.status().await.term;
    node.shutdown().await;
    drop(node);
    let node = home.restart().await;
    write(&node, 1).await;
    assert!(node.status().await.term > before);
}

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_just_started_serves_nothing_by_the_clock_of_its_former_life() {
    // Found by `chaos kills`: it led again at once, and served what had expired while it was away.
    let (home, node) = cluster(1).await.remove(0);
    write(&node, 0).await;
    let before = node.now();
    node.shutdown().await;
    drop(node);
    let node = start(Config {
        clock: Arc::new(AnHourLater),
        ..home.config()
    })
    .await;
    // Reads are refused until it knows itself in touch.
    let fit = async {
        while node.staleness().is_none() {
            tokio::task::yield_now().await;
        }
        node.now()
    };
    let now = tokio::time::timeout(BOUND, fit).await.unwrap();
    assert!(now >= before + HOUR, "{now:?} after {before:?}");
}
