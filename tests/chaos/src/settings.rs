//! What a run is asked to do, and what follows from it.

use std::path::PathBuf;
use std::time::Duration;

/// Settings of one run. All else follows from the seed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Every choice follows from it.
    pub seed: u64,
    /// How long faults are injected.
    pub length: Duration,
    /// How many replicas: 3 or 5.
    pub replicas: usize,
    /// The `evermint` program under test.
    pub binary: PathBuf,
    /// Everything about this run: configuration, stores, logs, history, report.
    pub dir: PathBuf,
    /// Whether replicas have network namespaces; else they share loopback behind proxies.
    pub namespaces: bool,
    /// Only nemeses whose `family/name` contains one of these; all if empty.
    pub only: Vec<String>,
    /// The command that repeats this run.
    pub command: String,
}

/// Places that are empty at first: replicas join there, and leave.
pub const SPARES: usize = 2;

/// Raft's identity of a run's clusters is theirs alone; these are the same for all runs. Quick, so
/// that minutes show what takes hours in production; the proportions stay.
pub mod times {
    use super::Duration;

    /// How long a mint ticket is valid.
    pub const TICKET_TTL: Duration = Duration::from_millis(4_000);
    /// How much earlier than its ticket a mint stops.
    pub const TICKET_MARGIN: Duration = Duration::from_millis(1_000);
    /// How long a doubt waits at least.
    pub const DOUBT_WAIT: Duration = Duration::from_secs(2);
    /// For how long a replica that is out of touch serves.
    pub const MAX_STALENESS: Duration = Duration::from_secs(20);
    /// Lifetime of access tokens.
    pub const ACCESS_TTL: Duration = Duration::from_secs(45);
    /// How long before its end a token is replaced: a time of its own for each credential, so that
    /// at any time some are about to fall due.
    pub const REFRESH_BEFORE: std::ops::Range<Duration> =
        Duration::from_secs(18)..Duration::from_secs(30);
    /// How soon after the last fault all must be well again.
    pub const RECOVERY: Duration = Duration::from_secs(60);
}
