//! What a replica owes for tickets that no machine of its is working on: those of its former
//! lives, wherever their shards are owned now.
//!
//! The journal is written before a request is sent, so its silence is a proof: a ticket without
//! an entry spent nothing. That holds for the replica's own tickets only (one replica id is one
//! disk), and only while no mint runs under them in this process.

use evermint_core::command::Command;
use evermint_core::credential::{Credential, Phase, Ticket};
use evermint_core::id::{Position, TicketId};
use evermint_core::state::State;

use crate::journal::{JournalEntry, Progress};
use crate::owner::{Identity, awaited};

/// What is to be done after looking at the state and the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// To be proposed. Safe to propose again, in any order.
    pub propose: Vec<Command>,
    /// Tickets whose journal entries have served their purpose.
    pub forget: Vec<TicketId>,
}

/// Compares the whole state with this replica's journal.
///
/// Call it at the start, and again whenever a credential changes that has an entry in the
/// journal, or that has a ticket of this replica: a grant that a former life asked for can still
/// arrive. What stands under the *current* session is left to its [`Owner`](crate::owner::Owner).
pub fn recover(state: &State, journal: &[JournalEntry], me: Identity) -> Recovery {
    let mut todo = Recovery::default();
    for credential in state.credentials.values() {
        let entry = journal.iter().find(|e| e.credential == credential.id);
        todo.propose.extend(recover_one(credential, entry, me));
    }
    // A refresh may be gone, and what its last mint brought be revoked.
    let awaited = |entry: &&JournalEntry| {
        awaited(state, &entry.credential).any(|ticket| ticket == entry.ticket)
    };
    todo.propose
        .extend(journal.iter().filter(awaited).filter_map(|entry| {
            let Progress::Response(mint) = &entry.progress else {
                return None;
            };
            let is_open = state
                .credentials
                .get(&entry.credential)
                .and_then(|c| open_ticket(c));
            let is_known = is_open.is_some_and(|ticket| ticket.id == entry.ticket);
            (!is_known).then(|| mint.clone().commit(entry.credential.clone(), entry.ticket))
        }));
    todo.forget = journal
        .iter()
        .filter(|entry| !awaited(entry))
        .filter(|entry| {
            let credential = state.credentials.get(&entry.credential);
            is_settled(state.meta.position, credential.map(AsRef::as_ref), entry)
        })
        .map(|entry| entry.ticket)
        .collect();
    todo
}

/// The same for one credential: what to propose about a ticket of a former life, if anything.
pub fn recover_one(
    credential: &Credential,
    entry: Option<&JournalEntry>,
    me: Identity,
) -> Option<Command> {
    let ticket = open_ticket(credential)?;
    if ticket.session == me.session {
        return None;
    }
    settle(credential, entry, me)
}

/// What this replica can say about the credential's open ticket while it runs no mint for it.
pub(crate) fn settle(
    credential: &Credential,
    entry: Option<&JournalEntry>,
    me: Identity,
) -> Option<Command> {
    let ticket = open_ticket(credential)?;
    if ticket.owner != me.replica {
        return None;
    }
    match entry.filter(|entry| entry.ticket == ticket.id) {
        None => Some(Command::AbandonTicket {
            credential: credential.id.clone(),
            ticket: ticket.id,
        }),
        Some(entry) => match &entry.progress {
            Progress::Sending => None,
            Progress::Response(mint) => Some(mint.clone().commit(credential.id.clone(), ticket.id)),
        },
    }
}

/// The ticket whose outcome the cluster waits for: the current one or the one in doubt.
pub(crate) fn open_ticket(credential: &Credential) -> Option<&Ticket> {
    match &credential.phase {
        Phase::Idle => None,
        Phase::Ticketed(ticket) => Some(ticket),
        Phase::InDoubt(doubt) => Some(&doubt.ticket),
    }
}

/// Whether this very life of this replica has something to say about the credential's open
/// ticket. Nobody else can, whoever owns the shard now.
pub fn owes(credential: &Credential, entry: Option<&JournalEntry>, me: Identity) -> bool {
    open_ticket(credential).is_some_and(|ticket| ticket.session == me.session)
        && settle(credential, entry, me).is_some()
}

/// Whether nothing that `entry` says can matter any more, by the state at `position`. A state
/// that has not seen the ticket's grant yet proves nothing.
pub fn is_settled(
    position: Position,
    credential: Option<&Credential>,
    entry: &JournalEntry,
) -> bool {
    position >= entry.granted
        && credential
            .and_then(open_ticket)
            .is_none_or(|open| open.id != entry.ticket)
}
