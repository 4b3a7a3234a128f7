//! I12 (G9): no secret on a disk or in a log, no panic, and nobody dies of anything but its fault.
//!
//! sled panics when a disk fails under it; the replica takes that for a failed sync. So its panics
//! count only in a run in which no disk was made to fail.

use super::Violation;
use super::seen::Seen;
use crate::history::Event;

pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    let disks_fail = seen
        .faults
        .iter()
        .any(|fault| matches!(fault.family, "power" | "storage"));
    let broken = seen.lines.iter().filter_map(|line| {
        let what = match &line.event {
            Event::Leak { what, .. } if disks_fail && is_sleds_panic(what) => return None,
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

fn is_sleds_panic(what: &str) -> bool {
    what.contains("panicked at") && what.contains("/sled-")
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
    fn a_panic_of_sled_is_forgiven_only_where_disks_fail() {
        let panic = |tale: Tale, of: &str| {
            let leak = Event::Leak {
                file: "replica-0.log".to_owned(),
                what: format!("thread 'x' panicked at {of}/src/lib.rs:1:1:"),
            };
            tale.note(5, leak)
        };
        let cut = || Tale::begin().fault((1, 2), "power", "cut of one", &[0]);
        panic(cut(), "/registry/sled-0.34.7").is_good(check);
        panic(cut(), "crates/replica").is_bad(check, "panicked");
        panic(Tale::begin(), "/registry/sled-0.34.7").is_bad(check, "panicked");
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
