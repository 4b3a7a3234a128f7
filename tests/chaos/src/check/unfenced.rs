//! What is promised to sandboxes that say nothing of what they have seen, OpenShell's: their revision
//! changes if and only if what they see does; nothing that they install is older than what they had,
//! and no call of theirs fails, while a majority is up and the replica that they asked is among it.

use std::collections::BTreeMap;

use super::Violation;
use super::availability::up;
use super::seen::Seen;
use crate::history::Event;

pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    let generations = generations(seen);
    let mut violations = Vec::new();
    let mut contents: BTreeMap<(&str, u64), u64> = BTreeMap::new();
    let mut revisions: BTreeMap<(&str, u64), u64> = BTreeMap::new();
    // The newest value of each credential in each life of it.
    let mut newest: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
    for line in seen.lines {
        let mut broken = |promise, what: String| {
            let at = line.at;
            violations.push(Violation { promise, at, what });
        };
        match &line.event {
            Event::Stripped {
                sandbox,
                asked,
                replica,
                why,
            } => {
                let up = up(seen, *asked, line.at);
                if up.len() * 2 > seen.run.replicas && up.contains(replica) {
                    broken(
                        "I7",
                        format!("{sandbox}, unfenced: replica {replica}, one of {up:?}: {why}"),
                    );
                }
            }
            Event::Installed {
                sandbox,
                asked,
                replica,
                revision,
                content,
            } => {
                let known = *contents.entry((sandbox, *revision)).or_insert(*content);
                if known != *content {
                    broken(
                        "I3",
                        format!("{sandbox}: revision {revision} of contents {known} and {content}"),
                    );
                }
                let known = *revisions.entry((sandbox, *content)).or_insert(*revision);
                if known != *revision {
                    broken(
                        "I3",
                        format!("{sandbox}: revisions {known} and {revision} of content {content}"),
                    );
                }
                let up = up(seen, *asked, line.at);
                let in_touch = up.len() * 2 > seen.run.replicas && up.contains(replica);
                for served in seen.content(*content) {
                    let token = served.token.as_deref().unwrap_or_default();
                    let Some(generation) = generations.get(token) else {
                        continue;
                    };
                    let whose = (sandbox.as_str(), served.provider.as_str(), &*served.key);
                    let known = newest.entry(whose).or_default();
                    if generation < known && in_touch {
                        broken(
                            "I3",
                            format!(
                                "{sandbox}, unfenced, from replica {replica}: {} generation \
                                 {generation} after {known}",
                                served.key
                            ),
                        );
                    }
                    *known = (*known).max(*generation);
                }
            }
            _ => {}
        }
    }
    violations
}

/// Which value of its credential each token is, as readers were told who are told that.
fn generations<'a>(seen: &Seen<'a>) -> BTreeMap<&'a str, u64> {
    let contents = seen.lines.iter().filter_map(|line| match &line.event {
        Event::Content { credentials, .. } => Some(credentials),
        _ => None,
    });
    let told = contents.flatten().filter(|served| served.generation > 0);
    told.filter_map(|served| Some((served.token.as_deref()?, served.generation)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::seen::ms;
    use super::super::tale::{Tale, served};
    use super::*;
    use crate::history::{Place, Served};

    /// Three replicas, and a reader that is told which token is which.
    fn begun() -> Tale {
        let tale = (0..3).fold(Tale::begin(), |tale, replica| {
            tale.note(1, Event::ReplicaStarts { replica, pid: 7 })
        });
        let told = vec![served("p", 1, "t1"), served("p", 2, "t2")];
        tale.read("a", (10, 11), 0, (3, 5), 0, told)
    }

    /// An environment that is installed: content, of which revision, from where.
    fn installs(tale: Tale, at: u64, (content, revision): (u64, u64), replica: Place) -> Tale {
        let token = format!("t{content}");
        let credentials = vec![Served {
            generation: 0,
            ..served("life", 0, &token)
        }];
        let content = 100 + content;
        let known = Event::Content {
            content,
            credentials,
        };
        let installed = Event::Installed {
            sandbox: "s".to_owned(),
            asked: ms(at - 1),
            replica,
            revision,
            content,
        };
        tale.note(at, known).note(at, installed)
    }

    fn loses(at: u64, replica: Place) -> Event {
        Event::Stripped {
            sandbox: "s".to_owned(),
            asked: ms(at - 1),
            replica,
            why: "Unavailable".to_owned(),
        }
    }

    #[test]
    fn environments_that_go_forward_are_fine() {
        let tale = installs(begun(), 20_000, (1, 7), 0);
        let tale = installs(tale, 21_000, (2, 8), 1);
        installs(tale, 22_000, (2, 8), 2).is_good(check);
    }

    #[test]
    fn a_revision_stands_for_one_content_and_a_content_has_one_revision() {
        let tale = installs(begun(), 20_000, (1, 7), 0);
        installs(tale.clone(), 21_000, (1, 8), 0).is_bad(check, "revisions 7 and 8 of content");
        installs(tale, 21_000, (2, 7), 0).is_bad(check, "revision 7 of contents");
    }

    #[test]
    fn a_value_older_than_the_one_before_is_found_unless_its_replica_was_in_trouble() {
        let tale = installs(begun(), 20_000, (2, 8), 0);
        installs(tale.clone(), 21_000, (1, 7), 1).is_bad(check, "K generation 1 after 2");
        let cut = tale.fault((19_000, 22_000), "network", "isolate", &[1]);
        installs(cut, 21_000, (1, 7), 1).is_good(check);
    }

    #[test]
    fn a_failure_is_found_unless_its_replica_or_a_majority_was_in_trouble() {
        let begun = begun();
        let failed = begun.clone().note(20_000, loses(20_000, 1));
        failed.is_bad(check, "replica 1, one of [0, 1, 2]");
        for troubled in [&[1][..], &[0, 2]] {
            let tale = begun
                .clone()
                .fault((19_000, 22_000), "process", "pause", troubled);
            tale.note(20_000, loses(20_000, 1)).is_good(check);
        }
    }
}
