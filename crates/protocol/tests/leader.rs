//! The leader's duties: which tickets end, and which shards move.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use evermint_core::command::Command;
use evermint_core::id::{ReplicaId, SessionId, TicketId};
use evermint_core::time::MonoMs;
use evermint_protocol::leader::{Leader, MOVES_MAX, PATIENCE};
use evermint_protocol::owner::Identity;

use support::{ME, OTHER, World, abandon, token};

const THIRD: Identity = Identity {
    replica: ReplicaId(3),
    session: SessionId(33),
};
const LOST: Duration = Duration::from_secs(3);
const TTL: Duration = Duration::from_secs(60);
const T0: MonoMs = MonoMs(1_000);

fn in_office(world: &World) -> Leader {
    let mut leader = Leader::new(LOST);
    leader.took_office(&world.state, T0);
    leader
}

fn beat(leader: &mut Leader, who: &[Identity], now: MonoMs) {
    for id in who {
        leader.beat(id.replica, id.session, true, now);
    }
}

fn expire(ticket: u128) -> Command {
    Command::ExpireTicket {
        credential: token(),
        ticket: TicketId(ticket),
    }
}

/// Applies what the leader proposes until it is content; gives how many shards moved.
fn settle(leader: &mut Leader, world: &mut World, now: MonoMs) -> usize {
    let mut moved = 0;
    for _ in 0..100 {
        let commands = leader.tick(&world.state, now);
        if commands.is_empty() {
            return moved;
        }
        for command in commands {
            if let Command::AssignShards { moves, .. } = &command {
                moved += moves.len();
            }
            world.done(command);
        }
        leader.applied(&world.state, now);
    }
    panic!("the leader is never content");
}

fn owners(world: &World) -> BTreeMap<(ReplicaId, SessionId), usize> {
    let mut owners = BTreeMap::new();
    for a in world.state.shards.values() {
        *owners.entry((a.replica, a.session)).or_default() += 1;
    }
    owners
}

#[test]
fn a_ticket_ends_one_ttl_after_the_leader_saw_it() {
    let mut world = World::new();
    world.assign(ME);
    let mut leader = in_office(&world);
    world.grant(7);
    let seen = T0 + Duration::from_secs(1);
    leader.applied(&world.state, seen);
    assert_eq!(
        leader.tick(&world.state, seen + TTL - Duration::from_millis(1)),
        []
    );
    assert_eq!(leader.next_wake(), Some(seen + TTL));
    assert_eq!(leader.tick(&world.state, seen + TTL), [expire(7)]);
}

#[test]
fn a_new_leader_waits_a_whole_ttl_however_old_the_ticket_is() {
    let mut world = World::new();
    world.assign(ME);
    world.grant(7);
    world.clock = world.clock + TTL * 100;
    let mut leader = in_office(&world);
    assert_eq!(
        leader.tick(&world.state, T0 + TTL - Duration::from_millis(1)),
        []
    );
    leader.left_office();
    assert_eq!(leader.tick(&world.state, T0 + TTL * 2), [], "out of office");
    assert_eq!(leader.next_wake(), None);
    leader.took_office(&world.state, T0 + TTL * 2);
    assert_eq!(leader.tick(&world.state, T0 + TTL * 2), []);
    assert_eq!(leader.tick(&world.state, T0 + TTL * 3), [expire(7)]);
}

#[test]
fn a_settled_ticket_is_watched_no_more_and_a_new_one_from_its_own_start() {
    let mut world = World::new();
    world.assign(ME);
    world.grant(7);
    let mut leader = in_office(&world);
    world.done(abandon(TicketId(7)));
    world.grant(8);
    let seen = T0 + TTL / 2;
    leader.applied(&world.state, seen);
    assert_eq!(leader.tick(&world.state, T0 + TTL), []);
    assert_eq!(leader.tick(&world.state, seen + TTL), [expire(8)]);
}

#[test]
fn an_expiry_is_proposed_again_only_after_a_while() {
    let mut world = World::new();
    world.assign(ME);
    world.grant(7);
    let mut leader = in_office(&world);
    let end = T0 + TTL;
    assert_eq!(leader.tick(&world.state, end), [expire(7)]);
    assert_eq!(leader.tick(&world.state, end + PATIENCE / 2), []);
    assert_eq!(leader.next_wake(), Some(end + PATIENCE));
    assert_eq!(leader.tick(&world.state, end + PATIENCE), [expire(7)]);
}

#[test]
fn live_replicas_share_the_shards_and_nothing_moves_without_cause() {
    let mut world = World::new();
    let mut leader = in_office(&world);
    beat(&mut leader, &[ME, OTHER, THIRD], T0);
    assert_eq!(settle(&mut leader, &mut world, T0), 256);
    assert_eq!(owners(&world).len(), 3);
    for second in 1..20 {
        let now = T0 + Duration::from_secs(second);
        beat(&mut leader, &[ME, OTHER, THIRD], now);
        assert_eq!(leader.tick(&world.state, now), []);
    }
}

#[test]
fn one_command_moves_a_bounded_number_and_waits_for_its_effect() {
    let world = World::new();
    let mut leader = in_office(&world);
    beat(&mut leader, &[ME, OTHER, THIRD], T0);
    let commands = leader.tick(&world.state, T0);
    let [Command::AssignShards { based_on: 0, moves }] = commands.as_slice() else {
        panic!("{commands:?}");
    };
    assert!(moves.len() <= MOVES_MAX);
    assert_eq!(leader.tick(&world.state, T0), [], "while it is pending");
    beat(&mut leader, &[ME, OTHER, THIRD], T0 + PATIENCE);
    assert_eq!(leader.tick(&world.state, T0 + PATIENCE), commands);
}

#[test]
fn a_lost_replica_gives_up_its_shards_and_no_others_move() {
    let mut world = World::new();
    let mut leader = in_office(&world);
    beat(&mut leader, &[ME, OTHER, THIRD], T0);
    settle(&mut leader, &mut world, T0);
    let its = owners(&world)[&(OTHER.replica, OTHER.session)];

    let now = T0 + LOST;
    beat(&mut leader, &[ME, THIRD], now - Duration::from_millis(1));
    assert_eq!(
        settle(&mut leader, &mut world, now - Duration::from_millis(1)),
        0
    );
    assert_eq!(leader.next_wake(), Some(now));
    assert_eq!(settle(&mut leader, &mut world, now), its);
    assert_eq!(owners(&world).len(), 2);

    beat(&mut leader, &[OTHER], now);
    assert_eq!(
        leader.next_wake(),
        Some(now),
        "its return is looked at at once"
    );
    assert_eq!(settle(&mut leader, &mut world, now), its);
}

#[test]
fn a_new_leader_gives_everyone_time_to_be_heard() {
    let mut world = World::new();
    let mut leader = in_office(&world);
    beat(&mut leader, &[ME, OTHER, THIRD], T0);
    settle(&mut leader, &mut world, T0);

    let took = T0 + Duration::from_secs(100);
    leader.took_office(&world.state, took);
    beat(&mut leader, &[ME], took);
    assert_eq!(leader.tick(&world.state, took), []);
    let now = took + LOST - Duration::from_millis(1);
    beat(&mut leader, &[ME, OTHER], now);
    assert_eq!(leader.tick(&world.state, now), []);
    assert!(settle(&mut leader, &mut world, took + LOST) > 0);
    assert!(!owners(&world).contains_key(&(THIRD.replica, THIRD.session)));
}

#[test]
fn shards_follow_a_replica_into_its_new_life() {
    let mut world = World::new();
    let mut leader = in_office(&world);
    beat(&mut leader, &[ME, OTHER, THIRD], T0);
    settle(&mut leader, &mut world, T0);
    let its = owners(&world)[&(OTHER.replica, OTHER.session)];

    let reborn = SessionId(99);
    leader.beat(OTHER.replica, reborn, true, T0);
    assert_eq!(settle(&mut leader, &mut world, T0), its);
    assert_eq!(owners(&world)[&(OTHER.replica, reborn)], its);

    leader.beat(OTHER.replica, OTHER.session, true, T0);
    assert_eq!(
        settle(&mut leader, &mut world, T0),
        0,
        "a beat of the former life that comes late means nothing"
    );
}

#[test]
fn a_replica_that_drains_or_lags_gives_up_its_shards() {
    let mut world = World::new();
    let mut leader = in_office(&world);
    beat(&mut leader, &[ME, OTHER, THIRD], T0);
    settle(&mut leader, &mut world, T0);
    leader.beat(THIRD.replica, THIRD.session, false, T0);
    assert!(settle(&mut leader, &mut world, T0) > 0);
    assert_eq!(owners(&world).len(), 2);
}

#[test]
fn a_replica_that_is_removed_gives_up_its_shards() {
    let mut world = World::new();
    let mut leader = in_office(&world);
    beat(&mut leader, &[ME, OTHER, THIRD], T0);
    settle(&mut leader, &mut world, T0);
    world.done(Command::RemoveReplica {
        replica: THIRD.replica,
    });
    beat(&mut leader, &[THIRD], T0);
    assert!(settle(&mut leader, &mut world, T0) > 0);
    assert_eq!(owners(&world).len(), 2);
}
