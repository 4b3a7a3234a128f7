//! The cluster's own authority, and the tokens by which replicas join.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod support;

use std::time::Duration;

use evermint_core::admission::{BadJoinToken, JOIN_TOKENS_MAX, JoinTokenId};
use evermint_core::command::{Command, Done, Outcome, Refusal};
use evermint_core::id::{InstallationId, ReplicaId};
use evermint_core::strategy::ReplayPolicy;
use support::*;

const LIFETIME_MS: u64 = 60_000;

fn world() -> World {
    World::new(ReplayPolicy::Safe)
}

fn add_authority(certificate: u8) -> Command {
    Command::AddAuthority {
        certificate: vec![certificate],
        key: sealed("key"),
    }
}

fn create(token: u8) -> Command {
    Command::CreateJoinToken {
        id: JoinTokenId([token; 32]),
        lifetime_ms: LIFETIME_MS,
    }
}

fn register(installation: u128) -> Command {
    Command::RegisterReplica {
        installation: InstallationId(installation),
        peer_address: "a:1".to_owned(),
        api_address: String::new(),
    }
}

fn admit(token: u8, installation: u128, key: u8) -> Command {
    Command::AdmitReplica {
        token: JoinTokenId([token; 32]),
        installation: InstallationId(installation),
        key: [key; 32],
        peer_address: "a:1".to_owned(),
        api_address: String::new(),
    }
}

fn bad(why: BadJoinToken) -> Outcome {
    Err(Refusal::BadJoinToken(why))
}

fn got(replica: u64) -> Outcome {
    Ok(Done::Replica(ReplicaId(replica)))
}

/// A cluster with an authority and the token 1.
fn closed() -> World {
    let mut w = world();
    w.done(add_authority(1));
    w.done(create(1));
    w
}

#[test]
fn a_cluster_has_one_authority() {
    let mut w = world();
    assert_eq!(w.propose(create(1)), Err(Refusal::NoAuthority));
    assert_eq!(w.propose(add_authority(1)), Ok(Done::Ok));
    assert_eq!(w.propose(add_authority(2)), Err(Refusal::AuthorityExists));
    assert_eq!(w.state.authority.as_ref().unwrap().certificate, [1]);
}

#[test]
fn without_a_token_only_a_known_replica_is_heard() {
    let mut w = world();
    assert_eq!(w.propose(register(2)), got(2));
    w.done(add_authority(1));
    assert_eq!(w.propose(register(2)), got(2));
    assert_eq!(w.propose(register(3)), Err(Refusal::JoinTokenNeeded));
    w.done(Command::RemoveReplica {
        replica: ReplicaId(2),
    });
    assert_eq!(w.propose(register(2)), Err(Refusal::JoinTokenNeeded));
}

#[test]
fn a_token_lets_one_replica_in_which_may_repeat_itself() {
    let mut w = closed();
    for (what, command, expected) in [
        (
            "an unknown token",
            admit(2, 5, 5),
            bad(BadJoinToken::Unknown),
        ),
        ("the first", admit(1, 5, 5), got(2)),
        (
            "the token is made again",
            create(1),
            Ok(Done::Changed(false)),
        ),
        ("its answer was lost", admit(1, 5, 5), got(2)),
        ("another replica", admit(1, 6, 6), bad(BadJoinToken::Used)),
        (
            "its disk with another key",
            admit(1, 5, 6),
            bad(BadJoinToken::Used),
        ),
        (
            "its key on another disk",
            admit(1, 6, 5),
            bad(BadJoinToken::Used),
        ),
        ("a second token", create(2), Ok(Done::Ok)),
        ("the same replica by another token", admit(2, 5, 7), got(2)),
    ] {
        assert_eq!(w.propose(command), expected, "{what}");
    }
}

#[test]
fn a_token_ends_for_everyone() {
    for used in [false, true] {
        let mut w = closed();
        if used {
            assert_eq!(w.propose(admit(1, 5, 5)), got(2));
        }
        w.now = START + Duration::from_millis(LIFETIME_MS + 1_000);
        assert_eq!(w.propose(admit(1, 5, 5)), bad(BadJoinToken::Expired));
        // The next one sweeps it away.
        w.done(create(2));
        assert_eq!(w.propose(admit(1, 5, 5)), bad(BadJoinToken::Unknown));
        assert_eq!(w.state.join_tokens.len(), 1);
    }
}

#[test]
fn a_removed_replica_does_not_come_back_by_its_token() {
    let mut w = closed();
    assert_eq!(w.propose(admit(1, 5, 5)), got(2));
    w.done(Command::RemoveReplica {
        replica: ReplicaId(2),
    });
    assert_eq!(w.propose(admit(1, 5, 5)), bad(BadJoinToken::Used));
    // A new token is the operator's word.
    w.done(create(2));
    assert_eq!(w.propose(admit(2, 5, 5)), got(3));
}

#[test]
fn there_are_not_many_tokens_at_once() {
    let mut w = closed();
    for token in 2..=u8::try_from(JOIN_TOKENS_MAX).unwrap() {
        w.done(create(token));
    }
    let refused = w.propose(create(200));
    assert!(
        matches!(refused, Err(Refusal::TooMany { .. })),
        "{refused:?}"
    );
    w.now = START + Duration::from_millis(LIFETIME_MS + 1_000);
    w.done(create(200));
    assert_eq!(w.state.join_tokens.len(), 1);
}
