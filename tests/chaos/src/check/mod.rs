//! What must hold of a history: one file for each promise, each a function from what was seen from
//! outside to what was broken. None of them asks the system under test.
//!
//! | invariant | guarantee | file | what is compared |
//! | --- | --- | --- | --- |
//! | I1 | G1, G3 | `tickets` | the audit trail: tickets of a credential one after the other, no stale result |
//! | I2 | G2 | `requests` | the issuer's intervals, and which refresh token was shown how often |
//! | I3 | G6 | `order` | each reader's generations, across replicas and reconnects |
//! | I4 | G4 | `survival` | acknowledged writes against what every replica has at the end |
//! | I4 | G4 | `linear` | each register's calls: is there one order that explains them all |
//! | I5 | G7 | `expiry` | what was served against its end at the issuer, and against revocations |
//! | I6 | G5 | `grants` | the issuer's families against the replicated credentials, at rest |
//! | I7 | G8 | `availability` | failed reads against what was up |
//! | I8 | G7 | `isolation` | reads from a replica that is out of touch |
//! | I9 | | `convergence` | state hashes at equal positions |
//! | I10 | | `storms` | the issuer's count against what was due |
//! | I11 | | `recovery` | after healing: a leader, a write, a mint, every read |
//! | I12 | G9 | `secrets` | planted secrets, panics, deaths that nobody caused |
//! | | G10 | `audit` | the trail explains each success at the issuer |
//! | | | `bite` | every fault took effect |
//! | I3, I7 | G6, G8 | `unfenced` | what OpenShell's sandboxes install, and what they lose |
//!
//! Numbers are those of the project's list of chaos invariants (I) and of its guarantees (G).

mod audit;
mod availability;
mod bite;
mod convergence;
mod expiry;
mod grants;
mod isolation;
mod linear;
mod order;
mod recovery;
mod requests;
mod secrets;
mod seen;
mod storms;
mod survival;
#[cfg(test)]
mod tale;
mod tickets;
mod unfenced;

use std::fmt;

use crate::history::{Line, Nanos};
use seen::Seen;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which: `I1` to `I12`, `G10`, or `run` for a run that proves nothing.
    pub promise: &'static str,
    /// When it showed.
    pub at: Nanos,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.at / 1_000_000_000;
        let millis = self.at / 1_000_000 % 1_000;
        let Self { promise, what, .. } = self;
        write!(f, "{promise} at {seconds}.{millis:03} s: {what}")
    }
}

/// One check.
type Check = fn(&Seen<'_>) -> Vec<Violation>;

/// All of them, in the order of the table above.
const CHECKS: [Check; 16] = [
    tickets::check,
    requests::check,
    order::check,
    survival::check,
    linear::check,
    expiry::check,
    grants::check,
    availability::check,
    isolation::check,
    convergence::check,
    storms::check,
    recovery::check,
    secrets::check,
    audit::check,
    bite::check,
    unfenced::check,
];

/// Everything that was broken in this history, in order.
pub fn check(history: &[Line]) -> Vec<Violation> {
    let seen = Seen::of(history);
    let mut violations: Vec<_> = CHECKS.iter().flat_map(|check| check(&seen)).collect();
    violations.sort_by_key(|violation| violation.at);
    violations
}
