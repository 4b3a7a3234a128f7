//! I4 (G4), in time: for each register there is one order of its calls that explains every answer and
//! keeps to real time ([Herlihy and Wing]). Found, or shown not to be there, by the algorithm of Wing,
//! Gong and Lowe.
//!
//! A write whose outcome nobody knows ends when the history does: it may come anywhere after it was
//! asked for. Registers with more than [`CALLS_MAX`] calls are cut there: the search may take
//! exponentially long, and what comes first is a history as well.
//!
//! [Herlihy and Wing]: https://doi.org/10.1145/78969.78972

use std::collections::BTreeMap;

use todc_utils::{Action, History, Specification, WGLChecker};

use super::Violation;
use super::seen::{Made, Outcome, Seen};
use crate::history::{Answer, Call, Nanos};

/// The most calls of one register that are looked at.
const CALLS_MAX: usize = 500;

/// What is done to a register. Of a read, what it found; unknown while it is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Write(u64),
    Read(Option<Option<u64>>),
}

/// A register that holds nothing at first.
struct Register;

impl Specification for Register {
    type State = Option<u64>;
    type Operation = Op;

    fn init() -> Self::State {
        None
    }

    fn apply(operation: &Op, state: &Self::State) -> (bool, Self::State) {
        match operation {
            Op::Write(value) => (true, Some(*value)),
            Op::Read(Some(found)) => (found == state, *state),
            Op::Read(None) => (false, *state),
        }
    }
}

pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    let mut registers: BTreeMap<&str, Vec<&Made<'_>>> = BTreeMap::new();
    for made in &seen.calls {
        let (Call::WriteRegister { register, .. } | Call::ReadRegister { register }) = made.what
        else {
            continue;
        };
        registers.entry(register).or_default().push(made);
    }
    let broken = registers
        .iter()
        .filter(|(_, calls)| !is_linearizable(calls));
    broken
        .map(|(register, calls)| Violation {
            promise: "I4",
            at: calls.last().map_or(0, |made| made.invoked),
            what: format!("no order explains the {} calls of {register}", calls.len()),
        })
        .collect()
}

fn is_linearizable(calls: &[&Made<'_>]) -> bool {
    // When something happened; calls before responses of the same moment, so that they overlap.
    let mut events: Vec<(Nanos, bool, usize, Op)> = Vec::new();
    for (n, made) in calls.iter().take(CALLS_MAX).enumerate() {
        let (call, response) = match (made.what, made.outcome) {
            (Call::WriteRegister { value, .. }, Outcome::Ok(at, _)) => {
                (Op::Write(*value), Some((at, Op::Write(*value))))
            }
            (Call::WriteRegister { value, .. }, Outcome::Unknown) => {
                (Op::Write(*value), Some((Nanos::MAX, Op::Write(*value))))
            }
            (Call::ReadRegister { .. }, Outcome::Ok(at, Answer::Value { value, .. })) => {
                (Op::Read(None), Some((at, Op::Read(Some(*value)))))
            }
            // A write that was refused, and a read that found nothing out, tell nothing.
            _ => continue,
        };
        events.push((made.invoked, false, n, call));
        events.extend(response.map(|(at, op)| (at, true, n, op)));
    }
    if events.is_empty() {
        return true;
    }
    events.sort_by_key(|(at, is_response, n, _)| (*at, *is_response, *n));
    // Each call is a process of its own: one that has no answer keeps nobody from going on.
    let actions = events.into_iter().map(|(_, is_response, n, op)| {
        let action = match is_response {
            false => Action::Call(op),
            true => Action::Response(op),
        };
        (n, action)
    });
    WGLChecker::<Register>::is_linearizable(History::from_actions(actions.collect()))
}

#[cfg(test)]
mod tests {
    use super::super::tale::Tale;
    use super::*;

    fn write(value: u64) -> Call {
        Call::WriteRegister {
            register: "r".to_owned(),
            value,
        }
    }

    fn read() -> Call {
        Call::ReadRegister {
            register: "r".to_owned(),
        }
    }

    fn value(value: Option<u64>) -> Answer {
        Answer::Value { value, position: 1 }
    }

    fn good() -> Tale {
        Tale::begin()
            .answered((1, 2), read(), value(None))
            .ok((3, 4), write(1))
            .answered((5, 6), read(), value(Some(1)))
            .ok((7, 20), write(2))
            .answered((8, 9), read(), value(Some(1)))
            .answered((10, 11), read(), value(Some(2)))
    }

    #[test]
    fn answers_that_one_order_explains_are_fine() {
        good().is_good(check);
    }

    #[test]
    fn a_stale_read_is_found() {
        let tale = good().answered((21, 22), read(), value(Some(1)));
        tale.is_bad(check, "no order explains");
    }

    #[test]
    fn a_read_that_goes_back_while_a_write_is_under_way_is_found() {
        let tale = good().answered((12, 13), read(), value(Some(1)));
        tale.is_bad(check, "no order explains");
    }

    #[test]
    fn a_read_of_nothing_after_a_write_is_found() {
        let tale = good().answered((21, 22), read(), value(None));
        tale.is_bad(check, "no order explains");
    }

    #[test]
    fn an_unknown_write_may_show_late_or_never_but_not_come_and_go() {
        let tale = good().unknown(21, write(3));
        let late = tale.answered((30, 31), read(), value(Some(2))).answered(
            (40, 41),
            read(),
            value(Some(3)),
        );
        late.is_good(check);
        let gone = late.answered((50, 51), read(), value(Some(2)));
        gone.is_bad(check, "no order explains");
    }

    #[test]
    fn a_refused_write_must_never_show() {
        let tale = good().refused((21, 22), write(3));
        tale.is_good(check);
        let shown = tale.answered((30, 31), read(), value(Some(3)));
        shown.is_bad(check, "no order explains");
    }
}
