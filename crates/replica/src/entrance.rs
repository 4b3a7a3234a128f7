//! How a replica without a place gets one: it founds a cluster, or joins one.
//!
//! It asks its peers until one of them is in a cluster, and joins there. It founds a cluster only
//! if it may, and every peer has answered, and none is in a cluster, and none that may found as
//! well has a smaller address: so of several newcomers that list each other, one founds.

use std::time::Duration;

use evermint_core::id::ReplicaId;
use evermint_proto::replica::v1 as wire;
use futures::future::join_all;

use crate::config::Config;
use crate::identity::{ClusterId, Identity, Member};
use crate::peers::{Lane, Peers};

/// How long a peer may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);

/// Time between two rounds of asking.
const ASK_EVERY: Duration = Duration::from_millis(300);

/// The id that the founder of a cluster gets from the log.
pub(crate) const FOUNDER: ReplicaId = ReplicaId(1);

/// Waits until this replica has a place, or may found a cluster.
pub(crate) async fn find_place(
    config: &Config,
    peers: &Peers,
    identity: &Identity,
    peer_address: &str,
) -> Member {
    let others: Vec<&String> = config.peers.iter().filter(|p| *p != peer_address).collect();
    loop {
        let hellos = join_all(others.iter().map(|peer| hello(peers, peer))).await;
        for (peer, answer) in others.iter().zip(&hellos) {
            match answer {
                Ok(answer) if answer.replica != 0 => {
                    match join(config, peers, identity, peer_address, peer).await {
                        Ok(member) => return member,
                        Err(error) => tracing::info!(%peer, error, "cannot join yet"),
                    }
                }
                Ok(_) => {}
                Err(error) => tracing::info!(%peer, error, "peer does not answer yet"),
            }
        }
        let hellos: Result<Vec<_>, _> = hellos.into_iter().collect();
        if config.bootstrap.is_some()
            && let Ok(hellos) = hellos
            && may_found(peer_address, &hellos)
        {
            return Member {
                cluster: ClusterId(identity.installation.0),
                replica: FOUNDER,
            };
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Whether nobody else is in a cluster, or has a better right to found one.
fn may_found(peer_address: &str, others: &[wire::HelloResponse]) -> bool {
    others.iter().all(|other| {
        other.replica == 0 && !(other.would_found && other.peer_address.as_str() < peer_address)
    })
}

async fn hello(peers: &Peers, peer: &str) -> Result<wire::HelloResponse, String> {
    let mut client = peers.client(peer, Lane::Bulk)?;
    let asked = tokio::time::timeout(HELLO_TIMEOUT, client.hello(wire::HelloRequest {}));
    let answer = asked.await.map_err(|_| "no answer in time".to_owned())?;
    let answer = answer.map_err(|status| status.message().to_owned())?;
    Ok(answer.into_inner())
}

async fn join(
    config: &Config,
    peers: &Peers,
    identity: &Identity,
    peer_address: &str,
    peer: &str,
) -> Result<Member, String> {
    let mut client = peers.client(peer, Lane::Bulk)?;
    let request = wire::JoinRequest {
        installation: identity.installation.0.to_be_bytes().to_vec().into(),
        peer_address: peer_address.to_owned(),
        api_address: config.api_address.clone(),
    };
    let joining = tokio::time::timeout(config.timing.propose, client.join(request));
    let answer = joining.await.map_err(|_| "no answer in time".to_owned())?;
    let answer = answer.map_err(|s| s.message().to_owned())?.into_inner();
    let cluster = <[u8; 16]>::try_from(&answer.cluster[..]);
    Ok(Member {
        cluster: ClusterId(u128::from_be_bytes(
            cluster.map_err(|_| "an answer without a cluster".to_owned())?,
        )),
        replica: ReplicaId(answer.replica),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_newcomers_that_list_each_other_one_founds() {
        let other = |peer_address: &str, replica, would_found| wire::HelloResponse {
            peer_address: peer_address.to_owned(),
            replica,
            would_found,
            ..wire::HelloResponse::default()
        };
        for (what, others, may) in [
            ("nobody else", vec![], true),
            ("others may not found", vec![other("a", 0, false)], true),
            ("a greater address", vec![other("c", 0, true)], true),
            (
                "a smaller address",
                vec![other("c", 0, true), other("a", 0, true)],
                false,
            ),
            ("a cluster", vec![other("c", 1, false)], false),
        ] {
            assert_eq!(may_found("b", &others), may, "{what}");
        }
    }
}
