//! Every fault took effect: a run whose faults did not is no evidence.

use std::collections::BTreeSet;

use super::Violation;
use super::seen::Seen;
use crate::history::Event;

pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    let bitten: BTreeSet<_> = seen
        .lines
        .iter()
        .filter_map(|line| match line.event {
            Event::FaultBites { fault, .. } => Some(fault),
            _ => None,
        })
        .collect();
    let without = seen.faults.iter().filter(|f| !bitten.contains(&f.id));
    without
        .map(|fault| Violation {
            promise: "run",
            at: fault.begins,
            what: format!("{} {} had no effect", fault.family, fault.name),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tale::Tale;
    use super::*;

    #[test]
    fn a_fault_that_took_effect_is_fine_and_another_one_is_found() {
        let tale = Tale::begin().fault((1, 2), "process", "kill", &[0]);
        tale.is_good(check);
        let missed = Event::FaultBegins {
            fault: 77,
            family: "network".to_owned(),
            name: "isolate".to_owned(),
            replicas: vec![1],
            detail: String::new(),
        };
        tale.note(5, missed)
            .is_bad(check, "network isolate had no effect");
    }
}
