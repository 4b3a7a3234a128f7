//! `evermint provider …`

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use evermint_proto::v1;
use evermint_proto::v1::providers_client::ProvidersClient;

use super::erasure::ErasureArgs;
use super::{PAGE, all_pages, refresh};
use crate::cli::Client;
use crate::exit::usage;
use crate::value::{End, Pair, SecretPair, read_secrets, unique};
use crate::view::provider::{Many, One};
use crate::view::{Deletion, Deletions};

const CREATE_EXAMPLES: &str = "\
Examples:
  evermint provider create vertex --type google-vertex --config region=europe-west4
  evermint provider create github --type github --credential GITHUB_TOKEN=@token.txt
  pass show openai | evermint provider create openai --type openai --credential OPENAI_API_KEY=-
  evermint provider create nvidia --type nvidia --credential NVIDIA_API_KEY
      Reads the environment variable NVIDIA_API_KEY.

Credentials that are minted are added by `evermint provider refresh configure`.";

/// `evermint provider …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Register a provider.
    #[command(visible_alias = "add", after_help = CREATE_EXAMPLES)]
    Create(CreateArgs),
    /// Show a provider and its credentials.
    Get(GetArgs),
    /// List providers.
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Change settings and static credentials; what is not named stays.
    Update(UpdateArgs),
    /// Delete providers with their credentials.
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
    /// Say how credentials are minted, and see how that goes.
    #[command(subcommand)]
    Refresh(refresh::Command),
    /// The same as `provider refresh configure`.
    #[command(after_help = refresh::CONFIGURE_EXAMPLES)]
    RefreshConfig(Box<refresh::ConfigureArgs>),
    /// The same as `provider refresh status`.
    RefreshStatus(refresh::StatusArgs),
    /// The same as `provider refresh rotate`.
    Rotate(refresh::RotateArgs),
}

/// A name, given in its place or with `--name`.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct NameArgs {
    /// Its name.
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// The same.
    #[arg(long = "name", value_name = "NAME")]
    name_flag: Option<String>,
}

impl NameArgs {
    fn take(self) -> String {
        self.name.or(self.name_flag).unwrap_or_default()
    }
}

/// Arguments of `provider create`.
#[derive(Args, Debug)]
pub struct CreateArgs {
    #[command(flatten)]
    name: NameArgs,
    /// Its type, such as google-vertex; never changes.
    #[arg(long, value_name = "TYPE")]
    r#type: String,
    /// A plain setting (repeatable).
    #[arg(long, value_name = "KEY=VALUE")]
    config: Vec<Pair>,
    /// A static credential (repeatable): KEY=@FILE, KEY=- (standard input), KEY=env:NAME, or KEY
    /// alone for the variable of that name. KEY=VALUE works too, but stays in the shell's history.
    #[arg(long, value_name = "KEY=SOURCE")]
    credential: Vec<SecretPair>,
    /// The end of a static credential (repeatable): 2026-07-16T00:00:00Z, milliseconds, or +1h.
    #[arg(long, value_name = "KEY=TIME")]
    expires_at: Vec<End>,
}

/// Arguments of `provider get`.
#[derive(Args, Debug)]
pub struct GetArgs {
    /// Its name.
    name: String,
    /// Ask the leader first, so that the answer is the newest there is.
    #[arg(long)]
    consistent: bool,
}

/// Arguments of `provider list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Those of every workspace.
    #[arg(long, short = 'A')]
    all_workspaces: bool,
}

/// Arguments of `provider update`.
#[derive(Args, Debug)]
pub struct UpdateArgs {
    /// Its name.
    name: String,
    /// A setting to add or replace (repeatable).
    #[arg(long, value_name = "KEY=VALUE")]
    config: Vec<Pair>,
    /// A setting to delete (repeatable).
    #[arg(long, value_name = "KEY")]
    delete_config: Vec<String>,
    /// A static credential to add or replace (repeatable); sources as for `provider create`.
    #[arg(long, value_name = "KEY=SOURCE")]
    credential: Vec<SecretPair>,
    /// A static credential to delete (repeatable).
    #[arg(long, value_name = "KEY")]
    delete_credential: Vec<String>,
    /// The end of a static credential (repeatable); `never` takes it away.
    #[arg(long, value_name = "KEY=TIME")]
    expires_at: Vec<End>,
    /// Refuse the change unless the provider has this version.
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u64>,
}

/// Arguments of `provider delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Their names.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    erasure: ErasureArgs,
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// What the gateway refused.
    pub async fn run(self, client: &Client) -> Result<ExitCode> {
        match self {
            Self::Create(args) => create(args, client).await?,
            Self::Get(args) => get(args, client).await?,
            Self::List(args) => list(args, client).await?,
            Self::Update(args) => update(args, client).await?,
            Self::Delete(args) => delete(args, client).await?,
            Self::Refresh(command) => return command.run(client).await,
            Self::RefreshConfig(args) => refresh::configure(*args, client).await?,
            Self::RefreshStatus(args) => refresh::status(args, client).await?,
            Self::Rotate(args) => return refresh::rotate(args, client).await,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Static credentials from what was written on the command line, and the ends of those whose
/// value is not set anew.
fn statics(
    credentials: &[SecretPair],
    ends: Vec<End>,
) -> Result<(
    BTreeMap<String, v1::StaticCredential>,
    BTreeMap<String, u64>,
)> {
    let mut ends = unique(ends.into_iter().map(|end| (end.key, end.at_ms)))?;
    let statics = read_secrets(credentials)?
        .into_iter()
        .map(|(key, value)| {
            let expires_at_ms = ends.remove(&key);
            let credential = v1::StaticCredential {
                value,
                expires_at_ms,
            };
            (key, credential)
        })
        .collect();
    Ok((statics, ends))
}

fn pairs(pairs: Vec<Pair>) -> Result<BTreeMap<String, String>> {
    unique(pairs.into_iter().map(|pair| (pair.key, pair.value)))
}

async fn create(args: CreateArgs, client: &Client) -> Result<()> {
    let (credentials, ends) = statics(&args.credential, args.expires_at)?;
    if let Some(key) = ends.keys().next() {
        return Err(usage(format!(
            "--expires-at {key}: there is no --credential of that key"
        )));
    }
    let request = v1::CreateProviderRequest {
        workspace: client.workspace.clone(),
        name: args.name.take(),
        r#type: args.r#type,
        config: pairs(args.config)?,
        credentials,
    };
    let answer = client
        .gateways
        .write(async |wire| {
            ProvidersClient::new(wire)
                .create_provider(request.clone())
                .await
        })
        .await?;
    client.out.show(&One {
        done: Some("created"),
        provider: answer.provider.context(EMPTY)?.into(),
        position: answer.position,
    })
}

/// What a gateway's answer lacks if it is broken.
const EMPTY: &str = "the gateway's answer holds no provider";

async fn get(args: GetArgs, client: &Client) -> Result<()> {
    let request = v1::GetProviderRequest {
        workspace: client.workspace.clone(),
        name: args.name,
        consistent: args.consistent,
    };
    let answer = client
        .gateways
        .read(async |wire| {
            ProvidersClient::new(wire)
                .get_provider(request.clone())
                .await
        })
        .await?;
    client.out.show(&One {
        done: None,
        provider: answer.provider.context(EMPTY)?.into(),
        position: answer.position,
    })
}

/// Every provider of the workspace, or of all.
pub(super) async fn all(client: &Client, all_workspaces: bool) -> Result<Vec<v1::Provider>> {
    let workspace = if all_workspaces {
        String::new()
    } else {
        client.workspace.clone()
    };
    all_pages(async |page_token| {
        let request = v1::ListProvidersRequest {
            workspace: workspace.clone(),
            all_workspaces,
            page_size: PAGE,
            page_token,
        };
        let answer = client
            .gateways
            .read(async |wire| {
                ProvidersClient::new(wire)
                    .list_providers(request.clone())
                    .await
            })
            .await?;
        Ok((answer.providers, answer.next_page_token))
    })
    .await
}

async fn list(args: ListArgs, client: &Client) -> Result<()> {
    let providers = all(client, args.all_workspaces).await?;
    client.out.show(&Many {
        providers: providers.into_iter().map(Into::into).collect(),
    })
}

async fn update(args: UpdateArgs, client: &Client) -> Result<()> {
    let (credentials, expires_at_ms) = statics(&args.credential, args.expires_at)?;
    let request = v1::UpdateProviderRequest {
        workspace: client.workspace.clone(),
        name: args.name,
        expected_version: args.if_version,
        config: pairs(args.config)?,
        delete_config: args.delete_config,
        credentials,
        delete_credentials: args.delete_credential,
        expires_at_ms,
    };
    let changes = request.config.len()
        + request.delete_config.len()
        + request.credentials.len()
        + request.delete_credentials.len()
        + request.expires_at_ms.len();
    if changes == 0 {
        return Err(usage("nothing to change: give --config, --credential, …"));
    }
    let answer = client
        .gateways
        .write(async |wire| {
            ProvidersClient::new(wire)
                .update_provider(request.clone())
                .await
        })
        .await?;
    client.out.show(&One {
        done: Some("updated"),
        provider: answer.provider.context(EMPTY)?.into(),
        position: answer.position,
    })
}

async fn delete(args: DeleteArgs, client: &Client) -> Result<()> {
    let mut deletions = Vec::new();
    for name in args.names {
        let request = v1::DeleteProviderRequest {
            workspace: client.workspace.clone(),
            name: name.clone(),
        };
        let answer = client
            .gateways
            .write(async |wire| {
                ProvidersClient::new(wire)
                    .delete_provider(request.clone())
                    .await
            })
            .await?;
        deletions.push(Deletion {
            name,
            deleted: answer.deleted,
            position: answer.position,
        });
    }
    let done = Deletions {
        kind: "provider",
        deletions,
    };
    client.out.show(&done)?;
    args.erasure.wait(&done, client).await
}
