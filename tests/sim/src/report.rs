//! What a run tells: which histories it reached, and how it failed.

use std::collections::BTreeMap;
use std::fmt;

use crate::config::Config;

/// How often something happened that the simulation has to reach to be worth its time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage(pub BTreeMap<&'static str, u64>);

impl Coverage {
    /// Counts one.
    pub fn note(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in &self.0 {
            writeln!(f, "{count:>12}  {what}")?;
        }
        Ok(())
    }
}

/// A run without a violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// A hash over every event and the final state.
    pub hash: u64,
    /// Events handled.
    pub events: u64,
    /// What it reached.
    pub coverage: Coverage,
}

/// A promise that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub promise: &'static str,
    /// What was found.
    pub what: String,
    /// When.
    pub at: u64,
}

/// A failed run, ready to be printed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What failed.
    pub broken: Broken,
    /// The smallest configuration found that still fails.
    pub config: Config,
    /// Its last events.
    pub tail: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Broken { promise, what, at } = &self.broken;
        writeln!(f, "{promise} broken at {at} ms: {what}")?;
        writeln!(f, "{:#?}", self.config)?;
        writeln!(f, "the last events:")?;
        for line in &self.tail {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "{promise} broken at {at} ms: {what}")?;
        write!(
            f,
            "replay: SEED={} cargo test -p evermint-sim --test simulation -- --nocapture",
            self.config.seed
        )
    }
}
