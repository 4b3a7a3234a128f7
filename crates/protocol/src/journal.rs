//! What a replica keeps on its own disk about a mint of its own, and why.
//!
//! Two facts about a mint exist nowhere else: that a request may have been sent, and what the
//! issuer answered. Both are on disk (sealed, fsynced) before the next step is taken, so that a
//! replica that comes back can say which of its tickets spent nothing, and hand in answers that
//! it had received. There is one entry for a credential: that of its newest ticket here.

use std::collections::BTreeMap;

use evermint_core::command::Command;
use evermint_core::id::{CredentialId, CredentialKey, Position, TicketId};
use evermint_core::secret::Sealed;
use serde::{Deserialize, Serialize};

/// The journal's entry for one credential. A newer one replaces it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// Whose mint.
    pub credential: CredentialId,
    /// Under which ticket.
    pub ticket: TicketId,
    /// A position at which the ticket was granted already: a state that is behind it (a replica
    /// that restarts has to catch up first) says nothing about the ticket.
    pub granted: Position,
    /// How far it got.
    pub progress: Progress,
}

/// How far a mint got, as far as the disk knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Progress {
    /// The request may have been sent. Written before it is.
    Sending,
    /// The issuer's answer. Written before it is proposed.
    Response(SealedMint),
}

/// What a mint gave, sealed: ready for the journal and for the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedMint {
    /// The outputs by the name that sandboxes know.
    pub outputs: BTreeMap<CredentialKey, Sealed>,
    /// Lifetime in milliseconds from before the request was sent; `None` if the issuer gave none.
    pub lifetime_ms: Option<u64>,
    /// New material by name: a rotated refresh token.
    pub new_material: BTreeMap<String, Sealed>,
    /// How long pieces of material last, in milliseconds from before the request was sent, as far as
    /// the issuer said.
    pub material_lifetimes_ms: BTreeMap<String, u64>,
}

impl SealedMint {
    /// The command that hands it in.
    pub fn commit(self, credential: CredentialId, ticket: TicketId) -> Command {
        Command::CommitMint {
            credential,
            ticket,
            outputs: self.outputs,
            lifetime_ms: self.lifetime_ms,
            new_material: self.new_material,
            material_lifetimes_ms: self.material_lifetimes_ms,
        }
    }
}
