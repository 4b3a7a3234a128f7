//! `evermint provider …`

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use evermint_core::profile::Profile;
use evermint_proto::v1;
use evermint_proto::v1::providers_client::ProvidersClient;

use super::erasure::ErasureArgs;
use super::revocation::RevokeArgs;
use super::{PAGE, all_pages, profile, refresh, trial};
use crate::cli::Client;
use crate::discover::{self, Found, Here};
use crate::exit::usage;
use crate::out::note;
use crate::value::{End, Given, Reader, unique};
use crate::view::provider::{Many, One};
use crate::view::{Deletion, Deletions};

const CREATE_EXAMPLES: &str = "\
Examples:
  evermint provider create vertex --type google-vertex-ai --config region=europe-west4
  evermint provider create github --type github --credential GITHUB_TOKEN=@token.txt
  pass show openai | evermint provider create openai --type openai --credential OPENAI_API_KEY=-
  evermint provider create nvidia --type nvidia --credential NVIDIA_API_KEY
      Reads the environment variable NVIDIA_API_KEY.

  evermint provider create vertex --type google-vertex-ai --config project=p --config region=r \\
      --from-service-account key.json --credential-key VERTEX_AI_TOKEN
      Minted by the key of a service account.
  evermint provider create claude --type anthropic --from-existing
      Takes what the profile says may lie on this machine.

Other credentials that are minted are added by `evermint provider refresh configure`.";

/// `evermint provider …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Register a provider.
    #[command(visible_alias = "add", after_help = CREATE_EXAMPLES)]
    Create(Box<CreateArgs>),
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
    /// Look at what is known of types of providers, and add your own.
    #[command(subcommand)]
    Profile(profile::Command),
    /// The same as `provider refresh configure`.
    #[command(after_help = refresh::CONFIGURE_EXAMPLES)]
    RefreshConfig(Box<refresh::ConfigureArgs>),
    /// The same as `provider refresh status`.
    RefreshStatus(refresh::StatusArgs),
    /// The same as `provider refresh rotate`.
    Rotate(refresh::RotateArgs),
    /// Try a provider's credentials without using anything up.
    #[command(after_help = trial::EXAMPLES)]
    Test(trial::TestArgs),
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
    /// Its type: the id or an alias of a profile, such as google-vertex-ai or vertex (see `provider
    /// profile list`); never changes.
    #[arg(long, value_name = "TYPE")]
    r#type: String,
    /// A plain setting (repeatable): KEY=VALUE, or a source as for --credential.
    #[arg(long, value_name = "KEY=VALUE")]
    config: Vec<Given>,
    /// A static credential (repeatable): KEY=@FILE, KEY=- (standard input, once), KEY=env:NAME, or
    /// KEY alone for the variable of that name. A line break at the end is left out. KEY=VALUE
    /// works too, but stays in the shell's history, and `ps` shows it.
    #[arg(long, value_name = "KEY=SOURCE")]
    credential: Vec<Given>,
    /// The end of a static credential (repeatable): 2026-07-16T00:00:00Z, milliseconds since 1970,
    /// or +1h; `KEY=never` for none. It leaves every bundle then.
    #[arg(long, value_name = "KEY=TIME", visible_alias = "expires-at")]
    credential_expires_at: Vec<End>,
    #[command(flatten)]
    found: FoundArgs,
}

/// What lies on this machine already.
#[derive(Args, Debug)]
struct FoundArgs {
    /// Mint by gcloud's application default credentials; needs --credential-key.
    #[arg(
        long,
        requires = "credential_key",
        conflicts_with_all = ["from_service_account", "from_existing"]
    )]
    from_gcloud_adc: bool,
    /// Mint by the key file of a Google service account; needs --credential-key.
    #[arg(long, value_name = "FILE", requires = "credential_key")]
    from_service_account: Option<PathBuf>,
    /// Take what the profile of this type says may lie on this machine: values in the
    /// environment, and files that tools have written.
    #[arg(long, conflicts_with_all = ["from_service_account", "credential_key"])]
    from_existing: bool,
    /// The credential to mint: the environment variable that sandboxes use.
    #[arg(long, value_name = "KEY")]
    credential_key: Option<String>,
    /// A scope to ask for (repeatable); that of all of Google Cloud if not given.
    #[arg(long, value_name = "SCOPE", requires = "credential_key")]
    scope: Vec<String>,
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
    /// A setting to add or replace (repeatable): KEY=VALUE, or a source as for --credential.
    #[arg(long, value_name = "KEY=VALUE")]
    config: Vec<Given>,
    /// A setting to delete (repeatable).
    #[arg(long, value_name = "KEY")]
    delete_config: Vec<String>,
    /// A static credential to add or replace (repeatable); sources as for `provider create`.
    #[arg(long, value_name = "KEY=SOURCE")]
    credential: Vec<Given>,
    /// A static credential to delete (repeatable).
    #[arg(long, value_name = "KEY")]
    delete_credential: Vec<String>,
    /// The end of a static credential (repeatable), as for `provider create`; `KEY=never` takes it
    /// away.
    #[arg(long, value_name = "KEY=TIME", visible_alias = "expires-at")]
    credential_expires_at: Vec<End>,
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
    revoke: RevokeArgs,
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
            Self::Create(args) => return create(*args, client).await,
            Self::Get(args) => get(args, client).await?,
            Self::List(args) => list(args, client).await?,
            Self::Update(args) => update(args, client).await?,
            Self::Delete(args) => return delete(args, client).await,
            Self::Refresh(command) => return command.run(client).await,
            Self::Profile(command) => return command.run(client).await,
            Self::RefreshConfig(args) => return refresh::configure(*args, client).await,
            Self::RefreshStatus(args) => refresh::status(args, client).await?,
            Self::Rotate(args) => return refresh::rotate(args, client).await,
            Self::Test(args) => return trial::test(args, client).await,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Static credentials from what was written on the command line, and the ends of those whose
/// value is not set anew.
fn statics(
    values: BTreeMap<String, String>,
    ends: Vec<End>,
) -> Result<(
    BTreeMap<String, v1::StaticCredential>,
    BTreeMap<String, u64>,
)> {
    let mut ends = unique(ends.into_iter().map(|end| (end.key, end.at_ms)))?;
    let statics = values
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

impl FoundArgs {
    /// What is to be taken, for a provider of type `kind`.
    async fn find(&self, kind: &str, client: &Client) -> Result<Found> {
        let grant = match &self.from_service_account {
            Some(path) => Some(discover::service_account(&Here, path)?),
            None if self.from_gcloud_adc => Some(discover::gcloud_adc(&Here)?),
            None => None,
        };
        if let (Some(grant), Some(key)) = (grant, &self.credential_key) {
            return Ok(Found {
                origins: vec![format!("{key} from {}", grant.origin)],
                refresh: Some((key.clone(), grant)),
                ..Found::default()
            });
        }
        match self.from_existing {
            true => discover::existing(&Here, &profile(kind, client).await?),
            false => Ok(Found::default()),
        }
    }
}

/// The profile that counts for that type in the cluster, imported or built in.
async fn profile(kind: &str, client: &Client) -> Result<Profile> {
    let known = profile::all(false, client).await?;
    let lower = kind.to_ascii_lowercase();
    let is_called = |p: &&v1::Profile| p.id == lower || p.aliases.contains(&lower);
    let Some(found) = known.iter().find(is_called) else {
        let ids: Vec<&str> = known.iter().map(|p| p.id.as_str()).collect();
        return Err(usage(format!(
            "--from-existing: no profile is called {kind:?}; there are {}",
            ids.join(", ")
        )));
    };
    let document = profile::one(found.id.clone(), client).await?.yaml;
    let parsed = evermint_profiles::read::parse(&document);
    let profile = parsed.into_iter().find_map(|(profile, _)| profile);
    profile.with_context(|| format!("this program cannot read the profile {kind} of the cluster"))
}

async fn create(args: CreateArgs, client: &Client) -> Result<ExitCode> {
    let mut reader = Reader::default();
    let mut values = reader.secret(&args.credential)?;
    let mut config = reader.plain(&args.config)?;
    let found = args.found.find(&args.r#type, client).await?;
    for (key, value) in found.values {
        values.entry(key).or_insert(value);
    }
    for (key, value) in found.config {
        config.entry(key).or_insert(value);
    }
    let (credentials, ends) = statics(values, args.credential_expires_at)?;
    if let Some(key) = ends.keys().next() {
        return Err(usage(format!(
            "--credential-expires-at {key}: there is no --credential of that key"
        )));
    }
    reader.warn();
    for origin in &found.origins {
        note(&format!("found {origin}"));
    }
    let request = v1::CreateProviderRequest {
        workspace: client.workspace.clone(),
        name: args.name.take(),
        r#type: args.r#type,
        config,
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
    let created = One {
        done: Some("created"),
        provider: answer.provider.context(EMPTY)?.into(),
        position: answer.position,
    };
    let Some((key, grant)) = found.refresh else {
        client.out.show(&created)?;
        return Ok(ExitCode::SUCCESS);
    };
    let name = request.name;
    refresh::configure_found(&name, &key, grant, args.found.scope, client)
        .await
        .with_context(|| {
            format!("provider {name} is created, but the refresh of {key} is not configured")
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
    let mut reader = Reader::default();
    let values = reader.secret(&args.credential)?;
    let config = reader.plain(&args.config)?;
    let (credentials, expires_at_ms) = statics(values, args.credential_expires_at)?;
    reader.warn();
    let request = v1::UpdateProviderRequest {
        workspace: client.workspace.clone(),
        name: args.name,
        expected_version: args.if_version,
        config,
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

async fn delete(args: DeleteArgs, client: &Client) -> Result<ExitCode> {
    let mut deletions = Vec::new();
    for name in args.names {
        let request = v1::DeleteProviderRequest {
            workspace: client.workspace.clone(),
            name: name.clone(),
            revoke: args.revoke.revoke,
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
            revocations: Vec::new(),
        });
    }
    for deletion in deletions.iter_mut().filter(|d| d.deleted) {
        deletion.revocations = args.revoke.outcome(deletion.position, client).await?;
    }
    let done = Deletions {
        kind: "provider",
        deletions,
    };
    client.out.show(&done)?;
    args.erasure.wait(&done, client).await?;
    let revocations = done.deletions.into_iter().flat_map(|d| d.revocations);
    Ok(args.revoke.code(&revocations.collect::<Vec<_>>()))
}
