//! Waiting for a condition, with a bound.

use std::io::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Waits until `look` finds what it looks for. A look that says why not yet makes a better failure.
///
/// # Panics
/// When `bound` has passed, with `what` and what the last look said.
pub async fn eventually<T>(
    what: &str,
    bound: Duration,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let started = Instant::now();
    loop {
        let why = match look().await {
            Ok(found) => return found,
            Err(why) => why,
        };
        assert!(
            started.elapsed() < bound,
            "{what}: not within {bound:?}: {why}"
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The wall clock, in milliseconds since 1970.
pub fn unix_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock is set");
    u64::try_from(now.as_millis()).expect("in this era")
}

/// Tells a person something, on standard error, whatever captures the output of tests: which
/// issuer was used, what a run showed, what it left behind.
pub fn say(text: &str) {
    // A closed standard error is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{text}");
}
