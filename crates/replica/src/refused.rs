//! Joins that were refused, on their way into the audit trail.
//!
//! Whoever reaches the replica port can be refused as often as it likes, and must fill neither the
//! log nor the memory. So refusals of one address and reason are counted, and told at most once a
//! minute; addresses beyond a number of them are told as one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evermint_core::audit::{Origin, REFUSED_MAX, RefusedCalls};
use evermint_core::command::Command;
use evermint_core::time::UnixMs;
use tokio::sync::Notify;
use tonic::{Code, Status};

use crate::local::Local;
use crate::propose;

/// What was refused, as the audit trail names methods.
const METHOD: &str = "/replica.v1.Replica/Join";

/// The pause after what was counted is told.
const PAUSE: Duration = Duration::from_secs(60);

/// Stands for addresses that are not told apart.
const OTHERS: &str = "(others)";

/// Why a replica was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// It showed no join token, or no certificate.
    NothingShown,
    /// It showed one that lets nobody in.
    NotAllowed,
    /// It lacks a key-encryption key of the cluster's.
    AnotherKek,
}

impl Reason {
    /// Why a call was refused for who made it, if it was.
    pub(crate) fn of(status: &Status) -> Option<Self> {
        match status.code() {
            Code::Unauthenticated => Some(Self::NothingShown),
            Code::PermissionDenied => Some(Self::NotAllowed),
            _ => None,
        }
    }

    const ALL: [Self; 3] = [Self::NothingShown, Self::NotAllowed, Self::AnotherKek];

    const fn word(self) -> &'static str {
        match self {
            Self::NothingShown => "unauthenticated",
            Self::NotAllowed => "permission-denied",
            Self::AnotherKek => "another-kek",
        }
    }
}

/// What is waiting to be told.
#[derive(Default)]
pub(crate) struct RefusedJoins {
    waiting: Mutex<BTreeMap<(String, Reason), Tally>>,
    more: Notify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tally {
    count: u64,
    since: UnixMs,
}

impl RefusedJoins {
    /// Counts one.
    pub(crate) fn note(&self, from: Option<IpAddr>, reason: Reason, now: UnixMs) {
        let from = from.map(|ip| ip.to_string()).unwrap_or_default();
        let one = Tally {
            count: 1,
            since: now,
        };
        self.add((from, reason), one);
        self.more.notify_one();
    }

    fn add(&self, kind: (String, Reason), tally: Tally) {
        let mut waiting = self.lock();
        // A place for each reason is left to the others.
        let has_room = waiting.len() < REFUSED_MAX - Reason::ALL.len();
        let kind = match has_room || waiting.contains_key(&kind) {
            true => kind,
            false => (OTHERS.to_owned(), kind.1),
        };
        let known = waiting.entry(kind).or_insert(Tally { count: 0, ..tally });
        known.count = known.count.saturating_add(tally.count);
        known.since = known.since.min(tally.since);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, Reason), Tally>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells what waits, until the replica stops.
pub(crate) async fn record(local: Arc<Local>) {
    loop {
        local.refused.more.notified().await;
        let taken = std::mem::take(&mut *local.refused.lock());
        let calls = taken.iter().map(|((from, reason), tally)| {
            let by = Origin {
                who: "unknown".to_owned(),
                from: from.clone(),
                replica: local.me.replica,
            };
            let refused = RefusedCalls {
                method: METHOD.to_owned(),
                reason: reason.word().to_owned(),
                count: tally.count,
                since: tally.since,
            };
            (by, refused)
        });
        let command = Command::RecordRefusals {
            calls: calls.collect(),
        };
        if let Err(error) = propose::propose(&local, command).await {
            tracing::debug!(%error, "refused joins wait to be recorded");
            for (kind, tally) in taken {
                local.refused.add(kind, tally);
            }
            local.refused.more.notify_one();
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_address_and_reason_and_take_bounded_room() {
        let refused = RefusedJoins::default();
        let at = |n: u32| Some(IpAddr::from(n.to_be_bytes()));
        for n in 0..3 {
            refused.note(at(1), Reason::NotAllowed, UnixMs(10 - n));
        }
        refused.note(at(1), Reason::AnotherKek, UnixMs(20));
        let tally = |from: &str, reason| refused.lock().get(&(from.to_owned(), reason)).copied();
        let three = Tally {
            count: 3,
            since: UnixMs(8),
        };
        assert_eq!(tally("0.0.0.1", Reason::NotAllowed), Some(three));
        for n in 0..1_000 {
            for reason in Reason::ALL {
                refused.note(at(n), reason, UnixMs(30));
            }
        }
        assert_eq!(refused.lock().len(), REFUSED_MAX);
        assert!(tally(OTHERS, Reason::NothingShown).unwrap().count > 900);
        let all: u64 = refused.lock().values().map(|tally| tally.count).sum();
        assert_eq!(all, 3_004, "none is lost");
    }
}
