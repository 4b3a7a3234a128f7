//! `evermint provider profile …`

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use evermint_proto::v1;
use evermint_proto::v1::profiles_client::ProfilesClient;

use crate::cli::Client;
use crate::exit::usage;
use crate::view::profile::{Exported, Findings, Many, One, Stored};
use crate::view::{Deletion, Deletions};

const EXAMPLES: &str = "\
Examples:
  evermint provider profile export openai > mine.yaml
  evermint provider profile lint mine.yaml
  evermint provider profile import mine.yaml
  cat *.yaml | evermint provider profile import --platform";

/// `evermint provider profile …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the profiles that the workspace can use.
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show a profile.
    #[command(visible_alias = "get")]
    Show(ShowArgs),
    /// Write profiles as YAML.
    Export(ExportArgs),
    /// Import profiles from YAML: all of them, or none.
    #[command(after_help = EXAMPLES)]
    Import(TextArgs),
    /// Tell everything that is wrong with some YAML, and import nothing.
    Lint(TextArgs),
    /// Replace an imported profile.
    Update(UpdateArgs),
    /// Delete imported profiles.
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
}

/// Whose profiles are meant.
#[derive(Args, Clone, Copy, Debug)]
struct ScopeArgs {
    /// Those of all workspaces, not those of one.
    #[arg(long)]
    platform: bool,
}

/// Arguments of `provider profile list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    scope: ScopeArgs,
}

/// Arguments of `provider profile show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Its id or an alias.
    id: String,
}

/// Arguments of `provider profile export`.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// Their ids or aliases.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

/// Arguments of `provider profile import` and `lint`.
#[derive(Args, Debug)]
pub struct TextArgs {
    /// Files, each with one or several documents; a directory stands for the *.yaml and *.yml in
    /// it, and - for standard input, which is also read if nothing is given.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The same (repeatable).
    #[arg(long = "file", short = 'f', value_name = "FILE")]
    more: Vec<PathBuf>,
    #[command(flatten)]
    scope: ScopeArgs,
}

/// Arguments of `provider profile update`.
#[derive(Args, Debug)]
pub struct UpdateArgs {
    /// A file with one document, whose id says which profile; - for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Refuse the change unless the profile has this version.
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u64>,
    #[command(flatten)]
    scope: ScopeArgs,
}

/// Arguments of `provider profile delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Their ids.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    scope: ScopeArgs,
}

impl Command {
    /// Does it. Ends with exit code 1 when there are findings that are more than warnings.
    ///
    /// # Errors
    /// What the gateway refused, and files that cannot be read.
    pub async fn run(self, client: &Client) -> Result<ExitCode> {
        match self {
            Self::List(args) => list(args, client).await?,
            Self::Show(args) => {
                let profile = one(args.id, client).await?;
                client.out.show(&One::from(profile))?;
            }
            Self::Export(args) => export(args, client).await?,
            Self::Import(args) => return import(args, client).await,
            Self::Lint(args) => return lint(args, client).await,
            Self::Update(args) => return update(args, client).await,
            Self::Delete(args) => delete(args, client).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What a gateway's answer lacks if it is broken.
const EMPTY: &str = "the gateway's answer holds no profile";

/// The profiles that the workspace can use, or those of the platform alone.
pub(super) async fn all(platform: bool, client: &Client) -> Result<Vec<v1::Profile>> {
    let request = v1::ListProfilesRequest {
        workspace: client.workspace.clone(),
        platform,
    };
    let answer = client
        .gateways
        .read(async |wire| {
            ProfilesClient::new(wire)
                .list_profiles(request.clone())
                .await
        })
        .await?;
    Ok(answer.profiles)
}

async fn list(args: ListArgs, client: &Client) -> Result<()> {
    let profiles = all(args.scope.platform, client).await?;
    client.out.show(&Many {
        profiles: profiles.into_iter().map(Into::into).collect(),
    })
}

/// The profile that counts for an id or alias.
pub(super) async fn one(id: String, client: &Client) -> Result<v1::Profile> {
    let request = v1::GetProfileRequest {
        workspace: client.workspace.clone(),
        id,
    };
    let answer = client
        .gateways
        .read(async |wire| ProfilesClient::new(wire).get_profile(request.clone()).await)
        .await?;
    answer.profile.context(EMPTY)
}

async fn export(args: ExportArgs, client: &Client) -> Result<()> {
    let mut documents = Vec::new();
    for id in args.ids {
        documents.push(one(id, client).await?.yaml);
    }
    client.out.show(&Exported {
        yaml: documents.join("---\n"),
    })
}

async fn import(args: TextArgs, client: &Client) -> Result<ExitCode> {
    let request = v1::ImportProfilesRequest {
        workspace: client.workspace.clone(),
        platform: args.scope.platform,
        texts: texts(args)?,
    };
    let answer = client
        .gateways
        .write(async |wire| {
            ProfilesClient::new(wire)
                .import_profiles(request.clone())
                .await
        })
        .await?;
    client.out.show(&Stored {
        done: answer.imported.then_some("imported"),
        profiles: answer.profiles.into_iter().map(Into::into).collect(),
        findings: answer.findings.into_iter().map(Into::into).collect(),
        position: answer.position,
    })?;
    Ok(code(answer.imported))
}

async fn lint(args: TextArgs, client: &Client) -> Result<ExitCode> {
    let request = v1::LintProfilesRequest {
        workspace: client.workspace.clone(),
        platform: args.scope.platform,
        texts: texts(args)?,
    };
    let answer = client
        .gateways
        .read(async |wire| {
            ProfilesClient::new(wire)
                .lint_profiles(request.clone())
                .await
        })
        .await?;
    client.out.show(&Findings {
        valid: answer.valid,
        findings: answer.findings.into_iter().map(Into::into).collect(),
    })?;
    Ok(code(answer.valid))
}

async fn update(args: UpdateArgs, client: &Client) -> Result<ExitCode> {
    let request = v1::UpdateProfileRequest {
        workspace: client.workspace.clone(),
        platform: args.scope.platform,
        text: Some(text(&args.file)?),
        expected_version: args.if_version,
    };
    let answer = client
        .gateways
        .write(async |wire| {
            ProfilesClient::new(wire)
                .update_profile(request.clone())
                .await
        })
        .await?;
    client.out.show(&Stored {
        done: answer.updated.then_some("updated"),
        profiles: answer.profile.into_iter().map(Into::into).collect(),
        findings: answer.findings.into_iter().map(Into::into).collect(),
        position: answer.position,
    })?;
    Ok(code(answer.updated))
}

async fn delete(args: DeleteArgs, client: &Client) -> Result<()> {
    let mut deletions = Vec::new();
    for name in args.ids {
        let request = v1::DeleteProfileRequest {
            workspace: client.workspace.clone(),
            platform: args.scope.platform,
            id: name.clone(),
        };
        let answer = client
            .gateways
            .write(async |wire| {
                ProfilesClient::new(wire)
                    .delete_profile(request.clone())
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
        kind: "profile",
        deletions,
    })
}

fn code(good: bool) -> ExitCode {
    match good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Reads what the arguments name.
fn texts(args: TextArgs) -> Result<Vec<v1::ProfileText>> {
    let mut named: Vec<PathBuf> = args.files.into_iter().chain(args.more).collect();
    if named.is_empty() {
        if std::io::stdin().is_terminal() {
            return Err(usage("name a file, or - for standard input"));
        }
        named.push(PathBuf::from("-"));
    }
    let mut files = Vec::new();
    for path in named {
        if path.is_dir() {
            files.extend(within(&path)?);
        } else {
            files.push(path);
        }
    }
    files.iter().map(|path| text(path)).collect()
}

/// The YAML files of a directory, in order.
fn within(directory: &Path) -> Result<Vec<PathBuf>> {
    let reading = || format!("reading {}", directory.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(reading)? {
        let path = entry.with_context(reading)?.path();
        if path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
            files.push(path);
        }
    }
    if files.is_empty() {
        let nothing = format!("{} holds no *.yaml or *.yml", directory.display());
        return Err(usage(nothing));
    }
    files.sort();
    Ok(files)
}

fn text(path: &Path) -> Result<v1::ProfileText> {
    if path == Path::new("-") {
        let mut yaml = String::new();
        std::io::stdin()
            .read_to_string(&mut yaml)
            .context("reading standard input")?;
        return Ok(v1::ProfileText {
            source: "(standard input)".to_owned(),
            yaml,
        });
    }
    let source = path.display().to_string();
    let yaml = std::fs::read_to_string(path).with_context(|| format!("reading {source}"))?;
    Ok(v1::ProfileText { source, yaml })
}
