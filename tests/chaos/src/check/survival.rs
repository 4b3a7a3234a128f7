//! I4 (G4): what was acknowledged is there at the end, on every replica.
//!
//! Each thing that operators change is a register. What it may hold at the end is what some call set
//! that no other acknowledged call followed; a call whose outcome nobody knows may have come last.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use super::seen::{Made, Seen};
use crate::history::{Call, Event, Nanos};

pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    let registers = registers(&seen.calls);
    let mut violations = Vec::new();
    let mut broken = |at: Nanos, replica: usize, what: String| {
        violations.push(Violation {
            promise: "I4",
            at,
            what: format!("replica {replica}: {what}"),
        });
    };
    for line in seen.lines {
        let at = line.at;
        match &line.event {
            Event::FinalProvider {
                replica,
                provider,
                found,
            } => {
                let there = Register::Provider(provider);
                if let Some(problem) = unexplained(&registers, &there, found.is_some()) {
                    broken(at, *replica, format!("provider {provider} {problem}"));
                }
                let number = Register::Number(provider);
                let n = found.as_ref().and_then(|provider| provider.n);
                if found.is_some()
                    && let Some(problem) = unexplained(&registers, &number, n)
                {
                    broken(at, *replica, format!("the number of {provider} {problem}"));
                }
            }
            Event::FinalSandbox {
                replica,
                sandbox,
                providers,
            } => {
                let there = Register::Sandbox(sandbox);
                if let Some(problem) = unexplained(&registers, &there, providers.is_some()) {
                    broken(at, *replica, format!("sandbox {sandbox} {problem}"));
                }
                let attached: BTreeSet<&str> =
                    providers.iter().flatten().map(String::as_str).collect();
                let known = registers.keys().filter_map(|register| match register {
                    Register::Attached(of, provider) if of == sandbox => Some(*provider),
                    _ => None,
                });
                for provider in known
                    .chain(attached.iter().copied())
                    .collect::<BTreeSet<_>>()
                {
                    let register = Register::Attached(sandbox, provider);
                    let is = attached.contains(provider);
                    // Who loses its provider loses it everywhere.
                    let deleted = registers
                        .get(&Register::Provider(provider))
                        .is_some_and(|writes| writes.iter().any(|w| w.value == Some(0)));
                    if let Some(problem) = unexplained(&registers, &register, is)
                        && (is || !deleted)
                    {
                        broken(at, *replica, format!("{provider} at {sandbox} {problem}"));
                    }
                }
            }
            _ => {}
        }
    }
    violations.extend(missing(seen));
    violations
}

/// A replica of which nothing is known at the end lost everything.
fn missing(seen: &Seen<'_>) -> Vec<Violation> {
    let told: BTreeSet<usize> = seen
        .lines
        .iter()
        .filter_map(|line| match line.event {
            Event::FinalState { replica, .. } => Some(replica),
            _ => None,
        })
        .collect();
    if !seen.calls.iter().any(|call| call.acknowledged().is_some()) {
        return Vec::new();
    }
    let fewer = seen.run.replicas.saturating_sub(told.len());
    let lost = (fewer > 0).then(|| Violation {
        promise: "I4",
        at: seen.end(),
        what: format!("{fewer} replicas do not serve what was acknowledged: only {told:?} do"),
    });
    lost.into_iter().collect()
}

/// Something that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Register<'a> {
    Provider(&'a str),
    Number(&'a str),
    Sandbox(&'a str),
    Attached(&'a str, &'a str),
}

/// One call that set it. Absent: it has no number.
struct Write {
    value: Option<u64>,
    invoked: Nanos,
    acknowledged: Option<Nanos>,
}

type Registers<'a> = BTreeMap<Register<'a>, Vec<Write>>;

fn registers<'a>(calls: &[Made<'a>]) -> Registers<'a> {
    let mut registers = Registers::new();
    for made in calls.iter().filter(|made| made.may_count()) {
        let mut set = |register: Register<'a>, value: Option<u64>| {
            registers.entry(register).or_default().push(Write {
                value,
                invoked: made.invoked,
                acknowledged: made.acknowledged(),
            });
        };
        match made.what {
            Call::CreateProvider { provider } => set(Register::Provider(provider), Some(1)),
            Call::DeleteProvider { provider } => set(Register::Provider(provider), Some(0)),
            Call::UpdateProvider { provider, n } => set(Register::Number(provider), Some(*n)),
            Call::WriteRegister { register, value } => {
                set(Register::Number(register), Some(*value));
            }
            Call::CreateSandbox { sandbox, providers } => {
                set(Register::Sandbox(sandbox), Some(1));
                for provider in providers {
                    set(Register::Attached(sandbox, provider), Some(1));
                }
            }
            Call::Attach { sandbox, provider } => {
                set(Register::Attached(sandbox, provider), Some(1));
            }
            Call::Detach { sandbox, provider } => {
                set(Register::Attached(sandbox, provider), Some(0));
            }
            Call::ReadRegister { .. }
            | Call::ConfigureRefresh { .. }
            | Call::DeleteRefresh { .. }
            | Call::Rotate { .. }
            | Call::RemoveReplica { .. } => {}
        }
    }
    registers
}

/// Why no call explains what a register holds; `None` if one does.
fn unexplained(
    registers: &Registers<'_>,
    register: &Register<'_>,
    holds: impl Into<Held>,
) -> Option<String> {
    let Held(holds) = holds.into();
    let writes = registers.get(register)?;
    // Before the first write it is not there, has no number, is not attached.
    let nothing = match register {
        Register::Number(_) => None,
        Register::Provider(_) | Register::Sandbox(_) | Register::Attached(..) => Some(0),
    };
    let follows = |after: Nanos| {
        let mut acknowledged = writes.iter().filter(|w| w.acknowledged.is_some());
        acknowledged.any(|w| w.invoked > after)
    };
    let initial = holds == nothing && writes.iter().all(|w| w.acknowledged.is_none());
    let written = writes
        .iter()
        .any(|w| w.value == holds && w.acknowledged.is_none_or(|at| !follows(at)));
    (!initial && !written).then(|| format!("is {holds:?}, which no last write explains"))
}

/// What a register holds; whether something is there counts as 1 and 0.
struct Held(Option<u64>);

impl From<bool> for Held {
    fn from(is: bool) -> Self {
        Self(Some(u64::from(is)))
    }
}

impl From<Option<u64>> for Held {
    fn from(number: Option<u64>) -> Self {
        Self(number)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tale::Tale;
    use super::*;
    use crate::history::Provider;

    fn update(n: u64) -> Call {
        Call::UpdateProvider {
            provider: "p".to_owned(),
            n,
        }
    }

    fn set_up() -> Tale {
        let provider = || "p".to_owned();
        let sandbox = || "s".to_owned();
        let create = Call::CreateProvider {
            provider: provider(),
        };
        let sandboxed = Call::CreateSandbox {
            sandbox: sandbox(),
            providers: vec![provider()],
        };
        Tale::begin()
            .ok((1, 2), create)
            .ok((3, 4), sandboxed)
            .ok((5, 6), update(1))
            .ok((7, 8), update(2))
    }

    fn ends(tale: Tale, n: Option<u64>, there: bool, attached: bool) -> Tale {
        (0..3).fold(tale, |tale, replica| {
            let found = there.then_some(Provider { version: 3, n });
            let providers = attached.then(|| "p".to_owned()).into_iter().collect();
            tale.note(
                100,
                Event::FinalState {
                    replica,
                    position: 9,
                    state_hash: "h".to_owned(),
                },
            )
            .note(
                100,
                Event::FinalProvider {
                    replica,
                    provider: "p".to_owned(),
                    found: found.filter(|_| replica > 0 || there),
                },
            )
            .note(
                100,
                Event::FinalSandbox {
                    replica,
                    sandbox: "s".to_owned(),
                    providers: Some(providers),
                },
            )
        })
    }

    /// Each replica says the same: three findings of one kind.
    fn is_bad(tale: &Tale, says: &str) {
        let found = tale.found(check);
        assert!(
            found.len() == 3 && found.iter().all(|v| v.what.contains(says)),
            "{says}: {found:?}"
        );
    }

    #[test]
    fn the_last_acknowledged_write_is_what_should_be_there() {
        ends(set_up(), Some(2), true, true).is_good(check);
        is_bad(
            &ends(set_up(), Some(1), true, true),
            "number of p is Some(1)",
        );
        is_bad(&ends(set_up(), None, true, true), "number of p is None");
        is_bad(
            &ends(set_up(), Some(9), true, true),
            "number of p is Some(9)",
        );
    }

    #[test]
    fn a_write_whose_outcome_is_unknown_may_have_come_last_or_never() {
        let tale = set_up().unknown(9, update(3));
        ends(tale.clone(), Some(3), true, true).is_good(check);
        ends(tale.clone(), Some(2), true, true).is_good(check);
        is_bad(&ends(tale, Some(1), true, true), "number of p");
    }

    #[test]
    fn of_two_writes_at_the_same_time_either_may_be_last() {
        let tale = set_up().ok((9, 20), update(3)).ok((10, 15), update(4));
        for n in [3, 4] {
            ends(tale.clone(), Some(n), true, true).is_good(check);
        }
        is_bad(&ends(tale, Some(2), true, true), "number of p");
    }

    #[test]
    fn a_refused_write_explains_nothing() {
        let tale = set_up().refused((9, 10), update(3));
        is_bad(&ends(tale, Some(3), true, true), "number of p");
    }

    #[test]
    fn what_was_created_is_there_and_what_was_deleted_is_not() {
        is_bad(&ends(set_up(), None, false, true), "provider p is Some(0)");
        let delete = Call::DeleteProvider {
            provider: "p".to_owned(),
        };
        let tale = set_up().ok((9, 10), delete);
        ends(tale.clone(), None, false, false).is_good(check);
        is_bad(&ends(tale, Some(2), true, false), "provider p is Some(1)");
    }

    #[test]
    fn what_was_detached_is_not_attached() {
        let detach = Call::Detach {
            sandbox: "s".to_owned(),
            provider: "p".to_owned(),
        };
        is_bad(&ends(set_up(), Some(2), true, false), "p at s is Some(0)");
        let tale = set_up().ok((9, 10), detach);
        ends(tale.clone(), Some(2), true, false).is_good(check);
        is_bad(&ends(tale, Some(2), true, true), "p at s is Some(1)");
    }

    #[test]
    fn a_replica_that_serves_nothing_at_the_end_is_found() {
        set_up().is_bad(check, "3 replicas do not serve");
    }
}
