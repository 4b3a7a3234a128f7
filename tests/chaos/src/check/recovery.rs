//! I11: once everything is healed, all is well again within a bound: one leader, a write, a mint, and
//! every read.

use super::Violation;
use super::seen::{Outcome, Request, Seen, ms};
use crate::history::{Answer, Event, Nanos, Phase};

/// How long it may take.
const BOUND: Nanos = ms(60_000);

pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    let Some(healed) = seen.phase(Phase::Healed) else {
        return Vec::new();
    };
    let until = healed + BOUND;
    let within = |at: &Nanos| (healed..=until).contains(at);
    let mut violations = Vec::new();
    let mut broken = |at: Nanos, what: String| {
        let promise = "I11";
        violations.push(Violation { promise, at, what });
    };

    if !has_leader(seen, until) {
        broken(until, "nobody leads".to_owned());
    }
    let mut written = seen.calls.iter().filter_map(|made| match made.outcome {
        Outcome::Ok(at, Answer::Written { .. }) => Some(at),
        _ => None,
    });
    if !written.any(|at| within(&at)) {
        broken(until, "no write was acknowledged".to_owned());
    }
    let mut requests = seen.requests.values().flatten();
    let minted = |request: &Request<'_>| request.is_success() && within(&request.arrived);
    if !requests.any(minted) {
        broken(until, "nothing was minted".to_owned());
    }
    for line in seen.lines.iter().filter(|line| line.at > until) {
        if let Event::ReadFailed {
            sandbox, reader, ..
        } = &line.event
        {
            broken(line.at, format!("{sandbox}, {reader}: a read still fails"));
        }
    }
    violations
}

/// Whether somebody leads at that time.
fn has_leader(seen: &Seen<'_>, at: Nanos) -> bool {
    let leads = seen.lines.iter().take_while(|line| line.at <= at);
    let last = leads.filter_map(|line| match line.event {
        Event::Leads { replica, .. } => Some(replica),
        _ => None,
    });
    last.last().flatten().is_some()
}

#[cfg(test)]
mod tests {
    use super::super::tale::Tale;
    use super::*;
    use crate::history::{Call, Way};

    fn leads(tale: Tale, at: u64, replica: Option<usize>) -> Tale {
        tale.note(at, Event::Leads { replica, term: 3 })
    }

    fn write(tale: Tale, at: u64) -> Tale {
        let what = Call::UpdateProvider {
            provider: "p".to_owned(),
            n: at,
        };
        tale.ok((at, at + 1), what)
    }

    fn mint(tale: Tale, at: u64) -> Tale {
        tale.mint((at, at + 1), "c", ("r0", "r1"))
    }

    fn healed() -> Tale {
        let tale = leads(Tale::begin(), 10, Some(0));
        leads(mint(write(tale, 20), 30), 40, None).phase(100, Phase::Healed)
    }

    #[test]
    fn a_cluster_that_is_well_in_time_is_fine() {
        mint(write(leads(healed(), 200, Some(1)), 300), 400).is_good(check);
    }

    #[test]
    fn what_does_not_come_back_is_found() {
        mint(write(healed(), 300), 400).is_bad(check, "nobody leads");
        let led = leads(healed(), 200, Some(1));
        mint(led.clone(), 400).is_bad(check, "no write");
        write(led.clone(), 300).is_bad(check, "nothing was minted");
        mint(write(led, 300), 70_000).is_bad(check, "nothing was minted");
    }

    #[test]
    fn a_read_that_fails_long_after_is_found() {
        let well = mint(write(leads(healed(), 200, Some(1)), 300), 400);
        let fails = |at| {
            well.clone().note(
                at,
                Event::ReadFailed {
                    sandbox: "s".to_owned(),
                    reader: "a".to_owned(),
                    way: Way::Polling,
                    asked: ms(at - 10),
                    said: vec![],
                },
            )
        };
        fails(5_000).is_good(check);
        fails(61_000).is_bad(check, "a read still fails");
    }

    #[test]
    fn a_run_that_was_never_healed_is_not_judged() {
        Tale::begin().is_good(check);
    }
}
