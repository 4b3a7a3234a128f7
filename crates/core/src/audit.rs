//! One record for each mint and each change: who, when, under which ticket, why, how it ended.

use serde::{Deserialize, Serialize};

use crate::credential::Reason;
use crate::id::{CredentialId, Generation, Position, ReplicaId, TicketId};
use crate::revocation::{End, Target};
use crate::time::UnixMs;

/// A line of the replicated audit trail. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Its place in the history.
    pub position: Position,
    /// The stamp of the command.
    pub at: UnixMs,
    /// What happened.
    pub event: AuditEvent,
}

/// What is recorded. The order is stored; append only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuditEvent {
    /// A mint came to its end.
    Mint {
        /// For which credential.
        credential: CredentialId,
        /// Under which ticket.
        ticket: TicketId,
        /// By whom.
        replica: ReplicaId,
        /// Why it ran then.
        reason: Reason,
        /// When the ticket was granted.
        granted_at: UnixMs,
        /// How it ended.
        end: MintEnd,
    },
    /// A command of an operator, or of the cluster about itself, took effect.
    Change {
        /// The command's name.
        command: String,
        /// What it was about.
        object: String,
    },
    /// A revocation came to its end, and its material was destroyed.
    Revocation {
        /// Of which credential's tokens.
        credential: CredentialId,
        /// What was to be revoked.
        target: Target,
        /// Who tried last; `None` if nobody did.
        replica: Option<ReplicaId>,
        /// After how many tries.
        tries: u32,
        /// How it ended.
        end: End,
    },
}

/// How a mint ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MintEnd {
    /// A value was committed.
    Committed(Generation),
    /// It failed, for this cause.
    Failed(String),
    /// Its ticket ended, or its answer was lost: the outcome is unknown.
    InDoubt,
    /// Nothing had been sent.
    Abandoned,
    /// A reconfiguration came first.
    Voided,
}
