//! `evermint cluster …`

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use evermint_client::TokenFile;
use evermint_core::secret::Secret;
use evermint_proto::v1;
use evermint_proto::v1::cluster_client::ClusterClient;

use crate::cli::Client;
use crate::duration::Time;
use crate::exit::usage;
use crate::view::cluster::{JoinToken, Removal, Status};

/// `evermint cluster …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show members, leader, owners and positions, as one replica sees them.
    Status(StatusArgs),
    /// Take a replica out for good: its id and its data directory are spent.
    Remove(RemoveArgs),
    /// Make a token by which one new replica joins, once: for `serve --join-token-file`.
    JoinToken(JoinTokenArgs),
}

/// Arguments of `cluster join-token`.
#[derive(Args, Debug)]
pub struct JoinTokenArgs {
    /// For how long; at most a day.
    #[arg(long, value_name = "TIME", default_value = "15m")]
    lifetime: Time,
    /// Write the token to this file, readable by its owner alone, instead of standard output. A
    /// file that is there is replaced at once, as a whole.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Arguments of `cluster status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Ask the leader first, so that the answer is the newest there is.
    #[arg(long)]
    consistent: bool,
    /// Ask for the hash of the replica's state: equal on all replicas at equal positions.
    #[arg(long)]
    state_hash: bool,
}

/// Arguments of `cluster remove`.
#[derive(Args, Debug)]
pub struct RemoveArgs {
    /// The replica's id.
    replica: u64,
    /// Do not ask.
    #[arg(long, short = 'y')]
    yes: bool,
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// What the gateway refused.
    pub async fn run(self, client: &Client) -> Result<()> {
        match self {
            Self::Status(args) => status(args, client).await,
            Self::Remove(args) => remove(args, client).await,
            Self::JoinToken(args) => join_token(args, client).await,
        }
    }
}

async fn status(args: StatusArgs, client: &Client) -> Result<()> {
    let request = v1::GetClusterStatusRequest {
        consistent: args.consistent,
        state_hash: args.state_hash,
    };
    let answer = client
        .gateways
        .read(async |wire| ClusterClient::new(wire).get_cluster_status(request).await)
        .await?;
    client
        .out
        .show(&Status::new(client.gateways.first(), answer))
}

async fn remove(args: RemoveArgs, client: &Client) -> Result<()> {
    if !args.yes {
        confirm(args.replica)?;
    }
    let request = v1::RemoveReplicaRequest {
        replica: args.replica,
    };
    let answer = client
        .gateways
        .write(async |wire| ClusterClient::new(wire).remove_replica(request).await)
        .await?;
    client.out.show(&Removal {
        replica: args.replica,
        removed: answer.removed,
    })
}

async fn join_token(args: JoinTokenArgs, client: &Client) -> Result<()> {
    let request = v1::CreateJoinTokenRequest {
        lifetime_secs: args.lifetime.as_millis().div_ceil(1_000),
    };
    let answer = client
        .gateways
        .write(async |wire| ClusterClient::new(wire).create_join_token(request).await)
        .await?;
    let mut token = JoinToken::new(answer);
    if let Some(path) = args.out {
        TokenFile::new(&path)
            .replace(&Secret::from(token.take()))
            .with_context(|| format!("cannot write {}", path.display()))?;
        token.file = Some(path);
    }
    client.out.show(&token)
}

fn confirm(replica: u64) -> Result<()> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(usage("add --yes: there is nobody here to ask"));
    }
    let mut stderr = std::io::stderr();
    write!(stderr, "Take replica {replica} out for good? [y/N] ")
        .and_then(|()| stderr.flush())
        .context("cannot ask")?;
    let mut line = String::new();
    stdin
        .read_line(&mut line)
        .context("cannot read the answer")?;
    if !matches!(line.trim(), "y" | "Y" | "yes") {
        bail!("nothing was done");
    }
    Ok(())
}
