//! The simulation finds what it is for: each built-in defect is caught, by the promise that it
//! breaks, within a bounded number of seeds.

use evermint_sim::{Config, Mutant, World};

/// The most seeds that a defect may hide in.
const SEEDS_MAX: u64 = 2_000;

fn is_caught(mutant: Mutant) {
    let promise = mutant.breaks();
    for seed in 0..SEEDS_MAX {
        let run = World::new(Config::derive(seed), Some(mutant)).run();
        if run.is_err_and(|(broken, _)| broken.promise == promise) {
            return;
        }
    }
    panic!("{mutant:?} is not caught by {promise} in {SEEDS_MAX} seeds");
}

#[test]
fn an_owner_that_skips_its_deadline_is_caught() {
    is_caught(Mutant::SkipDeadline);
}

#[test]
fn an_expiry_that_follows_a_wall_clock_is_caught() {
    is_caught(Mutant::ExpireByWallClock);
}

#[test]
fn a_result_under_a_replaced_ticket_is_caught() {
    is_caught(Mutant::AcceptReplacedTicket);
}

#[test]
fn a_reassignment_that_does_not_wait_for_tickets_is_caught() {
    is_caught(Mutant::ReassignWithoutWaiting);
}

#[test]
fn a_journal_that_is_forgotten_is_caught() {
    is_caught(Mutant::ForgetJournal);
}

#[test]
fn a_ticket_that_is_granted_twice_is_caught() {
    is_caught(Mutant::NoAttemptCheck);
}

#[test]
fn a_request_that_is_not_announced_is_caught() {
    is_caught(Mutant::SendUnannounced);
}

#[test]
fn an_answer_that_is_not_journalled_is_caught() {
    is_caught(Mutant::CommitUnjournalled);
}

#[test]
fn a_bundle_older_than_one_that_was_seen_is_caught() {
    is_caught(Mutant::IgnoreMinGeneration);
}

#[test]
fn staleness_by_a_clock_that_stands_still_is_caught() {
    is_caught(Mutant::StalenessByMonotonicClock);
}

#[test]
fn a_sandbox_that_gets_as_many_mints_as_it_asks_for_is_caught() {
    is_caught(Mutant::ForgetEarly);
}

#[test]
fn stamps_by_the_leaders_own_wall_clock_are_caught() {
    is_caught(Mutant::StampByOwnWall);
}

#[test]
fn a_gamble_at_the_moment_in_which_a_majority_comes_back_is_caught() {
    is_caught(Mutant::GambleAtOnce);
}
