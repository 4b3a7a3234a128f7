//! Thousands of seeds. `SEEDS=1000000` runs as many as asked, `SEED=7` runs one and tells.

use std::env;

use evermint_sim::report::Coverage;
use evermint_sim::run;

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

#[test]
fn every_promise_holds_in_every_seed() {
    let (first, count) = match number("SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("SEEDS").unwrap_or(2_000)),
    };
    let mut coverage = Coverage::default();
    let mut events = 0;
    for seed in first..first + count {
        match run(seed, None) {
            Ok(passed) => {
                coverage.add(&passed.coverage);
                events += passed.events;
            }
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("{count} seeds, {events} events\n{coverage}");
}
