//! The campaigns, small: a kill at every point, and a power cut of each kind, with every check.
//! `tests/chaos/README.md` has the results of the large ones.

use std::process::Command;

use evermint_cluster_tests::{evermint_failpoints, say};

/// Fixed, so that a failure of CI is one that can be repeated.
const SEED: &str = "20261123";

/// Says that there may be machines on which a power cut cannot be had, and this is none of them.
const REQUIRE_POWER: &str = "EVERMINT_REQUIRE_POWER";

fn campaign(options: &[&str], name: &str, count: &str) {
    // A process of its own: it moves into namespaces, and its replicas die with it.
    let status = Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args(["0", SEED, "3", "--binary"])
        .arg(evermint_failpoints())
        .args(options)
        .args([name, "--count", count])
        .status();
    let status = status.expect("the harness starts");
    assert!(status.success(), "{status}; the report stands above");
}

#[test]
fn a_replica_may_die_at_every_step() {
    campaign(&[], "kills", "14");
}

#[test]
fn the_power_may_fail_and_disks_may() {
    if std::env::var(REQUIRE_POWER).as_deref() != Ok("1") {
        return say(&format!(
            "SKIPPED: power cuts need root; set {REQUIRE_POWER}=1"
        ));
    }
    campaign(&["--proxies"], "power", "3");
}
