//! How a replica without a place gets one: it founds a cluster, or joins one.
//!
//! It asks its peers until one of them is in a cluster, and joins there. It founds a cluster only
//! if it may, and every peer has answered, and none is in a cluster, and none that may found as
//! well has a smaller address: so of several newcomers that list each other, one founds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evermint_core::command::{Command, Done, Refusal};
use evermint_core::id::ReplicaId;
use evermint_proto::replica::v1 as wire;
use futures::future::join_all;
use tonic::Code;

use crate::config::{Bootstrap, Config};
use crate::error::Error;
use crate::hearsay::names;
use crate::identity::{ClusterId, Identity, Member};
use crate::local::Local;
use crate::peers::Peers;
use crate::propose;
use crate::raft::Peer;
use crate::security::Security;

/// How long a peer may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);

/// Time between two rounds of asking.
const ASK_EVERY: Duration = Duration::from_millis(300);

/// Time between two looks for a leader.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The id that the founder of a cluster gets from the log.
pub(crate) const FOUNDER: ReplicaId = ReplicaId(1);

/// Waits until this replica has a place, or may found a cluster.
///
/// # Errors
/// [`Error::WrongKek`] if the cluster's data keys would not open here; [`Error::Config`] if it
/// will not be let in as it is.
pub(crate) async fn find_place(
    config: &Config,
    peers: &Peers,
    security: &Security,
    identity: &Identity,
    peer_address: &str,
) -> Result<Member, Error> {
    let newcomer = Newcomer {
        config,
        peers,
        security,
        identity,
        peer_address,
    };
    let others: Vec<&String> = config.peers.iter().filter(|p| *p != peer_address).collect();
    loop {
        let hellos = join_all(others.iter().map(|peer| hello(peers, peer))).await;
        for (peer, answer) in others.iter().zip(&hellos) {
            match answer {
                Ok(answer) if answer.replica != 0 => match newcomer.join(peer).await {
                    Ok(member) => return Ok(member),
                    Err(Unjoined::Never(error)) => return Err(error),
                    Err(Unjoined::NotYet(error)) => {
                        tracing::info!(%peer, error, "cannot join yet");
                    }
                },
                Ok(_) => {}
                Err(error) => tracing::info!(%peer, error, "peer does not answer yet"),
            }
        }
        let hellos: Result<Vec<_>, _> = hellos.into_iter().collect();
        if newcomer.wants_to_found()
            && let Ok(hellos) = hellos
            && may_found(peer_address, &hellos)
        {
            return Ok(Member {
                cluster: ClusterId(identity.installation.0),
                replica: FOUNDER,
            });
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
    let mut client = peers.stranger(peer)?;
    let asked = tokio::time::timeout(HELLO_TIMEOUT, client.hello(wire::HelloRequest {}));
    let answer = asked.await.map_err(|_| "no answer in time".to_owned())?;
    let answer = answer.map_err(|status| status.message().to_owned())?;
    Ok(answer.into_inner())
}

/// Why a replica was not let in.
enum Unjoined {
    /// Another try may help.
    NotYet(String),
    /// Somebody has to do something first.
    Never(Error),
}

impl From<String> for Unjoined {
    fn from(problem: String) -> Self {
        Self::NotYet(problem)
    }
}

/// A replica that looks for a place.
struct Newcomer<'a> {
    config: &'a Config,
    peers: &'a Peers,
    security: &'a Security,
    identity: &'a Identity,
    peer_address: &'a str,
}

impl Newcomer<'_> {
    /// Who has a join token knows of a cluster, and founds none.
    fn wants_to_found(&self) -> bool {
        let has_ticket = match self.security {
            Security::BuiltIn(built_in) => built_in.ticket().is_some(),
            Security::Files(_) | Security::Plain => false,
        };
        self.config.bootstrap.is_some() && !has_ticket
    }

    async fn join(&self, peer: &str) -> Result<Member, Unjoined> {
        let never = |problem| Unjoined::Never(Error::Config(problem));
        let mut request = wire::JoinRequest {
            installation: self.identity.installation.0.to_be_bytes().to_vec().into(),
            peer_address: self.peer_address.to_owned(),
            api_address: self.config.api_address.clone(),
            keks: self.config.keks.clone(),
            ..wire::JoinRequest::default()
        };
        if let Security::BuiltIn(built_in) = self.security {
            let ticket = built_in.ticket().ok_or_else(|| {
                let needed = Refusal::JoinTokenNeeded;
                never(format!("{peer} is in a cluster: {needed}"))
            })?;
            request.token = ticket.token.expose().to_vec().into();
            let asked = built_in.ask().map_err(Unjoined::Never)?;
            request.certificate_request = asked.into();
        }
        let mut client = self.peers.stranger(peer)?;
        let joining = tokio::time::timeout(self.config.timing.propose, client.join(request));
        let answer = joining.await.map_err(|_| "no answer in time".to_owned())?;
        let answer = answer.map_err(|status| match status.code() {
            Code::PermissionDenied | Code::Unauthenticated => {
                never(format!("{peer}: {}", status.message()))
            }
            _ => Unjoined::NotYet(status.message().to_owned()),
        })?;
        let answer = answer.into_inner();
        if !answer.keks_lacking.is_empty() {
            return Err(Unjoined::Never(Error::WrongKek {
                lacking: names(answer.keks_lacking),
                given: self.config.keks.clone(),
            }));
        }
        if let Security::BuiltIn(built_in) = self.security {
            built_in.answered(&answer)?;
        }
        let cluster = <[u8; 16]>::try_from(&answer.cluster[..]);
        let cluster = cluster.map_err(|_| "an answer without a cluster".to_owned())?;
        Ok(Member {
            cluster: ClusterId(u128::from_be_bytes(cluster)),
            replica: ReplicaId(answer.replica),
        })
    }
}

/// Founds the cluster, or completes its founding: each step may have been the last one of a
/// former life.
pub(crate) async fn found_if_founder(
    local: &Local,
    config: &Config,
    identity: &Identity,
    peer_address: &str,
) -> Result<(), Error> {
    let founder = Member {
        cluster: ClusterId(identity.installation.0),
        replica: FOUNDER,
    };
    if local.me != founder || is_founded(local) {
        return Ok(());
    }
    let stopped = |e: &dyn std::fmt::Display| Error::Stopped(e.to_string());
    let bootstrap = config.bootstrap.as_ref();
    let initialized = local.raft.is_initialized().await.map_err(|e| stopped(&e))?;
    if !initialized {
        bootstrap.ok_or_else(unfinished)?;
        let me = Peer::new(peer_address);
        let members = BTreeMap::from([(FOUNDER.0, me)]);
        let begun = local.raft.initialize(members).await;
        begun.map_err(|e| stopped(&e))?;
    }
    while !is_founded(local) {
        if local.leads() {
            let bootstrap = bootstrap.ok_or_else(unfinished)?;
            propose_bootstrap(local, config, identity, peer_address, bootstrap).await?;
        } else {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

fn is_founded(local: &Local) -> bool {
    local.views.state().meta.settings.is_some()
}

async fn propose_bootstrap(
    local: &Local,
    config: &Config,
    identity: &Identity,
    peer_address: &str,
    bootstrap: &Bootstrap,
) -> Result<(), Error> {
    let command = Command::Bootstrap {
        settings: bootstrap.settings.clone(),
        data_key: bootstrap.data_key,
        wrapped: bootstrap.wrapped.clone(),
        installation: identity.installation,
        peer_address: peer_address.to_owned(),
        api_address: config.api_address.clone(),
    };
    match propose::propose(local, command).await?.outcome {
        Ok(Done::Replica(FOUNDER)) | Err(Refusal::AlreadyBootstrapped) => {
            tracing::info!("founded a cluster");
            Ok(())
        }
        Ok(other) => Err(Error::Stopped(format!("bootstrap answered {other:?}"))),
        Err(refusal) => Err(refusal.into()),
    }
}

fn unfinished() -> Error {
    let problem = "the founding of this cluster was cut off: start it with `init` once more";
    Error::Config(problem.to_owned())
}

/// Tells the cluster where this replica is now, if it moved since it was last told.
pub(crate) async fn announce(
    local: Arc<Local>,
    identity: Identity,
    peer_address: String,
    api_address: String,
) {
    let me = local.me.replica;
    let mut applied = local.views.watch();
    let known = applied
        .wait_for(|a| a.state.replicas.contains_key(&me))
        .await;
    let Some(known) = known.ok().and_then(|a| a.state.replicas.get(&me).cloned()) else {
        return;
    };
    if known.peer_address == peer_address && known.api_address == api_address {
        return;
    }
    let register = Command::RegisterReplica {
        installation: identity.installation,
        peer_address,
        api_address,
    };
    loop {
        match propose::propose(&local, register.clone()).await {
            Ok(answer) => {
                tracing::info!(outcome = ?answer.outcome, "announced the new address");
                return;
            }
            Err(error) => tracing::info!(%error, "cannot announce the new address yet"),
        }
    }
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
