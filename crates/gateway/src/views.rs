//! Bundles, kept ready to send: made once for each change of what they are made of, and handed to
//! any number of readers.
//!
//! A [`Views`] is never trusted to be up to date. Every read compares what is kept with the newest
//! state and the cluster clock, which costs microseconds, and makes the bundle anew if they
//! differ; so a reader sees at least what this replica has applied, and never a value past its
//! end. The task in [`follow`](Views::follow) only serves those who wait: it pushes new bundles to
//! watchers, by entries and by a timer for expiry, and forgets bundles that nobody watches once
//! they are out of date.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use evermint_core::bundle::{self, Affected, Inputs};
use evermint_core::id::{Position, SandboxId};
use evermint_core::port::{StateView, Touched};
use evermint_core::profile::catalog::Catalog;
use evermint_core::record::Key;
use evermint_core::state::State;
use evermint_core::time::UnixMs;
use evermint_seal::Keyring;
use futures::StreamExt as _;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::bundle::{Outline, Ready, make};

/// Most changes that are looked at together.
const CHANGES_MAX: usize = 1024;

/// Bundles that are looked at before others get their turn; making one takes some microseconds.
const TURN: usize = 64;

/// The bundles of one replica.
pub(crate) struct Views {
    view: Arc<dyn StateView>,
    keyring: Arc<Keyring>,
    catalog: Arc<Catalog>,
    entries: RwLock<BTreeMap<SandboxId, Arc<Entry>>>,
    /// Told when a bundle is kept whose expiry the timer does not know of.
    kept: Notify,
}

/// The bundle of one sandbox. A lock on `made` is never held while `entries` is locked.
struct Entry {
    id: SandboxId,
    made: Mutex<Made>,
    /// The newest bundle; `None` once the sandbox is deleted.
    newest: watch::Sender<Option<Arc<Ready>>>,
}

struct Made {
    /// How far the history was looked at.
    checked: Position,
    inputs: Inputs,
    outline: Outline,
    /// `None` once the sandbox is deleted.
    ready: Option<Arc<Ready>>,
}

impl Made {
    /// Whether one of the values has come to its end.
    fn ended(&self, now: UnixMs) -> bool {
        let end = self.ready.as_ref().and_then(|ready| ready.next_expiry);
        end.is_some_and(|end| end <= now)
    }
}

/// A watcher's place at one bundle.
pub(crate) struct Watch {
    views: Arc<Views>,
    entry: Arc<Entry>,
    newest: watch::Receiver<Option<Arc<Ready>>>,
}

impl Watch {
    /// The bundle of now; `None` if the sandbox is deleted.
    pub(crate) fn current(&mut self) -> Option<Arc<Ready>> {
        self.newest.borrow_and_update();
        self.views.refresh(&self.entry)
    }

    /// Waits until there is another bundle than the last [`current`](Self::current) one.
    pub(crate) async fn changed(&mut self) {
        // The sender lives in `self.entry`: it cannot be gone.
        let _ = self.newest.changed().await;
    }
}

impl Views {
    pub(crate) fn new(
        view: Arc<dyn StateView>,
        keyring: Arc<Keyring>,
        catalog: Arc<Catalog>,
    ) -> Arc<Self> {
        let views = Self {
            view,
            keyring,
            catalog,
            entries: RwLock::default(),
            kept: Notify::new(),
        };
        views.load_keys(&views.view.state());
        Arc::new(views)
    }

    /// The bundle of now; `None` if there is no such sandbox.
    pub(crate) fn current(&self, id: SandboxId) -> Option<Arc<Ready>> {
        let known = self.entry(id);
        match known {
            Some(entry) => self.refresh(&entry),
            None => Some(self.keep(id)?.0),
        }
    }

    /// A place at the bundle; `None` if there is no such sandbox.
    pub(crate) fn watch(self: &Arc<Self>, id: SandboxId) -> Option<Watch> {
        loop {
            let entry = match self.entry(id) {
                Some(entry) => entry,
                None => self.keep(id)?.1,
            };
            let newest = entry.newest.subscribe();
            // It may have been forgotten before it was subscribed to; then nobody would push.
            if self
                .entry(id)
                .is_some_and(|kept| Arc::ptr_eq(&kept, &entry))
            {
                return Some(Watch {
                    views: Arc::clone(self),
                    entry,
                    newest,
                });
            }
        }
    }

    /// Serves watchers until `shutdown`.
    pub(crate) async fn follow(&self, shutdown: CancellationToken) {
        let changes = self.view.changes().map(|change| change.touched);
        let mut changes = changes.ready_chunks(CHANGES_MAX);
        // What changed before the stream began was not told.
        self.look_at(vec![Touched::Everything]).await;
        loop {
            // Reckoned anew after every entry: its stamp may have pushed the cluster clock.
            let wait = self
                .next_expiry()
                .map(|end| end.since(self.view.now()).max(Duration::from_millis(1)));
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.kept.notified() => {}
                () = sleep(wait) => self.expire().await,
                batch = changes.next() => match batch {
                    Some(batch) => self.look_at(batch).await,
                    None => return,
                },
            }
        }
    }

    async fn look_at(&self, touched: Vec<Touched>) {
        let keys = || {
            touched.iter().flat_map(|t| match t {
                Touched::Keys(keys) => keys.as_slice(),
                Touched::Everything => &[],
            })
        };
        // A new data key may open what was shut.
        let everything = touched.contains(&Touched::Everything)
            || keys().any(|key| matches!(key, Key::DataKey(_)));
        if everything {
            self.load_keys(&self.view.state());
        }
        let affected = Affected::by(keys());
        if !everything && affected.is_empty() {
            return;
        }
        self.settle(|made| everything || affected.concerns(&made.inputs))
            .await;
    }

    async fn expire(&self) {
        let now = self.view.now();
        self.settle(|made| made.ended(now)).await;
    }

    /// Brings the bundles that are `due` up to date for their watchers; those without any are
    /// forgotten.
    async fn settle(&self, due: impl Fn(&Made) -> bool) {
        for (n, entry) in self.kept_entries().into_iter().enumerate() {
            if n % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            let is_due = due(&entry.lock());
            if is_due && self.is_watched(&entry) {
                self.refresh(&entry);
            }
        }
    }

    fn next_expiry(&self) -> Option<UnixMs> {
        let entries = self.kept_entries();
        entries
            .iter()
            .filter_map(|entry| entry.lock().ready.as_ref()?.next_expiry)
            .min()
    }

    /// Whether anybody watches the bundle; if not, it is forgotten.
    fn is_watched(&self, entry: &Arc<Entry>) -> bool {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let watched = entry.newest.receiver_count() > 0;
        if !watched {
            forget(&mut entries, entry);
        }
        watched
    }

    /// Compares what is kept with the newest state and the clock, and makes it anew if it has to
    /// be. `None` if the sandbox is deleted.
    fn refresh(&self, entry: &Arc<Entry>) -> Option<Arc<Ready>> {
        let state = self.view.state();
        let now = self.view.now();
        let mut made = entry.lock();
        let ready = Arc::clone(made.ready.as_ref()?);
        if made.checked >= state.meta.position && ready.is_complete() && !made.ended(now) {
            return Some(ready);
        }
        // Someone else may have looked at a newer state meanwhile.
        if made.checked < state.meta.position {
            made.checked = state.meta.position;
            let Some(inputs) = bundle::inputs(&state, entry.id) else {
                made.ready = None;
                entry.newest.send_replace(None);
                drop(made);
                let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
                forget(&mut entries, entry);
                return None;
            };
            made.inputs = inputs;
        }
        let outline = Outline::of(&made.inputs, now);
        if outline == made.outline && ready.is_complete() {
            return Some(ready);
        }
        made.outline = outline;
        self.load_keys(&state);
        let newer = Arc::new(make(&made.inputs, &self.catalog, &self.keyring, now));
        made.ready = Some(Arc::clone(&newer));
        if (newer.generation, &newer.revision) != (ready.generation, &ready.revision) {
            newer.log_failures();
            entry.newest.send_replace(Some(Arc::clone(&newer)));
        }
        Some(newer)
    }

    /// Makes a bundle and keeps it, unless someone else does at the same time.
    fn keep(&self, id: SandboxId) -> Option<(Arc<Ready>, Arc<Entry>)> {
        let state = self.view.state();
        self.load_keys(&state);
        let now = self.view.now();
        let inputs = bundle::inputs(&state, id)?;
        let ready = Arc::new(make(&inputs, &self.catalog, &self.keyring, now));
        ready.log_failures();
        let made = Made {
            checked: state.meta.position,
            outline: Outline::of(&inputs, now),
            inputs,
            ready: Some(Arc::clone(&ready)),
        };
        let entry = Arc::new(Entry {
            id,
            made: Mutex::new(made),
            newest: watch::Sender::new(Some(ready)),
        });
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let kept = Arc::clone(entries.entry(id).or_insert(entry));
        drop(entries);
        self.kept.notify_one();
        let ready = self.refresh(&kept)?;
        Some((ready, kept))
    }

    fn entry(&self, id: SandboxId) -> Option<Arc<Entry>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(&id).cloned()
    }

    fn kept_entries(&self) -> Vec<Arc<Entry>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.values().cloned().collect()
    }

    /// Makes the data keys of `state` known to the keyring. Costs a look if they are.
    pub(crate) fn load_keys(&self, state: &State) {
        if let Err(error) = self.keyring.follow(state) {
            tracing::error!(%error, "a data key cannot be used");
        }
    }
}

impl Entry {
    fn lock(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forget(entries: &mut BTreeMap<SandboxId, Arc<Entry>>, entry: &Arc<Entry>) {
    if entries
        .get(&entry.id)
        .is_some_and(|kept| Arc::ptr_eq(kept, entry))
    {
        entries.remove(&entry.id);
    }
}

/// Sleeps for `wait`; for ever without one.
async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}
