//! What a run showed, for people: counts, failovers, a timeline, and the verdict of the checks.

pub mod picture;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::check::Violation;
use crate::history::{Event, Failover, FaultId, Line, Nanos, Run};

/// A fault, from begin to end.
#[derive(Clone, Debug)]
pub struct Strike {
    /// When it began.
    pub began: Nanos,
    /// When all was whole again; the end of the history if it never was.
    pub ended: Nanos,
    /// The family.
    pub family: String,
    /// What was done.
    pub name: String,
    /// To whom.
    pub replicas: Vec<usize>,
    /// How it was seen to take effect.
    pub evidence: Option<String>,
}

/// What is counted.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// What was started.
    pub run: Run,
    /// Nanoseconds from begin to end.
    pub length: Nanos,
    /// Every fault, in order.
    pub strikes: Vec<Strike>,
    /// Every measured failover.
    pub failovers: Vec<Failover>,
    /// Requests to issuers.
    pub requests: u64,
    /// Requests that were answered with a token.
    pub mints: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Reads that nobody answered.
    pub failed_reads: u64,
    /// Calls of operators, and those that were acknowledged.
    pub calls: (u64, u64),
    /// Processes that were killed or ended otherwise before the end.
    pub deaths: u64,
    /// Changes of the leader.
    pub leaders: u64,
    /// Families that were lost, each after an answer that never arrived.
    pub lost_grants: u64,
}

impl Summary {
    /// Counts what is in a history.
    pub fn of(history: &[Line]) -> Self {
        let mut this = Self {
            length: history.last().map_or(0, |line| line.at),
            ..Self::default()
        };
        let mut open: BTreeMap<FaultId, usize> = BTreeMap::new();
        let mut last_leader = None;
        for line in history {
            match &line.event {
                Event::Run(run) => this.run = run.clone(),
                Event::FaultBegins {
                    fault,
                    family,
                    name,
                    replicas,
                    ..
                } => {
                    open.insert(*fault, this.strikes.len());
                    this.strikes.push(Strike {
                        began: line.at,
                        ended: this.length,
                        family: family.clone(),
                        name: name.clone(),
                        replicas: replicas.clone(),
                        evidence: None,
                    });
                }
                Event::FaultBites { fault, evidence } => {
                    if let Some(strike) = open.get(fault).map(|n| &mut this.strikes[*n]) {
                        strike.evidence.get_or_insert(evidence.clone());
                    }
                }
                Event::FaultEnds { fault } => {
                    if let Some(n) = open.remove(fault) {
                        this.strikes[n].ended = line.at;
                    }
                }
                Event::Failover(failover) => this.failovers.push(failover.clone()),
                Event::Mint { record, .. } => {
                    this.requests += 1;
                    this.mints += u64::from(record.status == Some(200));
                }
                Event::Read { .. } => this.reads += 1,
                Event::ReadFailed { .. } => this.failed_reads += 1,
                Event::Invoke { .. } => this.calls.0 += 1,
                Event::Ok { .. } => this.calls.1 += 1,
                Event::ReplicaEnds { .. } => this.deaths += 1,
                Event::Leads {
                    replica: Some(replica),
                    ..
                } => {
                    this.leaders += u64::from(last_leader != Some(*replica));
                    last_leader = Some(*replica);
                }
                Event::FinalFamily { alive: false, .. } => this.lost_grants += 1,
                _ => {}
            }
        }
        this
    }

    /// How often each kind of fault struck.
    pub fn kinds(&self) -> BTreeMap<(&str, &str), u64> {
        let mut kinds = BTreeMap::new();
        for strike in &self.strikes {
            let kind = (strike.family.as_str(), strike.name.as_str());
            *kinds.entry(kind).or_default() += 1;
        }
        kinds
    }

    fn struck(&self, part: &str) -> u64 {
        let named = self.strikes.iter().filter(|s| s.name.contains(part));
        named.count() as u64
    }

    /// The row of `README.md`'s table for this run.
    pub fn row(&self, violations: &[Violation]) -> String {
        let network = self
            .strikes
            .iter()
            .filter(|s| s.family == "network")
            .count();
        format!(
            "| {} | {} | {} s | {} | {} | {network} | {} | {} | {} ms | {} ms | {} | {} |",
            self.run.seed,
            self.run.replicas,
            self.run.seconds,
            self.mints,
            self.struck("kill"),
            self.struck("pause"),
            self.reads,
            worst(self.failovers.iter().map(|f| f.write_ms)),
            worst(self.failovers.iter().map(|f| f.mint_ms)),
            self.failovers.iter().map(|f| f.failed_reads).sum::<u64>(),
            violations.len(),
        )
    }

    /// The whole report as text.
    pub fn text(&self, violations: &[Violation], failed: &[String]) -> String {
        let mut text = String::new();
        let run = &self.run;
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "seed {} · {} replicas · faults for {} s · {} · ticket {} ms (margin {} ms) · staleness {} ms · tokens {} ms",
            run.seed,
            run.replicas,
            run.seconds,
            run.network,
            run.ticket_ttl_ms,
            run.ticket_margin_ms,
            run.max_staleness_ms,
            run.access_ttl_ms,
        );
        let _ = writeln!(
            text,
            "{} mints by {} requests · {} reads, {} failed · {} calls, {} acknowledged · {} processes ended · {} changes of leader · {} grants given anew",
            self.mints,
            self.requests,
            self.reads,
            self.failed_reads,
            self.calls.0,
            self.calls.1,
            self.deaths,
            self.leaders,
            self.lost_grants,
        );
        text.push_str("\nfaults\n");
        for ((family, name), count) in self.kinds() {
            let _ = writeln!(text, "{count:>6}  {family}: {name}");
        }
        text.push_str("\nfrom the kill of a replica in mid-mint\n");
        let _ = writeln!(
            text,
            "        acknowledged write: {}",
            spread(self.failovers.iter().map(|f| f.write_ms))
        );
        let _ = writeln!(
            text,
            "  mint of that credential: {}",
            spread(self.failovers.iter().map(|f| f.mint_ms))
        );
        let failed_reads: u64 = self.failovers.iter().map(|f| f.failed_reads).sum();
        let _ = writeln!(text, "             failed reads: {failed_reads}");
        self.timeline(&mut text);
        text.push('\n');
        for violation in violations.iter().take(50) {
            let _ = writeln!(text, "BROKEN  {violation}");
        }
        if violations.len() > 50 {
            let _ = writeln!(text, "BROKEN  … and {} more", violations.len() - 50);
        }
        for why in failed {
            let _ = writeln!(text, "FAILED  {why}");
        }
        let promises: BTreeSet<_> = violations.iter().map(|v| v.promise).collect();
        let _ = match (violations.is_empty(), failed.is_empty()) {
            (true, true) => writeln!(text, "verdict: every promise held"),
            _ => writeln!(
                text,
                "verdict: {} violations of {promises:?}, {} failures; again with: {}",
                violations.len(),
                failed.len(),
                run.command
            ),
        };
        text
    }

    fn timeline(&self, text: &mut String) {
        text.push_str("\ntimeline (seconds)\n");
        for strike in &self.strikes {
            let _ = writeln!(
                text,
                "{:>8.1} – {:<8.1} {}: {} {:?}{}",
                seconds(strike.began),
                seconds(strike.ended),
                strike.family,
                strike.name,
                strike.replicas,
                match &strike.evidence {
                    Some(evidence) => format!(" · {evidence}"),
                    None => " · NO EFFECT SEEN".to_owned(),
                }
            );
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn seconds(at: Nanos) -> f64 {
    at as f64 / 1e9
}

fn worst(times: impl Iterator<Item = Option<u64>>) -> String {
    times
        .flatten()
        .max()
        .map_or("–".to_owned(), |ms| ms.to_string())
}

/// Median, 95th percentile and worst of times in milliseconds.
fn spread(times: impl Iterator<Item = Option<u64>>) -> String {
    let (mut known, mut missing) = (Vec::new(), 0);
    for time in times {
        match time {
            Some(ms) => known.push(ms),
            None => missing += 1,
        }
    }
    known.sort_unstable();
    let at = |percent: usize| known[(known.len() - 1) * percent / 100];
    let seen = match known.len() {
        0 => "none measured".to_owned(),
        n => format!(
            "median {} ms, 95 % within {} ms, worst {} ms, of {n}",
            at(50),
            at(95),
            at(100)
        ),
    };
    match missing {
        0 => seen,
        n => format!("{seen}; {n} not within the bound"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_names_median_and_worst_and_what_is_missing() {
        #[track_caller]
        fn check(times: &[Option<u64>], expected: &str) {
            assert_eq!(spread(times.iter().copied()), expected);
        }
        check(&[], "none measured");
        check(
            &[Some(3), Some(1), Some(2)],
            "median 2 ms, 95 % within 2 ms, worst 3 ms, of 3",
        );
        check(
            &[Some(5), None],
            "median 5 ms, 95 % within 5 ms, worst 5 ms, of 1; 1 not within the bound",
        );
    }
}
