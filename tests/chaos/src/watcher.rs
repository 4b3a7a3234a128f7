//! Watches the replicas from outside: who leads, who lives, who ended by itself.

use std::sync::Arc;
use std::time::Duration;

use evermint_proto::v1::Role;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::history::Event;
use crate::world::{Seen, World};

/// How often everyone is asked.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Watches until it is told to stop.
pub async fn watch(world: Arc<World>, stop: watch::Receiver<bool>) {
    let mut sessions = vec![String::new(); world.places.len()];
    while !*stop.borrow() {
        look(&world, &mut sessions).await;
        sleep(LOOK_EVERY).await;
    }
}

async fn look(world: &Arc<World>, sessions: &mut [String]) {
    for place in &world.places {
        // The history says whether that was expected.
        let _ = place.reap();
    }
    let ask = (0..world.places.len()).map(|place| world.status(place));
    let statuses = futures::future::join_all(ask).await;
    for (place, status) in statuses.iter().enumerate() {
        let Some(status) = status else { continue };
        world.places[place].identified(status.replica);
        if sessions[place] != status.session {
            sessions[place].clone_from(&status.session);
            world.recorder.note(Event::ReplicaUp {
                replica: place,
                id: status.replica,
                session: status.session.clone(),
            });
        }
    }
    let answered = || {
        statuses
            .iter()
            .enumerate()
            .filter_map(|(n, s)| Some((n, s.as_ref()?)))
    };
    let term = answered().map(|(_, status)| status.term).max().unwrap_or(0);
    let leader = answered()
        .find(|(_, status)| status.role() == Role::Leader && status.term == term)
        .map(|(place, _)| place);
    let before = world.seen.send_replace(Seen {
        leader,
        term,
        statuses,
    });
    if (before.leader, before.term) != (leader, term) {
        world.recorder.note(Event::Leads {
            replica: leader,
            term,
        });
    }
}
