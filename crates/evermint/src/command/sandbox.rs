//! `evermint sandbox …`

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use evermint_proto::v1;
use evermint_proto::v1::bundles_client::BundlesClient;
use evermint_proto::v1::sandboxes_client::SandboxesClient;
use tonic::Code;

use super::{PAGE, all_pages, token};
use crate::cli::Client;
use crate::duration::Time;
use crate::gateways::explain;
use crate::out::note;
use crate::view::bundle::{Bundle, Reveal};
use crate::view::environment::Environment;
use crate::view::sandbox::{Many, One};
use crate::view::{Deletion, Deletions};

/// Pauses between attempts to follow a bundle again.
const RESUME: Duration = Duration::from_millis(500);
/// For how long a bundle is tried to be followed again.
const PATIENCE: Duration = Duration::from_secs(60);

/// `evermint sandbox …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Register a sandbox.
    #[command(visible_alias = "add")]
    Create(CreateArgs),
    /// Show a sandbox.
    Get(GetArgs),
    /// List sandboxes.
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Delete sandboxes; they can read nothing from then on.
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
    /// Let a sandbox use a provider.
    Attach(AttachArgs),
    /// Take a provider away from a sandbox.
    Detach(AttachArgs),
    /// Read a sandbox's bundle: its routes and credentials.
    Bundle(BundleArgs),
    /// Show a sandbox's environment: its variables, and where each may be sent.
    #[command(visible_alias = "env")]
    Environment(EnvironmentArgs),
    /// Follow a sandbox's bundle: every new one, from whichever gateway is there.
    Watch(WatchArgs),
    /// Give a sandbox a token: it shows who it is, and opens its own bundle alone.
    Token(token::IssueArgs),
    /// Make every token that a sandbox was given so far worthless.
    Revoke(token::RevokeArgs),
}

/// Arguments of `sandbox create`.
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// Its name.
    name: String,
    /// A provider to attach (repeatable).
    #[arg(long, value_name = "NAME")]
    provider: Vec<String>,
}

/// Arguments of `sandbox get`.
#[derive(Args, Debug)]
pub struct GetArgs {
    /// Its name.
    name: String,
    /// Ask the leader first, so that the answer is the newest there is.
    #[arg(long)]
    consistent: bool,
}

/// Arguments of `sandbox list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Those of every workspace.
    #[arg(long, short = 'A')]
    all_workspaces: bool,
}

/// Arguments of `sandbox delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Their names.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Arguments of `sandbox attach` and `sandbox detach`.
#[derive(Args, Debug)]
pub struct AttachArgs {
    /// The sandbox's name.
    sandbox: String,
    /// The provider's name.
    provider: String,
    /// Refuse the change unless the sandbox has this version.
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u64>,
}

/// Arguments of `sandbox bundle`.
#[derive(Args, Debug)]
pub struct BundleArgs {
    /// The sandbox's name or id.
    sandbox: String,
    /// Show the tokens themselves, not only their lengths.
    #[arg(long)]
    reveal: bool,
    /// Wait until the gateway is as far as this generation, or as the position of a write.
    #[arg(
        long,
        value_name = "GENERATION",
        default_value_t = 0,
        hide_default_value = true
    )]
    min_generation: u64,
    /// Tell of tokens that are good for less. Those past half of their lifetime are minted anew, now
    /// and then; the answer does not wait for it.
    #[arg(long, value_name = "TIME")]
    min_ttl: Option<Time>,
    /// Ask the leader first, so that the answer is the newest there is.
    #[arg(long)]
    consistent: bool,
}

/// Arguments of `sandbox environment`.
#[derive(Args, Debug)]
pub struct EnvironmentArgs {
    /// The sandbox's name or id.
    sandbox: String,
    /// Show the secret values themselves, not only their lengths.
    #[arg(long)]
    reveal: bool,
    /// Ask the leader first, so that the answer is the newest there is.
    #[arg(long)]
    consistent: bool,
}

/// Arguments of `sandbox watch`.
#[derive(Args, Debug)]
pub struct WatchArgs {
    /// The sandbox's name or id.
    sandbox: String,
    /// Show the tokens themselves, not only their lengths.
    #[arg(long)]
    reveal: bool,
    /// Stop after so many bundles.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// What a gateway's answer lacks if it is broken.
const EMPTY: &str = "the gateway's answer holds no sandbox";

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// What the gateway refused.
    pub async fn run(self, client: &Client) -> Result<()> {
        match self {
            Self::Create(args) => create(args, client).await,
            Self::Get(args) => get(args, client).await,
            Self::List(args) => list(args, client).await,
            Self::Delete(args) => delete(args, client).await,
            Self::Attach(args) => attach(args, client).await,
            Self::Detach(args) => detach(args, client).await,
            Self::Bundle(args) => bundle(args, client).await,
            Self::Environment(args) => environment(args, client).await,
            Self::Watch(args) => watch(args, client).await,
            Self::Token(args) => token::issue(args, client).await,
            Self::Revoke(args) => token::revoke(args, client).await,
        }
    }
}

async fn create(args: CreateArgs, client: &Client) -> Result<()> {
    let request = v1::CreateSandboxRequest {
        workspace: client.workspace.clone(),
        name: args.name,
        providers: args.provider,
    };
    let answer = client
        .gateways
        .write(async |wire| {
            SandboxesClient::new(wire)
                .create_sandbox(request.clone())
                .await
        })
        .await?;
    client.out.show(&One {
        done: format!("sandbox {} created", request.name),
        changed: None,
        sandbox: answer.sandbox.context(EMPTY)?.into(),
        position: answer.position,
    })
}

async fn get(args: GetArgs, client: &Client) -> Result<()> {
    let request = v1::GetSandboxRequest {
        workspace: client.workspace.clone(),
        name: args.name,
        consistent: args.consistent,
    };
    let answer = client
        .gateways
        .read(async |wire| {
            SandboxesClient::new(wire)
                .get_sandbox(request.clone())
                .await
        })
        .await?;
    client.out.show(&One {
        done: String::new(),
        changed: None,
        sandbox: answer.sandbox.context(EMPTY)?.into(),
        position: answer.position,
    })
}

async fn list(args: ListArgs, client: &Client) -> Result<()> {
    let all_workspaces = args.all_workspaces;
    let workspace = if all_workspaces {
        String::new()
    } else {
        client.workspace.clone()
    };
    let sandboxes = all_pages(async |page_token| {
        let request = v1::ListSandboxesRequest {
            workspace: workspace.clone(),
            all_workspaces,
            page_size: PAGE,
            page_token,
        };
        let answer = client
            .gateways
            .read(async |wire| {
                SandboxesClient::new(wire)
                    .list_sandboxes(request.clone())
                    .await
            })
            .await?;
        Ok((answer.sandboxes, answer.next_page_token))
    })
    .await?;
    client.out.show(&Many {
        sandboxes: sandboxes.into_iter().map(Into::into).collect(),
    })
}

async fn delete(args: DeleteArgs, client: &Client) -> Result<()> {
    let mut deletions = Vec::new();
    for name in args.names {
        let request = v1::DeleteSandboxRequest {
            workspace: client.workspace.clone(),
            name: name.clone(),
        };
        let answer = client
            .gateways
            .write(async |wire| {
                SandboxesClient::new(wire)
                    .delete_sandbox(request.clone())
                    .await
            })
            .await?;
        deletions.push(Deletion {
            name,
            deleted: answer.deleted,
            position: answer.position,
            revocations: Vec::new(),
        });
    }
    client.out.show(&Deletions {
        kind: "sandbox",
        deletions,
    })
}

async fn attach(args: AttachArgs, client: &Client) -> Result<()> {
    let request = v1::AttachProviderRequest {
        workspace: client.workspace.clone(),
        sandbox: args.sandbox,
        provider: args.provider,
        expected_version: args.if_version,
    };
    let answer = client
        .gateways
        .write(async |wire| {
            SandboxesClient::new(wire)
                .attach_provider(request.clone())
                .await
        })
        .await?;
    let already = if answer.attached { "" } else { " already" };
    client.out.show(&One {
        done: format!(
            "provider {} is{already} attached to sandbox {}",
            request.provider, request.sandbox
        ),
        changed: Some(answer.attached),
        sandbox: answer.sandbox.context(EMPTY)?.into(),
        position: answer.position,
    })
}

async fn detach(args: AttachArgs, client: &Client) -> Result<()> {
    let request = v1::DetachProviderRequest {
        workspace: client.workspace.clone(),
        sandbox: args.sandbox,
        provider: args.provider,
        expected_version: args.if_version,
    };
    let answer = client
        .gateways
        .write(async |wire| {
            SandboxesClient::new(wire)
                .detach_provider(request.clone())
                .await
        })
        .await?;
    let done = if answer.detached {
        "is detached from"
    } else {
        "was not attached to"
    };
    client.out.show(&One {
        done: format!(
            "provider {} {done} sandbox {}",
            request.provider, request.sandbox
        ),
        changed: Some(answer.detached),
        sandbox: answer.sandbox.context(EMPTY)?.into(),
        position: answer.position,
    })
}

fn reveal(reveal: bool) -> Reveal {
    if reveal {
        Reveal::Tokens
    } else {
        Reveal::Lengths
    }
}

async fn bundle(args: BundleArgs, client: &Client) -> Result<()> {
    let request = v1::GetBundleRequest {
        sandbox: args.sandbox,
        workspace: client.workspace.clone(),
        min_generation: args.min_generation,
        min_ttl_ms: args.min_ttl.map_or(0, Time::as_millis),
        consistent: args.consistent,
    };
    let answer = client
        .gateways
        .read(async |wire| BundlesClient::new(wire).get_bundle(request.clone()).await)
        .await?;
    let bundle = answer
        .bundle
        .context("the gateway's answer holds no bundle")?;
    let shown = Bundle::new(
        bundle,
        answer.staleness_ms,
        answer.server_time_ms,
        reveal(args.reveal),
    );
    let shown = shown.with_expiring(answer.expiring);
    client.out.show(&shown)?;
    for short in &shown.expiring {
        let ttl = args.min_ttl.unwrap_or_default();
        note(&format!(
            "warning: {}/{} is good for less than {ttl}",
            short.provider, short.key
        ));
    }
    Ok(())
}

async fn environment(args: EnvironmentArgs, client: &Client) -> Result<()> {
    let request = v1::GetBundleRequest {
        sandbox: args.sandbox,
        workspace: client.workspace.clone(),
        consistent: args.consistent,
        ..v1::GetBundleRequest::default()
    };
    let answer = client
        .gateways
        .read(async |wire| BundlesClient::new(wire).get_bundle(request.clone()).await)
        .await?;
    let bundle = answer
        .bundle
        .context("the gateway's answer holds no bundle")?;
    client.out.show(&Environment::new(
        bundle,
        answer.server_time_ms,
        reveal(args.reveal),
    ))
}

async fn watch(args: WatchArgs, client: &Client) -> Result<()> {
    let mut request = v1::WatchBundleRequest {
        sandbox: args.sandbox,
        workspace: client.workspace.clone(),
        min_generation: 0,
        known_revision: String::new(),
    };
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut followed: Option<Instant> = None;
    // The token that opened the stream has come to its end, and the file holds the next one, perhaps.
    let mut spent = false;
    loop {
        let opened = client
            .gateways
            .read(async |wire| BundlesClient::new(wire).watch_bundle(request.clone()).await)
            .await;
        let mut stream = match (opened, followed) {
            (Ok(stream), _) => stream,
            (Err(error), _) if spent => return Err(error),
            // A bundle that was followed is worth some patience: a cluster may be starting again.
            (Err(error), Some(at)) if at.elapsed() < PATIENCE => {
                note(&format!("{error:#}; trying again"));
                tokio::time::sleep(RESUME).await;
                continue;
            }
            (Err(error), _) => return Err(error),
        };
        spent = false;
        let mut heard = false;
        let url = client.gateways.first().to_owned();
        let ended = loop {
            let answer = match stream.message().await {
                Ok(Some(answer)) => answer,
                Ok(None) => break None,
                Err(status) => break Some(status),
            };
            followed = Some(Instant::now());
            heard = true;
            request.min_generation = request.min_generation.max(answer.generation);
            let Some(bundle) = answer.bundle else {
                continue;
            };
            request.min_generation = request.min_generation.max(bundle.generation);
            request.known_revision.clone_from(&bundle.revision);
            client.out.show_next(&Bundle::new(
                bundle,
                answer.staleness_ms,
                answer.server_time_ms,
                reveal(args.reveal),
            ))?;
            left -= 1;
            if left == 0 {
                return Ok(());
            }
        };
        match ended {
            Some(status) if status.code() == Code::Unauthenticated && heard => {
                spent = true;
                continue;
            }
            // Gone for good.
            Some(status)
                if matches!(
                    status.code(),
                    Code::NotFound | Code::Unauthenticated | Code::PermissionDenied
                ) =>
            {
                return Err(explain(&url, &status));
            }
            // This gateway is gone, or cannot serve any more: the next one goes on from here.
            Some(status) => note(&format!("{url}: {}; going on elsewhere", status.message())),
            None => note(&format!("{url} ended the stream; going on elsewhere")),
        }
        client.gateways.turn();
        tokio::time::sleep(RESUME).await;
    }
}
