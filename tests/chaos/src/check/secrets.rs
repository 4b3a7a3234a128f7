//! I12 (G9): no secret on a disk or in a log, no panic, and nobody dies of anything but its fault.

use super::Violation;
use super::seen::Seen;
use crate::history::Event;

pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    let broken = seen.lines.iter().filter_map(|line| {
        let what = match &line.event {
            Event::Leak { file, what } => format!("{what} in {file}"),
            Event::ReplicaEnds {
                replica,
                expected: false,
                how,
            } => format!("replica {replica} ended by itself: {how}"),
            _ => return None,
        };
        Some(Violation {
            promise: "I12",
            at: line.at,
            what,
        })
    });
    broken.collect()
}

#[cfg(test)]
mod tests {
    use super::super::tale::Tale;
    use super::*;

    fn ends(expected: bool) -> Event {
        Event::ReplicaEnds {
            replica: 1,
            expected,
            how: "signal 6".to_owned(),
        }
    }

    #[test]
    fn a_death_that_was_caused_is_fine_and_another_one_is_found() {
        Tale::begin().note(5, ends(true)).is_good(check);
        let tale = Tale::begin().note(5, ends(false));
        tale.is_bad(check, "replica 1 ended by itself: signal 6");
    }

    #[test]
    fn whatever_leaked_is_found() {
        let leak = Event::Leak {
            file: "replica-0.log".to_owned(),
            what: "a panic".to_owned(),
        };
        let tale = Tale::begin().note(5, leak);
        tale.is_bad(check, "a panic in replica-0.log");
    }
}
