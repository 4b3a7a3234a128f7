//! I9: replicas at the same position have the same state, to the byte; and at the end all are there.

use std::collections::BTreeMap;

use super::Violation;
use super::seen::Seen;
use crate::history::{Event, Place};

pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    let mut by_position: BTreeMap<u64, BTreeMap<&str, Vec<Place>>> = BTreeMap::new();
    let mut last: BTreeMap<Place, u64> = BTreeMap::new();
    for line in seen.lines {
        if let Event::FinalState {
            replica,
            position,
            state_hash,
        } = &line.event
        {
            let hashes = by_position.entry(*position).or_default();
            hashes.entry(state_hash).or_default().push(*replica);
            last.insert(*replica, *position);
        }
    }
    let broken = |what: String| Violation {
        promise: "I9",
        at: seen.end(),
        what,
    };
    let differing = by_position.iter().filter(|(_, hashes)| hashes.len() > 1);
    let mut violations: Vec<_> = differing
        .map(|(position, hashes)| broken(format!("at position {position}: {hashes:?}")))
        .collect();
    let mut positions: Vec<_> = last.values().collect();
    positions.sort_unstable();
    positions.dedup();
    if positions.len() > 1 {
        violations.push(broken(format!("the replicas end apart: {last:?}")));
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::tale::Tale;
    use super::*;

    fn ends(tale: Tale, replica: Place, position: u64, hash: &str) -> Tale {
        let state_hash = hash.to_owned();
        tale.note(
            100,
            Event::FinalState {
                replica,
                position,
                state_hash,
            },
        )
    }

    fn two() -> Tale {
        ends(ends(Tale::begin(), 0, 9, "h"), 1, 9, "h")
    }

    #[test]
    fn equal_states_at_equal_positions_are_fine() {
        ends(two(), 2, 9, "h").is_good(check);
    }

    #[test]
    fn another_state_at_the_same_position_is_found() {
        ends(two(), 2, 9, "x").is_bad(check, "at position 9");
    }

    #[test]
    fn a_replica_that_stays_behind_is_found() {
        ends(two(), 2, 8, "h").is_bad(check, "end apart");
    }
}
