//! G10: the trail explains every request at the issuer. Each ticket is good for one request; each
//! committed generation is one success; and a success that was not committed belongs to a ticket that
//! ended otherwise.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use super::seen::Seen;

pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    if !seen.trail_is_complete {
        return Vec::new();
    }
    // Several clients may mint for one credential, one after the other.
    let mut by_credential: BTreeMap<(&str, &str), (usize, usize)> = BTreeMap::new();
    for ((_, client), requests) in &seen.requests {
        if let Some(credential) = seen.credential_of(client) {
            let (sent, minted) = by_credential.entry(credential).or_default();
            *sent += requests.len();
            *minted += requests.iter().filter(|r| r.is_success()).count();
        }
    }
    let mut violations = Vec::new();
    for ((provider, key), (sent, minted)) in by_credential {
        let mut trail = seen.trail.values();
        let Some(mints) = trail.find(|m| m.iter().any(|m| m.provider == provider && m.key == key))
        else {
            // The trail forgets the names of providers that are deleted.
            continue;
        };
        let tickets: BTreeSet<_> = mints.iter().map(|mint| &mint.ticket).collect();
        let committed: BTreeSet<_> = mints
            .iter()
            .filter(|mint| mint.end == "committed")
            .map(|mint| &mint.ticket)
            .collect();
        let otherwise = tickets.len() - committed.len();
        let mut broken = |what: String| {
            violations.push(Violation {
                promise: "G10",
                at: seen.end(),
                what: format!("{provider}:{key}: {what}"),
            });
        };
        if sent > tickets.len() {
            broken(format!("{sent} requests under {} tickets", tickets.len()));
        }
        if minted < committed.len() {
            broken(format!("{} commits of {minted} mints", committed.len()));
        }
        if minted > committed.len() + otherwise {
            broken(format!(
                "{minted} mints, {} commits, and {otherwise} tickets that ended otherwise",
                committed.len()
            ));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::tale::Tale;
    use super::*;

    fn good() -> Tale {
        Tale::begin()
            .configured("p", "c")
            .mint((10, 20), "c", ("r0", "r1"))
            .mint((30, 40), "c", ("r1", "r2"))
            .audited("p", "a", (5, 20), "committed", 1)
            .audited("p", "b", (25, 50), "in_doubt", 0)
            .audited("p", "b", (25, 60), "committed", 2)
            .audited("p", "x", (65, 70), "abandoned", 0)
    }

    #[test]
    fn a_trail_that_explains_everything_is_fine() {
        good().whole_trail().is_good(check);
    }

    #[test]
    fn a_request_without_a_ticket_is_found() {
        let refused = |r: &mut evermint_issuer::Record| r.status = Some(400);
        let tale = good()
            .request((70, 75), "c", refused)
            .request((80, 85), "c", refused)
            .whole_trail();
        tale.is_bad(check, "4 requests under 3 tickets");
    }

    #[test]
    fn a_commit_without_a_mint_is_found() {
        let tale = good().audited("p", "d", (80, 90), "committed", 3);
        tale.whole_trail().is_bad(check, "3 commits of 2 mints");
    }

    #[test]
    fn a_trail_that_lacks_its_beginning_is_not_judged() {
        let tale = good().audited("p", "d", (80, 90), "committed", 3);
        tale.is_good(check);
    }
}
