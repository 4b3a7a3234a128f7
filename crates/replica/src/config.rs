//! What a replica is told when it starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evermint_core::admission::JoinTicket;
use evermint_core::port::Clock;
use evermint_core::secret::{DataKeyId, WrappedKey};
use evermint_core::settings::Settings;
use evermint_seal::Keyring;

use crate::clock::SystemClock;
use crate::error::Error;

/// Everything that a replica is told when it starts.
#[derive(Clone)]
pub struct Config {
    /// Where this replica keeps its identity and its store. One process at a time may use it.
    pub data_dir: PathBuf,
    /// Where to listen for other replicas. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where other replicas reach this one, `host:port`; `None` means the address listened on.
    pub peer_address: Option<String>,
    /// Where clients reach this replica: a URL, passed on to them by its peers.
    pub api_address: String,
    /// Peer addresses of replicas to join. Needed for the first start only.
    pub peers: Vec<String>,
    /// Allows this replica to found a new cluster, if none of its peers is in one. When several
    /// replicas that list each other may, the one with the smallest peer address does.
    pub bootstrap: Option<Bootstrap>,
    /// The names of the key-encryption keys that this replica has; first the one that is to wrap
    /// all data keys. A cluster that uses another one gives it no place.
    pub keks: Vec<String>,
    /// Mutual TLS between replicas; without it, replicas trust whoever reaches their port.
    pub tls: Option<Tls>,
    /// Times.
    pub timing: Timing,
    /// When the log is cut.
    pub snapshots: Snapshots,
    /// Memory that the store may use as a cache, in bytes.
    pub cache_bytes: u64,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
}

/// What a new cluster starts with.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// Settings on which all replicas agree.
    pub settings: Settings,
    /// The id of the first data key.
    pub data_key: DataKeyId,
    /// The first data key, wrapped.
    pub wrapped: WrappedKey,
}

/// Where the certificates of mutual TLS come from.
#[derive(Clone, Debug)]
pub enum Tls {
    /// From files, read again when they change.
    Files(TlsFiles),
    /// From the cluster's own authority.
    BuiltIn(BuiltInTls),
}

/// The cluster's own authority signs the certificates of its replicas.
#[derive(Clone, Debug)]
pub struct BuiltInTls {
    /// Opens the authority's key; its key-encryption keys seal the key of a replica that has no
    /// state yet.
    pub keyring: Arc<Keyring>,
    /// How long a certificate is good for; it is renewed at half of that. At least a second.
    pub lifetime: Duration,
    /// Needed to join a cluster, once.
    pub ticket: Option<JoinTicket>,
}

/// Files for mutual TLS, in PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// This replica's certificate chain; valid as a server and as a client.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority that signs the certificates of all replicas.
    pub ca: PathBuf,
    /// The name that peers' certificates carry; `None` means the host of their address.
    pub server_name: Option<String>,
}

/// Times of the replication protocol.
///
/// A lost leader is replaced after about `election_timeout_max` plus a random time between the
/// two election timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often the leader keeps its lease alive. Also the time-out of one append.
    pub heartbeat: Duration,
    /// The shortest silence of the leader after which a replica stands for election.
    pub election_timeout_min: Duration,
    /// The longest, and the length of the leader's lease.
    pub election_timeout_max: Duration,
    /// How often each replica tells the leader that it is alive.
    pub beat: Duration,
    /// Silence after which the leader gives a replica's shards to others.
    pub lost_after: Duration,
    /// How long a proposal is tried.
    pub propose: Duration,
    /// How long sending and installing one snapshot may take.
    pub snapshot: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election_timeout_min: Duration::from_millis(500),
            election_timeout_max: Duration::from_millis(1_000),
            beat: Duration::from_millis(300),
            lost_after: Duration::from_secs(3),
            propose: Duration::from_secs(10),
            snapshot: Duration::from_secs(600),
        }
    }
}

/// When the log is cut, in log entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshots {
    /// A snapshot is taken after so many new entries.
    pub after_entries: u64,
    /// So many entries that a snapshot contains are kept all the same: a replica that is behind
    /// by less needs no snapshot.
    pub keep_entries: u64,
}

impl Default for Snapshots {
    fn default() -> Self {
        Self {
            after_entries: 5_000,
            keep_entries: 2_000,
        }
    }
}

/// The default of [`Config::cache_bytes`].
pub const CACHE_BYTES: u64 = 64 * 1024 * 1024;

impl Config {
    /// A replica with the default settings that keeps its data in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>, listen: SocketAddr) -> Self {
        Self {
            data_dir: data_dir.into(),
            listen,
            peer_address: None,
            api_address: String::new(),
            peers: Vec::new(),
            bootstrap: None,
            keks: Vec::new(),
            tls: None,
            timing: Timing::default(),
            snapshots: Snapshots::default(),
            cache_bytes: CACHE_BYTES,
            clock: Arc::new(SystemClock),
        }
    }

    /// Checks that the values fit together.
    ///
    /// # Errors
    /// [`Error::Config`] names the first setting that does not.
    pub fn validate(&self) -> Result<(), Error> {
        let t = &self.timing;
        let ms = Duration::from_millis;
        let rules = [
            (
                "heartbeat",
                "must be 10 ms to 10 s",
                (ms(10)..=ms(10_000)).contains(&t.heartbeat),
            ),
            (
                "election_timeout_min",
                "must be at least twice the heartbeat",
                t.election_timeout_min >= t.heartbeat * 2,
            ),
            (
                "election_timeout_max",
                "must be greater than election_timeout_min, and at most 60 s",
                t.election_timeout_max > t.election_timeout_min
                    && t.election_timeout_max <= ms(60_000),
            ),
            (
                "beat",
                "must be 10 ms to 10 s",
                (ms(10)..=ms(10_000)).contains(&t.beat),
            ),
            (
                "lost_after",
                "must be at least three times the beat",
                t.lost_after >= t.beat * 3,
            ),
            (
                "propose",
                "must be at least election_timeout_max",
                t.propose >= t.election_timeout_max,
            ),
            ("snapshot", "must be at least 1 s", t.snapshot >= ms(1_000)),
            (
                "the lifetime of certificates",
                "must be 1 s to 90 days",
                match &self.tls {
                    Some(Tls::BuiltIn(tls)) => {
                        (ms(1_000)..=ms(90 * 24 * 3_600_000)).contains(&tls.lifetime)
                    }
                    Some(Tls::Files(_)) | None => true,
                },
            ),
            (
                "snapshots.after_entries",
                "must be at least 1",
                self.snapshots.after_entries >= 1,
            ),
            (
                "cache_bytes",
                "must be at least 1 MiB",
                self.cache_bytes >= 1024 * 1024,
            ),
        ];
        if let Some((setting, problem, _)) = rules.iter().find(|(_, _, holds)| !holds) {
            return Err(Error::Config(format!("{setting} {problem}")));
        }
        if let Some(bootstrap) = &self.bootstrap {
            bootstrap
                .settings
                .validate()
                .map_err(|e| Error::Config(e.to_string()))?;
        }
        Ok(())
    }
}
