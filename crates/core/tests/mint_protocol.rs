//! The mint protocol as a specification: DESIGN §3, command by command.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod support;

use evermint_core::command::{Command, Done, Refusal};
use evermint_core::credential::{Phase, Reason, Verdict};
use evermint_core::id::*;
use evermint_core::mint::FailureClass;
use evermint_core::strategy::{ReplayPolicy, Strategy};
use evermint_core::time::UnixMs;
use support::*;

fn strict() -> World {
    World::new(ReplayPolicy::Strict)
}

#[test]
fn a_mint_goes_from_ticket_to_value() {
    let mut w = strict();
    assert_eq!(w.token().due(), Some((START, Reason::First)));
    assert_eq!(
        w.propose(w.claim(1)),
        Ok(Done::Granted {
            attempt: Attempt(1)
        })
    );
    let granted_at = w.now;
    w.wait(5_000);
    assert_eq!(
        w.propose(w.commit(1, "t1")),
        Ok(Done::Committed(Generation(1)))
    );
    let value = w.token().value.clone().unwrap();
    assert_eq!(value.outputs[&key("TOKEN")], sealed("t1"));
    // The lifetime counts from before the request was sent.
    assert_eq!(value.expires_at, Some(UnixMs(granted_at.0 + 3_600_000)));
    let refresh = w.token().refresh.clone().unwrap();
    assert_eq!(refresh.material["refresh_token"], sealed("t1"));
    assert_eq!(refresh.health.verdict, Verdict::Fresh);
    assert!(refresh.due_at > w.now && refresh.due_at < value.expires_at.unwrap());
}

/// One row for each way in which a claim can be wrong, in the order in which they are checked.
#[test]
fn a_ticket_is_refused_to_anyone_who_is_behind() {
    type Change = fn(&mut Command);
    let rows: Vec<(&str, Change, Refusal)> = vec![
        (
            "another replica",
            |c| {
                if let Command::GrantTicket { owner, .. } = c {
                    *owner = ReplicaId(2);
                }
            },
            Refusal::NotOwner,
        ),
        (
            "a former life",
            |c| {
                if let Command::GrantTicket { session, .. } = c {
                    *session = SessionId(1);
                }
            },
            Refusal::NotOwner,
        ),
        (
            "a former ownership",
            |c| {
                if let Command::GrantTicket { shard_epoch, .. } = c {
                    *shard_epoch = ShardEpoch(0);
                }
            },
            Refusal::NotOwner,
        ),
        (
            "a former configuration",
            |c| {
                if let Command::GrantTicket { epoch, .. } = c {
                    *epoch = AuthorizationEpoch(0);
                }
            },
            Refusal::EpochMismatch,
        ),
        (
            "a former generation",
            |c| {
                if let Command::GrantTicket {
                    expected_generation,
                    ..
                } = c
                {
                    *expected_generation = Generation(0);
                }
            },
            Refusal::Stale {
                generation: Generation(1),
                attempt: Attempt(1),
            },
        ),
        (
            "a former attempt",
            |c| {
                if let Command::GrantTicket {
                    expected_attempt, ..
                } = c
                {
                    *expected_attempt = Attempt(0);
                }
            },
            Refusal::Stale {
                generation: Generation(1),
                attempt: Attempt(1),
            },
        ),
    ];
    for (name, change, refusal) in rows {
        let mut w = strict();
        w.done(w.claim(1));
        w.done(w.commit(1, "t1"));
        let mut claim = w.claim(2);
        change(&mut claim);
        assert_eq!(w.propose(claim), Err(refusal), "{name}");
    }
}

#[test]
fn there_is_one_ticket_at_a_time() {
    let mut w = strict();
    w.done(w.claim(1));
    assert_eq!(w.propose(w.claim(2)), Err(Refusal::TicketOutstanding));
}

#[test]
fn asking_again_for_the_same_ticket_gives_the_same_answer() {
    let mut w = strict();
    let claim = w.claim(1);
    assert_eq!(w.propose(claim.clone()), w.propose(claim.clone()));
    w.done(w.fail(1, FailureClass::Transient));
    // A duplicate that arrives after the ticket's end does not bring it back.
    assert!(matches!(w.propose(claim), Err(Refusal::Stale { .. })));
    assert_eq!(w.token().phase, Phase::Idle);
}

#[test]
fn a_new_owner_waits_for_the_ticket_of_the_old_one() {
    let mut w = strict();
    w.done(w.claim(1));
    let (version, shard) = (w.state.meta.placement_version, w.token().shard);
    w.done(Command::AssignShards {
        based_on: version,
        moves: vec![(shard, REPLICA, SessionId(78))],
    });
    assert_eq!(w.propose(w.claim(2)), Err(Refusal::TicketOutstanding));
    // What the old owner sent out before still counts.
    assert_eq!(
        w.propose(w.commit(1, "t1")),
        Ok(Done::Committed(Generation(1)))
    );
    w.done(w.claim(2));
}

#[test]
fn a_result_under_a_replaced_ticket_changes_nothing() {
    let mut w = World::new(ReplayPolicy::Safe);
    w.done(w.claim(1));
    w.done(w.expire(1));
    w.done(w.claim(2));
    w.done(w.commit(2, "t2"));
    let after = w.token().clone();
    for late in [
        w.commit(1, "t1"),
        w.fail(1, FailureClass::GrantRefused),
        w.abandon(1),
        w.expire(1),
    ] {
        assert_eq!(w.propose(late), Err(Refusal::TicketNotCurrent));
    }
    assert_eq!(*w.token(), after);
}

#[test]
fn every_end_of_a_ticket_may_arrive_twice() {
    type End = fn(&World) -> Command;
    let rows: [(&str, End); 4] = [
        ("commit", |w| w.commit(1, "t1")),
        ("fail", |w| w.fail(1, FailureClass::Transient)),
        ("abandon", |w| w.abandon(1)),
        ("expire", |w| w.expire(1)),
    ];
    for (name, end) in rows {
        let mut w = strict();
        w.done(w.claim(1));
        let first = w.propose(end(&w));
        let settled = w.token().clone();
        assert_eq!(first, w.propose(end(&w)), "{name}");
        assert_eq!(*w.token(), settled, "{name}");
    }
}

#[test]
fn an_expired_ticket_leaves_a_doubt_whose_length_the_issuer_decides() {
    let hour = 3_600_000;
    for (name, replay, until) in [
        ("safe", ReplayPolicy::Safe, 0),
        ("grace that is open", ReplayPolicy::Grace(120_000), 0),
        // As late as the value that is served allows: at its mandatory window.
        (
            "grace that is over",
            ReplayPolicy::Grace(1_000),
            hour - 120_000,
        ),
        ("strict", ReplayPolicy::Strict, hour - 120_000),
    ] {
        let mut w = World::new(replay);
        w.done(w.claim(1));
        w.done(w.commit(1, "t1"));
        w.done(w.claim(2));
        w.wait(60_000);
        w.done(w.expire(2));
        let Phase::InDoubt(doubt) = &w.token().phase else {
            panic!("{name}: {:?}", w.token().phase);
        };
        assert_eq!(doubt.until.0 - w.now.0, until, "{name}");
        // The token that works is served on.
        assert!(
            w.token()
                .value
                .as_ref()
                .is_some_and(|v| !v.is_expired(w.now))
        );
        let refusal = w.propose(w.claim(3));
        match until {
            0 => assert!(refusal.is_ok(), "{name}: {refusal:?}"),
            _ => assert!(matches!(refusal, Err(Refusal::InDoubt { .. })), "{name}"),
        }
    }
}

#[test]
fn a_grace_that_closes_while_nobody_could_retry_is_waited_out() {
    let mut w = World::new(ReplayPolicy::Grace(120_000));
    w.done(w.claim(1));
    w.wait(30_000);
    w.done(w.expire(1));
    // Another retry would have to leave by now for its ticket to end within the window.
    w.wait(30_001);
    let wait = w.state.settings().doubt_wait_ms;
    let until = UnixMs(w.now.0 - 30_001 + wait);
    assert_eq!(w.propose(w.claim(2)), Err(Refusal::InDoubt { until }));
    w.wait(wait);
    w.done(w.claim(2));
}

#[test]
fn a_grace_counts_from_the_first_mint_that_may_have_spent_the_token() {
    let mut w = World::new(ReplayPolicy::Grace(120_000));
    w.done(w.claim(1));
    w.done(w.fail(1, FailureClass::Unclear));
    w.wait(50_000);
    w.done(w.claim(2));
    w.done(w.fail(2, FailureClass::Unclear));
    let first = |w: &World| w.token().refresh.as_ref().unwrap().lost.clone();
    assert_eq!(first(&w).map(|lost| lost.ticket), Some(TicketId(1)));
    w.wait(50_000);
    assert!(matches!(
        w.propose(w.claim(3)),
        Err(Refusal::InDoubt { .. })
    ));
}

#[test]
fn without_a_value_a_doubt_waits_for_its_replica_a_while() {
    let mut w = strict();
    w.done(w.claim(1));
    w.done(w.expire(1));
    let wait = w.state.settings().doubt_wait_ms;
    assert_eq!(
        w.token().due(),
        Some((UnixMs(w.now.0 + wait), Reason::AfterDoubt))
    );
}

#[test]
fn a_doubt_is_settled_late_by_its_own_replica() {
    let mut w = strict();
    w.done(w.claim(1));
    w.done(w.expire(1));
    assert_eq!(w.token().verdict(w.now), Verdict::InDoubt);
    assert_eq!(
        w.propose(w.commit(1, "t1")),
        Ok(Done::Committed(Generation(1)))
    );
    assert_eq!(w.token().verdict(w.now), Verdict::Fresh);

    let mut w = strict();
    w.done(w.claim(1));
    w.done(w.expire(1));
    w.done(w.abandon(1));
    assert_eq!(w.token().due().map(|(at, _)| at), Some(w.now));
    assert_eq!(w.token().refresh.as_ref().unwrap().lost, None);
}

#[test]
fn a_grant_that_dies_after_a_doubt_names_the_lost_mint() {
    let mut w = strict();
    w.done(w.claim(1));
    w.done(w.expire(1));
    w.wait(w.state.settings().doubt_wait_ms);
    w.done(w.claim(2));
    // A failure in passing does not make it forgotten.
    w.done(w.fail(2, FailureClass::Transient));
    w.wait(600_000);
    w.done(w.claim(3));
    w.done(w.fail(3, FailureClass::GrantRefused));
    let health = &w.token().refresh.as_ref().unwrap().health;
    assert_eq!(health.verdict, Verdict::NeedsReauthorization);
    assert!(
        health.cause.contains(&TicketId(1).to_string()) && health.cause.contains("replica 1"),
        "{}",
        health.cause
    );
    assert_eq!(w.token().due(), None);
    assert_eq!(w.propose(w.claim(4)), Err(Refusal::Stopped));
}

#[test]
fn an_answer_that_was_lost_is_a_doubt_only_where_material_is_spent() {
    for strategy in Strategy::ALL.into_iter().filter(|s| !s.is_pushed()) {
        let doubt = strategy == Strategy::OAuth2RefreshToken;
        let mut w = strict();
        w.configure(strategy, ReplayPolicy::Strict);
        w.done(w.claim(1));
        w.done(w.fail(1, FailureClass::Unclear));
        assert_eq!(matches!(w.token().phase, Phase::InDoubt(_)), doubt);
    }
}

#[test]
fn each_failure_has_its_verdict() {
    for (class, verdict, retried) in [
        (FailureClass::Unsent, Verdict::Retrying, true),
        (FailureClass::Transient, Verdict::Retrying, true),
        (FailureClass::Throttled, Verdict::Throttled, true),
        (FailureClass::Unclear, Verdict::InDoubt, true),
        (FailureClass::UnknownRefusal, Verdict::Retrying, true),
        (
            FailureClass::GrantRefused,
            Verdict::NeedsReauthorization,
            false,
        ),
        (FailureClass::ConfigRefused, Verdict::Misconfigured, false),
    ] {
        let mut w = strict();
        w.done(w.claim(1));
        w.done(w.fail(1, class));
        assert_eq!(w.token().verdict(w.now), verdict, "{class:?}");
        assert_eq!(w.token().due().is_some(), retried, "{class:?}");
    }
}

#[test]
fn an_unknown_refusal_becomes_final_after_repeats() {
    let mut w = strict();
    for n in 1..=5 {
        w.done(w.claim(n));
        w.done(w.fail(n, FailureClass::UnknownRefusal));
        w.wait(3_600_000);
    }
    assert_eq!(w.token().verdict(w.now), Verdict::Misconfigured);
}

#[test]
fn a_failure_never_displaces_a_value_that_works() {
    let mut w = strict();
    w.done(w.claim(1));
    w.done(w.commit(1, "t1"));
    let value = w.token().value.clone();
    w.done(w.claim(2));
    w.done(w.fail(2, FailureClass::GrantRefused));
    assert_eq!(w.token().value, value);
    w.wait(3_600_000);
    assert!(w.token().value.as_ref().unwrap().is_expired(w.now));
}

#[test]
fn retry_after_is_honoured() {
    let mut w = strict();
    w.done(w.claim(1));
    let mut throttled = failure(FailureClass::Throttled);
    throttled.retry_after_ms = Some(90_000);
    w.done(Command::FailMint {
        credential: token(),
        ticket: TicketId(1),
        failure: throttled,
    });
    assert!(w.token().due().unwrap().0 >= UnixMs(w.now.0 + 90_000));
}

#[test]
fn a_reconfiguration_voids_what_is_in_flight_and_waits_for_its_end() {
    let mut w = strict();
    w.done(w.claim(1));
    w.configure(Strategy::OAuth2RefreshToken, ReplayPolicy::Strict);
    assert_eq!(w.propose(w.claim(2)), Err(Refusal::TicketOutstanding));
    assert_eq!(w.propose(w.commit(1, "t1")), Err(Refusal::Voided));
    assert_eq!(w.token().value, None);
    w.done(w.claim(2));
    assert_eq!(
        w.propose(w.commit(2, "t2")),
        Ok(Done::Committed(Generation(1)))
    );
}

#[test]
fn a_deleted_refresh_leaves_its_ticket_to_end_by_itself() {
    let mut w = strict();
    w.done(w.claim(1));
    w.done(Command::DeleteRefresh {
        credential: token(),
    });
    assert_eq!(w.token().due(), None);
    w.configure(Strategy::OAuth2RefreshToken, ReplayPolicy::Strict);
    assert_eq!(w.propose(w.claim(2)), Err(Refusal::TicketOutstanding));
    w.done(w.expire(1));
    w.done(w.claim(2));
}

#[test]
fn a_wish_to_rotate_that_comes_during_a_mint_stands_after_it() {
    let mut w = strict();
    w.done(w.claim(1));
    w.done(Command::RotateCredential {
        credential: token(),
    });
    w.done(w.commit(1, "t1"));
    assert_eq!(w.token().due(), Some((w.now, Reason::Rotate)));
    w.done(w.claim(2));
    w.done(w.commit(2, "t2"));
    assert_eq!(w.token().due().unwrap().1, Reason::Due);
}

#[test]
fn every_mint_is_audited_once() {
    let mut w = strict();
    w.done(w.claim(1));
    w.done(w.expire(1));
    w.done(w.commit(1, "t1"));
    w.done(w.commit(1, "t1"));
    let mints = |w: &World| {
        w.state
            .audit
            .values()
            .filter(|r| matches!(r.event, evermint_core::audit::AuditEvent::Mint { .. }))
            .count()
    };
    // The doubt, and how it was settled.
    assert_eq!(mints(&w), 2);
}
