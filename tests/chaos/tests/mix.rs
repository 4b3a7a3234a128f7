//! A few minutes of everything, as CI runs it: three replicas, all tracks of faults, all checks.
//!
//! `EVERMINT_CHAOS_SECONDS` and `EVERMINT_CHAOS_SEED` choose another length and seed.

use std::process::Command;

use evermint_cluster_tests::evermint_failpoints;

/// How long faults are injected, in seconds.
const SECONDS: &str = "150";
/// Fixed, so that a failure of CI is one that can be repeated.
const SEED: &str = "20261123";

#[test]
fn every_promise_holds_in_minutes_of_mixed_faults() {
    let chosen = |name: &str, default: &str| std::env::var(name).unwrap_or(default.to_owned());
    // A process of its own: it moves into a network namespace, and its replicas die with it.
    let status = Command::new(env!("CARGO_BIN_EXE_chaos"))
        .arg(chosen("EVERMINT_CHAOS_SECONDS", SECONDS))
        .arg(chosen("EVERMINT_CHAOS_SEED", SEED))
        .arg("3")
        .arg("--binary")
        .arg(evermint_failpoints())
        .status();
    let status = status.expect("the harness starts");
    assert!(status.success(), "{status}; the report stands above");
}
