//! Sandboxes may ask for a mint before it is due, and cannot burn an issuer's budget by it.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod support;

use evermint_core::command::{Command, Done};
use evermint_core::credential::{Early, NotEarly, Reason};
use evermint_core::id::Generation;
use evermint_core::mint::FailureClass;
use evermint_core::strategy::{ReplayPolicy, Strategy};
use evermint_core::time::UnixMs;
use support::*;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

fn early(generation: u64, early: Early) -> Command {
    Command::MintEarly {
        credential: token(),
        generation: Generation(generation),
        early,
    }
}

/// A world whose credential has a value of generation 1, good for an hour from [`START`].
fn minted() -> World {
    let mut w = World::new(ReplayPolicy::Safe);
    w.configure(Strategy::OAuth2ClientCredentials, ReplayPolicy::Safe);
    w.done(w.claim(1));
    w.done(w.commit(1, "t1"));
    w
}

/// Whether the mint is due now, and why.
fn due(w: &World) -> Option<Reason> {
    let (at, reason) = w.token().due()?;
    (at <= w.now).then_some(reason)
}

#[test]
fn a_refused_value_makes_one_mint_due_for_its_generation() {
    let mut w = minted();
    w.wait(MINUTE);
    for (generation, changed) in [(0, false), (2, false), (1, true), (1, false)] {
        let outcome = w.propose(early(generation, Early::Rejected));
        assert_eq!(outcome, Ok(Done::Changed(changed)), "{generation}");
    }
    assert_eq!(due(&w), Some(Reason::Rejected));
    w.done(w.claim(2));
    assert_eq!(
        w.propose(early(1, Early::Rejected)),
        Ok(Done::Changed(false))
    );
    w.done(w.commit(2, "t2"));
    assert_eq!(due(&w), None);
    // A late report of the value of before means nothing.
    assert_eq!(
        w.propose(early(1, Early::Rejected)),
        Ok(Done::Changed(false))
    );
}

#[test]
fn a_hostile_sandbox_costs_four_mints_in_a_lifetime() {
    let mut w = minted();
    let mut mints = 0;
    for ticket in 2..2 + 6 * 60 {
        w.wait(MINUTE);
        let generation = w.token().generation.0;
        w.propose(early(generation, Early::Rejected)).unwrap();
        w.propose(early(generation, Early::ShortLived)).unwrap();
        if due(&w).is_some() {
            w.done(w.claim(ticket));
            w.done(w.commit(ticket, "t"));
            mints += 1;
        }
    }
    assert_eq!(mints, 6 * 4, "in six lifetimes");
}

#[test]
fn what_is_counted_survives_a_reconfiguration() {
    let mut w = minted();
    w.wait(MINUTE);
    w.done(early(1, Early::Rejected));
    w.configure(Strategy::OAuth2ClientCredentials, ReplayPolicy::Safe);
    w.done(w.claim(2));
    w.done(w.commit(2, "t2"));
    let found = w
        .token()
        .may_be_early(Generation(2), Early::Rejected, w.now);
    assert_eq!(
        found,
        Err(NotEarly::NotBefore(UnixMs(START.0 + 16 * MINUTE)))
    );
}

#[test]
fn who_may_not_is_told_why() {
    let now =
        |w: &World, generation, early| w.token().may_be_early(Generation(generation), early, w.now);
    let mut w = minted();
    // Good for long still: half of the lifetime has to be over.
    let half = UnixMs(START.0 + HOUR / 2);
    assert_eq!(
        now(&w, 1, Early::ShortLived),
        Err(NotEarly::NotBefore(half))
    );
    assert_eq!(now(&w, 1, Early::Rejected), Ok(()));
    assert_eq!(now(&w, 2, Early::Rejected), Err(NotEarly::Superseded));
    w.wait(HOUR / 2);
    assert_eq!(now(&w, 1, Early::ShortLived), Ok(()));
    w.done(Command::RotateCredential {
        credential: token(),
    });
    assert_eq!(now(&w, 1, Early::Rejected), Err(NotEarly::UnderWay));
    w.done(w.claim(2));
    assert_eq!(now(&w, 1, Early::Rejected), Err(NotEarly::UnderWay));
    // What is retried already is not hurried: the issuer is in trouble.
    w.done(w.fail(2, FailureClass::Transient));
    assert_eq!(now(&w, 1, Early::Rejected), Err(NotEarly::UnderWay));
    w.wait(10 * MINUTE);
    w.done(w.claim(3));
    w.done(w.fail(3, FailureClass::ConfigRefused));
    assert_eq!(now(&w, 1, Early::Rejected), Err(NotEarly::Stopped));
    w.done(Command::DeleteRefresh {
        credential: token(),
    });
    assert_eq!(now(&w, 1, Early::Rejected), Err(NotEarly::Static));
}
