//! The audit trail: one record for each mint, each change and each kind of refused call. Who, from
//! where, when, what, with what outcome; never a secret.
//!
//! Records form a chain: each holds the digest of the one before it. Whoever keeps the digest of one
//! record can tell later whether anything before it was changed. The digest is taken of the record's
//! [fields](AuditRecord::fields) as text, so that an exported trail can be checked without this
//! program ([`digest`] says how).

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::credential::Reason;
use crate::id::{CredentialId, Generation, Position, ReplicaId, TicketId};
use crate::revocation::{End, Target};
use crate::time::UnixMs;

/// The longest text of an [`Origin`] or of a refused call, in bytes.
pub const TEXT_MAX: usize = 256;

/// Kinds of refused calls that one command records at most.
pub const REFUSED_MAX: usize = 32;

/// What every digest begins with.
const PREFIX: &[u8] = b"evermint/audit/1";

/// Who called, and from where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// How the caller showed who it is, and as whom: `admin-token:admin`, `sandbox:ID`.
    pub who: String,
    /// The address that the call came from.
    pub from: String,
    /// The replica that took the call.
    pub replica: ReplicaId,
}

/// A SHA-256 digest.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// The end of a chain: how many records it had, and the digest of the last one. Of no records: 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The record's number.
    pub number: u64,
    /// Its digest.
    pub digest: Digest,
}

/// A record of the replicated audit trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Counts the records of a cluster, from 1.
    pub number: u64,
    /// The command that it is about.
    pub position: Position,
    /// The command's stamp.
    pub at: UnixMs,
    /// Who asked for it; `None` for what the cluster does by itself.
    pub by: Option<Origin>,
    /// What happened.
    pub event: AuditEvent,
    /// The digest of the record before this one.
    pub previous: Digest,
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
    /// Calls were refused: of one caller, for one method and reason.
    Refused(RefusedCalls),
}

/// Calls that a replica refused, told as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedCalls {
    /// `/package.Service/Method`.
    pub method: String,
    /// The stable word of the refusal.
    pub reason: String,
    /// How many.
    pub count: u64,
    /// When the first of them came.
    pub since: UnixMs,
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

impl AuditRecord {
    /// Everything that the record says, by name, as text.
    pub fn fields(&self) -> BTreeMap<&'static str, String> {
        let mut fields = BTreeMap::from([
            ("number", self.number.to_string()),
            ("position", self.position.to_string()),
            ("at_ms", self.at.0.to_string()),
        ]);
        if let Some(by) = &self.by {
            fields.insert("who", by.who.clone());
            fields.insert("from", by.from.clone());
            fields.insert("via", by.replica.to_string());
        }
        match &self.event {
            AuditEvent::Mint {
                credential,
                ticket,
                replica,
                reason,
                granted_at,
                end,
            } => {
                fields.insert("event", "mint".to_owned());
                fields.insert("provider_id", credential.provider.to_string());
                fields.insert("credential_key", credential.key.to_string());
                fields.insert("ticket", ticket.to_string());
                fields.insert("replica", replica.to_string());
                fields.insert("reason", word(*reason).to_owned());
                fields.insert("granted_at_ms", granted_at.0.to_string());
                let end = match end {
                    MintEnd::Committed(generation) => {
                        fields.insert("generation", generation.to_string());
                        "committed"
                    }
                    MintEnd::Failed(cause) => {
                        fields.insert("cause", cause.clone());
                        "failed"
                    }
                    MintEnd::InDoubt => "in-doubt",
                    MintEnd::Abandoned => "abandoned",
                    MintEnd::Voided => "voided",
                };
                fields.insert("end", end.to_owned());
            }
            AuditEvent::Change { command, object } => {
                fields.insert("event", "change".to_owned());
                fields.insert("command", command.clone());
                fields.insert("object", object.clone());
            }
            AuditEvent::Revocation {
                credential,
                target,
                replica,
                tries,
                end,
            } => {
                fields.insert("event", "revocation".to_owned());
                fields.insert("provider_id", credential.provider.to_string());
                fields.insert("credential_key", credential.key.to_string());
                let target = match target {
                    Target::Grant => "grant",
                    Target::Value(generation) => {
                        fields.insert("generation", generation.to_string());
                        "value"
                    }
                };
                fields.insert("target", target.to_owned());
                if let Some(replica) = replica {
                    fields.insert("replica", replica.to_string());
                }
                fields.insert("tries", tries.to_string());
                fields.insert("end", end.as_str().to_owned());
                if !end.cause().is_empty() {
                    fields.insert("cause", end.cause().to_owned());
                }
            }
            AuditEvent::Refused(refused) => {
                fields.insert("event", "refused".to_owned());
                fields.insert("method", refused.method.clone());
                fields.insert("reason", refused.reason.clone());
                fields.insert("count", refused.count.to_string());
                fields.insert("since_ms", refused.since.0.to_string());
            }
        }
        fields
    }

    /// Its number and digest.
    pub fn link(&self) -> Link {
        Link {
            number: self.number,
            digest: digest(&self.previous, &self.fields()),
        }
    }
}

fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::First => "first",
        Reason::Due => "due",
        Reason::Retry => "retry",
        Reason::Rotate => "rotate",
        Reason::AfterDoubt => "after-doubt",
        Reason::Rejected => "rejected",
        Reason::ShortLived => "short-lived",
    }
}

/// The digest of a record: SHA-256 of `evermint/audit/1`, the digest of the record before it (32
/// bytes), and its fields in the order of their names: of each the name and the value, both after
/// their length in bytes (8 bytes, big-endian).
pub fn digest<N: AsRef<str>, V: AsRef<str>>(previous: &Digest, fields: &BTreeMap<N, V>) -> Digest {
    let mut context = Context::new(&SHA256);
    context.update(PREFIX);
    context.update(&previous.0);
    for (name, value) in fields {
        for text in [name.as_ref(), value.as_ref()] {
            context.update(&(text.len() as u64).to_be_bytes());
            context.update(text.as_bytes());
        }
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    Digest(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> AuditRecord {
        AuditRecord {
            number: 7,
            position: Position(40),
            at: UnixMs(1_000),
            by: Some(Origin {
                who: "admin-token:admin".to_owned(),
                from: "127.0.0.1".to_owned(),
                replica: ReplicaId(2),
            }),
            event: AuditEvent::Change {
                command: "create-provider".to_owned(),
                object: "default/p".to_owned(),
            },
            previous: Digest([1; 32]),
        }
    }

    #[test]
    fn every_part_of_a_record_counts() {
        let change = |f: &dyn Fn(&mut AuditRecord)| {
            let mut changed = record();
            f(&mut changed);
            changed.link().digest
        };
        let mut digests = vec![
            record().link().digest,
            change(&|r| r.number = 8),
            change(&|r| r.position = Position(41)),
            change(&|r| r.at = UnixMs(1_001)),
            change(&|r| r.by = None),
            change(&|r| r.by.as_mut().unwrap().who = "x".to_owned()),
            change(&|r| r.by.as_mut().unwrap().from = "x".to_owned()),
            change(&|r| r.by.as_mut().unwrap().replica = ReplicaId(3)),
            change(&|r| r.previous = Digest([2; 32])),
            change(&|r| {
                r.event = AuditEvent::Change {
                    command: "create-provider".to_owned(),
                    object: "default/q".to_owned(),
                }
            }),
        ];
        digests.sort_by_key(|digest| digest.0);
        digests.dedup();
        assert_eq!(digests.len(), 10);
    }

    #[test]
    fn the_digest_is_what_the_docs_say() {
        let mut bytes = b"evermint/audit/1".to_vec();
        bytes.extend_from_slice(&[1; 32]);
        for text in [
            "at_ms",
            "1000",
            "command",
            "create-provider",
            "event",
            "change",
            "from",
            "127.0.0.1",
            "number",
            "7",
            "object",
            "default/p",
            "position",
            "40",
            "via",
            "2",
            "who",
            "admin-token:admin",
        ] {
            bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        let expected = aws_lc_rs::digest::digest(&SHA256, &bytes);
        assert_eq!(record().link().digest.0, expected.as_ref());
    }
}
