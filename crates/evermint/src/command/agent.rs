//! `evermint agent`: what runs in a sandbox, beside an AI agent.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Subcommand, ValueEnum};
use evermint_agent::{
    Agent, Cloud, Config, Error, Limits, Metadata, Signals, Unbound, conceal, run,
};
use evermint_client::{Client, Renewals};

use crate::cli::ClientArgs;
use crate::duration::Time;
use crate::exit::{advised, usage};
use crate::memory;
use crate::serve::{Stop, log_to_stderr};
use crate::settings::LogFormat;

const SERVE: &str = "\
Takes calls as OpenAI, Anthropic and Google have them, takes out whatever credentials they bear,
puts in the live token of a route, and streams both ways. Plain and TLS share one port; a proxy for
HTTP and CONNECT, too. The route is named by the header `x-evermint-route: NAME` or by a path that
begins with `/route/NAME/`; without either, the first one that speaks the call's protocol takes it,
inference.local before all others.

Examples:
  evermint agent serve --sandbox agent-1
  curl http://127.0.0.1:7480/v1/chat/completions -d '{\"messages\": [...]}'
  curl http://127.0.0.1:7481/readyz
  evermint agent serve --sandbox agent-1 --sandbox-token-file token --keep-sandbox-token

SIGTERM or SIGINT stops it when the calls under way have ended; a second one stops it at once.";

const RUN: &str = "\
Starts an agent on ports of its own, waits until it has the sandbox's bundle (--ready-timeout), and
starts COMMAND with placeholders in place of secrets and with the settings that send it through the
agent: proxies, authorities to trust, base URLs of SDKs. TERM, HUP, USR1 and USR2 are passed on, and
so are INT, QUIT and WINCH unless a terminal gives them to COMMAND itself. Ends with the exit status
of COMMAND, or with 128 and the number of the signal that ended it; 1 if it could not be started.

Examples:
  evermint agent run --sandbox agent-1 -- python3 agent.py
  evermint agent run --sandbox agent-1 --metadata google -- gcloud storage ls";

/// The variable that may hold the sandbox's own token. It is no option: those show in `ps`.
const TOKEN: &str = "EVERMINT_SANDBOX_TOKEN";
/// How long what a command has left behind may go on calling.
const LEFT_BEHIND: Duration = Duration::from_secs(1);

/// Commands about the agent.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run an agent until it is stopped.
    #[command(after_help = SERVE)]
    #[allow(missing_docs, reason = "documented as flags")]
    Serve {
        /// Where calls and proxy requests are listened for.
        #[arg(
            long,
            env = "EVERMINT_AGENT_LISTEN",
            default_value = "127.0.0.1:7480",
            value_name = "IP:PORT"
        )]
        listen: SocketAddr,
        /// Where health, and the metrics and metadata endpoints that are asked for, are listened for,
        /// on loopback.
        #[arg(
            long,
            env = "EVERMINT_AGENT_LOCAL_LISTEN",
            default_value = "127.0.0.1:7481",
            value_name = "IP:PORT"
        )]
        local_listen: SocketAddr,
        /// Listen for calls beyond loopback, with TLS only. Whoever reaches the address spends the
        /// sandbox's tokens.
        #[arg(long)]
        insecure_network: bool,
        /// Time that calls under way have to end when the agent is stopped.
        #[arg(
            long,
            env = "EVERMINT_AGENT_SHUTDOWN_GRACE",
            default_value = "30s",
            value_name = "TIME"
        )]
        shutdown_grace: Time,
        #[command(flatten)]
        args: Args,
    },
    /// Run a command under an agent of its own.
    #[command(after_help = RUN)]
    #[allow(missing_docs, reason = "documented as flags")]
    Run {
        /// How long to wait for the sandbox's bundle before COMMAND is started.
        #[arg(
            long,
            env = "EVERMINT_AGENT_READY_TIMEOUT",
            default_value = "30s",
            value_name = "TIME"
        )]
        ready_timeout: Time,
        #[command(flatten)]
        args: Args,
        /// The command and its arguments.
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
}

/// What both have in common.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The sandbox's id, or its name in the workspace.
    #[arg(long, env = "EVERMINT_SANDBOX", value_name = "NAME")]
    sandbox: String,
    /// File with the sandbox's own token, as `evermint sandbox token --out` writes it.
    ///
    /// The agent renews the token as long as it runs, and keeps the new ones in memory: FILE is only
    /// read, at the start and again when the cluster refuses the token. A start after the end of
    /// FILE's token needs another one there. In place of a file, the variable EVERMINT_SANDBOX_TOKEN
    /// may hold the token; it is renewed in the same way, and nothing is on disk.
    #[arg(long, env = "EVERMINT_SANDBOX_TOKEN_FILE", value_name = "FILE")]
    sandbox_token_file: Option<PathBuf>,
    /// Put each new token into that file, so that a later start goes on from it.
    ///
    /// It is replaced as a whole, and is its owner's alone; its directory has to be writable. The
    /// token of before stays good until its end, so that nothing is lost by a process that dies
    /// before it has written the next one.
    #[arg(long, requires = "sandbox_token_file")]
    keep_sandbox_token: bool,
    /// Directory of the agent's own authority: what runs in the sandbox is to trust it.
    #[arg(
        long,
        env = "EVERMINT_AGENT_STATE_DIR",
        default_value = "evermint-agent",
        value_name = "DIR"
    )]
    state_dir: PathBuf,
    /// What is done with proxy requests to endpoints that no credential is bound to.
    #[arg(
        long,
        env = "EVERMINT_AGENT_UNBOUND",
        value_enum,
        default_value = "pass",
        value_name = "WHAT"
    )]
    unbound: UnboundArg,
    /// Serve live credentials as a cloud's SDKs look for them: google, aws or azure, and the attached
    /// provider to take if several fit. May be given several times.
    #[arg(
        long,
        env = "EVERMINT_AGENT_METADATA",
        value_delimiter = ',',
        value_name = "CLOUD[=PROVIDER]"
    )]
    metadata: Vec<MetadataArg>,
    /// Serve metrics for Prometheus at /metrics, where health is: of the agent, and of its dealings
    /// with the cluster.
    #[arg(long)]
    metrics: bool,
    /// Certificate authorities of upstreams in PEM, besides those that the system trusts.
    #[arg(long, env = "EVERMINT_AGENT_UPSTREAM_CA", value_name = "FILE")]
    upstream_ca: Option<PathBuf>,
    /// How long connecting to an upstream may take.
    #[arg(
        long,
        env = "EVERMINT_AGENT_CONNECT_TIMEOUT",
        default_value = "10s",
        value_name = "TIME"
    )]
    connect_timeout: Time,
    /// How long an upstream's answer may fall silent.
    #[arg(
        long,
        env = "EVERMINT_AGENT_IDLE_TIMEOUT",
        default_value = "2m",
        value_name = "TIME"
    )]
    idle_timeout: Time,
    /// How long a call may take in all, where its route does not say.
    #[arg(
        long,
        env = "EVERMINT_AGENT_CALL_TIMEOUT",
        default_value = "10m",
        value_name = "TIME"
    )]
    call_timeout: Time,
    /// Out of touch with the cluster for longer, no token is used: it may have been revoked.
    #[arg(
        long,
        env = "EVERMINT_AGENT_MAX_STALENESS",
        default_value = "5m",
        value_name = "TIME"
    )]
    max_staleness: Time,
    /// How log lines are written.
    #[arg(
        long,
        env = "EVERMINT_AGENT_LOG_FORMAT",
        value_enum,
        default_value = "text"
    )]
    log_format: LogFormat,
    /// Which log lines are written; `info` for `serve` and `warn` for `run` if not given.
    #[arg(long, env = "EVERMINT_AGENT_LOG_FILTER", value_name = "FILTER")]
    log_filter: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum UnboundArg {
    /// They go on as they are.
    Pass,
    /// They are refused.
    Refuse,
}

/// `CLOUD` or `CLOUD=PROVIDER`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MetadataArg(Metadata);

impl FromStr for MetadataArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (cloud, provider) = match text.split_once('=') {
            Some((cloud, provider)) => (cloud, Some(provider.to_owned())),
            None => (text, None),
        };
        let cloud = match cloud {
            "google" => Cloud::Google,
            "aws" => Cloud::Aws,
            "azure" => Cloud::Azure,
            _ => return Err("must begin with google, aws or azure".to_owned()),
        };
        if provider.as_ref().is_some_and(String::is_empty) {
            return Err("must name a provider behind the =".to_owned());
        }
        Ok(Self(Metadata { cloud, provider }))
    }
}

impl Command {
    /// Runs an agent, or a command under one, to its end.
    ///
    /// # Errors
    /// What it cannot be started for.
    pub async fn run(self, client: &ClientArgs) -> Result<ExitCode> {
        memory::conceal()?;
        match self {
            Self::Serve {
                listen,
                local_listen,
                insecure_network,
                shutdown_grace,
                args,
            } => {
                let listening = Config {
                    listen,
                    local_listen,
                    network: insecure_network,
                    ..Config::default()
                };
                args.serve(client, listening, shutdown_grace).await
            }
            Self::Run {
                ready_timeout,
                args,
                command,
            } => {
                let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
                let listening = Config {
                    listen: any,
                    local_listen: any,
                    ..Config::default()
                };
                args.run(client, listening, ready_timeout, &command).await
            }
        }
    }
}

impl Args {
    async fn serve(self, client: &ClientArgs, listening: Config, grace: Time) -> Result<ExitCode> {
        log_to_stderr(
            self.log_format,
            self.log_filter.as_deref().unwrap_or("info"),
        )?;
        let mut stop = Stop::new()?;
        let agent = self.start(client, listening).await?;
        tracing::info!(
            calls = %agent.address(),
            local = %agent.local_address(),
            authority = %agent.certificate_file().display(),
            bundle = %agent.bundle_file().display(),
            "agent started: let SSL_CERT_FILE be the bundle to trust it"
        );
        let signal = stop.wait().await;
        tracing::info!(signal, %grace, "stopping; a second signal stops at once");
        tokio::select! {
            drained = agent.shutdown(grace.get()) => {
                if !drained {
                    tracing::warn!("calls under way were cut off");
                }
                Ok(ExitCode::SUCCESS)
            }
            signal = stop.wait() => {
                tracing::warn!(signal, "stopped at once");
                Ok(ExitCode::FAILURE)
            }
        }
    }

    async fn run(
        self,
        client: &ClientArgs,
        listening: Config,
        ready_timeout: Time,
        command: &[String],
    ) -> Result<ExitCode> {
        log_to_stderr(
            self.log_format,
            self.log_filter.as_deref().unwrap_or("warn"),
        )?;
        let mut signals = Signals::listen().context("cannot listen for signals")?;
        let agent = self.start(client, listening).await?;
        let ready = tokio::select! {
            ready = agent.ready(ready_timeout.get()) => ready,
            status = signals.ended() => return Ok(code(status)),
        };
        ready.map_err(explained)?;
        let variables = agent.environment().map_err(explained)?;
        let status = run(command, &variables, &mut signals)
            .await
            .map_err(explained)?;
        // What the command has left behind may still be calling.
        agent.shutdown(LEFT_BEHIND).await;
        Ok(code(status))
    }

    async fn start(&self, client: &ClientArgs, listening: Config) -> Result<Agent> {
        conceal();
        let authorities = self.upstream_ca.as_deref().map(|path| {
            fs::read(path)
                .map_err(|error| usage(format!("cannot read {}: {error}", path.display())))
        });
        let config = Config {
            state_dir: self.state_dir.clone(),
            unbound: match self.unbound {
                UnboundArg::Pass => Unbound::Pass,
                UnboundArg::Refuse => Unbound::Refuse,
            },
            metadata: self.metadata.iter().map(|m| m.0.clone()).collect(),
            metrics: self.metrics,
            authorities: authorities.transpose()?.unwrap_or_default(),
            limits: Limits {
                connect: self.connect_timeout.get(),
                idle: self.idle_timeout.get(),
                call: self.call_timeout.get(),
                ..Limits::default()
            },
            ..listening
        };
        let client = self.client(client)?;
        Agent::start(config, client).await.map_err(explained)
    }

    fn client(&self, args: &ClientArgs) -> Result<Client> {
        let access = args.access();
        let mut builder = Client::builder()
            .endpoints(access.urls)
            .sandbox(&self.sandbox)
            .workspace(args.workspace())
            .max_staleness(self.max_staleness.get());
        builder = match (&self.sandbox_token_file, std::env::var(TOKEN)) {
            (Some(_), Ok(_)) => {
                let problem = format!("give --sandbox-token-file or {TOKEN}, not both");
                return Err(usage(problem));
            }
            (Some(path), Err(_)) if self.keep_sandbox_token => {
                builder.sandbox_token_file(path, Renewals::InFile)
            }
            (Some(path), Err(_)) => builder.sandbox_token_file(path, Renewals::InMemory),
            (None, Ok(token)) => builder.sandbox_token(token.trim()),
            (None, Err(_)) => builder,
        };
        if let Some(path) = &access.tls_ca {
            let pem = fs::read(path);
            let pem =
                pem.map_err(|error| usage(format!("cannot read {}: {error}", path.display())))?;
            builder = builder.ca_certificate(pem);
        }
        builder.build().map_err(|error| usage(error.to_string()))
    }
}

/// What a person does about it.
fn explained(error: Error) -> anyhow::Error {
    match &error {
        Error::Setting { .. } => usage(error.to_string()),
        Error::Listen { .. } => {
            advised(error.to_string(), "give another address, or port 0 for any")
        }
        Error::State { .. } => advised(
            error.to_string(),
            "give another directory with --state-dir, or remove the damaged file",
        ),
        Error::NotReady { .. } => advised(
            error.to_string(),
            "look whether --gateway leads to the cluster, the sandbox is registered (`evermint sandbox create`), and its token is good (`evermint sandbox token`)",
        ),
        Error::Command { .. } => advised(error.to_string(), "look whether it is in the PATH"),
    }
}

fn code(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cloud_may_name_its_provider() {
        for (text, expected) in [
            ("google", Some((Cloud::Google, None))),
            ("aws=prod", Some((Cloud::Aws, Some("prod")))),
            ("azure=", None),
            ("ibm", None),
            ("", None),
        ] {
            let found = text
                .parse::<MetadataArg>()
                .ok()
                .map(|m| (m.0.cloud, m.0.provider));
            let expected = expected.map(|(cloud, p)| (cloud, p.map(str::to_owned)));
            assert_eq!(found, expected, "{text}");
        }
    }
}
