//! Revocation at the issuer: what a deletion leaves to be told, who tells it, and that it ends.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod support;

use std::collections::BTreeMap;

use evermint_core::audit::AuditEvent;
use evermint_core::command::{Command, Done, Refusal};
use evermint_core::credential::RefreshConfig;
use evermint_core::id::*;
use evermint_core::mint::FailureClass;
use evermint_core::revocation::{
    BOUND, ENDED_MAX, End, Revocation, Stage, TRIES_MAX, Target, Work,
};
use evermint_core::strategy::{ReplayPolicy, Strategy};
use evermint_core::time::millis;
use support::*;

/// A world whose refresh has a revocation endpoint, after its first mint.
fn world(strategy: Strategy) -> World {
    let mut w = World::new(ReplayPolicy::Strict);
    w.done(Command::ConfigureRefresh {
        credential: token(),
        config: RefreshConfig {
            revoke_url: "https://issuer.example/revoke".to_owned(),
            ..config(strategy, ReplayPolicy::Strict)
        },
        material: BTreeMap::from([("refresh_token".to_owned(), sealed("rt-0"))]),
        expires_at: None,
    });
    mint(&mut w, 1, "at-1");
    w
}

fn mint(w: &mut World, ticket: u128, value: &str) {
    let claim = w.claim(ticket);
    w.done(claim);
    let commit = w.commit(ticket, value);
    w.done(commit);
}

fn revoke() -> Command {
    Command::RevokeRefresh {
        credential: token(),
    }
}

fn only(w: &World) -> &Revocation {
    assert_eq!(w.state.revocations.len(), 1);
    w.state.revocations.values().next().unwrap()
}

fn work(w: &World) -> &Work {
    only(w).work().unwrap()
}

fn end(w: &World) -> &End {
    match &only(w).stage {
        Stage::Ended(ended) => &ended.end,
        Stage::Open(work) => panic!("still open: {work:?}"),
    }
}

fn claim(w: &World, session: SessionId, tries: u32) -> Command {
    let revocation = only(w);
    let assignment = &w.state.shards[&revocation.shard];
    Command::ClaimRevocation {
        revocation: revocation.id.clone(),
        owner: REPLICA,
        session,
        shard_epoch: assignment.epoch,
        expected_tries: tries,
    }
}

fn settle(w: &World, tries: u32, class: Option<FailureClass>) -> Command {
    Command::SettleRevocation {
        revocation: only(w).id.clone(),
        tries,
        failure: class.map(failure),
    }
}

/// Whether any record of the state holds the text.
fn holds(w: &World, text: &str) -> bool {
    let contains = |bytes: &[u8]| bytes.windows(text.len()).any(|at| at == text.as_bytes());
    w.state.records().any(|(_, bytes)| contains(&bytes))
}

#[test]
fn a_deletion_leaves_what_the_issuer_is_to_be_told_and_serves_nothing() {
    let mut w = world(Strategy::OAuth2RefreshToken);
    w.done(revoke());
    assert_eq!((&w.token().refresh, &w.token().value), (&None, &None));
    assert_eq!(only(&w).target, Target::Grant);
    assert_eq!(work(&w).tokens, [sealed("at-1")]);
    assert_eq!(work(&w).material["refresh_token"], sealed("at-1"));

    let first = claim(&w, SESSION, 0);
    assert_eq!(
        w.propose(first),
        Ok(Done::Granted {
            attempt: Attempt(1)
        })
    );
    let done = settle(&w, 1, None);
    w.done(done);
    assert_eq!(end(&w), &End::Told);
    assert!(!holds(&w, "at-1"), "the material is destroyed");
    assert_eq!(w.state.meta.destroyed, w.state.meta.position);
    let (_, record) = w.state.audit.get_max().unwrap();
    assert!(matches!(
        &record.event,
        AuditEvent::Revocation {
            end: End::Told,
            tries: 1,
            replica: Some(REPLICA),
            ..
        }
    ));
}

#[test]
fn without_a_revocation_endpoint_nothing_is_deleted() {
    let mut w = World::new(ReplayPolicy::Strict);
    let refused = Err(Refusal::NotRevocable(key("TOKEN")));
    assert_eq!(w.propose(revoke()), refused);
    let provider = Command::RevokeProvider { id: ProviderId(1) };
    assert_eq!(w.propose(provider), refused);
    assert!(w.token().refresh.is_some());
}

#[test]
fn a_provider_goes_at_once_and_its_revocations_stay() {
    let mut w = world(Strategy::OAuth2RefreshToken);
    w.done(Command::RevokeProvider { id: ProviderId(1) });
    assert!(w.state.providers.is_empty() && w.state.credentials.is_empty());
    assert_eq!(only(&w).provider.as_str(), "p");
    let again = Command::RevokeProvider { id: ProviderId(1) };
    assert_eq!(w.propose(again), Ok(Done::Changed(false)));
}

#[test]
fn one_replica_tries_at_a_time_and_whoever_dies_costs_a_try() {
    let mut w = world(Strategy::OAuth2RefreshToken);
    w.done(revoke());
    let stranger = claim(&w, SessionId(1), 0);
    assert_eq!(w.propose(stranger), Err(Refusal::NotOwner));
    for tries in 0..TRIES_MAX {
        let this = claim(&w, SESSION, tries);
        assert!(w.propose(this.clone()).is_ok());
        assert_eq!(
            w.propose(this),
            Err(Refusal::RevocationNotDue),
            "while it runs"
        );
        let ttl = w.state.settings().ticket_ttl_ms;
        w.wait(ttl - 1);
        let early = claim(&w, SESSION, tries + 1);
        assert_eq!(w.propose(early), Err(Refusal::RevocationNotDue));
        w.wait(1);
    }
    let last = claim(&w, SESSION, TRIES_MAX);
    assert_eq!(w.propose(last), Ok(Done::Settled));
    assert_eq!(end(&w).cause(), "no try came to an end in time");
    assert!(!holds(&w, "at-1"));
}

#[test]
fn failures_are_tried_again_and_refusals_are_not() {
    for (class, is_final) in [
        (FailureClass::Unsent, false),
        (FailureClass::Transient, false),
        (FailureClass::Throttled, false),
        (FailureClass::Unclear, false),
        (FailureClass::UnknownRefusal, true),
        (FailureClass::GrantRefused, true),
        (FailureClass::ConfigRefused, true),
    ] {
        let mut w = world(Strategy::OAuth2RefreshToken);
        w.done(revoke());
        let mut tries = 0;
        while only(&w).work().is_some() {
            w.now = work(&w).next_at().max(w.now);
            let this = claim(&w, SESSION, tries);
            w.done(this);
            tries += 1;
            let failed = settle(&w, tries, Some(class));
            w.done(failed);
        }
        assert_eq!(tries, if is_final { 1 } else { TRIES_MAX }, "{class:?}");
        assert_eq!(end(&w).cause(), "the issuer said so");
        assert!(!holds(&w, "at-1"), "{class:?}");
    }
}

#[test]
fn what_nobody_tries_is_given_up_by_time() {
    let mut w = world(Strategy::OAuth2RefreshToken);
    w.done(revoke());
    w.wait(millis(BOUND));
    let late = claim(&w, SESSION, 0);
    assert_eq!(w.propose(late), Ok(Done::Settled));
    assert!(matches!(end(&w), End::NotTold(_)));
}

#[test]
fn a_mint_under_way_is_waited_for_and_revoked_with_the_rest() {
    for whole_provider in [false, true] {
        let mut w = world(Strategy::OAuth2RefreshToken);
        let grant = w.claim(2);
        w.done(grant);
        let late = w.commit(2, "at-2");
        w.done(match whole_provider {
            true => Command::RevokeProvider { id: ProviderId(1) },
            false => revoke(),
        });
        assert_eq!(work(&w).awaits, Some(TicketId(2)));
        assert!(work(&w).due_at > w.now);
        assert_eq!(w.propose(late.clone()), Err(Refusal::Voided));
        assert_eq!(work(&w).tokens, [sealed("at-1"), sealed("at-2")]);
        assert_eq!(work(&w).material["refresh_token"], sealed("at-2"));
        assert_eq!((work(&w).awaits, work(&w).due_at), (None, w.now));
        // It arrives twice.
        let again = w.propose(late);
        assert!(again.is_err() && work(&w).tokens.len() == 2);
    }
}

#[test]
fn what_comes_while_a_try_runs_is_revoked_by_the_next_one() {
    let mut w = world(Strategy::OAuth2RefreshToken);
    let grant = w.claim(2);
    w.done(grant);
    let late = w.commit(2, "at-2");
    w.done(revoke());
    w.wait(w.state.settings().ticket_ttl_ms);
    let this = claim(&w, SESSION, 0);
    w.done(this);
    assert_eq!(w.propose(late), Err(Refusal::Voided));
    let told = settle(&w, 1, None);
    w.done(told);
    let next = claim(&w, SESSION, 1);
    w.done(next);
    let told = settle(&w, 2, None);
    w.done(told);
    assert_eq!(end(&w), &End::Told);
}

#[test]
fn a_mint_that_brings_nothing_ends_the_wait() {
    let mut w = world(Strategy::OAuth2RefreshToken);
    let grant = w.claim(2);
    w.done(grant);
    w.done(revoke());
    let abandoned = w.abandon(2);
    assert_eq!(w.propose(abandoned), Err(Refusal::Voided));
    assert_eq!((work(&w).awaits, work(&w).due_at), (None, w.now));
}

#[test]
fn a_superseded_value_is_revoked_after_its_grace_and_the_grant_never() {
    let mut w = world(Strategy::OAuth2ClientCredentials);
    let rotate = Command::RevokeValue {
        credential: token(),
        grace_ms: 60_000,
    };
    w.done(rotate);
    assert!(
        w.state.revocations.is_empty(),
        "not before the new one is there"
    );
    mint(&mut w, 2, "at-2");
    assert_eq!(only(&w).target, Target::Value(Generation(1)));
    assert_eq!(work(&w).tokens, [sealed("at-1")]);
    let early = claim(&w, SESSION, 0);
    assert_eq!(w.propose(early), Err(Refusal::RevocationNotDue));
    w.wait(60_000);
    let due = claim(&w, SESSION, 0);
    w.done(due);
    mint(&mut w, 3, "at-3");
    assert_eq!(w.state.revocations.len(), 1, "one wish, one value");

    let mut w = world(Strategy::OAuth2RefreshToken);
    let rotate = Command::RevokeValue {
        credential: token(),
        grace_ms: 0,
    };
    assert_eq!(w.propose(rotate), Err(Refusal::GrantAtStake(key("TOKEN"))));
}

#[test]
fn a_value_that_ended_within_its_grace_needs_no_word() {
    let mut w = world(Strategy::OAuth2ClientCredentials);
    w.done(Command::RevokeValue {
        credential: token(),
        grace_ms: 86_400_000,
    });
    mint(&mut w, 2, "at-2");
    w.wait(3_600_000);
    let due = claim(&w, SESSION, 0);
    assert_eq!(w.propose(due), Ok(Done::Settled));
    assert_eq!(end(&w), &End::Needless);
    assert!(!holds(&w, "at-1"));
}

#[test]
fn a_static_value_is_not_shown_to_an_issuer_that_never_gave_it() {
    let mut w = world(Strategy::OAuth2RefreshToken);
    // The configuration of now has minted nothing yet.
    w.done(Command::ConfigureRefresh {
        credential: token(),
        config: w.token().refresh.as_ref().unwrap().config.clone(),
        material: BTreeMap::from([("refresh_token".to_owned(), sealed("rt-9"))]),
        expires_at: None,
    });
    w.done(revoke());
    assert!(work(&w).tokens.is_empty());
    assert!(w.token().value.is_some(), "it is not this grant's");
}

#[test]
fn only_so_many_ends_are_remembered() {
    let mut w = world(Strategy::OAuth2RefreshToken);
    let refresh = w.token().refresh.clone().unwrap();
    for _ in 0..ENDED_MAX + 3 {
        w.done(Command::ConfigureRefresh {
            credential: token(),
            config: refresh.config.clone(),
            material: refresh.material.clone(),
            expires_at: None,
        });
        w.done(revoke());
        w.wait(millis(BOUND));
        let open = w.state.revocations.values().find(|r| r.work().is_some());
        let revocation = open.unwrap().id.clone();
        let epoch = w.state.shards[&open.unwrap().shard].epoch;
        w.done(Command::ClaimRevocation {
            revocation,
            owner: REPLICA,
            session: SESSION,
            shard_epoch: epoch,
            expected_tries: 0,
        });
    }
    assert_eq!(w.state.revocations.len(), ENDED_MAX);
}
