//! Commits per second and their latency on three replicas, beside bare synced writes.

use std::sync::Arc;
use std::time::Duration;

use evermint_core::command::Command;
use evermint_core::id::Name;
use evermint_core::port::Proposer;

use crate::disk::synced_writes;
use crate::fleet::Fleet;
use crate::measure::{Sample, closed_loop, median, ms, say};

pub(crate) async fn run(fleet: &Fleet, step: Duration, rounds: usize) -> anyhow::Result<()> {
    say("\nCommits on three replicas (synced on a majority), proposers on all of them,");
    say("beside writes of 512 bytes to the same disk, each synced before the next");
    say("proposers  commits/s      p50      p99   synced/s   ratio");
    for proposers in [1, 16, 256] {
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let dir = fleet.dir().to_owned();
            let disk = tokio::task::spawn_blocking(move || synced_writes(&dir, step));
            bare.push(disk.await??);
            ours.push(commits(fleet, proposers, step).await?);
        }
        let (ours, bare) = (median(ours), median(bare));
        say(format_args!(
            "{proposers:>9}  {:>9.0}  {:>7}  {:>7}  {:>9.0}  {:>6.2}",
            ours.per_second,
            ms(ours.p50),
            ms(ours.p99),
            bare.per_second,
            ours.per_second / bare.per_second
        ));
    }
    Ok(())
}

/// Each proposer sets a route of its own workspace over and over: the state does not grow.
async fn commits(fleet: &Fleet, proposers: usize, step: Duration) -> anyhow::Result<Sample> {
    let replicas = fleet.proposers();
    let (workspace, provider) = fleet.target();
    let workers: Vec<(usize, Arc<dyn Proposer>)> = (0..proposers)
        .map(|n| (n, Arc::clone(&replicas[n % replicas.len()])))
        .collect();
    closed_loop(workers, step, move |(n, replica)| {
        let workspace = workspace.clone();
        async move {
            let command = Command::SetRoute {
                workspace: workspace.clone(),
                name: Name::new(format!("bench-{n}"))?,
                provider,
                credential: None,
                model: "model".to_owned(),
                timeout_secs: 0,
            };
            replica.propose(command).await?.outcome?;
            Ok((n, replica))
        }
    })
    .await
}
