//! What the replicas are told: quick times, so that a test sees in seconds what takes minutes in
//! production. The proportions stay.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::cluster::Replica;

/// What a test may choose.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many replicas.
    pub replicas: usize,
    /// How many of them are not started yet.
    pub later: usize,
    /// How long a mint ticket is valid; a fifth of it is the margin.
    pub ticket_ttl: Duration,
    /// How long a doubt waits at least.
    pub doubt_wait: Duration,
    /// How long a replica that is cut off serves reads.
    pub max_staleness: Duration,
    /// A snapshot is taken after so many log entries, and a tenth of it is kept behind it.
    pub snapshot_after: u64,
    /// Replicas know each other by certificates that the cluster signs itself, for so long, and join
    /// by tokens; `None` leaves them in plain text.
    pub certificates: Option<Duration>,
    /// What replicas say to each other is written down.
    pub tapped: bool,
    /// What is logged.
    pub log: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            replicas: 3,
            later: 0,
            ticket_ttl: Duration::from_secs(3),
            doubt_wait: Duration::from_secs(1),
            max_staleness: Duration::from_secs(60),
            snapshot_after: 500,
            certificates: None,
            tapped: false,
            log: "info,evermint_actors=debug,evermint_replica=debug",
        }
    }
}

/// The shared key-encryption key.
pub(crate) fn kek(dir: &Path) -> PathBuf {
    dir.join("kek")
}

/// Makes it, as an operator does.
pub(crate) fn write_kek(dir: &Path, binary: &Path) {
    let made = Command::new(binary)
        .args(["keygen", "--out"])
        .arg(kek(dir))
        .output()
        .unwrap_or_else(|e| panic!("{}: {e}", binary.display()));
    assert!(made.status.success(), "evermint keygen: {made:?}");
}

/// Where a replica keeps its mint journal.
pub(crate) fn journal(data_dir: &Path) -> PathBuf {
    data_dir.join("journal")
}

/// How a replica is started.
pub(crate) fn serve(command: &mut Command, config: &Path) {
    command.arg("serve").arg("--config").arg(config);
    // Settings of whoever runs the tests are none of the replica's.
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"EVERMINT_") {
            command.env_remove(name);
        }
    }
}

/// Puts other key-encryption keys into a configuration file.
pub(crate) fn rekey(config: &Path, kek: &Path, former: Option<&Path>) {
    let text = std::fs::read_to_string(config).expect("a configuration");
    let (before, after) = text.split_once("[kek]\n").expect("keys");
    let (_, after) = after.split_once("\n\n").expect("another section");
    let mut keys = format!("file = \"{}\"", kek.display());
    if let Some(former) = former {
        keys.push_str(&format!("\nformer_file = \"{}\"", former.display()));
    }
    let text = format!("{before}[kek]\n{keys}\n\n{after}");
    std::fs::write(config, text).expect("a configuration");
}

/// Writes the configuration file of one of `all` replicas.
pub(crate) fn write(options: &Options, dir: &Path, replica: &Replica, all: &[Replica]) {
    let is_first = all
        .first()
        .is_some_and(|r| r.peer_port == replica.peer_port);
    let peers: Vec<String> = all
        .iter()
        .filter(|other| other.peer_port != replica.peer_port)
        // Who founds a cluster that others join by tokens waits for nobody.
        .filter(|_| options.certificates.is_none() || !is_first)
        .map(|other| format!("\"127.0.0.1:{}\"", other.peer_door()))
        .collect();
    let millis = |time: Duration| format!("\"{}ms\"", time.as_millis());
    let (peer_tls, join) = match options.certificates {
        None => (String::new(), String::new()),
        Some(lifetime) => (
            format!("tls = \"built-in\"\ntls_lifetime = {}", millis(lifetime)),
            format!("join_token_file = \"{}\"", replica.join_token.display()),
        ),
    };
    let text = format!(
        r#"data_dir = "{data_dir}"
init = {init}
{join}
peers = [{peers}]
insecure_loopback = true
max_staleness = {max_staleness}
shutdown_grace = "3s"

[api]
listen = "127.0.0.1:{api}"

[peer]
listen = "127.0.0.1:{peer}"
advertise = "127.0.0.1:{peer_door}"
{peer_tls}

[kek]
file = "{kek}"

[raft]
heartbeat = "100ms"
election_min = "300ms"
election_max = "600ms"
beat = "150ms"
lost_after = "1s"
propose = "5s"

[store]
snapshot_after = {snapshot_after}
snapshot_keep = {snapshot_keep}
cache_mib = 16

[cluster]
shards = 64
ticket_ttl = {ticket_ttl}
ticket_margin = {ticket_margin}
doubt_wait = {doubt_wait}
backoff_base = "200ms"
backoff_cap = "2s"

[issuers]
allow_loopback = true

[log]
filter = "{log}"
"#,
        data_dir = replica.data_dir.display(),
        init = options.certificates.is_none() || is_first,
        peers = peers.join(", "),
        max_staleness = millis(options.max_staleness),
        api = replica.api_port,
        peer = replica.peer_port,
        peer_door = replica.peer_door(),
        kek = kek(dir).display(),
        snapshot_after = options.snapshot_after,
        snapshot_keep = options.snapshot_after / 10,
        ticket_ttl = millis(options.ticket_ttl),
        ticket_margin = millis(options.ticket_ttl / 5),
        doubt_wait = millis(options.doubt_wait),
        log = options.log,
    );
    let path = &replica.config;
    std::fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}
