//! I6 (G5): no grant is lost but one whose rotation died with its only holder, and that is known.
//!
//! At rest, each credential works and its grant is alive; or a person has to authorize again, the
//! status names the mint that was lost, and the trail has the doubt that it came from.

use std::collections::BTreeMap;

use super::Violation;
use super::seen::{Made, Seen};
use crate::history::{Call, Event};

/// Who gives new grants to credentials that have lost theirs.
const CARER: &str = "carer";

pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    let mut violations = replaced(seen);
    for line in seen.lines {
        let Event::FinalCredential {
            provider,
            key,
            client,
            verdict,
            cause,
            lost,
            ..
        } = &line.event
        else {
            continue;
        };
        let mut broken = |what: String| {
            violations.push(Violation {
                promise: "I6",
                at: line.at,
                what: format!("{provider}:{key}: {what}"),
            });
        };
        let revoked = seen
            .lines
            .iter()
            .any(|line| matches!(&line.event, Event::Revoked { client: c, .. } if c == client));
        let doubts = seen.doubts_of(client);
        // A credential that lost its grant has another one since.
        let mut families = seen.lines.iter().filter_map(|line| match &line.event {
            Event::FinalFamily {
                client: c, alive, ..
            } if c == client => Some(*alive),
            _ => None,
        });
        let is_alive = families.any(|alive| alive);
        match verdict.as_str() {
            "fresh" if !is_alive && !revoked => {
                broken("it counts as fresh, and its grant is dead".to_owned());
            }
            // What may pass is tried again; its value is served meanwhile.
            "fresh" | "retrying" | "throttled" => {}
            _ if revoked => {}
            "needs-reauthorization" if doubts == 0 && seen.trail_is_complete => {
                broken(format!("its grant is lost without any doubt: {cause}"));
            }
            "needs-reauthorization" if !lost => {
                broken(format!(
                    "its grant is lost, and no lost mint is named: {cause}"
                ));
            }
            "needs-reauthorization" => {}
            other => broken(format!("it is {other} at rest: {cause}")),
        }
    }
    violations
}

/// Grants that a person had to replace, although no mint of theirs was ever in doubt.
fn replaced(seen: &Seen<'_>) -> Vec<Violation> {
    let mut by_client: BTreeMap<&str, Vec<&Made<'_>>> = BTreeMap::new();
    for made in seen.calls.iter().filter(|made| made.who.contains(CARER)) {
        if let Call::ConfigureRefresh { client, .. } = made.what
            && made.acknowledged().is_some()
        {
            by_client.entry(client).or_default().push(made);
        }
    }
    if !seen.trail_is_complete {
        return Vec::new();
    }
    let lost = by_client.iter().filter_map(|(client, replaced)| {
        let revoked = seen
            .lines
            .iter()
            .filter(|line| matches!(&line.event, Event::Revoked { client: c, .. } if c == client));
        let explained = seen.doubts_of(client) + revoked.count();
        let (last, count) = (replaced.last()?, replaced.len());
        (count > explained).then(|| Violation {
            promise: "I6",
            at: last.invoked,
            what: format!(
                "{client}: {count} grants had to be replaced, {explained} doubts explain"
            ),
        })
    });
    lost.collect()
}

#[cfg(test)]
mod tests {
    use super::super::tale::Tale;
    use super::*;
    use crate::history::Issuer;

    fn ends(tale: Tale, verdict: &str, lost: bool, alive: bool) -> Tale {
        tale.note(
            100,
            Event::FinalCredential {
                provider: "p".to_owned(),
                key: "K".to_owned(),
                client: "c".to_owned(),
                generation: 3,
                attempt: 4,
                verdict: verdict.to_owned(),
                cause: "why".to_owned(),
                lost,
            },
        )
        .note(
            100,
            Event::FinalFamily {
                issuer: Issuer::Strict,
                client: "c".to_owned(),
                grant: "g".to_owned(),
                generation: 3,
                forks: 0,
                reuse_detected: 0,
                alive,
            },
        )
    }

    fn calm() -> Tale {
        let tale = Tale::begin().configured("p", "c");
        tale.audited("p", "t", (1, 2), "committed", 1).whole_trail()
    }

    fn doubtful() -> Tale {
        calm().audited("p", "u", (3, 4), "in_doubt", 0)
    }

    #[test]
    fn a_credential_that_works_is_fine() {
        ends(calm(), "fresh", false, true).is_good(check);
        ends(calm(), "fresh", false, false).is_bad(check, "its grant is dead");
        ends(calm(), "retrying", false, true).is_good(check);
        ends(calm(), "expired", false, true).is_bad(check, "it is expired at rest");
    }

    #[test]
    fn a_grant_may_be_lost_only_in_doubt_and_by_name() {
        ends(doubtful(), "needs-reauthorization", true, false).is_good(check);
        let unnamed = ends(doubtful(), "needs-reauthorization", false, false);
        unnamed.is_bad(check, "no lost mint is named");
        let undoubted = ends(calm(), "needs-reauthorization", true, false);
        undoubted.is_bad(check, "without any doubt");
    }

    #[test]
    fn a_grant_that_was_replaced_was_in_doubt_before() {
        let replace = || Call::ConfigureRefresh {
            provider: "p".to_owned(),
            key: "K".to_owned(),
            client: "c".to_owned(),
        };
        let cared = |tale: Tale| tale.ok_by("carer", (50, 51), replace());
        cared(doubtful()).is_good(check);
        cared(calm()).is_bad(check, "1 grants had to be replaced");
        calm().ok((50, 51), replace()).is_good(check);
    }

    #[test]
    fn a_grant_that_was_withdrawn_is_not_lost() {
        let revoked = calm().note(
            5,
            Event::Revoked {
                issuer: Issuer::Strict,
                client: "c".to_owned(),
            },
        );
        ends(revoked, "needs-reauthorization", false, false).is_good(check);
    }
}
