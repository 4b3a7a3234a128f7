//! What is published of the applied state: the newest version to look at, and a stream of what
//! changed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use evermint_core::id::Position;
use evermint_core::port::{Change, Touched};
use evermint_core::record::Key;
use evermint_core::state::State;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::{broadcast, watch};

/// Changes that a reader may be behind before it is told to look at everything.
const BACKLOG: usize = 256;

/// Keys that are merged into one change before a reader is told to look at everything.
const MERGED_KEYS_MAX: usize = 4_096;

/// A push of the cluster clock that makes timers worth looking at again.
const CLOCK_JUMP: Duration = Duration::from_secs(1);

/// The published state of one replica.
pub(crate) struct Views {
    applied: watch::Sender<Applied>,
    changes: broadcast::Sender<Change>,
}

/// The newest applied state.
#[derive(Clone)]
pub(crate) struct Applied {
    /// The newest log entry in it.
    pub(crate) index: Option<u64>,
    /// The state.
    pub(crate) state: Arc<State>,
}

impl Views {
    pub(crate) fn new(state: Arc<State>, index: Option<u64>) -> Self {
        Self {
            applied: watch::Sender::new(Applied { index, state }),
            changes: broadcast::Sender::new(BACKLOG),
        }
    }

    /// Publishes a version that differs in these records.
    pub(crate) fn publish(&self, state: &State, index: Option<u64>, touched: Vec<Key>) {
        if touched.is_empty() {
            self.applied.send_modify(|applied| applied.index = index);
            return;
        }
        self.send(state, index, Touched::Keys(touched));
    }

    /// Publishes a version that may differ in anything.
    pub(crate) fn replace(&self, state: &State, index: Option<u64>) {
        self.send(state, index, Touched::Everything);
    }

    fn send(&self, state: &State, index: Option<u64>, touched: Touched) {
        let state = Arc::new(state.clone());
        self.applied.send_replace(Applied {
            index,
            state: state.clone(),
        });
        // Nobody may be listening.
        let _ = self.changes.send(Change { state, touched });
    }

    /// The cluster clock was pushed ahead by so much: after a jump, whatever was computed from
    /// it is worth looking at again.
    pub(crate) fn clock_pushed(&self, by: Duration) {
        if by > CLOCK_JUMP {
            let state = self.state();
            let touched = Touched::Everything;
            let _ = self.changes.send(Change { state, touched });
        }
    }

    pub(crate) fn state(&self) -> Arc<State> {
        self.applied.borrow().state.clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Applied> {
        self.applied.subscribe()
    }

    /// Every change from now on; changes that the reader did not take yet are merged.
    pub(crate) fn changes(&self) -> BoxStream<'static, Change> {
        let reader = Reader {
            changes: self.changes.subscribe(),
            applied: self.applied.subscribe(),
            newest: Position(0),
        };
        stream::unfold(reader, |mut reader| async move {
            let change = reader.next().await?;
            Some((change, reader))
        })
        .boxed()
    }

    /// Waits until the entry at `index` is applied, and gives the state then.
    pub(crate) async fn applied_index(&self, index: u64) -> Option<Arc<State>> {
        let mut applied = self.applied.subscribe();
        let applied = applied.wait_for(|a| a.index >= Some(index)).await.ok()?;
        Some(applied.state.clone())
    }

    /// Waits until `position` is applied, at most for `bound`.
    pub(crate) async fn reached(&self, position: Position, bound: Duration) -> bool {
        let mut applied = self.applied.subscribe();
        let there = applied.wait_for(|a| a.state.meta.position >= position);
        matches!(tokio::time::timeout(bound, there).await, Ok(Ok(_)))
    }
}

/// One reader of the changes.
struct Reader {
    changes: broadcast::Receiver<Change>,
    applied: watch::Receiver<Applied>,
    /// The newest state that this reader was given.
    newest: Position,
}

impl Reader {
    async fn next(&mut self) -> Option<Change> {
        let mut merged = match self.changes.recv().await {
            Ok(change) => Merged::new(change),
            Err(broadcast::error::RecvError::Lagged(_)) => self.start_over(),
            Err(broadcast::error::RecvError::Closed) => return None,
        };
        loop {
            match self.changes.try_recv() {
                Ok(change) => merged.add(change),
                Err(broadcast::error::TryRecvError::Lagged(_)) => merged = self.start_over(),
                Err(_) => break,
            }
        }
        // After starting over, changes come that are older than what was given already.
        if merged.state.meta.position < self.newest {
            merged.state = self.applied.borrow().state.clone();
        }
        self.newest = merged.state.meta.position;
        Some(merged.change())
    }

    /// Skips what there is, and goes on from the newest state.
    fn start_over(&mut self) -> Merged {
        self.changes = self.changes.resubscribe();
        let state = self.applied.borrow().state.clone();
        Merged { state, keys: None }
    }
}

/// Several changes as one.
struct Merged {
    state: Arc<State>,
    /// `None` for everything.
    keys: Option<BTreeSet<Key>>,
}

impl Merged {
    fn new(change: Change) -> Self {
        let mut merged = Self {
            state: change.state.clone(),
            keys: Some(BTreeSet::new()),
        };
        merged.add(change);
        merged
    }

    fn add(&mut self, change: Change) {
        if change.state.meta.position >= self.state.meta.position {
            self.state = change.state;
        }
        match (&mut self.keys, change.touched) {
            (Some(keys), Touched::Keys(more)) => keys.extend(more),
            (_, Touched::Everything) => self.keys = None,
            (None, Touched::Keys(_)) => {}
        }
        if self
            .keys
            .as_ref()
            .is_some_and(|k| k.len() > MERGED_KEYS_MAX)
        {
            self.keys = None;
        }
    }

    fn change(self) -> Change {
        Change {
            state: self.state,
            touched: match self.keys {
                Some(keys) => Touched::Keys(keys.into_iter().collect()),
                None => Touched::Everything,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evermint_core::id::ReplicaId;

    fn at(position: u64) -> State {
        let mut state = State::default();
        state.meta.position = Position(position);
        state
    }

    fn key(id: u64) -> Key {
        Key::Replica(ReplicaId(id))
    }

    #[tokio::test]
    async fn changes_that_were_not_taken_yet_are_merged() {
        let views = Views::new(Arc::new(at(0)), None);
        let mut changes = views.changes();
        for position in 1..=3 {
            views.publish(&at(position), Some(position), vec![key(position)]);
        }
        let change = changes.next().await.unwrap();
        assert_eq!(change.state.meta.position, Position(3));
        assert_eq!(change.touched, Touched::Keys(vec![key(1), key(2), key(3)]));
        views.publish(&at(4), Some(4), vec![key(1)]);
        let change = changes.next().await.unwrap();
        assert_eq!(change.touched, Touched::Keys(vec![key(1)]));
    }

    #[tokio::test]
    async fn a_reader_that_is_too_slow_is_told_to_look_at_everything_once() {
        let views = Views::new(Arc::new(at(0)), None);
        let mut changes = views.changes();
        let many = 2 * BACKLOG as u64;
        for position in 1..=many {
            views.publish(&at(position), Some(position), vec![key(position)]);
        }
        let change = changes.next().await.unwrap();
        assert_eq!(change.state.meta.position, Position(many));
        assert_eq!(change.touched, Touched::Everything);
        views.publish(&at(many + 1), Some(many + 1), vec![key(7)]);
        let change = changes.next().await.unwrap();
        assert_eq!(change.touched, Touched::Keys(vec![key(7)]));
    }

    #[tokio::test]
    async fn a_position_is_waited_for_within_a_bound() {
        let views = Views::new(Arc::new(at(0)), None);
        let soon = Duration::from_millis(5);
        assert!(!views.reached(Position(1), soon).await);
        views.publish(&at(1), Some(4), vec![Key::Meta]);
        assert!(views.reached(Position(1), soon).await);
        assert!(views.applied_index(4).await.is_some());
    }
}
