//! Benchmarks: each figure stands beside something named that was measured in the same run, on
//! the same machine, by the same loop. Ratios are what to quote; single figures are the machine's.

mod calls;
mod commits;
mod disk;
mod echo;
mod fleet;
mod measure;
mod reads;
mod watchers;

use std::time::Duration;

use clap::Parser;

/// Measures an agent, and three replicas, on loopback and in this process.
#[derive(Debug, Parser)]
struct Args {
    /// Which to run; all if none is named.
    #[arg(value_enum)]
    which: Vec<Which>,
    /// Seconds for each measured step.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Times that each pair of steps is repeated; the median is reported.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Watchers of one bundle.
    #[arg(long, default_value_t = 1_000)]
    watchers: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    /// Commits per second and latency, beside bare synced writes.
    Commits,
    /// Bundle reads per second, beside a bare tonic answer of the same size.
    Reads,
    /// Calls through the agent, beside calls to the API itself and through a bare proxy.
    Calls,
    /// From a commit to the last watcher, beside a bare tonic fan-out of the same size.
    Watchers,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let wanted = |which| args.which.is_empty() || args.which.contains(&which);
    let step = Duration::from_secs(args.seconds);
    if wanted(Which::Calls) {
        calls::run(step, args.rounds).await?;
    }
    if args.which == [Which::Calls] {
        return Ok(());
    }
    let fleet = fleet::Fleet::start().await?;
    if wanted(Which::Commits) {
        commits::run(&fleet, step, args.rounds).await?;
    }
    if wanted(Which::Reads) {
        reads::run(&fleet, step, args.rounds).await?;
    }
    if wanted(Which::Watchers) {
        watchers::run(&fleet, args.watchers).await?;
    }
    fleet.stop().await;
    Ok(())
}
