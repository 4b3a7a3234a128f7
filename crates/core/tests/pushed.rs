//! Values that are pushed from outside: a refresh that never mints.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod support;

use std::collections::BTreeMap;

use evermint_core::command::{Command, Refusal, StaticValue};
use evermint_core::credential::Verdict;
use evermint_core::id::*;
use evermint_core::strategy::{ReplayPolicy, Strategy};
use evermint_core::time::UnixMs;
use support::*;

const HOUR: u64 = 3_600_000;

/// A world whose one credential is pushed.
fn pushed() -> World {
    let mut w = World::new(ReplayPolicy::Strict);
    w.configure(Strategy::External, ReplayPolicy::Strict);
    w
}

fn push(value: Option<&str>, expires_at: Option<UnixMs>) -> Command {
    let value = value.map(|value| StaticValue {
        sealed: sealed(value),
        expires_at,
    });
    Command::UpdateProvider {
        id: ProviderId(1),
        expected_version: None,
        config: BTreeMap::new(),
        credentials: BTreeMap::from([(key("TOKEN"), value)]),
        expires_at: BTreeMap::new(),
    }
}

#[test]
fn a_value_is_pushed_and_the_next_one_is_due_before_its_end() {
    let mut w = pushed();
    assert_eq!(w.token().push_due(), Some(w.now), "there is none yet");
    assert_eq!(w.token().verdict(w.now), Verdict::Pending);
    let end = UnixMs(w.now.0 + HOUR);
    w.done(push(Some("v1"), Some(end)));
    assert_eq!(w.token().verdict(w.now), Verdict::Fresh);
    assert_eq!(w.token().generation, Generation(1));
    let due = w.token().push_due().unwrap();
    assert!(w.now < due && due < end, "{due:?}");
    assert_eq!(w.token().verdict(end), Verdict::Expired);
    w.wait(HOUR);
    w.done(push(Some("v2"), None));
    assert_eq!(w.token().verdict(w.now), Verdict::Fresh);
    assert_eq!(w.token().push_due(), None, "it has no end");
}

#[test]
fn nothing_is_ever_minted() {
    let mut w = pushed();
    assert_eq!(w.token().due(), None);
    assert_eq!(w.propose(w.claim(1)), Err(Refusal::Pushed));
    let rotate = Command::RotateCredential {
        credential: token(),
    };
    assert_eq!(w.propose(rotate), Err(Refusal::Pushed));
    // A ticket of an earlier configuration ends without a value.
    let mut w = World::new(ReplayPolicy::Strict);
    w.done(w.claim(1));
    w.configure(Strategy::External, ReplayPolicy::Strict);
    w.done(push(Some("pushed"), None));
    assert_eq!(w.propose(w.commit(1, "minted")), Err(Refusal::Voided));
    let value = w.token().value.clone().unwrap();
    assert_eq!(value.outputs[&key("TOKEN")], sealed("pushed"));
}

#[test]
fn a_key_under_a_refresh_is_not_deleted_by_itself() {
    let mut w = pushed();
    let refused = Err(Refusal::RefreshManaged(key("TOKEN")));
    assert_eq!(w.propose(push(None, None)), refused);
    w.done(Command::DeleteRefresh {
        credential: token(),
    });
    w.done(push(None, None));
}
