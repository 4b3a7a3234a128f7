//! `chaos`: runs a cluster under faults, and says whether its promises held.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use evermint_chaos::disk::enter_namespace;
use evermint_chaos::net::Network;
use evermint_chaos::net::namespaces::Namespaces;
use evermint_chaos::net::netem::Netem;
use evermint_chaos::net::proxies::Proxies;
use evermint_chaos::report::{Summary, picture};
use evermint_chaos::settings::{SPARES, Settings};
use evermint_chaos::{campaign, check, history, run};
use evermint_cluster_tests::{Idp, say};

/// Runs a cluster of real replicas under faults that follow from a seed, and checks what was seen of
/// it from outside. Needs root and iproute2 for network namespaces; else it uses loopback.
#[derive(Debug, Parser)]
#[command(name = "chaos", version)]
struct Args {
    #[command(subcommand)]
    campaign: Option<Campaign>,
    /// How long faults are injected
    #[arg(default_value_t = 3600)]
    seconds: u64,
    /// Every choice follows from it [default: of the time]
    seed: Option<u64>,
    /// How many replicas: 3 or 5
    #[arg(default_value_t = 3, value_parser = clap::value_parser!(u16).range(3..=7))]
    replicas: u16,
    /// The program under test
    #[arg(long, value_name = "FILE", env = "EVERMINT_BIN")]
    binary: PathBuf,
    /// Where everything about the run is kept [default: a temporary one, removed if all is well]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Runs nothing: checks the history in --dir again
    #[arg(long, requires = "dir")]
    check: bool,
    /// Loopback and proxies, also where namespaces could be had
    #[arg(long)]
    proxies: bool,
    /// Only faults whose family/name contains one of these
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// A number of faults of some kinds, instead of all kinds for some time.
#[derive(Clone, Copy, Debug, clap::Subcommand)]
enum Campaign {
    /// Kill replicas at every step of a mint, at the leader's duties and at the disk; the program
    /// under test has to be `evermint-failpoints`
    Kills {
        /// How many times
        #[arg(long, default_value_t = 300)]
        count: usize,
    },
    /// Cut the power of replicas, and make their disks fail; needs root
    Power {
        /// How many times
        #[arg(long, default_value_t = 100)]
        count: usize,
    },
}

impl Campaign {
    /// As it stands on the command line.
    fn words(self) -> String {
        match self {
            Self::Kills { count } => format!(" kills --count {count}"),
            Self::Power { count } => format!(" power --count {count}"),
        }
    }
}

fn main() -> ExitCode {
    // A part of the network runs as a process of its own.
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("netem", rest)) = words.split_first().map(|(first, rest)| (&**first, rest)) {
        return netem(rest);
    }
    let args = Args::parse();
    if let (true, Some(dir)) = (args.check, &args.dir) {
        return judge(dir, &[], true);
    }
    if let Some(Campaign::Power { .. }) = args.campaign
        && let Err(why) = enter_namespace()
    {
        say(&why);
        return ExitCode::FAILURE;
    }
    let keep = args.dir.is_some();
    let campaign = args.campaign;
    let settings = settings(args);
    let dir = settings.dir.clone();
    let failed = run(settings, campaign);
    judge(&dir, &failed, keep)
}

fn netem(words: &[String]) -> ExitCode {
    match Netem::serve(words) {
        Ok(packets) => {
            say(&format!("{packets} packets"));
            ExitCode::SUCCESS
        }
        Err(why) => {
            say(&why);
            ExitCode::FAILURE
        }
    }
}

/// Brings the network up, and runs. Says what failed.
fn run(settings: Settings, campaign: Option<Campaign>) -> Vec<String> {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
    };
    let places = settings.replicas + SPARES;
    // Later there may be no network to get it from; whether it is needed shows then.
    let _ = Idp::install();
    // Threads inherit the namespace of whoever starts them: the network comes first.
    let net = if !settings.namespaces {
        None
    } else {
        let build = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let build = build.expect("a runtime");
        match build
            .block_on(Namespaces::up(places))
            .and_then(|net| net.move_in().map(|()| net))
        {
            Ok(net) => Some(net),
            Err(why) => {
                say(&format!(
                    "NOT network namespaces: {why}. Loopback and proxies take their place."
                ));
                None
            }
        }
    };
    let runtime = runtime().expect("a runtime");
    runtime.block_on(async {
        let net = match net {
            Some(net) => Network::Namespaces(net),
            None => match Proxies::up(places).await {
                Ok(net) => Network::Proxies(net),
                Err(why) => return vec![why],
            },
        };
        say(&format!(
            "seed {} · {} · {}",
            settings.seed,
            net.name(),
            settings.dir.display()
        ));
        match campaign {
            None => run::run(settings, net).await,
            Some(Campaign::Kills { count }) => run::kills(settings, net, count).await,
            Some(Campaign::Power { count }) => run::power(settings, net, count).await,
        }
    })
}

/// Checks the history in a directory, and tells what it shows. The directory goes when all is well,
/// unless it is to be kept.
fn judge(dir: &Path, failed: &[String], keep: bool) -> ExitCode {
    let history = match history::read(dir) {
        Ok(history) => history,
        Err(why) => {
            say(&format!("{}: {why}", dir.display()));
            return ExitCode::FAILURE;
        }
    };
    let violations = check::check(&history);
    let summary = Summary::of(&history);
    let text = summary.text(&violations, failed);
    say(&text);
    say(&summary.row(&violations));
    for family in ["step", "power", "storage"] {
        if let Some(table) = campaign::table(&history, family, &violations) {
            say(&table);
        }
    }
    let picture = picture::draw(&history, &summary, &violations);
    for (name, text) in [("report.txt", &text), ("timeline.html", &picture)] {
        if let Err(why) = std::fs::write(dir.join(name), text) {
            say(&format!("{name}: {why}"));
        }
    }
    let well = failed.is_empty() && violations.is_empty();
    if well && !keep {
        // What cannot be removed is left behind, and does no harm.
        let _ = std::fs::remove_dir_all(dir);
    } else {
        say(&format!("kept: {}", dir.display()));
    }
    match well {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn settings(args: Args) -> Settings {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let seed = args.seed.unwrap_or(now.as_secs());
    let dir = args.dir.unwrap_or_else(|| {
        std::env::temp_dir().join(format!("evermint-chaos-{seed}-{}", std::process::id()))
    });
    let recipe = match args.campaign {
        None => "chaos",
        Some(_) => "campaign",
    };
    let mut command = format!("just {recipe} {} {seed} {}", args.seconds, args.replicas);
    if !args.only.is_empty() {
        command += &format!(" --only '{}'", args.only.join(","));
    }
    if args.proxies {
        command += " --proxies";
    }
    if let Some(campaign) = args.campaign {
        command += &campaign.words();
    }
    Settings {
        seed,
        length: Duration::from_secs(args.seconds),
        replicas: usize::from(args.replicas),
        binary: args.binary,
        dir,
        namespaces: !args.proxies,
        only: args.only,
        command,
    }
}
