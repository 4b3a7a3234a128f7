//! The command line: what can be asked, and who answers.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::command::{
    agent, audit, cluster, completions, health, inference, keygen, keys, man, provider, sandbox,
};
use crate::dev;
use crate::duration::Time;
use crate::exit;
use crate::gateways::{Access, Gateways};
use crate::out::{self, Format, Out};
use crate::{serve, settings};

const EXAMPLES: &str = "\
Examples:
  evermint dev
      Three replicas with a test issuer on this machine, refreshing.
  evermint provider create vertex --type google-vertex-ai --config region=europe-west4
  evermint provider refresh configure vertex --credential-key VERTEX_AI_TOKEN \\
      --from-service-account key.json --wait
  evermint provider refresh status
  evermint sandbox create agent-1 --provider vertex
  evermint sandbox bundle agent-1

Exit codes: 0 done, 1 failed, 2 asked wrongly, 3 no outcome yet (--wait).\nNO_COLOR switches colours off.";

/// Keeps short-lived provider credentials fresh: a cluster of replicas mints every token before
/// it expires, exactly one replica each, and any replica serves it.
#[derive(Debug, Parser)]
#[command(name = "evermint", version, propagate_version = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: Command,
}

/// How commands reach the cluster, and how they answer.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Client options")]
pub struct ClientArgs {
    /// Gateways, separated by commas; the next one is asked when one is out of reach.
    #[arg(
        long,
        global = true,
        env = "EVERMINT_GATEWAY",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7443",
        value_name = "URL,…"
    )]
    gateway: Vec<String>,
    /// The scope of names.
    #[arg(
        long,
        global = true,
        env = "EVERMINT_WORKSPACE",
        default_value = "default",
        value_name = "NAME"
    )]
    workspace: String,
    /// How answers are written.
    #[arg(
        short,
        long,
        global = true,
        env = "EVERMINT_OUTPUT",
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    output: Format,
    /// File with the admin token, or one of an OpenID provider: what operators show to gateways. It is
    /// read for each call. `serve` checks admin tokens by it.
    #[arg(
        long,
        global = true,
        env = "EVERMINT_ADMIN_TOKEN_FILE",
        value_name = "FILE"
    )]
    admin_token_file: Option<PathBuf>,
    /// Certificate authority of the gateways in PEM; the system's own if not given.
    #[arg(long, global = true, env = "EVERMINT_TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Certificate in PEM by which gateways know an operator, where they ask for one.
    #[arg(
        long,
        global = true,
        env = "EVERMINT_CLIENT_CERT",
        requires = "client_key",
        value_name = "FILE"
    )]
    client_cert: Option<PathBuf>,
    /// Its private key in PEM.
    #[arg(
        long,
        global = true,
        env = "EVERMINT_CLIENT_KEY",
        requires = "client_cert",
        value_name = "FILE"
    )]
    client_key: Option<PathBuf>,
    /// Time for one call.
    #[arg(
        long,
        global = true,
        env = "EVERMINT_DEADLINE",
        default_value = "30s",
        value_name = "TIME"
    )]
    deadline: Time,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one replica.
    Serve(Box<serve::Args>),
    /// Run three replicas with a test issuer on this machine, and watch them refresh.
    Dev(dev::Args),
    /// Register providers, and put their credentials under a refresh.
    #[command(subcommand)]
    Provider(Box<provider::Command>),
    /// Say which model a sandbox's calls go to, and with whose credential.
    #[command(subcommand)]
    Inference(inference::Command),
    /// Register sandboxes, attach providers, read their bundles.
    #[command(subcommand)]
    Sandbox(sandbox::Command),
    /// Run beside an AI agent: its calls get live tokens that it never sees.
    #[command(subcommand)]
    Agent(Box<agent::Command>),
    /// Show the cluster, take a replica out.
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Show the keys under which secrets rest, and rotate them.
    #[command(subcommand)]
    Keys(keys::Command),
    /// Read the audit trail: every mint, every change, refused calls.
    Audit(audit::Args),
    /// Ask whether a gateway is healthy; for probes.
    Health(health::Args),
    /// Make a key-encryption key for a cluster.
    Keygen(keygen::Args),
    /// Write a completion script for a shell.
    Completions(completions::Args),
    /// Write manual pages.
    Man(man::Args),
}

/// What every client command works with.
pub struct Client {
    /// Who answers.
    pub gateways: Gateways,
    /// The scope of names.
    pub workspace: String,
    /// Where answers go.
    pub out: Out,
}

impl ClientArgs {
    /// The access that the options describe.
    pub fn access(&self) -> Access {
        Access {
            urls: self.gateway.clone(),
            admin_token_file: self.admin_token_file.clone(),
            tls_ca: self.tls_ca.clone(),
            client_certificate: self.client_cert.clone().zip(self.client_key.clone()),
            timeout: self.deadline.get(),
        }
    }

    /// The scope of names.
    pub fn workspace(&self) -> &str {
        &self.workspace
    }

    fn client(&self) -> Result<Client> {
        Ok(Client {
            gateways: Gateways::new(&self.access())?,
            workspace: self.workspace.clone(),
            out: Out::new(self.output),
        })
    }
}

/// The whole command line, with every setting's default in its help.
pub fn command() -> clap::Command {
    Cli::command().mut_subcommand("serve", |serve| serve.mut_args(settings::describe))
}

/// What stands for a value that an error does not repeat.
const HIDDEN: &str = "…";

/// Parses a command line.
///
/// # Errors
/// What clap says of it; also `--help` and `--version`. A value that may be a secret is not
/// repeated.
pub fn parse<I, T>(args: I) -> Result<Cli, clap::Error>
where
    I: IntoIterator<Item = T>,
    T: Into<std::ffi::OsString> + Clone,
{
    let matches = command().try_get_matches_from(args).map_err(hide)?;
    Cli::from_arg_matches(&matches)
}

/// Takes the value out of an error about an option that takes `KEY=…`: it may be a secret that
/// stands in the wrong place.
fn hide(mut error: clap::Error) -> clap::Error {
    let takes_key = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(arg)) => arg.contains("KEY"),
        _ => false,
    };
    if takes_key && error.kind() == ErrorKind::ValueValidation {
        let hidden = ContextValue::String(HIDDEN.to_owned());
        error.insert(ContextKind::InvalidValue, hidden);
    }
    error
}

/// The whole program.
pub fn main() -> ExitCode {
    let cli = match parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            out::note(&format!("error: {error:#}"));
            if let Some(advice) = exit::advice(&error) {
                out::note(&format!("  try: {advice}"));
            }
            exit::code(&error)
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let done = runtime.block_on(Box::pin(dispatch(cli)));
    // What still runs here (a read of standard input) is not worth waiting for.
    runtime.shutdown_background();
    done
}

async fn dispatch(cli: Cli) -> Result<ExitCode> {
    let Cli { client, command } = cli;
    match command {
        Command::Serve(args) => return Box::pin(serve::run(*args)).await,
        Command::Dev(args) => return Box::pin(dev::run(args)).await,
        Command::Provider(command) => return Box::pin(command.run(&client.client()?)).await,
        Command::Inference(command) => command.run(&client.client()?).await?,
        Command::Sandbox(command) => command.run(&client.client()?).await?,
        Command::Agent(command) => return Box::pin(command.run(&client)).await,
        Command::Cluster(command) => command.run(&client.client()?).await?,
        Command::Keys(command) => command.run(&client.client()?).await?,
        Command::Audit(args) if args.is_offline() => args.run_offline(Out::new(client.output))?,
        Command::Audit(args) => args.run(&client.client()?).await?,
        Command::Health(args) => args.run(&client.access()).await?,
        Command::Keygen(args) => args.run()?,
        Command::Completions(args) => args.run()?,
        Command::Man(args) => args.run()?,
    }
    Ok(ExitCode::SUCCESS)
}
