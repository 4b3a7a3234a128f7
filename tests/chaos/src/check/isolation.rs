//! I8 (G7): a replica that is out of touch stops serving at `max_staleness`, by its own word and by
//! the harness's clock.

use super::Violation;
use super::seen::{Seen, ms};
use crate::history::{Event, Nanos};

/// How much longer than allowed it may take: the way of an answer, and a clock that runs a little slow.
const LATE_MAX: Nanos = ms(2_000);

/// Words in the names of faults that cut a replica off from all others.
const CUTS_OFF: [&str; 1] = ["isolate"];

pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    let max = ms(seen.run.max_staleness_ms);
    let mut violations = Vec::new();
    for line in seen.lines {
        let Event::Read {
            sandbox,
            asked,
            replica,
            staleness_ms,
            ..
        } = &line.event
        else {
            continue;
        };
        let mut broken = |what: String| {
            violations.push(Violation {
                promise: "I8",
                at: line.at,
                what: format!("{sandbox}, from replica {replica:?}: {what}"),
            });
        };
        if let Some(staleness) = staleness_ms.filter(|s| ms(*s) > max) {
            broken(format!("it served, and was stale for {staleness} ms"));
        }
        let cut = seen.faults.iter().find(|fault| {
            replica.is_some_and(|place| fault.replicas == [place])
                && CUTS_OFF.iter().any(|word| fault.name.contains(word))
                && fault.begins + max + LATE_MAX < *asked
                && fault.ends.is_none_or(|end| end > line.at)
        });
        if let Some(cut) = cut {
            let since = (asked - cut.begins) / ms(1);
            broken(format!("it served {since} ms after it was cut off"));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::tale::Tale;
    use super::*;

    fn cut() -> Tale {
        Tale::begin().fault((1_000, 60_000), "network", "isolate", &[2])
    }

    #[test]
    fn a_replica_may_serve_as_long_as_it_is_allowed() {
        let tale = cut()
            .read("a", (20_000, 20_001), 2, (0, 1), 19_000, vec![])
            .read("a", (40_000, 40_001), 1, (1, 1), 0, vec![])
            .read("a", (70_000, 70_001), 2, (1, 1), 0, vec![]);
        tale.is_good(check);
    }

    #[test]
    fn a_replica_that_says_itself_that_it_is_too_old_is_found() {
        let tale = cut().read("a", (70_000, 70_001), 2, (0, 1), 20_001, vec![]);
        tale.is_bad(check, "stale for 20001 ms");
    }

    #[test]
    fn a_replica_that_was_cut_off_for_longer_is_found_whatever_it_says() {
        let tale = cut().read("a", (23_500, 23_501), 2, (0, 1), 0, vec![]);
        tale.is_bad(check, "22500 ms after it was cut off");
    }
}
