//! One loop for everything that is measured.

use std::future::Future;
use std::time::{Duration, Instant};

use futures::future::try_join_all;

/// What one step gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Operations per second, all workers together.
    pub(crate) per_second: f64,
    /// Latency of one operation: the median, and the 99th of a hundred.
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// Runs `operation` in as many loops as there are `workers` for `time`.
pub(crate) async fn closed_loop<W, F, T>(
    workers: Vec<W>,
    time: Duration,
    operation: F,
) -> anyhow::Result<Sample>
where
    W: Send + 'static,
    F: Fn(W) -> T + Clone + Send + 'static,
    T: Future<Output = anyhow::Result<W>> + Send,
{
    let start = Instant::now();
    let loops = workers.into_iter().map(|mut worker| {
        let operation = operation.clone();
        tokio::spawn(async move {
            let mut latencies = Vec::new();
            while start.elapsed() < time {
                let began = Instant::now();
                worker = operation(worker).await?;
                latencies.push(began.elapsed());
            }
            anyhow::Ok(latencies)
        })
    });
    let mut latencies = Vec::new();
    for of_one in try_join_all(loops).await? {
        latencies.extend(of_one?);
    }
    let per_second = latencies.len() as f64 / start.elapsed().as_secs_f64();
    Ok(Sample {
        per_second,
        p50: quantile(&mut latencies, 0.50),
        p99: quantile(&mut latencies, 0.99),
    })
}

/// The `q`-th quantile, by the nearest rank; zero of nothing.
pub(crate) fn quantile(latencies: &mut [Duration], q: f64) -> Duration {
    latencies.sort_unstable();
    let rank = (latencies.len() as f64 * q) as usize;
    latencies
        .get(rank.min(latencies.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

/// The sample with the median rate.
pub(crate) fn median(mut samples: Vec<Sample>) -> Sample {
    samples.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    samples[samples.len() / 2]
}

/// Milliseconds with two decimals.
pub(crate) fn ms(d: Duration) -> String {
    format!("{:.2} ms", d.as_secs_f64() * 1e3)
}

/// A line of a report; the one place that prints.
#[allow(
    clippy::print_stdout,
    reason = "the report is what this program is for"
)]
pub(crate) fn say(line: impl std::fmt::Display) {
    println!("{line}");
}
