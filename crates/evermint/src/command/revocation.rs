//! `--revoke`: what goes with a deletion is revoked at its issuer too, and what became of that.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use evermint_proto::v1;
use evermint_proto::v1::refreshes_client::RefreshesClient;
use tokio::time::Instant;

use crate::cli::Client;
use crate::duration::Time;
use crate::exit::NO_OUTCOME;
use crate::out::At;
use crate::view::revocation::{Many, Revocation};

/// Pauses between looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Whether a delete revokes, and waits for it.
#[derive(Args, Debug)]
pub struct RevokeArgs {
    /// Have the issuer revoke the grant and the token too (RFC 7009), with a bounded number of
    /// tries; the token is not served any more.
    #[arg(long)]
    pub(super) revoke: bool,
    /// Wait, at most so long (60s unless said), for what the issuer says. The exit code is 1 if it
    /// was not told, and 3 if that is open.
    #[arg(
        long,
        value_name = "TIME",
        requires = "revoke",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "60s"
    )]
    wait: Option<Time>,
}

impl RevokeArgs {
    /// The revocations that the command at `position` asked for, and what became of them; waits
    /// for their ends if that is asked for.
    ///
    /// # Errors
    /// What the gateways refused.
    pub(super) async fn outcome(&self, position: u64, client: &Client) -> Result<Vec<Revocation>> {
        match self.revoke {
            true => ended(position, self.wait, client).await,
            false => Ok(Vec::new()),
        }
    }

    /// The exit code of a delete with these revocations.
    pub(super) fn code(&self, revocations: &[Revocation]) -> ExitCode {
        match self.wait {
            Some(_) if revocations.iter().any(Revocation::is_failed) => ExitCode::FAILURE,
            Some(_) if revocations.iter().any(Revocation::is_open) => ExitCode::from(NO_OUTCOME),
            Some(_) | None => ExitCode::SUCCESS,
        }
    }
}

/// The revocations that the command at `position` asked for, once all of them have ended, none
/// is to be tried within `bound`, or that is over.
///
/// # Errors
/// What the gateways refused.
pub(super) async fn ended(
    position: u64,
    bound: Option<Time>,
    client: &Client,
) -> Result<Vec<Revocation>> {
    let deadline = Instant::now() + bound.map_or(Duration::ZERO, Time::get);
    loop {
        let answer = list("", position, client).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let reach = answer.server_time_ms + evermint_core::time::millis(left);
        // One that was tried may end at any moment: when the next try is due says nothing of the
        // one that is under way.
        let is_awaited =
            |r: &v1::Revocation| r.due_at_ms.is_some_and(|due| due <= reach || r.tries > 0);
        let is_behind = answer.applied < position;
        if (is_behind || answer.revocations.iter().any(is_awaited)) && !left.is_zero() {
            tokio::time::sleep(LOOK_EVERY.min(left)).await;
            continue;
        }
        return Ok(answer.revocations.into_iter().map(Into::into).collect());
    }
}

async fn list(
    provider: &str,
    position: u64,
    client: &Client,
) -> Result<v1::ListRevocationsResponse> {
    let request = v1::ListRevocationsRequest {
        workspace: client.workspace.clone(),
        provider: provider.to_owned(),
        position,
    };
    client
        .gateways
        .read(async |wire| {
            RefreshesClient::new(wire)
                .list_revocations(request.clone())
                .await
        })
        .await
}

/// Arguments of `provider refresh revocations`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// The provider's name, which may be deleted; all of the workspace if not given.
    provider: Option<String>,
}

/// `provider refresh revocations`
///
/// # Errors
/// What the gateways refused.
pub(super) async fn show(args: ListArgs, client: &Client) -> Result<()> {
    let answer = list(args.provider.as_deref().unwrap_or_default(), 0, client).await?;
    client.out.show(&Many {
        revocations: answer.revocations.into_iter().map(Into::into).collect(),
        server_time: At(answer.server_time_ms),
    })
}
