//! `--wait-erased`: a delete is done at once; this waits until no replica's log has the secrets.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use evermint_proto::v1;
use evermint_proto::v1::cluster_client::ClusterClient;
use tokio::time::Instant;

use crate::cli::Client;
use crate::duration::Time;
use crate::exit::advised;
use crate::out::note;
use crate::view::{Deletion, Deletions};

/// Pauses between looks.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// How a delete ends.
#[derive(Args, Debug)]
pub struct ErasureArgs {
    /// Wait, at most so long (30s unless said), until the log of every replica is cut behind the
    /// delete. Sealed copies of the secrets stand there until then.
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "30s")]
    wait_erased: Option<Time>,
}

impl ErasureArgs {
    /// Waits, if that is asked for, until what was deleted is erased everywhere.
    ///
    /// # Errors
    /// When a replica has not erased it in time; says which.
    pub(super) async fn wait(&self, done: &Deletions, client: &Client) -> Result<()> {
        let deleted = done.deletions.iter().filter(|d| d.deleted);
        // A revocation keeps what it needs until it has ended.
        let ends = |d: &Deletion| d.revocations.iter().map(|r| r.ended_position).max();
        let newest = deleted.map(|d| d.position.max(ends(d).unwrap_or(0))).max();
        let (Some(bound), Some(position)) = (self.wait_erased, newest) else {
            return Ok(());
        };
        let deadline = Instant::now() + bound.get();
        loop {
            let lacking = lacking(position, client).await?;
            if lacking.is_empty() {
                note("erased from the logs of all replicas");
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(advised(
                    format!("not erased yet from the log of {}", lacking.join(", ")),
                    "the delete itself is done; a replica that is down erases when it is back \
                     (`evermint cluster status`), or is removed (`evermint cluster remove`)",
                ));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// The replicas that may have the history up to `position` in their logs.
async fn lacking(position: u64, client: &Client) -> Result<Vec<String>> {
    let request = v1::GetClusterStatusRequest::default();
    let status = client
        .gateways
        .read(async |wire| ClusterClient::new(wire).get_cluster_status(request).await)
        .await?;
    let replicas = status.replicas.into_iter();
    let lacks = replicas.filter(|r| r.erased_position.is_none_or(|erased| erased < position));
    Ok(lacks.map(|r| format!("replica {}", r.id)).collect())
}
