//! I5 (G7): nothing that has expired, was detached or deleted is served after its bound, on the
//! harness's clock.
//!
//! An end is what the issuer holds it for. A replica reckons with the cluster clock, which follows a
//! leader's wall clock: while wall clocks are being moved, it may be off by so much. A revocation binds
//! a replica as soon as it says itself that it is in touch: what it knew at the time that it was asked,
//! less its staleness, has to include every change that was acknowledged before.

use std::collections::BTreeMap;

use super::Violation;
use super::seen::{Seen, ms};
use crate::history::{Call, Event, Nanos};

/// How long after its end a value may still be served: the way of an answer, and clocks that are read
/// to the millisecond.
const LATE_MAX: Nanos = ms(1_000);

/// How exactly a replica knows its staleness.
const STALENESS_ERROR: Nanos = ms(500);

pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    let ends = ends(seen);
    let taken = taken_away(seen);
    let mut violations = Vec::new();
    for line in seen.lines {
        let Event::Read {
            sandbox,
            reader,
            asked,
            replica,
            staleness_ms,
            content: Some(content),
            ..
        } = &line.event
        else {
            continue;
        };
        // On a replica's own word, at most what it is allowed.
        let staleness = ms(staleness_ms.unwrap_or(seen.run.max_staleness_ms));
        let known = asked.saturating_sub(staleness + STALENESS_ERROR);
        let mut broken = |what: String| {
            violations.push(Violation {
                promise: "I5",
                at: line.at,
                what: format!("{sandbox}, {reader}, from replica {replica:?}: {what}"),
            });
        };
        for served in seen.content(*content) {
            let Some(token) = &served.token else {
                continue;
            };
            let whose = format!(
                "{} {} generation {}",
                served.provider, served.key, served.generation
            );
            if let Some(end) = ends.get(token.as_str())
                && *asked > end + LATE_MAX
                && !clocks_are_moved(seen, *asked)
            {
                let late = (asked - end) / ms(1);
                broken(format!("{whose} was served {late} ms after its end"));
            }
            let asked_ms = line.unix_ms.saturating_sub((line.at - asked) / ms(1));
            if let Some(own) = served.expires_at_ms
                && asked_ms > own + LATE_MAX / ms(1)
                && !clocks_are_moved(seen, *asked)
            {
                let late = asked_ms - own;
                broken(format!(
                    "{whose} was served {late} ms after the end that it says"
                ));
            }
            let places = [
                (None, served.provider.as_str()),
                (Some(sandbox.as_str()), &served.provider),
            ];
            for place in places {
                if taken.get(&place).is_some_and(|at| known > *at) {
                    broken(format!("{whose} was served after it was taken away"));
                }
            }
        }
    }
    violations
}

/// When the issuer holds each token for ended.
fn ends<'a>(seen: &Seen<'a>) -> BTreeMap<&'a str, Nanos> {
    let requests = seen.requests.values().flatten();
    let ends = requests.filter_map(|request| {
        let token = request.record.access.as_deref()?;
        Some((token, request.served? + ms(seen.run.access_ttl_ms)))
    });
    ends.collect()
}

fn clocks_are_moved(seen: &Seen<'_>, before: Nanos) -> bool {
    let mut clocks = seen.faults.iter().filter(|fault| fault.family == "clock");
    clocks.any(|fault| fault.begins <= before)
}

/// When a provider was certainly gone: for everybody, or for one sandbox. Only what never came back.
fn taken_away<'a>(seen: &Seen<'a>) -> BTreeMap<(Option<&'a str>, &'a str), Nanos> {
    let mut gone = BTreeMap::new();
    for made in seen.calls.iter().filter(|made| made.may_count()) {
        match made.what {
            Call::DeleteProvider { provider } => {
                if let Some(at) = made.acknowledged() {
                    gone.insert((None, provider.as_str()), at);
                }
            }
            Call::Detach { sandbox, provider } => {
                if let Some(at) = made.acknowledged() {
                    gone.insert((Some(sandbox.as_str()), provider.as_str()), at);
                }
            }
            _ => {}
        }
    }
    // An attachment that may have come later makes it unknown.
    for made in seen.calls.iter().filter(|made| made.may_count()) {
        if let Call::Attach { sandbox, provider } = made.what {
            let place = (Some(sandbox.as_str()), provider.as_str());
            let after = |detached: &Nanos| made.acknowledged().is_none_or(|at| at > *detached);
            if gone.get(&place).is_some_and(after) {
                gone.remove(&place);
            }
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::super::tale::{Tale, served};
    use super::*;

    fn good() -> Tale {
        Tale::begin()
            .mint((100, 110), "c", ("r0", "r1"))
            .read("a", (200, 201), 0, (0, 1), 0, vec![token()])
            .read("a", (45_900, 45_901), 0, (1, 1), 0, vec![token()])
    }

    fn token() -> crate::history::Served {
        served("p", 1, "access-r1")
    }

    fn detach() -> Call {
        Call::Detach {
            sandbox: "s".to_owned(),
            provider: "p".to_owned(),
        }
    }

    #[test]
    fn a_value_that_is_served_until_its_end_is_fine() {
        good().is_good(check);
    }

    #[test]
    fn a_value_that_is_served_past_its_end_is_found() {
        let late = |tale: Tale| tale.read("a", (46_200, 46_201), 1, (1, 1), 0, vec![token()]);
        late(good()).is_bad(check, "was served 1100 ms after its end");
        late(good().fault((10, 20), "clock", "step back", &[0])).is_good(check);
    }

    #[test]
    fn a_value_that_is_served_past_the_end_that_it_says_is_found() {
        let read = |asked| {
            let mut value = token();
            // The tale's wall clock began at this time.
            value.expires_at_ms = Some(1_000_000 + 30_000);
            good().read("a", (asked, asked + 1), 1, (1, 1), 0, vec![value])
        };
        read(30_900).is_good(check);
        read(31_100).is_bad(check, "1100 ms after the end that it says");
    }

    #[test]
    fn a_replica_in_touch_knows_at_once_what_was_taken_away() {
        let detached = good().ok((46_000, 46_010), detach());
        let read = |asked, staleness| {
            let tale = detached.clone();
            // A token of its own, so that only the detachment counts.
            let other = vec![served("p", 2, "other")];
            tale.read("a", (asked, asked + 1), 1, (1, 1), staleness, other)
        };
        read(46_400, 0).is_good(check);
        read(46_600, 0).is_bad(check, "after it was taken away");
        read(50_000, 4_000).is_good(check);
        read(50_000, 3_000).is_bad(check, "after it was taken away");
    }

    #[test]
    fn what_may_have_been_attached_again_is_not_gone() {
        let attach = Call::Attach {
            sandbox: "s".to_owned(),
            provider: "p".to_owned(),
        };
        let tale = good()
            .ok((46_000, 46_010), detach())
            .unknown(46_020, attach);
        let tale = tale.read(
            "a",
            (60_000, 60_001),
            1,
            (1, 1),
            0,
            vec![served("p", 2, "o")],
        );
        tale.is_good(check);
    }

    #[test]
    fn what_was_deleted_is_gone_for_everybody() {
        let delete = Call::DeleteProvider {
            provider: "p".to_owned(),
        };
        let tale = good().ok((46_000, 46_010), delete);
        let tale = tale.read(
            "a",
            (60_000, 60_001),
            1,
            (1, 1),
            0,
            vec![served("p", 2, "o")],
        );
        tale.is_bad(check, "after it was taken away");
    }
}
