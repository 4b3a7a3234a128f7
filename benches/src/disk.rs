//! What the disk can do: writes of 512 bytes, each synced before the next.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::measure::{Sample, quantile};

/// Appends and syncs for `time` in `dir`, one write at a time. Blocks.
pub(crate) fn synced_writes(dir: &Path, time: Duration) -> anyhow::Result<Sample> {
    let mut file = std::fs::File::create(dir.join("synced-writes"))?;
    let block = [7_u8; 512];
    let mut latencies = Vec::new();
    let start = Instant::now();
    while start.elapsed() < time {
        let began = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        latencies.push(began.elapsed());
    }
    let per_second = latencies.len() as f64 / start.elapsed().as_secs_f64();
    Ok(Sample {
        per_second,
        p50: quantile(&mut latencies, 0.50),
        p99: quantile(&mut latencies, 0.99),
    })
}
