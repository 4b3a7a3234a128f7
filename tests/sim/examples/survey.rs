//! Which promises break, how often, and in which seeds: `survey FIRST COUNT [MUTANT]`; or the
//! whole story of one seed: `survey SEED 1 trace`.
#![allow(clippy::print_stdout, reason = "it is a program for people")]

use std::collections::BTreeMap;
use std::env;

use evermint_sim::report::Coverage;
use evermint_sim::{Config, Mutant, World};

fn main() {
    let args: Vec<String> = env::args().collect();
    let number = |n: usize| args.get(n).and_then(|a| a.parse().ok());
    let (first, count): (u64, u64) = (number(1).unwrap_or(0), number(2).unwrap_or(100));
    let mutant = args.get(3).and_then(|name| {
        let mut all = Mutant::ALL.into_iter();
        all.find(|m| format!("{m:?}") == *name)
    });
    if args.get(3).is_some_and(|a| a == "trace") {
        let world = World::new(Config::derive(first), None).with_trace(1 << 20);
        if let Err((_, tail)) = world.run() {
            println!("{}", tail.join("\n"));
        }
        return;
    }
    let mut broken: BTreeMap<&str, Vec<(u64, String)>> = BTreeMap::new();
    let mut coverage = Coverage::default();
    let mut events = 0;
    for seed in first..first + count {
        match World::new(Config::derive(seed), mutant).run() {
            Ok(passed) => {
                coverage.add(&passed.coverage);
                events += passed.events;
            }
            Err((b, _)) => broken.entry(b.promise).or_default().push((seed, b.what)),
        }
    }
    println!("{count} seeds, {events} events, {mutant:?}\n{coverage}");
    for (promise, seeds) in broken {
        println!("{promise}: {} seeds", seeds.len());
        for (seed, what) in seeds.iter().take(5) {
            println!("    {seed}: {}", what.chars().take(150).collect::<String>());
        }
    }
}
