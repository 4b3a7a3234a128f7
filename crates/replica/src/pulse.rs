//! The pulse between each replica and the leader, outside the log.
//!
//! A replica beats: that is how the leader knows that it is alive. The answer tells how far the
//! history is for certain, and the cluster clock. Once a replica has applied that much, it knows
//! itself caught up *as of the moment it asked*, less the age of what the leader knew.
//!
//! The leader itself asks a quorum at every beat. So no answer rests on a metric of unknown age.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use evermint_core::id::{Position, ReplicaId, SessionId};
use evermint_core::time::{MonoMs, UnixMs, millis};
use evermint_proto::replica::v1 as wire;
use evermint_proto::replica::v1::beat_response::Result as Beaten;

use crate::hearsay::{Word, names};
use crate::local::Local;
use crate::members;

/// Positions that a slow replica may have yet to reach; older ones are forgotten first.
const PENDING_MAX: usize = 64;

/// Beats, as a follower or as the leader, until the replica stops.
pub(crate) async fn run(local: Arc<Local>) {
    let mut ticks = tokio::time::interval(local.timing.beat);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut applied = local.views.watch();
    // What will make this replica caught up, and as of when.
    let mut pending: VecDeque<(Position, MonoMs)> = VecDeque::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let bound = local.timing.beat * 2;
                match tokio::time::timeout(bound, beat(&local)).await {
                    Ok(Ok(Some(heard))) => pending.push_back(heard),
                    Ok(Ok(None)) => {}
                    Ok(Err(error)) => tracing::debug!(error, "beat"),
                    Err(_) => tracing::debug!("no answer to a beat"),
                }
                if pending.len() > PENDING_MAX {
                    pending.pop_front();
                }
            }
            changed = applied.changed(), if !pending.is_empty() => {
                if changed.is_err() {
                    return;
                }
            }
        }
        let position = applied.borrow_and_update().state.meta.position;
        while let Some((needed, as_of)) = pending.front()
            && *needed <= position
        {
            local.caught_up(*as_of);
            pending.pop_front();
        }
    }
}

/// One beat. Gives what will make this replica caught up, if there is something new.
pub(crate) async fn beat(local: &Local) -> Result<Option<(Position, MonoMs)>, String> {
    let Some(leader) = local.leader() else {
        return Ok(None);
    };
    if leader == local.me.replica {
        let eligible = is_eligible(local, leader, local.draining.load(Ordering::Relaxed));
        let now = local.clock.mono();
        local.duties.beat(leader, local.session, eligible, now);
        local.hearsay.hear(leader, local.word());
        local.confirm().await?;
        return Ok(None);
    }
    let asked = local.clock.boot();
    let request = wire::BeatRequest {
        envelope: local.envelope(leader),
        session: local.session.0.to_be_bytes().to_vec().into(),
        applied: local.views.state().meta.position.0,
        draining: local.draining.load(Ordering::Relaxed),
        erased: local.erased().0,
        keks: local.keks.clone(),
        wall_ms: local.clock.wall().0,
    };
    let mut client = local.client(leader)?;
    let response = client.beat(request).await.map_err(|e| e.to_string())?;
    let pulse = match response.into_inner().result {
        Some(Beaten::Pulse(pulse)) => pulse,
        Some(Beaten::NotMember(_)) => {
            if !local.removed.swap(true, Ordering::Relaxed) {
                tracing::error!(replica = %local.me.replica, "was removed from the cluster");
            }
            return Ok(None);
        }
        Some(Beaten::NotLeader(_)) | None => return Ok(None),
    };
    local.removed.store(false, Ordering::Relaxed);
    let pushed = local.clock.observe(UnixMs(pulse.clock_ms));
    local.views.clock_pushed(pushed);
    local.hearsay.repeat(pulse.heard, local.clock.boot());
    Ok(pulse.confirmed.map(|confirmed| {
        let age = std::time::Duration::from_millis(confirmed.age_ms);
        (Position(confirmed.position), asked - age)
    }))
}

/// Takes a beat as the leader.
pub(crate) fn answer(local: &Local, from: ReplicaId, request: &wire::BeatRequest) -> Beaten {
    if !local.leads() {
        return Beaten::NotLeader(wire::Empty {});
    }
    if !local.views.state().replicas.contains_key(&from) {
        return Beaten::NotMember(wire::Empty {});
    }
    let now = local.clock.mono();
    if let Ok(session) = <[u8; 16]>::try_from(&request.session[..]) {
        let session = SessionId(u128::from_be_bytes(session));
        let eligible = is_eligible(local, from, request.draining);
        local.duties.beat(from, session, eligible, now);
        let word = Word {
            session,
            at: local.clock.boot(),
            wall: UnixMs(request.wall_ms),
            applied: Position(request.applied),
            erased: Position(request.erased),
            keks: names(request.keks.clone()),
        };
        local.hearsay.hear(from, word);
    }
    Beaten::Pulse(wire::Pulse {
        clock_ms: local.stamper.stamp().unwrap_or(local.clock.now()).0,
        confirmed: local.confirmed().map(|confirmed| wire::Confirmed {
            position: confirmed.position.0,
            age_ms: millis(local.clock.boot().since(confirmed.as_of)),
        }),
        heard: local.hearsay.tell(local.clock.boot()),
    })
}

/// Whether a replica may own shards: it votes, or has caught up, and is not about to stop.
fn is_eligible(local: &Local, replica: ReplicaId, draining: bool) -> bool {
    !draining && members::is_caught_up(&local.metrics(), replica.0)
}
