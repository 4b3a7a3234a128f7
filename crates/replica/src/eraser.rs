//! Cuts the log behind what an operator destroyed.
//!
//! A deleted credential leaves the state at once, but the log still has the entries that brought
//! its secrets, sealed. So every replica, for itself, takes a snapshot after such a command and
//! drops the log up to it, rather than wait until the log has grown long enough. How far it has
//! come travels with its beats, so that an operator can be told when nothing is left anywhere.
//!
//! What stays possible is said in the docs: freed space of the store and of the disk below it is
//! not overwritten. What lies there is sealed.

use std::sync::Arc;
use std::time::Duration;

use evermint_core::id::Position;

use crate::local::Local;
use crate::raft::Metrics;

/// Commands that come one after the other are cut off together.
const SETTLE: Duration = Duration::from_secs(2);

/// How long a snapshot or a cut may take before it is asked for again.
const STEP_DEADLINE: Duration = Duration::from_secs(30);

/// Erases until the replica stops.
pub(crate) async fn run(local: Arc<Local>) {
    let mut applied = local.views.watch();
    loop {
        let erased = local.erased();
        let wanted = applied.wait_for(|a| a.state.meta.destroyed > erased).await;
        if wanted.map(drop).is_err() {
            return;
        }
        tokio::time::sleep(SETTLE).await;
        match erase(&local).await {
            Ok(position) => local.erased_up_to(position),
            Err(error) => tracing::warn!(error, "the log could not be cut yet; will retry"),
        }
    }
}

/// Drops the log up to what is applied now. Gives the position up to which nothing is left.
async fn erase(local: &Local) -> Result<Position, String> {
    let now = local.views.watch().borrow().clone();
    let position = now.state.meta.position;
    let Some(index) = now.index else {
        return Ok(position);
    };
    let trigger = local.raft.trigger();
    trigger.snapshot().await.map_err(|e| e.to_string())?;
    reach(local, "no snapshot was taken in time", |m| {
        m.snapshot.is_some_and(|id| id.index >= index)
    })
    .await?;
    trigger.purge_log(index).await.map_err(|e| e.to_string())?;
    reach(local, "the log was not cut in time", |m| {
        m.purged.is_some_and(|id| id.index >= index)
    })
    .await?;
    tracing::info!(%position, index, "erased the log behind what was destroyed");
    Ok(position)
}

async fn reach(
    local: &Local,
    late: &str,
    there: impl FnMut(&Metrics) -> bool,
) -> Result<(), String> {
    let mut metrics = local.raft.metrics();
    match tokio::time::timeout(STEP_DEADLINE, metrics.wait_for(there)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err("the replica is stopping".to_owned()),
        Err(_) => Err(late.to_owned()),
    }
}
