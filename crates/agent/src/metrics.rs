//! What is counted, and how Prometheus reads it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// Counts since the agent was started.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $($(#[doc = $doc])* pub(crate) $name: Counter,)*
            in_flight: Arc<AtomicU64>,
        }

        impl Counters {
            fn each(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($name), concat!($($doc),*), self.$name.get()),)*]
            }
        }
    };
}

counters! {
    /// Calls that got an upstream's answer, whatever it was.
    answered,
    /// Calls that got the agent's own answer instead.
    refused,
    /// Answers of upstreams that refused a token.
    unauthorized,
    /// Calls that were made again.
    retried,
    /// Tokens that were reported to the cluster as refused.
    reported,
    /// Requests to bound endpoints whose placeholders were resolved.
    resolved,
    /// Connections that were passed on unopened.
    tunnelled,
    /// Answers of the metadata endpoints with a token.
    metadata,
}

/// One number that grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A call that is under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<AtomicU64>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counters {
    /// Begins a call.
    pub(crate) fn enter(&self) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(&self.in_flight))
    }

    /// What the agent counts, in Prometheus's text format.
    pub(crate) fn render(&self) -> String {
        let mut out = String::new();
        let mut metric = |name: &str, kind: &str, help: &str, value: u64| {
            let name = format!("evermint_agent_{name}");
            // Writing to a string does not fail.
            let _ = writeln!(
                out,
                "# HELP {name} {}\n# TYPE {name} {kind}\n{name} {value}",
                help.trim()
            );
        };
        for (name, help, count) in self.each() {
            metric(&format!("{name}_total"), "counter", help, count);
        }
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        metric("in_flight", "gauge", "Calls under way.", in_flight);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_counts_while_it_lasts() {
        let counters = Counters::default();
        let now = || counters.in_flight.load(Ordering::Relaxed);
        let call = counters.enter();
        assert_eq!(now(), 1);
        drop(call);
        assert_eq!(now(), 0);
    }
}
