//! The machine of one revocation: nothing is sent without a claim, and every try is settled.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod support;

use std::time::Duration;

use evermint_core::command::{Answer, Command};
use evermint_core::mint::FailureClass;
use evermint_core::port::ProposeError;
use evermint_core::revocation::{Revocation, Stage};
use evermint_core::time::{Clocks, MonoMs};
use evermint_protocol::owner::Now;
use evermint_protocol::revoker::{Action, Event, Facts, Revoker};
use support::*;

/// A machine beside a cluster of which it learns when it is told.
struct Bench {
    world: World,
    revoker: Revoker,
    seen: Facts,
    proposed: Vec<Command>,
    mono: u64,
}

impl Bench {
    fn new() -> Self {
        let mut world = World::new();
        world.assign(ME);
        world.done(Command::RevokeRefresh {
            credential: token(),
        });
        let id = world.state.revocations.keys().next().unwrap().clone();
        Self {
            seen: Facts::of(&world.state, &id, ME),
            revoker: Revoker::new(id, ME),
            world,
            proposed: Vec::new(),
            mono: 0,
        }
    }

    fn revocation(&self) -> &Revocation {
        self.world.state.revocations.values().next().unwrap()
    }

    /// The machine sees what is applied.
    fn catch_up(&mut self) {
        self.seen = Facts::of(&self.world.state, &self.revocation().id.clone(), ME);
    }

    fn pass(&mut self, ms: u64) {
        self.mono += ms;
        self.world.clock = self.world.clock + Duration::from_millis(ms);
    }

    fn step(&mut self, event: Event) -> Vec<&'static str> {
        self.step_if(event, true)
    }

    /// What the machine does, without its timers.
    fn step_if(&mut self, event: Event, may_start: bool) -> Vec<&'static str> {
        let now = Now {
            clocks: Clocks {
                mono: MonoMs(self.mono),
                boot: MonoMs(self.mono),
                wall: self.world.clock,
            },
            cluster: self.world.clock,
            in_touch: Duration::ZERO,
        };
        let actions = self.revoker.step(event, now, &self.seen, may_start);
        let mut done = Vec::new();
        for action in actions {
            match action {
                Action::Propose(command) => {
                    done.push(command.name());
                    self.proposed.push(*command);
                }
                Action::Revoke(task) => {
                    assert!(task.revocation.work().is_some());
                    done.push("revoke");
                }
                Action::WakeAt(_) => {}
            }
        }
        done
    }

    /// Commits what was proposed last.
    fn commit(&mut self) -> Answer {
        let command = self.proposed.last().unwrap().clone();
        self.world.propose(command)
    }

    fn answered(&mut self) -> Event {
        let answer = self.commit();
        self.catch_up();
        Event::Proposed(Ok(answer))
    }
}

fn unknown() -> Event {
    Event::Proposed(Err(ProposeError::Unknown(String::new())))
}

#[test]
fn a_try_is_claimed_made_and_settled() {
    let mut bench = Bench::new();
    assert_eq!(bench.step(Event::Changed), ["claim-revocation"]);
    let claimed = bench.answered();
    assert_eq!(bench.step(claimed), ["revoke"]);
    assert_eq!(bench.step(Event::Changed), [""; 0], "once");
    assert_eq!(bench.step(Event::Revoked(Ok(()))), ["settle-revocation"]);
    let settled = bench.answered();
    assert_eq!(bench.step(settled), [""; 0]);
    assert!(matches!(bench.revocation().stage, Stage::Ended(_)));
    assert!(bench.revoker.is_done(&bench.seen));
}

#[test]
fn a_failed_try_is_made_again_when_it_is_due() {
    let mut bench = Bench::new();
    bench.step(Event::Changed);
    let claimed = bench.answered();
    bench.step(claimed);
    let failed = Event::Revoked(Err(failure(FailureClass::Transient)));
    assert_eq!(bench.step(failed), ["settle-revocation"]);
    let settled = bench.answered();
    assert_eq!(bench.step(settled), [""; 0], "not yet");
    bench.pass(60_000);
    assert_eq!(bench.step(Event::Woken), ["claim-revocation"]);
}

#[test]
fn a_claim_whose_answer_is_lost_is_found_in_the_state() {
    let mut bench = Bench::new();
    bench.step(Event::Changed);
    bench.commit();
    assert_eq!(bench.step(unknown()), [""; 0]);
    bench.catch_up();
    assert_eq!(bench.step(Event::Changed), ["revoke"]);
}

#[test]
fn a_claim_that_came_too_late_sends_nothing() {
    let mut bench = Bench::new();
    bench.step(Event::Changed);
    let claimed = bench.answered();
    bench.pass(40_000);
    assert_eq!(bench.step(claimed), [""; 0]);
    bench.pass(60_000);
    assert_eq!(
        bench.step(Event::Woken),
        ["claim-revocation"],
        "it has run out"
    );
}

#[test]
fn an_end_whose_answer_is_lost_is_proposed_again() {
    let mut bench = Bench::new();
    bench.step(Event::Changed);
    let claimed = bench.answered();
    bench.step(claimed);
    bench.step(Event::Revoked(Ok(())));
    assert_eq!(bench.step(unknown()), [""; 0]);
    bench.pass(60_000);
    assert_eq!(bench.step(Event::Woken), ["settle-revocation"]);
    let settled = bench.answered();
    assert_eq!(bench.step(settled), [""; 0]);
}

#[test]
fn whoever_does_not_own_the_shard_or_has_no_room_starts_nothing() {
    let mut bench = Bench::new();
    assert_eq!(bench.step_if(Event::Changed, false), [""; 0]);
    bench.world.assign(OTHER);
    bench.catch_up();
    assert_eq!(bench.step(Event::Changed), [""; 0]);
    assert!(bench.revoker.is_done(&bench.seen));
}

#[test]
fn a_replica_that_is_behind_its_own_claim_waits_until_it_sees_it() {
    let mut bench = Bench::new();
    bench.step(Event::Changed);
    let answer = bench.commit();
    assert_eq!(bench.step(Event::Proposed(Ok(answer))), [""; 0]);
    bench.catch_up();
    assert_eq!(bench.step(Event::Changed), ["revoke"]);
}
