//! Wall clocks that are set, and nothing else: the cluster clock does not care, as long as they are
//! fewer than half.
#![allow(clippy::unwrap_used, reason = "tests")]

use evermint_sim::config::Fault;
use evermint_sim::{Config, World};

/// How often something came up in a run in which nothing but wall clocks goes wrong.
fn counts(seed: u64, replicas: usize, set: usize, what: &[&str]) -> Vec<u64> {
    const HOUR: i64 = 3_600_000;
    let mut config = Config::derive(seed);
    config.replicas = replicas;
    config.drift_ppm = vec![0; replicas];
    config.walls_set = set;
    (config.lost, config.doubled, config.late) = (0, 0, 0);
    (config.failed, config.throttled) = (0, 0);
    (config.hung, config.unheard, config.slowest) = (0, 0, 50);
    let steps = [HOUR, -3 * HOUR, 5 * HOUR, -2_000, 10_000];
    let times = (0..config.horizon / 5_000).map(|n| 5_000 * (n + 1) - 1);
    config.schedule = times
        .zip(steps.into_iter().cycle())
        .map(|(at, by)| {
            let then = Box::new(Fault::StepWall { slot: 0, by });
            (at, Fault::Leader { then })
        })
        .collect();
    let passed = World::new(config, None).run().unwrap();
    let count = |what| passed.coverage.0.get(what).copied().unwrap_or(0);
    what.iter().map(|what| count(*what)).collect()
}

#[test]
fn a_leader_whose_wall_clock_jumps_moves_the_cluster_clock_only_with_a_majority() {
    let what = [
        "wall clocks set",
        "bundles read by a clock that was pushed ahead",
    ];
    for seed in 0..20 {
        for (replicas, set) in [(3, 1), (5, 2)] {
            let [set, pushed] = counts(seed, replicas, set, &what)[..] else {
                panic!("two counts");
            };
            assert!(
                set > 0 && pushed == 0,
                "seed {seed}: {set} set, {pushed} pushed"
            );
        }
    }
}
