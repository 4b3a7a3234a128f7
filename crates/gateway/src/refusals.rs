//! Refused calls on their way into the audit trail.
//!
//! Whoever can reach a replica can have calls refused as often as it likes, and must fill neither
//! the log nor the memory with them. So calls of one caller, method and reason are counted and told
//! as one; a replica records a few kinds at once, and on average one in a minute. What has to wait
//! goes on counting.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evermint_core::audit::{Origin, REFUSED_MAX, RefusedCalls};
use evermint_core::command::Command;
use evermint_core::time::UnixMs;
use tokio::time::Instant;
use tonic::Code;

use crate::shared::Shared;

/// How often what was counted is recorded.
const RECORD_EVERY: Duration = Duration::from_secs(2);

/// Kinds that may be recorded at once.
const BURST: u32 = REFUSED_MAX as u32;

/// How long one kind that was recorded counts against the burst.
const RECOVERY: Duration = Duration::from_secs(60);

/// Kinds that are told apart while they wait.
const KINDS_MAX: usize = 256;

/// Stands for what is not told apart.
const OTHERS: &str = "(others)";

/// What is waiting to be recorded.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<BTreeMap<Kind, Tally>>);

/// Calls that are told as one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    pub(crate) by: Origin,
    pub(crate) method: String,
    pub(crate) reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tally {
    count: u64,
    since: UnixMs,
}

/// Whether a call that ended so was refused for who made it, or how often.
pub(crate) fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::Unauthenticated | Code::PermissionDenied | Code::ResourceExhausted
    )
}

impl Refusals {
    /// Counts a refused call.
    pub(crate) fn note(&self, kind: Kind, now: UnixMs) {
        self.add(
            kind,
            Tally {
                count: 1,
                since: now,
            },
        );
    }

    fn add(&self, kind: Kind, tally: Tally) {
        let mut waiting = self.lock();
        let kind = match waiting.len() < KINDS_MAX || waiting.contains_key(&kind) {
            true => kind,
            false => Kind {
                by: Origin {
                    who: OTHERS.to_owned(),
                    from: String::new(),
                    replica: kind.by.replica,
                },
                method: OTHERS.to_owned(),
                reason: OTHERS.to_owned(),
            },
        };
        let known = waiting.entry(kind).or_insert(Tally { count: 0, ..tally });
        known.count = known.count.saturating_add(tally.count);
        known.since = known.since.min(tally.since);
    }

    /// The most frequent `max` kinds; they wait no more.
    fn take(&self, max: usize) -> Vec<(Kind, Tally)> {
        let mut waiting = self.lock();
        let mut all: Vec<_> = std::mem::take(&mut *waiting).into_iter().collect();
        all.sort_by_key(|(_, tally)| Reverse(tally.count));
        let rest = all.split_off(max.min(all.len()));
        waiting.extend(rest);
        all
    }

    /// Records what waits, until the replica stops.
    pub(crate) async fn record(&self, shared: &Shared) {
        let mut allowance = Allowance::new(Instant::now());
        loop {
            tokio::time::sleep(RECORD_EVERY).await;
            let taken = self.take(allowance.left(Instant::now()));
            if taken.is_empty() {
                continue;
            }
            let calls = taken.iter().map(|(kind, tally)| {
                let refused = RefusedCalls {
                    method: kind.method.clone(),
                    reason: kind.reason.clone(),
                    count: tally.count,
                    since: tally.since,
                };
                (kind.by.clone(), refused)
            });
            let command = Command::RecordRefusals {
                calls: calls.collect(),
            };
            match shared.ports.proposer.propose(command).await {
                Ok(_) => allowance.spend(taken.len()),
                Err(error) => {
                    tracing::debug!(%error, "refused calls wait to be recorded");
                    for (kind, tally) in taken {
                        self.add(kind, tally);
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Kind, Tally>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much may be recorded: a burst, which recovers by and by.
struct Allowance {
    left: u32,
    since: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            since: now,
        }
    }

    fn left(&mut self, now: Instant) -> usize {
        while self.left < BURST && now.duration_since(self.since) >= RECOVERY {
            self.left += 1;
            self.since += RECOVERY;
        }
        if self.left == BURST {
            self.since = now;
        }
        self.left as usize
    }

    fn spend(&mut self, kinds: usize) {
        self.left = self
            .left
            .saturating_sub(u32::try_from(kinds).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use evermint_core::id::ReplicaId;

    use super::*;

    fn kind(n: usize) -> Kind {
        Kind {
            by: Origin {
                who: format!("caller {n}"),
                from: "10.0.0.1".to_owned(),
                replica: ReplicaId(1),
            },
            method: "/m".to_owned(),
            reason: "denied".to_owned(),
        }
    }

    #[test]
    fn calls_of_one_kind_are_one_and_kinds_are_bounded() {
        let refusals = Refusals::default();
        for n in 0..KINDS_MAX * 4 {
            refusals.note(kind(n), UnixMs(5));
            refusals.note(kind(7), UnixMs(4));
        }
        assert_eq!(refusals.lock().len(), KINDS_MAX + 1);
        let taken = refusals.take(2);
        let told: Vec<_> = taken
            .iter()
            .map(|(kind, tally)| (kind.by.who.as_str(), tally.count))
            .collect();
        assert_eq!(
            told,
            [
                ("caller 7", KINDS_MAX as u64 * 4 + 1),
                (OTHERS, KINDS_MAX as u64 * 3)
            ]
        );
        assert_eq!(taken[0].1.since, UnixMs(4));
        // What was not taken waits, and none is counted twice.
        assert_eq!(refusals.take(usize::MAX).len(), KINDS_MAX - 1);
        assert!(refusals.take(usize::MAX).is_empty());
    }

    #[test]
    fn no_flood_records_more_than_a_burst_and_one_a_minute() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let mut recorded = 0;
        for second in 0..24 * 3_600_u64 {
            let left = allowance.left(start + Duration::from_secs(second));
            allowance.spend(left);
            recorded += left;
        }
        assert_eq!(recorded, BURST as usize + 24 * 60 - 1);
    }
}
