//! Membership follows the state: the replicas that are registered there are the members that
//! should be. The leader compares and takes one step at a time, so a join or a removal that was
//! cut off anywhere goes on wherever the next leader is.
//!
//! A newcomer first learns; once it has caught up it votes. If its address is that of an older
//! replica, the older one's disk is gone: it loses its vote in the same step, and is then
//! forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use evermint_core::command::{Command, Proposal};
use evermint_core::id::{ReplicaId, RequestId};
use evermint_core::state::State;
use openraft::ChangeMembers;
use uuid::Uuid;

use crate::local::Local;
use crate::raft::{Metrics, Peer};

/// Log entries by which a replica may be behind and still count as caught up.
const LAG_MAX: u64 = 100;

/// Time between two looks, unless something changes.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long one step may take.
const STEP_DEADLINE: Duration = Duration::from_secs(10);

/// One step towards the membership that should be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Let it follow.
    AddLearner(u64, Peer),
    /// Let these vote, and nobody else.
    SetVoters(BTreeSet<u64>),
    /// Stop sending to these.
    DropLearners(BTreeSet<u64>),
    /// Its successor has taken its place.
    Forget(u64),
}

/// The membership as it is.
#[derive(Clone, Debug, Default)]
struct Actual {
    /// One set, or two while one replaces the other.
    configs: Vec<BTreeSet<u64>>,
    nodes: BTreeSet<u64>,
    /// Who is not far behind.
    caught_up: BTreeSet<u64>,
}

/// The next step, if there is one.
fn plan(wanted: &BTreeMap<u64, String>, actual: &Actual) -> Option<Step> {
    if let [_, next] = &actual.configs[..] {
        return Some(Step::SetVoters(next.clone()));
    }
    let voters = actual.configs.first()?;
    let successor = |id: u64| {
        let address = wanted.get(&id)?;
        let mut newer = wanted.range(id + 1..);
        newer.rfind(|(_, a)| *a == address).map(|(id, _)| *id)
    };
    let fit = |id: &u64| voters.contains(id) || actual.caught_up.contains(id);

    let replaced = |id: &u64| !voters.contains(id) && successor(*id).is_some_and(|s| fit(&s));
    if let Some(id) = wanted.keys().find(|id| replaced(id)) {
        return Some(Step::Forget(*id));
    }
    if let Some((id, address)) = wanted.iter().find(|(id, _)| !actual.nodes.contains(id)) {
        return Some(Step::AddLearner(*id, Peer::new(address)));
    }
    let next: BTreeSet<u64> = wanted
        .keys()
        .copied()
        .filter(fit)
        .filter(|id| successor(*id).is_none_or(|next| !fit(&next)))
        .collect();
    if !next.is_empty() && next != *voters {
        return Some(Step::SetVoters(next));
    }
    let stray: BTreeSet<u64> = actual
        .nodes
        .iter()
        .copied()
        .filter(|id| !voters.contains(id) && !wanted.contains_key(id))
        .collect();
    (!stray.is_empty()).then_some(Step::DropLearners(stray))
}

fn wanted(state: &State) -> BTreeMap<u64, String> {
    let replicas = state.replicas.values();
    replicas
        .map(|replica| (replica.id.0, replica.peer_address.clone()))
        .collect()
}

fn actual(metrics: &Metrics) -> Actual {
    let membership = metrics.membership_config.membership();
    let nodes: BTreeSet<u64> = membership.nodes().map(|(id, _)| *id).collect();
    Actual {
        configs: membership.get_joint_config().clone(),
        caught_up: nodes
            .iter()
            .copied()
            .filter(|id| is_caught_up(metrics, *id))
            .collect(),
        nodes,
    }
}

/// As the leader sees it: whether a replica votes, or is not far behind.
pub(crate) fn is_caught_up(metrics: &Metrics, replica: u64) -> bool {
    if metrics
        .membership_config
        .membership()
        .voter_ids()
        .any(|id| id == replica)
    {
        return true;
    }
    let Some(replication) = &metrics.replication else {
        return false;
    };
    match (replication.get(&replica), metrics.last_log_index) {
        (Some(Some(matched)), Some(last)) => last.saturating_sub(matched.index) <= LAG_MAX,
        _ => false,
    }
}

/// As the leader sees it: by how many entries each other replica is behind.
pub(crate) fn lag(metrics: &Metrics) -> BTreeMap<ReplicaId, Option<u64>> {
    let last = metrics.last_log_index.unwrap_or(0);
    let others = metrics.replication.iter().flatten();
    others
        .filter(|(id, _)| **id != metrics.id)
        .map(|(id, matched)| {
            let behind = matched.map(|matched| last.saturating_sub(matched.index));
            (ReplicaId(*id), behind)
        })
        .collect()
}

/// Brings the membership to what the state says while this replica leads, until it stops.
pub(crate) async fn run(local: Arc<Local>) {
    let mut metrics = local.raft.server_metrics();
    loop {
        if local.leads() && local.views.state().meta.settings.is_some() {
            let step = plan(&wanted(&local.views.state()), &actual(&local.metrics()));
            if let Some(step) = step {
                tracing::info!(?step, "membership");
                match tokio::time::timeout(STEP_DEADLINE, take(&local, step)).await {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => tracing::warn!(error, "membership step failed; will retry"),
                    Err(_) => tracing::warn!("membership step took too long; will retry"),
                }
            }
        }
        let look = tokio::time::timeout(LOOK_EVERY, metrics.changed()).await;
        if matches!(look, Ok(Err(_))) {
            return;
        }
    }
}

async fn take(local: &Local, step: Step) -> Result<(), String> {
    let change = match step {
        Step::AddLearner(id, peer) => ChangeMembers::AddNodes(BTreeMap::from([(id, peer)])),
        Step::SetVoters(voters) => ChangeMembers::ReplaceAllVoters(voters),
        Step::DropLearners(ids) => ChangeMembers::RemoveNodes(ids),
        Step::Forget(id) => {
            let request = RequestId(Uuid::new_v4().as_u128());
            let replica = ReplicaId(id);
            let command = Command::RemoveReplica { replica };
            let done = local
                .batcher
                .submit(Proposal {
                    request,
                    by: None,
                    command,
                })
                .await;
            return done.map(|_| ()).map_err(|e| e.to_string());
        }
    };
    let changed = local.raft.change_membership(change, false).await;
    changed.map(|_| ()).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(replicas: &[(u64, &str)]) -> BTreeMap<u64, String> {
        let replicas = replicas.iter();
        replicas.map(|(id, at)| (*id, (*at).to_owned())).collect()
    }

    fn set(ids: &[u64]) -> BTreeSet<u64> {
        ids.iter().copied().collect()
    }

    fn is(voters: &[&[u64]], nodes: &[u64], caught_up: &[u64]) -> Actual {
        Actual {
            configs: voters.iter().map(|ids| set(ids)).collect(),
            nodes: set(nodes),
            caught_up: set(caught_up),
        }
    }

    #[test]
    fn the_membership_follows_the_registered_replicas_step_by_step() {
        let (ab, abc) = (
            wants(&[(1, "a"), (2, "b")]),
            wants(&[(1, "a"), (2, "b"), (3, "c")]),
        );
        // Replica 3's disk was replaced: 4 lives where it lived.
        let moved = wants(&[(1, "a"), (2, "b"), (3, "c"), (4, "c")]);
        let voters = Some(Step::SetVoters(set(&[1, 2])));
        for (what, wanted, actual, step) in [
            (
                "all as it should be",
                &ab,
                is(&[&[1, 2]], &[1, 2], &[1, 2]),
                None,
            ),
            (
                "a newcomer learns first",
                &ab,
                is(&[&[1]], &[1], &[1]),
                Some(Step::AddLearner(2, Peer::new("b"))),
            ),
            ("it is behind", &ab, is(&[&[1]], &[1, 2], &[1]), None),
            (
                "it has caught up",
                &ab,
                is(&[&[1]], &[1, 2], &[1, 2]),
                voters.clone(),
            ),
            (
                "a change that was cut off is completed",
                &abc,
                is(&[&[1], &[1, 2]], &[1, 2], &[1, 2]),
                voters.clone(),
            ),
            (
                "a removed replica loses its vote",
                &ab,
                is(&[&[1, 2, 3]], &[1, 2, 3], &[1, 2, 3]),
                voters,
            ),
            (
                "and is then dropped",
                &ab,
                is(&[&[1, 2]], &[1, 2, 3], &[1, 2, 3]),
                Some(Step::DropLearners(set(&[3]))),
            ),
            (
                "a replaced replica keeps its vote until its successor is there",
                &moved,
                is(&[&[1, 2, 3]], &[1, 2, 3, 4], &[1, 2, 3]),
                None,
            ),
            (
                "the successor takes the vote over in one step",
                &moved,
                is(&[&[1, 2, 3]], &[1, 2, 3, 4], &[1, 2, 3, 4]),
                Some(Step::SetVoters(set(&[1, 2, 4]))),
            ),
            (
                "and the replaced one is forgotten",
                &moved,
                is(&[&[1, 2, 4]], &[1, 2, 4], &[1, 2, 4]),
                Some(Step::Forget(3)),
            ),
            (
                "nobody is left without a vote",
                &wants(&[]),
                is(&[&[1]], &[1], &[1]),
                None,
            ),
        ] {
            assert_eq!(plan(wanted, &actual), step, "{what}");
        }
    }
}
