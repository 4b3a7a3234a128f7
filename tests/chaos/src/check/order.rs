//! I3 (G6): what a reader is given never grows older, across replicas, reconnects and restarts.

use std::collections::BTreeMap;

use super::Violation;
use super::seen::Seen;
use crate::history::Event;

pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    // The newest bundle of each reader, and the newest value of each credential in it.
    let mut bundles: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut values: BTreeMap<(&str, &str, &str, &str), u64> = BTreeMap::new();
    for line in seen.lines {
        let Event::Read {
            sandbox,
            reader,
            replica,
            generation,
            after,
            content,
            ..
        } = &line.event
        else {
            continue;
        };
        let mut broken = |what: String| {
            violations.push(Violation {
                promise: "I3",
                at: line.at,
                what: format!("{sandbox}, {reader}, from replica {replica:?}: {what}"),
            });
        };
        let newest = bundles.entry((sandbox, reader)).or_insert(*after);
        if *generation < *newest {
            broken(format!("bundle {generation} after {newest}"));
        }
        *newest = (*newest).max(*generation);
        for served in content.map(|c| seen.content(c)).unwrap_or_default() {
            if served.token.is_none() {
                continue;
            }
            let whose = (
                sandbox.as_str(),
                reader.as_str(),
                served.provider.as_str(),
                served.key.as_str(),
            );
            let known = values.entry(whose).or_default();
            if served.generation < *known {
                broken(format!(
                    "{} {} generation {} after {known}",
                    served.provider, served.key, served.generation
                ));
            }
            *known = (*known).max(served.generation);
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::tale::{Tale, served};
    use super::*;

    fn good() -> Tale {
        Tale::begin()
            .read("a", (10, 11), 0, (3, 5), 0, vec![served("p", 1, "t1")])
            .read("a", (12, 13), 1, (5, 5), 0, vec![served("p", 1, "t1")])
            .read("b", (12, 13), 2, (3, 4), 0, vec![served("p", 1, "t1")])
            .read("a", (14, 15), 2, (5, 9), 0, vec![served("p", 2, "t2")])
    }

    #[test]
    fn a_reader_that_goes_forward_is_fine_whatever_others_see() {
        good().is_good(check);
    }

    #[test]
    fn a_bundle_older_than_one_that_was_seen_is_found() {
        let tale = good().read("a", (16, 17), 0, (9, 8), 0, vec![]);
        tale.is_bad(check, "bundle 8 after 9");
    }

    #[test]
    fn a_value_older_than_one_that_was_seen_is_found() {
        let older = vec![served("p", 1, "t1")];
        let tale = good().read("a", (16, 17), 0, (9, 9), 0, older);
        tale.is_bad(check, "p K generation 1 after 2");
    }

    #[test]
    fn a_bundle_older_than_what_a_new_reader_asked_for_is_found() {
        let tale = good().read("c", (16, 17), 0, (9, 8), 0, vec![]);
        tale.is_bad(check, "bundle 8 after 9");
    }
}
