//! What is counted and known, as Prometheus reads it
//! ([text format 0.0.4](https://prometheus.io/docs/instrumenting/exposition_formats/)).
//!
//! | metric | kind | what |
//! | --- | --- | --- |
//! | `evermint_client_…_total` | counter | each field of [`Metrics`] |
//! | `evermint_client_ready` | gauge | 1 if there is a bundle |
//! | `evermint_client_staleness_seconds` | gauge | time since the bundle was known to be the newest |
//! | `evermint_client_bundle_generation` | gauge | the bundle's generation |
//! | `evermint_client_token_usable{provider,key}` | gauge | 1 if the token may be used now |
//! | `evermint_client_token_seconds_left{provider,key}` | gauge | until its end; absent without one |

use std::fmt::Write as _;
use std::time::Duration;

use crate::metrics::Metrics;
use crate::snapshot::Snapshot;

/// The content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// A text in the making.
#[derive(Debug, Default)]
struct Text(String);

impl Text {
    /// Begins a metric.
    fn begin(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail, here and below.
        let _ = writeln!(
            self.0,
            "# HELP evermint_client_{name} {help}\n# TYPE evermint_client_{name} {kind}"
        );
    }

    /// One value of the metric, with labels as they stand between the braces.
    fn value(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "evermint_client_{name}{labels} {value}");
    }
}

/// Everything, without secrets: names of providers and keys are labels.
pub(crate) fn render(metrics: &Metrics, snapshot: &Snapshot) -> String {
    let mut text = Text::default();
    for (name, help, count) in metrics.each() {
        let name = format!("{name}_total");
        text.begin(&name, "counter", help);
        text.value(&name, "", count);
    }
    text.begin("ready", "gauge", "Whether there is a bundle.");
    text.value("ready", "", u8::from(snapshot.is_ready()));
    if let Some((staleness, generation)) = snapshot.staleness().zip(snapshot.generation()) {
        let help = "Time since the bundle was known to be the newest.";
        text.begin("staleness_seconds", "gauge", help);
        text.value("staleness_seconds", "", seconds(staleness));
        text.begin("bundle_generation", "gauge", "The bundle's generation.");
        text.value("bundle_generation", "", generation.0);
    }
    let tokens: Vec<_> = snapshot
        .credentials()
        .map(|c| (labels(c.provider(), c.key()), c.token()))
        .collect();
    if !tokens.is_empty() {
        text.begin(
            "token_usable",
            "gauge",
            "Whether the token may be used now.",
        );
    }
    for (labels, token) in &tokens {
        text.value("token_usable", labels, u8::from(token.is_usable_now()));
    }
    let mut ending = tokens
        .iter()
        .filter_map(|(labels, token)| Some((labels, token.good_for()?)))
        .peekable();
    if ending.peek().is_some() {
        text.begin("token_seconds_left", "gauge", "Time until the token's end.");
    }
    for (labels, left) in ending {
        text.value("token_seconds_left", labels, seconds(left));
    }
    text.0
}

fn labels(provider: &str, key: &str) -> String {
    format!(
        "{{provider=\"{}\",key=\"{}\"}}",
        escaped(provider),
        escaped(key)
    )
}

fn escaped(value: &str) -> String {
    let slashes = value.replace('\\', "\\\\");
    slashes.replace('"', "\\\"").replace('\n', "\\n")
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
