//! Thousands of seeds. `SEEDS=1000000` runs as many as asked, `SEED=7` runs one and tells.

use std::env;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use evermint_sim::report::{Coverage, Failure};
use evermint_sim::{Config, World, run};

/// What CI runs.
const SEEDS: u64 = 2_000;

/// Histories without which the simulation would be worth little. Each has to come up in any
/// [`SEEDS`] seeds.
const REACHED: &[&str] = &[
    "abandonments that settled a doubt",
    "answers handed in after a restart",
    "answers read after the deadline",
    "answers that were lost after rotating",
    "commits that settled a doubt",
    "deadlines that passed before the request was sent",
    "disks lost",
    "early mints for a report",
    "early mints for a value that is short-lived",
    "early mints refused in the log",
    "entries committed by the next leader",
    "grants known before they were applied here",
    "grants that ended, with the lost mint named",
    "journal writes that failed",
    "late answers that are revoked",
    "machines suspended",
    "majorities that came back",
    "mints cut short by a reconfiguration",
    "panics",
    "pauses beyond a ticket",
    "proposals of unknown outcome",
    "proposals to a deposed leader",
    "reads refused as too stale",
    "reads that waited for the log",
    "reports at a replica that is behind",
    "reports of a superseded value",
    "reports that came too early",
    "reports while a mint is due",
    "requests cut off at the deadline",
    "results refused",
    "sandboxes that ask in a loop",
    "revocations cut off at the deadline",
    "revocations given up",
    "revocations that were needless",
    "revocations that were told",
    "revocations whose answer was lost",
    "revocations whose try died with its replica",
    "tickets abandoned after a restart",
    "tickets expired",
    "wall clocks set",
];

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

#[test]
fn every_promise_holds_in_every_seed() {
    let (first, count) = match number("SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("SEEDS").unwrap_or(SEEDS)),
    };
    let next = AtomicU64::new(first);
    let stop = AtomicBool::new(false);
    let found: Mutex<Option<Box<Failure>>> = Mutex::new(None);
    let totals = Mutex::new((Coverage::default(), 0));
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                return;
            }
            match run(seed, None) {
                Ok(passed) => {
                    let mut totals = totals.lock().unwrap();
                    totals.0.add(&passed.coverage);
                    totals.1 += passed.events;
                }
                Err(failure) => {
                    stop.store(true, Ordering::Relaxed);
                    found.lock().unwrap().get_or_insert(failure);
                }
            }
            let done = seed + 1 - first;
            if done.is_multiple_of(10_000) {
                println!("{done} of {count} seeds");
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    if let Some(failure) = found.into_inner().unwrap() {
        panic!("{failure}");
    }
    let (coverage, events) = totals.into_inner().unwrap();
    println!("{count} seeds, {events} events\n{coverage}");
    if count >= SEEDS {
        for what in REACHED {
            assert!(coverage.0.contains_key(what), "never reached: {what}");
        }
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..50 {
        let again = || World::new(Config::derive(seed), None).run();
        let first = again().map_err(|(broken, _)| broken);
        assert_eq!(first, again().map_err(|(broken, _)| broken), "seed {seed}");
    }
}
