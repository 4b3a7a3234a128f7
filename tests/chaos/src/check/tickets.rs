//! I1 (G1, G3): at most one open ticket for a credential, and a stale result never commits.
//!
//! The audit trail says of each ticket when it was granted and when it was settled, by the one clock
//! that stamps the replicated history. A ticket may be settled twice: in doubt first, then by its late
//! answer, as long as no newer ticket was granted.

use std::collections::BTreeMap;

use super::Violation;
use super::seen::Seen;
use crate::history::AuditedMint;

pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    let at = seen.end();
    let broken = seen.trail.iter().flat_map(|((provider, key), mints)| {
        let whose = format!("{provider}:{key}");
        let mut problems = overlaps(mints);
        problems.extend(generations(mints));
        problems.into_iter().map(move |what| Violation {
            promise: "I1",
            at,
            what: format!("{whose}: {what}"),
        })
    });
    broken.collect()
}

/// Tickets that were granted while another one was open, or settled after a newer one was granted.
fn overlaps(mints: &[&AuditedMint]) -> Vec<String> {
    // When each was granted; when it was settled first, and for good.
    let mut tickets: BTreeMap<&str, (u64, u64, u64)> = BTreeMap::new();
    for mint in mints {
        let (_, first, last) =
            tickets
                .entry(&mint.ticket)
                .or_insert((mint.granted_at_ms, mint.at_ms, mint.at_ms));
        *first = (*first).min(mint.at_ms);
        if mint.end == "committed" {
            *last = (*last).max(mint.at_ms);
        }
    }
    let mut problems = Vec::new();
    for (a, (granted, first, last)) in &tickets {
        for (b, (later, ..)) in &tickets {
            if a != b && granted < later && later < first {
                problems.push(format!("ticket {b} was granted while {a} was open"));
            } else if a != b && granted < later && later < last {
                problems.push(format!("ticket {a} committed after {b} was granted"));
            }
        }
    }
    problems
}

/// Each commit is the next generation, and each ticket commits at most once.
fn generations(mints: &[&AuditedMint]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut last: Option<&AuditedMint> = None;
    for mint in mints.iter().filter(|mint| mint.end == "committed") {
        if let Some(last) = last
            && mint.generation != last.generation + 1
        {
            problems.push(format!(
                "ticket {} committed generation {} after {}",
                mint.ticket, mint.generation, last.generation
            ));
        }
        last = Some(mint);
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::super::tale::Tale;
    use super::*;

    fn good() -> Tale {
        Tale::begin()
            .audited("p", "a", (10, 20), "committed", 1)
            .audited("p", "b", (20, 30), "in_doubt", 0)
            .audited("p", "b", (20, 40), "committed", 2)
            .audited("p", "c", (40, 50), "failed", 0)
            .audited("q", "d", (15, 45), "committed", 1)
    }

    #[test]
    fn tickets_one_after_the_other_are_fine_also_with_a_late_answer() {
        good().is_good(check);
    }

    #[test]
    fn two_open_tickets_are_found() {
        let tale = good().audited("p", "e", (45, 60), "failed", 0);
        tale.is_bad(check, "ticket e was granted while c was open");
    }

    #[test]
    fn a_result_that_is_older_than_a_newer_ticket_is_found() {
        let tale = good()
            .audited("p", "e", (60, 70), "in_doubt", 0)
            .audited("p", "f", (75, 80), "abandoned", 0)
            .audited("p", "e", (60, 90), "committed", 3);
        tale.is_bad(check, "ticket e committed after f was granted");
    }

    #[test]
    fn a_generation_that_is_committed_twice_is_found() {
        let tale = good().audited("p", "e", (60, 70), "committed", 2);
        tale.is_bad(check, "committed generation 2 after 2");
    }
}
