//! `evermint serve`: one replica, until it is told to stop.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::exit::usage;
use crate::memory;
use crate::settings::{Layer, LogFormat, Settings};
use crate::wire::Replica;

const EXAMPLES: &str = "\
Every setting can be given in a TOML file (--config), in the environment, and as a flag; a flag
wins over the environment, that over the file. --api-listen is `listen` under [api] in the file.

Examples:
  evermint keygen --out kek
  evermint serve --init --kek-file kek --insecure-loopback
      One replica on loopback that founds a cluster, in plain text.
  evermint serve --kek-file kek --insecure-loopback --data-dir b --api-listen 127.0.0.1:7453 \\
      --peer-listen 127.0.0.1:7454 --peers 127.0.0.1:7444
      A second one that joins it.
  evermint serve --config /etc/evermint/evermint.toml

SIGTERM or SIGINT stops it in good order; a second one stops it at once.";

/// Arguments of `serve`.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// TOML file with settings.
    #[arg(long, env = "EVERMINT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    layer: Layer,
}

impl Args {
    /// The settings that the arguments, the environment and the file give.
    ///
    /// # Errors
    /// A usage error for a file that cannot be read or understood.
    pub fn settings(self) -> Result<Settings> {
        Settings::load(self.layer, self.config.as_deref())
    }
}

/// Runs a replica until SIGTERM or SIGINT.
///
/// # Errors
/// What it cannot be started for, or what it failed of.
pub async fn run(args: Args) -> Result<ExitCode> {
    let settings = args.settings()?;
    log_to_stderr(settings.log_format, &settings.log_filter)?;
    #[cfg(feature = "failpoints")]
    tracing::warn!("{}", evermint_failpoint::MARK);
    let mut stop = Stop::new()?;
    settings.check()?;
    if settings.memory_core_dumps {
        tracing::warn!(
            "INSECURE: core dumps are allowed: they hold every secret that is in memory"
        );
    } else {
        memory::no_core_dumps()?;
    }
    if settings.memory_lock {
        memory::lock()?;
    }
    for exposure in settings.exposures() {
        tracing::warn!("INSECURE: {exposure}: whoever reaches it can read every secret");
    }
    for stand_in in &settings.issuers_stand_ins {
        tracing::warn!(%stand_in, "FOR TESTS: an issuer has a stand-in on this host");
    }
    let grace = settings.shutdown_grace;
    let data_dir = settings.data_dir.display().to_string();
    let starting = Box::pin(Replica::start(settings));
    let mut replica = tokio::select! {
        started = starting => started?,
        signal = stop.wait() => return Err(anyhow!("stopped by {signal} while it was starting")),
    };
    let (id, session) = evermint_core::port::StateView::identity(&replica.node);
    tracing::info!(
        replica = id.0,
        session = %session,
        api = %replica.api_addr,
        peer = %replica.peer_addr,
        data_dir,
        version = env!("CARGO_PKG_VERSION"),
        "replica started"
    );
    let failure = tokio::select! {
        failure = replica.failed() => Some(failure),
        signal = stop.wait() => {
            tracing::info!(signal, %grace, "stopping; a second signal stops at once");
            None
        }
    };
    let drained = tokio::select! {
        drained = replica.shutdown() => drained,
        signal = stop.wait() => {
            tracing::warn!(signal, "stopped at once");
            return Ok(ExitCode::FAILURE);
        }
    };
    match failure {
        Some(failure) => Err(failure),
        None if drained => {
            tracing::info!("replica stopped");
            Ok(ExitCode::SUCCESS)
        }
        None => {
            tracing::warn!(
                "replica stopped with mints in flight; it settles them when it starts again"
            );
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Sends log lines to standard error.
///
/// # Errors
/// A usage error for a filter that cannot be read.
pub fn log_to_stderr(format: LogFormat, filter: &str) -> Result<()> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| usage(format!("log_filter {filter:?}: {error}")))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let set = match format {
        LogFormat::Text => {
            let color = std::io::IsTerminal::is_terminal(&std::io::stderr())
                && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
            lines.with_ansi(color).try_init()
        }
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    set.map_err(|error| anyhow!("cannot set up logging: {error}"))
}

/// The signals that stop a process.
pub struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// Listens for them from now on.
    ///
    /// # Errors
    /// When the system does not let it.
    pub fn new() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one and names it.
    pub async fn wait(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
