//! `evermint keys …`

use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};
use evermint_proto::v1;
use evermint_proto::v1::keys_client::KeysClient;
use tokio::time::Instant;

use crate::cli::Client;
use crate::duration::Time;
use crate::exit::advised;
use crate::view::keys::{Rotation, Status};

/// Pauses between looks.
const LOOK_EVERY: Duration = Duration::from_millis(300);

const EXAMPLES: &str = "\
Examples:
  evermint keys rotate --wait
      A new data key; returns when every secret rests under it.

To replace the key-encryption key, make another one and start the replicas anew, one by one, with
it as --kek-file and the one that they have as --kek-former-file. When all have it, the leader puts
the data keys under it. `evermint keys status` says when the former one is not needed any more.";

/// `evermint keys …`
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Command {
    /// Show key-encryption keys and data keys, by name, and how far a rotation is.
    Status(StatusArgs),
    /// Make a new data key, and seal every secret anew with it, in the background.
    Rotate(RotateArgs),
}

/// Arguments of `keys status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Ask the leader first, so that the answer is the newest there is.
    #[arg(long)]
    consistent: bool,
}

/// Arguments of `keys rotate`.
#[derive(Args, Debug)]
pub struct RotateArgs {
    /// Wait, at most so long (5m unless said), until every secret rests under the new key.
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "5m")]
    wait: Option<Time>,
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// What the gateway refused.
    pub async fn run(self, client: &Client) -> Result<()> {
        match self {
            Self::Status(args) => {
                let answer = status(client, args.consistent).await?;
                client.out.show(&Status::from(answer))
            }
            Self::Rotate(args) => rotate(args, client).await,
        }
    }
}

async fn status(client: &Client, consistent: bool) -> Result<v1::GetKeyStatusResponse> {
    let request = v1::GetKeyStatusRequest { consistent };
    client
        .gateways
        .read(async |wire| KeysClient::new(wire).get_key_status(request).await)
        .await
}

async fn rotate(args: RotateArgs, client: &Client) -> Result<()> {
    let answer = client
        .gateways
        .write(async |wire| {
            let request = v1::RotateDataKeyRequest {};
            KeysClient::new(wire).rotate_data_key(request).await
        })
        .await?;
    let mut left = None;
    if let Some(bound) = args.wait {
        left = Some(wait(answer.position, bound.get(), client).await?);
    }
    client.out.show(&Rotation {
        data_key: answer.data_key,
        position: answer.position,
        secrets_to_reseal: left,
    })
}

/// Waits until nothing rests under an older key, as a replica sees it that has the new one.
async fn wait(position: u64, bound: Duration, client: &Client) -> Result<u64> {
    let deadline = Instant::now() + bound;
    loop {
        let now = status(client, false).await?;
        if now.position >= position && now.secrets_to_reseal == 0 {
            return Ok(0);
        }
        if Instant::now() >= deadline {
            return Err(advised(
                format!(
                    "{} secrets rest under older keys yet",
                    now.secrets_to_reseal
                ),
                "the rotation goes on; `evermint keys status` says how far it is, and the leader's \
                 log what keeps it",
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
