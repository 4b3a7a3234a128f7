//! `evermint dev`: a whole cluster on loopback with a test issuer, to look at and to break.

mod cluster;
mod demo;
mod keys;
mod tally;
mod view;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use evermint_core::port::StateView as _;
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;

use crate::duration::Time;
use crate::exit::usage;
use crate::out::{self, note};
use crate::page::{Page, Style, wall_ms};
use crate::serve::Stop;
use crate::settings::LOG_FILTER;
use cluster::Cluster;
use demo::Demo;
use keys::{Keyboard, Press};
use tally::{Base, Tally};
use view::Snapshot;

/// How often the cluster is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long a killed replica stays away.
const AWAY: Duration = Duration::from_secs(4);
/// How long `--once` takes at most, unless `--for` says otherwise.
const ONCE_MAX: Time = Time::secs(90);
/// Refreshes of each credential that `--once` waits for.
const REFRESHES: u64 = 2;
/// How long mints that have begun may take to be committed, before they are counted.
const SETTLE: Duration = Duration::from_secs(15);

const EXAMPLES: &str = "\
Examples:
  evermint dev
      A live view; press k to kill the leader, q to quit.
  evermint dev --kill-leader-every 20s --token-ttl 20s
  evermint dev --once
      Ends when everything was refreshed twice; exit code 0 if by one mint each.
  evermint dev --data ./dev-data
      Keeps the replicas' stores; the same ports again next time.";

/// Arguments of `dev`.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Keep the replicas' data in this directory; a temporary one if not given.
    #[arg(long, env = "EVERMINT_DEV_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// First of six ports: APIs at N, N+10 and N+20, peers one above each. Free ports if not
    /// given; 7443 with --data.
    #[arg(long, env = "EVERMINT_DEV_PORT_BASE", value_name = "N")]
    port_base: Option<u16>,
    /// Lifetime of the test issuer's tokens, 4s at least.
    #[arg(
        long,
        env = "EVERMINT_DEV_TOKEN_TTL",
        value_name = "TIME",
        default_value = "12s"
    )]
    token_ttl: Time,
    /// Kill the leader again and again, and start it again after four seconds.
    #[arg(long, env = "EVERMINT_DEV_KILL_LEADER_EVERY", value_name = "TIME")]
    kill_leader_every: Option<Time>,
    /// Stop after so long, with a summary.
    #[arg(long = "for", env = "EVERMINT_DEV_FOR", value_name = "TIME")]
    duration: Option<Time>,
    /// Stop, with a summary, as soon as every credential was refreshed twice.
    #[arg(long, env = "EVERMINT_DEV_ONCE")]
    once: bool,
    /// What is logged, to dev.log in the data directory.
    #[arg(
        long,
        env = "EVERMINT_DEV_LOG_FILTER",
        value_name = "FILTER",
        default_value = LOG_FILTER
    )]
    log_filter: String,
}

/// Where the cluster keeps its data while it runs.
enum Home {
    Kept(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Home {
    fn new(kept: Option<PathBuf>) -> Result<Self> {
        match kept {
            Some(dir) => {
                std::fs::create_dir_all(&dir)
                    .with_context(|| format!("cannot create {}", dir.display()))?;
                Ok(Self::Kept(dir))
            }
            None => tempfile::Builder::new()
                .prefix("evermint-dev-")
                .tempdir()
                .map(Self::Temporary)
                .context("cannot create a temporary directory"),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(dir) => dir,
            Self::Temporary(dir) => dir.path(),
        }
    }
}

/// Runs the cluster until a key, a signal or the end of its time.
///
/// # Errors
/// What it could not be started for.
pub async fn run(args: Args) -> Result<ExitCode> {
    if args.token_ttl < Time::secs(4) {
        return Err(usage("--token-ttl must be 4s at least"));
    }
    let home = Home::new(args.data.clone())?;
    log_to_file(&home.path().join("dev.log"), &args.log_filter)?;
    let mut stop = Stop::new()?;
    let port_base = args.port_base.or(args.data.is_some().then_some(7443));
    note("starting three replicas and a test issuer …");
    let starting = async {
        let cluster = Cluster::start(home.path(), port_base).await?;
        let kept = cluster.any().map(|replica| replica.node.state());
        let base = Base::of(kept.as_deref());
        let demo = Demo::start(&cluster.urls(), args.token_ttl.get()).await?;
        anyhow::Ok((cluster, demo, base))
    };
    let (cluster, demo, base) = tokio::select! {
        started = Box::pin(starting) => started?,
        signal = stop.wait() => return Err(anyhow!("stopped by {signal} while starting")),
    };
    let mut show = Show::new(cluster, demo, base, home.path());
    let verdict = Box::pin(show.run(&args, &mut stop)).await;
    let Show { cluster, demo, .. } = show;
    note("stopping …");
    tokio::select! {
        () = cluster.shutdown() => {}
        _ = stop.wait() => {}
    }
    demo.shutdown().await;
    verdict
}

/// The running demonstration.
struct Show {
    cluster: Cluster,
    demo: Demo,
    base: Base,
    head: String,
    snapshot: Snapshot,
    started: Instant,
    kills: u32,
    screen: bool,
}

impl Show {
    fn new(cluster: Cluster, demo: Demo, base: Base, home: &Path) -> Self {
        let urls = cluster.urls().join(",");
        let style = Style::of_stdout();
        let head = format!(
            "Three replicas and a test issuer ({}) run here; data and dev.log in {}.\n\
             Try in another terminal:\n  \
               alias evermint={}\n  \
               export EVERMINT_GATEWAY={urls}\n  \
               evermint provider refresh status\n  \
               evermint sandbox bundle {} --reveal\n  \
               evermint sandbox watch {}\n  \
               evermint provider rotate {} --wait\n  \
               evermint cluster status; evermint audit\n",
            demo.issuer_url(),
            home.display(),
            program(),
            demo::SANDBOX,
            demo::SANDBOX,
            demo::USER.provider,
        );
        Self {
            snapshot: Snapshot::default(),
            cluster,
            demo,
            base,
            head,
            started: Instant::now(),
            kills: 0,
            screen: style.width.is_some(),
        }
    }

    async fn run(&mut self, args: &Args, stop: &mut Stop) -> Result<ExitCode> {
        let end = args
            .duration
            .or(args.once.then_some(ONCE_MAX))
            .map(|time| self.started + time.get());
        let (keyboard, mut pressed) = match self.screen {
            true => Keyboard::listen(),
            false => (None, mpsc::channel(1).1),
        };
        let mut kill_at = args
            .kill_leader_every
            .map(|every| self.started + every.get());
        // On a screen, the head is drawn anew with everything else.
        out::write(if self.screen { "\x1b[2J" } else { &self.head })?;
        let mut looks = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                press = pressed.recv(), if keyboard.is_some() => match press {
                    Some(Press::Kill) => self.kill_leader().await,
                    Some(Press::Quit) | None => break,
                },
                _ = stop.wait() => break,
            }
            let now = Instant::now();
            if let (Some(at), Some(every)) = (kill_at, args.kill_leader_every)
                && at <= now
            {
                self.kill_leader().await;
                kill_at = Some(now + every.get());
            }
            self.cluster.revive(AWAY).await?;
            self.look()?;
            let done = args.once && self.tally().refreshed(REFRESHES);
            if done || end.is_some_and(|end| end <= now) {
                break;
            }
        }
        drop(keyboard);
        if end.is_none() {
            return Ok(ExitCode::SUCCESS);
        }
        self.judge().await
    }

    async fn kill_leader(&mut self) {
        if let Some(killed) = self.cluster.kill_leader().await {
            self.kills += 1;
            self.tell(&format!("replica {killed} killed: it led"));
        }
    }

    fn tell(&self, line: &str) {
        if !self.screen {
            let at = self.started.elapsed().as_secs_f64();
            // The reader of the lines may be gone; the demonstration goes on.
            let _ = out::write(&format!("{at:7.1}s  {line}\n"));
        }
    }

    /// Looks at the cluster and shows what is new.
    fn look(&mut self) -> Result<()> {
        let now = Snapshot::take(&self.cluster);
        let before = std::mem::replace(&mut self.snapshot, now);
        if self.screen {
            let mut page = Page::new(Style::of_stdout(), wall_ms());
            self.snapshot.render(&mut page);
            let keys = format!(
                "\nk kills the leader ({} killed so far), q quits\n",
                self.kills
            );
            let text = format!("{}\n{}{keys}", self.head, page.text());
            // Each line is overwritten in place, so that nothing flickers.
            return out::write(&format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")));
        }
        for line in self.snapshot.since(&before) {
            self.tell(&line);
        }
        Ok(())
    }

    /// What cluster and issuer say of the mints so far.
    fn tally(&self) -> Tally {
        let state = self.cluster.any().map(|replica| replica.node.state());
        Tally::new(&self.demo, state.as_deref(), &self.base, self.kills)
    }

    /// Waits until what has begun is committed, and compares cluster and issuer.
    async fn judge(&mut self) -> Result<ExitCode> {
        self.cluster.revive(Duration::ZERO).await?;
        let deadline = Instant::now() + SETTLE;
        let mut tally = self.tally();
        while !tally.settled() && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
            tally = self.tally();
        }
        let mut page = Page::new(Style::of_stdout(), wall_ms());
        page.line("");
        tally.render(&mut page);
        out::write(page.text())?;
        Ok(match tally.faults(REFRESHES).is_empty() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }
}

/// How this program is started.
fn program() -> String {
    let path = std::env::current_exe();
    path.map_or_else(|_| "evermint".to_owned(), |path| path.display().to_string())
}

fn log_to_file(path: &Path, filter: &str) -> Result<()> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| usage(format!("--log-filter {filter:?}: {error}")))?;
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(Mutex::new(file))
        .try_init()
        .map_err(|error| anyhow!("cannot set up logging: {error}"))
}
