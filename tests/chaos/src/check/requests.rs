//! I2 (G2): requests to the issuer for one credential never overlap, and a rotated refresh token is
//! never shown again.
//!
//! Two things are known that no client of an unfenced issuer can help, and are not counted. A process
//! that stands still since before its ticket's end cannot hang up, nor can one whose way to the issuer
//! is cut. And a mint in doubt lets the old token be tried once more, as late as possible: so many
//! tokens may be shown again as tickets ended in doubt, and no more. A try that the issuer turned away
//! unread (busy, or down) is followed by another, and not counted. Once the issuer has refused the token
//! the grant is dead, and whoever asks for a mint all the same is told so by one more try.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use super::seen::{Request, Seen, ms};
use crate::history::{Call, Nanos};

/// Words in the names of faults that keep a process from hanging up.
const CANNOT_HANG_UP: [&str; 3] = ["pause", "freeze", "issuer"];

pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for ((_, client), requests) in &seen.requests {
        violations.extend(overlaps(seen, client, requests));
        violations.extend(repeats(seen, client, requests));
    }
    violations
}

fn overlaps(seen: &Seen<'_>, client: &str, requests: &[Request<'_>]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (n, second) in requests.iter().enumerate() {
        let before = &requests[..n];
        let open = before
            .iter()
            .filter(|first| first.ended.is_none_or(|ended| ended > second.arrived));
        let guilty = open.filter(|first| !could_not_hang_up(seen, first, second));
        violations.extend(guilty.map(|first| Violation {
            promise: "I2",
            at: second.arrived,
            what: format!(
                "{client}: request {} arrived while {} was open",
                second.record.seq, first.record.seq
            ),
        }));
    }
    violations
}

/// Whether the process behind `first` may have been unable to close its connection in time.
fn could_not_hang_up(seen: &Seen<'_>, first: &Request<'_>, second: &Request<'_>) -> bool {
    let deadline = first.arrived + ms(seen.run.ticket_ttl_ms);
    seen.faults.iter().any(|fault| {
        CANNOT_HANG_UP.iter().any(|word| fault.name.contains(word))
            && fault.begins <= deadline
            && fault.touches(deadline.min(second.arrived), second.arrived)
    })
}

fn repeats(seen: &Seen<'_>, client: &str, requests: &[Request<'_>]) -> Vec<Violation> {
    let mut spent: BTreeSet<&str> = BTreeSet::new();
    // Since when the issuer refuses a token, and how often it was shown since.
    let mut refused: BTreeMap<&str, (Nanos, usize)> = BTreeMap::new();
    let mut again = Vec::new();
    for request in requests {
        let Some(token) = request.record.presented.as_deref() else {
            continue;
        };
        if spent.contains(token) && !request.was_turned_away() {
            match refused.get_mut(token) {
                Some((since, tries)) if wishes(seen, client, *since, request.arrived) > *tries => {
                    *tries += 1;
                }
                _ => again.push(request),
            }
        }
        if request.is_success() {
            spent.insert(token);
        }
        if request.record.error.as_deref() == Some("invalid_grant") {
            refused.entry(token).or_insert((request.arrived, 0));
        }
    }
    let doubts = seen.doubts_of(client);
    if again.len() <= doubts || !seen.trail_is_complete {
        return Vec::new();
    }
    let said = |request: &&Request<'_>| Violation {
        promise: "I2",
        at: request.arrived,
        what: format!(
            "{client}: request {} showed a rotated token again, after {doubts} doubts",
            request.record.seq
        ),
    };
    again.iter().skip(doubts).map(said).collect()
}

/// How often a person wanted the client's credential minted between these, or shortly before.
fn wishes(seen: &Seen<'_>, client: &str, from: Nanos, to: Nanos) -> usize {
    let from = from.saturating_sub(ms(2 * seen.run.ticket_ttl_ms));
    let wished = seen.calls.iter().filter(|made| match made.what {
        Call::Rotate { provider, key } => {
            seen.credential_of(client) == Some((provider.as_str(), key.as_str()))
                && made.may_count()
                && (from..=to).contains(&made.invoked)
        }
        _ => false,
    });
    wished.count()
}

#[cfg(test)]
mod tests {
    use super::super::tale::Tale;
    use super::*;

    fn good() -> Tale {
        Tale::begin()
            .configured("p", "c")
            .mint((10, 20), "c", ("r0", "r1"))
            .mint((20, 30), "c", ("r1", "r2"))
            .mint((15, 25), "other", ("x0", "x1"))
            .whole_trail()
    }

    #[test]
    fn neighbours_and_strangers_do_not_overlap() {
        good().is_good(check);
    }

    #[test]
    fn overlapping_requests_of_one_client_are_found() {
        let tale = good().mint((29, 40), "c", ("r2", "r3"));
        tale.is_bad(check, "arrived while 2 was open");
    }

    #[test]
    fn a_process_that_stands_still_cannot_hang_up() {
        let late = |tale: Tale| {
            tale.mint((100, 9_000), "c", ("r2", "r3"))
                .mint((8_000, 8_100), "c", ("r3", "r4"))
        };
        let paused = good().fault((200, 8_500), "process", "pause", &[0]);
        late(paused).is_good(check);
        let over = good().fault((200, 300), "process", "pause", &[0]);
        late(over).is_bad(check, "arrived while");
        let after = good().fault((7_000, 8_500), "process", "pause", &[0]);
        late(after).is_bad(check, "arrived while");
    }

    #[test]
    fn a_rotated_token_that_is_shown_again_is_found() {
        let tale = good().mint((40, 50), "c", ("r1", "r3"));
        tale.is_bad(check, "showed a rotated token again");
    }

    #[test]
    fn each_doubt_allows_one_more_try() {
        let tale =
            good()
                .audited("p", "t", (20, 30), "in_doubt", 0)
                .mint((40, 50), "c", ("r1", "r3"));
        tale.is_good(check);
        let tale = tale.mint((60, 70), "c", ("r1", "r4"));
        tale.is_bad(check, "after 1 doubts");
    }

    #[test]
    fn a_doubt_of_a_provider_that_was_deleted_since_counts() {
        let tale =
            good()
                .audited("", "t", (20, 30), "in_doubt", 0)
                .mint((40, 50), "c", ("r1", "r3"));
        tale.is_good(check);
    }

    #[test]
    fn a_try_that_was_turned_away_unread_is_followed_by_another() {
        let busy = |tale: Tale, at| {
            tale.request((at, at + 1), "c", |r| {
                r.presented = Some("r1".to_owned());
                r.status = Some(429);
                r.fault = Some("status".to_owned());
            })
        };
        let tale = good().audited("p", "t", (20, 30), "in_doubt", 0);
        let tale = busy(busy(tale, 40), 50).mint((60, 70), "c", ("r1", "r3"));
        tale.is_good(check);
        let tale = tale.mint((80, 90), "c", ("r1", "r4"));
        tale.is_bad(check, "after 1 doubts");
    }

    #[test]
    fn a_dead_grant_is_tried_once_more_for_each_wish() {
        let dead = |tale: Tale, at| {
            tale.request((at, at + 1), "c", |r| {
                r.presented = Some("r1".to_owned());
                r.status = Some(400);
                r.error = Some("invalid_grant".to_owned());
            })
        };
        let wish = Call::Rotate {
            provider: "p".to_owned(),
            key: "K".to_owned(),
        };
        let tale = good().audited("p", "t", (20, 30), "in_doubt", 0);
        let tale = dead(tale, 40).ok((50, 51), wish);
        dead(tale.clone(), 60).is_good(check);
        dead(dead(tale, 60), 70).is_bad(check, "after 1 doubts");
        let unasked = good().audited("p", "t", (20, 30), "in_doubt", 0);
        dead(dead(unasked, 40), 60).is_bad(check, "after 1 doubts");
    }

    #[test]
    fn a_token_that_was_not_spent_may_be_shown_again() {
        let tale = good()
            .request((40, 50), "c", |r| r.presented = Some("r2".to_owned()))
            .mint((60, 70), "c", ("r2", "r3"));
        tale.is_good(check);
    }
}
