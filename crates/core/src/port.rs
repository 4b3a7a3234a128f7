//! What the domain needs from outside, as traits with two implementations each: the real one and
//! a fake.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::audit::Origin;
use crate::command::{Answer, Command};
use crate::id::{Position, ReplicaId, SessionId};
use crate::mint::{Failure, MintOrder, Minted, Probed, RevokeOrder};
use crate::record::Key;
use crate::state::State;
use crate::time::{Clocks, UnixMs};

/// Puts commands into the replicated log, from any replica.
#[async_trait]
pub trait Proposer: Send + Sync + 'static {
    /// Proposes `command`, forwards it to the leader, retries what is safe to retry under one
    /// request id, and waits for its outcome. A refusal is an outcome, not an error.
    ///
    /// # Errors
    /// [`ProposeError`] when no outcome is known within the proposer's time limit.
    async fn propose(&self, command: Command) -> Result<Answer, ProposeError> {
        self.propose_for(None, command).await
    }

    /// The same, at somebody's wish: the audit trail says whose.
    ///
    /// # Errors
    /// As [`propose`](Self::propose).
    async fn propose_for(
        &self,
        by: Option<Origin>,
        command: Command,
    ) -> Result<Answer, ProposeError>;
}

/// Why no outcome is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It certainly did not happen: no leader was reached. Try again later.
    #[error("no leader could be reached: {0}")]
    Unavailable(String),
    /// It may have happened: the answer was lost.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
}

/// A replica's own applied state.
#[async_trait]
pub trait StateView: Send + Sync + 'static {
    /// The newest applied state. Cheap: the state shares its structure.
    fn state(&self) -> Arc<State>;

    /// Every applied change from now on, in order; changes that a slow reader misses are merged
    /// into one of [`Touched::Everything`].
    fn changes(&self) -> BoxStream<'static, Change>;

    /// Waits until `position` is applied here, at most for `bound`. Whether it was.
    async fn reached(&self, position: Position, bound: Duration) -> bool;

    /// Asks the leader for the newest position of the history, confirmed by a quorum after the
    /// call began: state at that position is linearizable.
    ///
    /// # Errors
    /// When no leader answers.
    async fn read_index(&self) -> Result<Position, ProposeError>;

    /// Time since this replica last knew itself caught up with a leader that had a quorum;
    /// `None` if it never was.
    fn staleness(&self) -> Option<Duration>;

    /// For how long this replica has been in touch with a leader that had a quorum, without a
    /// break; zero if it is not now.
    fn in_touch(&self) -> Duration;

    /// The cluster clock, as this replica reckons it.
    fn now(&self) -> UnixMs;

    /// Who this replica is, and in which life.
    fn identity(&self) -> (ReplicaId, SessionId);
}

/// What applying some entries changed.
#[derive(Clone, Debug)]
pub struct Change {
    /// The state after them.
    pub state: Arc<State>,
    /// The objects that they wrote or removed.
    pub touched: Touched,
}

/// Which objects changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// These.
    Keys(Vec<Key>),
    /// Any: a snapshot came, or the reader was too slow. Reconcile from the state.
    Everything,
}

/// Talks to issuers.
#[async_trait]
pub trait Minter: Send + Sync + 'static {
    /// Runs one mint. Returns at the latest when the order's fence has passed, and has dropped
    /// its connection by then.
    ///
    /// # Errors
    /// [`Failure`], safe to store and to show.
    async fn mint(&self, order: MintOrder) -> Result<Minted, Failure>;

    /// Has tokens revoked; one that the issuer does not know is one that it revoked. Returns at the
    /// latest when the order's fence has passed.
    ///
    /// # Errors
    /// [`Failure`], safe to store and to show.
    async fn revoke(&self, order: RevokeOrder) -> Result<(), Failure>;
}

/// Tries a refresh without using it up.
#[async_trait]
pub trait Prober: Send + Sync + 'static {
    /// Asks the token endpoint for a sign of life and, where the strategy consumes no material,
    /// runs one mint and throws it away. Needs no ticket: never sends what is for single use.
    /// Returns at the latest when the order's fence has passed.
    async fn probe(&self, order: MintOrder) -> Probed;
}

/// The clocks of this process.
pub trait Clock: Send + Sync + 'static {
    /// Reads them all.
    fn read(&self) -> Clocks;
}
