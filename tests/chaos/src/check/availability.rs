//! I7 (G8): reads go on while a majority of the replicas is up, whatever else is down.

use super::Violation;
use super::seen::{Seen, ms};
use crate::history::{Event, Nanos, Place};

/// A replica counts as up when it has been so for this long: it starts, finds a leader, catches up.
const SETTLED: Nanos = ms(10_000);
/// How much later than a reader the harness may notice that a process has ended.
const NOTICED: Nanos = ms(1_000);

pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for line in seen.lines {
        let Event::ReadFailed {
            sandbox,
            reader,
            asked,
            said,
            ..
        } = &line.event
        else {
            continue;
        };
        let up = up(seen, *asked, line.at);
        if up.len() * 2 > seen.run.replicas {
            violations.push(Violation {
                promise: "I7",
                at: line.at,
                what: format!("{sandbox}, {reader}: a read failed while {up:?} were up: {said:?}"),
            });
        }
    }
    violations
}

/// The replicas that were up, and had settled, while somebody asked.
pub(super) fn up(seen: &Seen<'_>, asked: Nanos, answered: Nanos) -> Vec<Place> {
    let (since, until) = (asked.saturating_sub(SETTLED), answered + NOTICED);
    (0..seen.run.replicas)
        .filter(|place| was_up(seen, *place, since, until))
        .collect()
}

/// Whether a process lived at `place` all the time, and no fault concerned it.
fn was_up(seen: &Seen<'_>, place: Place, from: Nanos, to: Nanos) -> bool {
    let mut runs_since: Option<Nanos> = None;
    for line in seen.lines.iter().take_while(|line| line.at <= to) {
        match line.event {
            Event::ReplicaStarts { replica, .. } if replica == place => runs_since = Some(line.at),
            Event::ReplicaEnds { replica, .. } if replica == place => runs_since = None,
            _ => {}
        }
    }
    let lived = runs_since.is_some_and(|since| since <= from);
    let spared = !seen
        .faults
        .iter()
        .any(|fault| fault.replicas.contains(&place) && fault.touches(from, to));
    lived && spared
}

#[cfg(test)]
mod tests {
    use super::super::tale::Tale;
    use super::*;
    use crate::history::Way;

    fn started() -> Tale {
        (0..3).fold(Tale::begin(), |tale, replica| {
            tale.note(1, Event::ReplicaStarts { replica, pid: 7 })
        })
    }

    fn fails(tale: Tale, asked: u64, at: u64) -> Tale {
        tale.note(
            at,
            Event::ReadFailed {
                sandbox: "s".to_owned(),
                reader: "a".to_owned(),
                way: Way::Polling,
                asked: ms(asked),
                said: vec![(0, "no".to_owned())],
            },
        )
    }

    fn ends(tale: Tale, at: u64, replica: Place) -> Tale {
        tale.note(
            at,
            Event::ReplicaEnds {
                replica,
                expected: true,
                how: "SIGKILL".to_owned(),
            },
        )
    }

    #[test]
    fn a_read_that_fails_while_a_majority_is_up_is_found() {
        let tale = ends(started(), 19_000, 2);
        fails(tale, 20_000, 25_000).is_bad(check, "while [0, 1] were up");
    }

    #[test]
    fn a_read_may_fail_while_a_majority_is_down_paused_or_just_back() {
        let one = ends(started(), 19_000, 2);
        for noticed in [21_000, 25_900] {
            let two = ends(one.clone(), noticed, 1);
            fails(two, 20_000, 25_000).is_good(check);
        }
        let later = ends(one.clone(), 26_100, 1);
        fails(later, 20_000, 25_000).is_bad(check, "while [0, 1] were up");
        let paused = one
            .clone()
            .fault((18_000, 22_000), "process", "pause", &[1]);
        fails(paused, 20_000, 25_000).is_good(check);
        let back = ends(one, 19_100, 1).note(19_200, Event::ReplicaStarts { replica: 1, pid: 8 });
        fails(back, 20_000, 25_000).is_good(check);
    }
}
