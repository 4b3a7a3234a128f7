//! What the parts of a running replica share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use evermint_core::id::{Position, ReplicaId, SessionId};
use evermint_core::time::MonoMs;
use evermint_proto::replica::v1 as wire;
use evermint_protocol::reader::Freshness;
use openraft::ServerState;

use crate::batch::Batcher;
use crate::clock::Timekeeper;
use crate::config::{Config, Timing};
use crate::duties::Duties;
use crate::hearsay::{Hearsay, Word};
use crate::identity::Member;
use crate::peers::{Client, Lane, Peers};
use crate::raft::{Metrics, Raft};
use crate::refused::RefusedJoins;
use crate::stamp::Stamper;
use crate::view::Views;

/// What the parts of a running replica share.
pub(crate) struct Local {
    pub(crate) me: Member,
    pub(crate) session: SessionId,
    pub(crate) raft: Raft,
    pub(crate) views: Arc<Views>,
    pub(crate) clock: Timekeeper,
    pub(crate) peers: Peers,
    pub(crate) batcher: Batcher,
    pub(crate) duties: Duties,
    pub(crate) timing: Timing,
    /// The names of the key-encryption keys that this replica has.
    pub(crate) keks: Vec<String>,
    /// This replica is about to stop, and wants no shards.
    pub(crate) draining: AtomicBool,
    /// The leader said that this replica is no member.
    pub(crate) removed: AtomicBool,
    pub(crate) hearsay: Arc<Hearsay>,
    pub(crate) refused: RefusedJoins,
    pub(crate) stamper: Stamper,
    /// A position: nothing of the history up to it is left in the log.
    erased: AtomicU64,
    freshness: Mutex<Freshness>,
    confirmed: Mutex<Option<Confirmed>>,
}

/// What this replica knew for certain when a quorum last confirmed it as the leader.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Confirmed {
    /// When it asked, by the time since boot.
    pub(crate) as_of: MonoMs,
    /// Everything that was committed then.
    pub(crate) position: Position,
}

impl Local {
    pub(crate) fn new(
        me: Member,
        session: SessionId,
        raft: Raft,
        views: Arc<Views>,
        clock: Timekeeper,
        peers: Peers,
        config: &Config,
    ) -> Self {
        let timing = config.timing;
        let hearsay = Arc::<Hearsay>::default();
        let stamper = Stamper {
            me: me.replica,
            raft: raft.clone(),
            views: views.clone(),
            clock: clock.clone(),
            hearsay: hearsay.clone(),
        };
        Self {
            me,
            session,
            batcher: Batcher::start(raft.clone(), stamper.clone()),
            raft,
            views,
            clock,
            peers,
            duties: Duties::new(timing.lost_after),
            timing,
            keks: config.keks.clone(),
            draining: AtomicBool::new(false),
            removed: AtomicBool::new(false),
            hearsay,
            refused: RefusedJoins::default(),
            stamper,
            erased: AtomicU64::new(0),
            freshness: Mutex::new(Freshness::new(timing.lost_after)),
            confirmed: Mutex::default(),
        }
    }

    /// Nothing of the history up to here is left in the log, as far as this life knows.
    pub(crate) fn erased(&self) -> Position {
        Position(self.erased.load(Ordering::Relaxed))
    }

    pub(crate) fn erased_up_to(&self, position: Position) {
        self.erased.fetch_max(position.0, Ordering::Relaxed);
    }

    /// What this replica says of itself.
    pub(crate) fn word(&self) -> Word {
        Word {
            session: self.session,
            at: self.clock.boot(),
            wall: self.clock.wall(),
            applied: self.views.state().meta.position,
            erased: self.erased(),
            keks: self.keks.clone(),
        }
    }

    /// Raft's own view of itself, copied at once: holding it would block Raft.
    pub(crate) fn metrics(&self) -> Metrics {
        self.raft.metrics().borrow().clone()
    }

    pub(crate) fn leads(&self) -> bool {
        self.raft.server_metrics().borrow().state == ServerState::Leader
    }

    pub(crate) fn leader(&self) -> Option<ReplicaId> {
        let leader = self.raft.server_metrics().borrow().current_leader;
        leader.map(ReplicaId)
    }

    /// Where a replica can be reached: where it says now, or where it was when it became a member.
    pub(crate) fn address(&self, replica: ReplicaId) -> Option<String> {
        if let Some(replica) = self.views.state().replicas.get(&replica) {
            return Some(replica.peer_address.clone());
        }
        let members = self
            .raft
            .server_metrics()
            .borrow()
            .membership_config
            .clone();
        let node = members.membership().get_node(&replica.0);
        node.map(|node| node.address.clone())
    }

    /// Whether a replica was a member, and is none any more: not in the state, and not in Raft's
    /// membership, which follows.
    pub(crate) fn was_removed(&self, replica: ReplicaId) -> bool {
        let state = self.views.state();
        let is_unknown = replica.0 >= state.meta.next_replica;
        if is_unknown || state.replicas.contains_key(&replica) {
            return false;
        }
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow();
        let members = metrics.membership_config.membership();
        members.get_node(&replica.0).is_none()
    }

    pub(crate) fn client(&self, replica: ReplicaId) -> Result<Client, String> {
        let address = self.address(replica);
        let address = address.ok_or_else(|| format!("no address of replica {replica} is known"))?;
        self.peers.client(replica, &address, Lane::Bulk)
    }

    pub(crate) fn envelope(&self, to: ReplicaId) -> Option<wire::Envelope> {
        Some(wire::Envelope {
            cluster: self.me.cluster.0.to_be_bytes().to_vec().into(),
            from: self.me.replica.0,
            to: to.0,
        })
    }

    /// As the leader: a position that contains everything that was committed before the call,
    /// confirmed by a quorum after it began. Never reused for another call.
    ///
    /// # Errors
    /// When this replica does not lead, or reaches no quorum.
    pub(crate) async fn confirmed_position(&self) -> Result<Position, String> {
        let (index, _) = self
            .raft
            .get_read_log_id()
            .await
            .map_err(|e| e.to_string())?;
        let index = index.ok_or("nothing was committed yet")?.index;
        // What is confirmed is committed, and will be applied in a moment.
        let state = self.views.applied_index(index).await;
        let state = state.ok_or("the replica is stopping")?;
        Ok(state.meta.position)
    }

    /// As the leader: lets a quorum confirm it, and remembers.
    pub(crate) async fn confirm(&self) -> Result<(), String> {
        let as_of = self.clock.boot();
        // Who does not know what time it is cannot say what has expired.
        let stamp = self.stamper.stamp();
        let stamp = stamp.ok_or("the wall clocks of a majority are not known yet")?;
        let position = self.confirmed_position().await?;
        // A leader that a quorum knows sets the clock, as its entries do. One that was just started
        // would else reckon from the last entry of its former life, and serve what has expired since.
        self.views.clock_pushed(self.clock.observe(stamp));
        *self
            .confirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Confirmed { as_of, position });
        self.caught_up(as_of);
        Ok(())
    }

    /// What this replica knew when it was last confirmed as the leader.
    pub(crate) fn confirmed(&self) -> Option<Confirmed> {
        *self
            .confirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// This replica has applied everything that was committed at `as_of`, by the time since boot.
    pub(crate) fn caught_up(&self, as_of: MonoMs) {
        let mut freshness = self
            .freshness
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        freshness.caught_up(as_of, self.clock.boot());
    }

    pub(crate) fn staleness(&self) -> Option<Duration> {
        let freshness = self
            .freshness
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        freshness.staleness(self.clock.boot())
    }

    pub(crate) fn in_touch(&self) -> Duration {
        let freshness = self
            .freshness
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        freshness.in_touch(self.clock.boot())
    }
}
