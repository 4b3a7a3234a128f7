//! What a sandbox holds in its hand.

use std::fmt;
use std::sync::Arc;

use evermint_core::id::Generation;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::builder::Builder;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::prometheus;
use crate::report::Report;
use crate::shared::{Progress, Shared};
use crate::snapshot::Snapshot;

/// Follows one sandbox's bundle in the background, until its last clone is dropped.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    progress: watch::Receiver<Progress>,
    /// Ends its tasks when it is dropped.
    _tasks: JoinSet<()>,
}

impl Client {
    /// Begins to set up a client.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn new(
        shared: Arc<Shared>,
        progress: watch::Receiver<Progress>,
        tasks: JoinSet<()>,
    ) -> Self {
        Self(Arc::new(Inner {
            shared,
            progress,
            _tasks: tasks,
        }))
    }

    /// What is known now. Never waits; before the first bundle it is empty, and not ready.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.shared.snapshot()
    }

    /// Waits for the first bundle, without a bound of its own.
    ///
    /// # Errors
    /// [`Error::Refused`] if no endpoint serves and one refuses, such as the sandbox's token. The
    /// client goes on asking, and another call of this function goes on waiting: a sandbox may be
    /// started before it is registered. [`Error::Closed`] if the runtime is shut down.
    pub async fn wait_ready(&self) -> Result<Arc<Snapshot>, Error> {
        let mut progress = self.0.progress.clone();
        let refusals = progress.borrow_and_update().refusals;
        loop {
            let snapshot = self.snapshot();
            if snapshot.is_ready() {
                return Ok(snapshot);
            }
            progress.changed().await.map_err(|_| Error::Closed)?;
            let now = progress.borrow_and_update().clone();
            if let Some(refusal) = now.refusal.filter(|_| now.refusals > refusals)
                && !self.snapshot().is_ready()
            {
                return Err(refusal.into());
            }
        }
    }

    /// Tells of every change from now on, coalesced for a slow reader.
    pub fn subscribe(&self) -> Changes {
        let mut progress = self.0.progress.clone();
        let version = progress.borrow_and_update().version;
        Changes {
            shared: Arc::clone(&self.0.shared),
            progress,
            version,
        }
    }

    /// Tells the cluster that the value of a credential, of this generation, is refused where it is
    /// used. It mints another one, once for each value and now and then; that comes with the
    /// bundle.
    ///
    /// # Errors
    /// [`Error::Unanswered`] if the endpoint that serves does not answer in time, and
    /// [`Error::Refused`] if it refuses.
    pub async fn report(
        &self,
        provider: &str,
        credential_key: &str,
        generation: Generation,
    ) -> Result<Report, Error> {
        let giver = self.0.shared.giver.load_full();
        let giver = giver.ok_or_else(|| Error::Unanswered("no endpoint serves".to_owned()))?;
        let report = giver.report(provider, credential_key, generation).await?;
        self.0.shared.counters.reports.add();
        Ok(report)
    }

    /// What was counted so far.
    pub fn metrics(&self) -> Metrics {
        self.0.shared.counters.read()
    }

    /// The same and what is known of bundle and tokens, without secrets, as Prometheus reads it: to
    /// be answered with [`CONTENT_TYPE`](crate::prometheus::CONTENT_TYPE) where it scrapes. What
    /// there is stands in [`prometheus`](crate::prometheus).
    pub fn prometheus(&self) -> String {
        prometheus::render(&self.metrics(), &self.snapshot())
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("snapshot", &self.snapshot())
            .finish_non_exhaustive()
    }
}

/// A reader's place among the changes.
#[derive(Clone, Debug)]
pub struct Changes {
    shared: Arc<Shared>,
    progress: watch::Receiver<Progress>,
    version: u64,
}

impl Changes {
    /// Waits until the content of the bundle is another one, and gives the newest. That a value
    /// reaches its end is seen by looking at it; the cluster then tells of it, too.
    ///
    /// Cancel safe: a change that was not returned is returned next time.
    ///
    /// # Errors
    /// [`Error::Closed`] when the client is gone.
    pub async fn changed(&mut self) -> Result<Arc<Snapshot>, Error> {
        let version = self.version;
        let now = self
            .progress
            .wait_for(|progress| progress.version != version)
            .await
            .map_err(|_| Error::Closed)?
            .version;
        self.version = now;
        Ok(self.shared.snapshot())
    }
}
