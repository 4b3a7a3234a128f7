//! What all actors of a replica share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use evermint_core::id::CredentialId;
use evermint_core::port::{Clock, Minter, Proposer, StateView};
use evermint_core::state::State;
use evermint_protocol::owner::{Facts, Identity, Now};
use evermint_seal::Keyring;

use crate::journal::Journal;
use crate::line::Lines;

/// The ports, the journal and this replica's identity.
pub(crate) struct Room {
    pub(crate) proposer: Arc<dyn Proposer>,
    pub(crate) view: Arc<dyn StateView>,
    pub(crate) minter: Arc<dyn Minter>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) lines: Lines,
    pub(crate) me: Identity,
    /// Set once: nothing new is started, what is in flight finishes.
    pub(crate) draining: AtomicBool,
}

impl Room {
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The keyring, with every data key of the newest state that opens.
    pub(crate) fn keyring(&self) -> &Keyring {
        if let Err(error) = self.keyring.follow(&self.view.state()) {
            tracing::error!(%error, "a data key cannot be used");
        }
        &self.keyring
    }

    pub(crate) fn now(&self) -> Now {
        Now {
            clocks: self.clock.read(),
            cluster: self.view.now(),
            in_touch: self.view.in_touch(),
        }
    }

    /// What the applied state says of a credential; while draining, nothing is owned here.
    pub(crate) fn facts(&self, state: &State, id: &CredentialId) -> Facts {
        let mut facts = Facts::of(state, id, self.me);
        if self.is_draining() {
            facts.owned = None;
        }
        facts
    }

    /// Whether this process owns the shard, by `state`.
    pub(crate) fn owns(&self, state: &State, shard: evermint_core::id::ShardId) -> bool {
        !self.is_draining()
            && state
                .shards
                .get(&shard)
                .is_some_and(|a| a.replica == self.me.replica && a.session == self.me.session)
    }
}
