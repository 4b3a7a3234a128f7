//! Settings on which all replicas have to agree, fixed by the bootstrap and kept in the log.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Cluster-wide settings. All times in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Number of shards; 1 to 4096.
    pub shards: u16,
    /// How long a mint ticket is valid, on the leader's monotonic clock.
    pub ticket_ttl_ms: u64,
    /// How much earlier than the ticket the owner stops: covers clock rates and scheduling.
    pub ticket_margin_ms: u64,
    /// How long a doubt waits at least for its replica to come back with its journal.
    pub doubt_wait_ms: u64,
    /// First step of the exponential backoff.
    pub backoff_base_ms: u64,
    /// Largest step of the exponential backoff.
    pub backoff_cap_ms: u64,
    /// Lifetime of a token whose issuer gave none and whose text tells none.
    pub default_lifetime_ms: u64,
    /// Audit records kept.
    pub audit_retention: u32,
    /// Audit records are dropped when they are older than this.
    pub audit_max_age_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            shards: 256,
            ticket_ttl_ms: 60_000,
            ticket_margin_ms: 10_000,
            doubt_wait_ms: 120_000,
            backoff_base_ms: 1_000,
            backoff_cap_ms: 300_000,
            default_lifetime_ms: 3_600_000,
            audit_retention: 10_000,
            audit_max_age_ms: 365 * 24 * 3_600_000,
        }
    }
}

/// A setting that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} {problem}")]
pub struct SettingsError {
    /// The setting's name.
    pub setting: &'static str,
    /// What is wrong with it, and what is allowed.
    pub problem: &'static str,
}

impl Settings {
    /// How long an owner may work under a ticket, from before it asked for it.
    pub fn mint_budget(&self) -> Duration {
        Duration::from_millis(self.ticket_ttl_ms.saturating_sub(self.ticket_margin_ms))
    }

    /// Checks that the settings fit together.
    ///
    /// # Errors
    /// The first setting that does not.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let rules = [
            (
                "shards",
                "must be 1 to 4096",
                (1..=4096).contains(&self.shards),
            ),
            (
                "ticket_ttl_ms",
                "must be 1000 to 600000",
                (1_000..=600_000).contains(&self.ticket_ttl_ms),
            ),
            (
                "ticket_margin_ms",
                "must be at least a tenth and at most half of ticket_ttl_ms",
                (self.ticket_ttl_ms / 10..=self.ticket_ttl_ms / 2).contains(&self.ticket_margin_ms),
            ),
            (
                "doubt_wait_ms",
                "must be at most 3600000",
                self.doubt_wait_ms <= 3_600_000,
            ),
            (
                "backoff_base_ms",
                "must be at least 10 and at most backoff_cap_ms",
                (10..=self.backoff_cap_ms).contains(&self.backoff_base_ms),
            ),
            (
                "default_lifetime_ms",
                "must be 1000 to 86400000",
                (1_000..=86_400_000).contains(&self.default_lifetime_ms),
            ),
            (
                "audit_retention",
                "must be 100 to 1000000",
                (100..=1_000_000).contains(&self.audit_retention),
            ),
            (
                "audit_max_age_ms",
                "must be at least 3600000",
                self.audit_max_age_ms >= 3_600_000,
            ),
        ];
        match rules.iter().find(|(_, _, holds)| !holds) {
            Some((setting, problem, _)) => Err(SettingsError { setting, problem }),
            None => Ok(()),
        }
    }
}
