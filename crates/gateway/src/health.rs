//! `grpc.health.v1`: whether a load balancer should send calls here.

use std::time::Duration;

use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::shared::Shared;

/// How often fitness is looked at.
const EVERY: Duration = Duration::from_millis(250);

/// Services that need a replica in touch with the cluster. The empty name is the replica as a
/// whole.
const NEED_CLUSTER: [&str; 6] = [
    "",
    "evermint.v1.Providers",
    "evermint.v1.Refreshes",
    "evermint.v1.Inference",
    "evermint.v1.Sandboxes",
    "evermint.v1.Bundles",
];

/// Services that tell what they know in any case.
const ALWAYS: [&str; 2] = ["evermint.v1.Cluster", "evermint.v1.Audit"];

/// A reporter that says what is the case now.
pub(crate) async fn start(shared: &Shared, reporter: &HealthReporter) -> bool {
    let fit = is_fit(shared);
    set(reporter, &NEED_CLUSTER, fit).await;
    set(reporter, &ALWAYS, true).await;
    fit
}

/// Tells of every change of this replica's health until it shuts down, and then that it is going.
pub(crate) async fn report(shared: &Shared, reporter: &HealthReporter, mut fit: bool) {
    loop {
        tokio::select! {
            () = shared.shutdown.cancelled() => break,
            () = tokio::time::sleep(EVERY) => {}
        }
        let now = is_fit(shared);
        if now != fit {
            fit = now;
            set(reporter, &NEED_CLUSTER, fit).await;
        }
    }
    set(reporter, &NEED_CLUSTER, false).await;
    set(reporter, &ALWAYS, false).await;
}

/// Whether the replica has a state, and one that is fresh enough to be served.
fn is_fit(shared: &Shared) -> bool {
    shared.state().meta.settings.is_some() && shared.fit().is_ok()
}

async fn set(reporter: &HealthReporter, names: &[&str], serving: bool) {
    let status = match serving {
        true => ServingStatus::Serving,
        false => ServingStatus::NotServing,
    };
    for name in names {
        reporter.set_service_status(name, status).await;
    }
}
