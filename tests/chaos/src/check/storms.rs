//! I10: no mint storm. In the time that a token lives, an issuer mints a credential as often as it was
//! due and asked for, and a little more for each fault.

use super::Violation;
use super::seen::{Seen, ms};
use crate::history::{Call, Nanos};

/// A token is replaced in the second half of its life: so many are due while one lives.
const DUE_MAX: usize = 3;

/// How often a fault may make one credential be minted again.
const EACH_FAULT: usize = 1;

pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    let window = ms(seen.run.access_ttl_ms);
    let mut violations = Vec::new();
    for ((_, client), requests) in &seen.requests {
        let minted: Vec<Nanos> = requests
            .iter()
            .filter(|request| request.is_success())
            .map(|request| request.arrived)
            .collect();
        for (n, end) in minted.iter().enumerate() {
            let begin = end.saturating_sub(window);
            let count = minted[..=n].iter().filter(|at| **at >= begin).count();
            let allowed =
                DUE_MAX + asked_for(seen, client, begin, *end) + faults(seen, begin, *end);
            if count > allowed {
                violations.push(Violation {
                    promise: "I10",
                    at: *end,
                    what: format!(
                        "{client} was minted {count} times in one lifetime, {allowed} at most"
                    ),
                });
                break;
            }
        }
    }
    violations
}

/// How often somebody wanted the client's credential minted, shortly before this time or in it.
fn asked_for(seen: &Seen<'_>, client: &str, begin: Nanos, end: Nanos) -> usize {
    let Some(credential) = seen.credential_of(client) else {
        return 0;
    };
    let wishes = seen.calls.iter().filter(|made| {
        let of = match made.what {
            Call::Rotate { provider, key } => (provider.as_str(), key.as_str()),
            Call::ConfigureRefresh { provider, key, .. } => (provider.as_str(), key.as_str()),
            _ => return false,
        };
        // A wish stands until it is met.
        let stands = begin.saturating_sub(ms(2 * seen.run.ticket_ttl_ms));
        of == credential && made.may_count() && (stands..=end).contains(&made.invoked)
    });
    wishes.count()
}

fn faults(seen: &Seen<'_>, begin: Nanos, end: Nanos) -> usize {
    let near = seen.faults.iter().filter(|fault| fault.touches(begin, end));
    near.count() * EACH_FAULT
}

#[cfg(test)]
mod tests {
    use super::super::tale::Tale;
    use super::*;

    /// As many mints, a second apart.
    fn mints(tale: Tale, count: u64) -> Tale {
        (0..count).fold(tale, |tale, n| {
            let (shown, given) = (format!("r{n}"), format!("r{}", n + 1));
            let at = 1_000 + n * 1_000;
            tale.mint((at, at + 10), "c", (&shown, &given))
        })
    }

    fn rotate() -> Call {
        Call::Rotate {
            provider: "p".to_owned(),
            key: "K".to_owned(),
        }
    }

    #[test]
    fn what_was_due_and_asked_for_is_no_storm() {
        let tale = Tale::begin().configured("p", "c").ok((3, 4), rotate());
        mints(tale, 5).is_good(check);
    }

    #[test]
    fn mints_that_nobody_asked_for_are_found() {
        mints(Tale::begin(), 4).is_bad(check, "minted 4 times in one lifetime, 3 at most");
    }

    #[test]
    fn a_fault_explains_one_more() {
        let fault = || Tale::begin().fault((500, 1_500), "process", "kill", &[0]);
        mints(fault(), 4).is_good(check);
        mints(fault(), 5).is_bad(check, "4 at most");
    }

    #[test]
    fn mints_a_lifetime_apart_are_no_storm() {
        let tale = (0..9_u64).fold(Tale::begin(), |tale, n| {
            let at = n * 30_000;
            let (shown, given) = (format!("r{n}"), format!("r{}", n + 1));
            tale.mint((at, at + 10), "c", (&shown, &given))
        });
        tale.is_good(check);
    }
}
