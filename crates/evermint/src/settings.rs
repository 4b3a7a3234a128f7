//! The settings of `evermint serve`: one struct, filled from flags, then the environment, then a
//! TOML file, then defaults.
//!
//! Every setting has one name in three spellings: `api_listen` is `listen` under `[api]` in the
//! file, `--api-listen` as a flag and `EVERMINT_API_LISTEN` in the environment; the commands of
//! `exec` alone stand in the file and nowhere else. Its line in
//! `settings!` below is the only place that knows it; `deploy/evermint.toml` repeats name and
//! default for people, and a test compares them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use evermint_core::settings::Settings as ClusterSettings;
use evermint_gateway::RoleRule;
use evermint_minter::{CommandLine, EndpointPattern, Network, StandIn};
use serde::{Deserialize, Serialize};

use crate::duration::Time;
use crate::exit::{advised, usage};

/// The sections of the file: a key below `[api]` is the setting `api_…`.
const SECTIONS: [&str; 13] = [
    "api", "oidc", "upstream", "peer", "kek", "memory", "raft", "store", "cluster", "issuers",
    "exec", "limit", "log",
];

/// The settings that stand in the file alone.
pub const FILE_ONLY: &[&str] = &["exec_commands"];

/// The default of `log_filter`.
pub const LOG_FILTER: &str = "info,openraft=off,ractor=warn";

/// Whether this build is for tests: one with debug assertions or with failpoints.
pub const TEST_BUILD: bool = cfg!(any(debug_assertions, feature = "failpoints"));

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for programs.
    Json,
}

/// How replicas know each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum PeerTls {
    /// Mutual TLS by certificates that the cluster signs itself; replicas join by a token.
    BuiltIn,
    /// Mutual TLS by certificates from files.
    Files,
    /// Plain text, on loopback alone.
    Off,
}

/// A setting always has a value (`value`), or may have none (`maybe`).
macro_rules! setting {
    (@type value $type:ty) => { $type };
    (@type maybe $type:ty) => { Option<$type> };
    (@resolve value $given:expr, $default:expr) => { $given.unwrap_or_else(|| $default) };
    (@resolve maybe $given:expr, $default:expr) => { $given.or($default) };
}

macro_rules! settings {
    ($($(#[$meta:meta])* $kind:ident $name:ident: $type:ty = $default:expr;)*) => {
        /// Settings as one source gives them: some of them.
        #[derive(Clone, Debug, Default, clap::Args, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Layer {
            $($(#[$meta])* $name: Option<$type>,)*
        }

        impl Layer {
            /// These settings, and those of `below` where there are none.
            fn over(self, below: Self) -> Self {
                Self { $($name: self.$name.or(below.$name),)* }
            }

            /// These settings, and the defaults where there are none.
            fn resolve(self) -> Settings {
                Settings { $($name: setting!(@resolve $kind self.$name, $default),)* }
            }
        }

        /// The settings of one replica.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
        #[allow(missing_docs, reason = "documented as flags, in `settings!`")]
        pub struct Settings {
            $(pub $name: setting!(@type $kind $type),)*
        }

        impl Default for Settings {
            fn default() -> Self {
                Layer::default().resolve()
            }
        }

        /// The names of all settings.
        pub const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

settings! {
    /// Directory of this replica's identity, store and journal; one process at a time.
    #[arg(long, value_name = "DIR")]
    value data_dir: PathBuf = "evermint-data".into();
    /// Found a new cluster, unless one of the peers is in one already. To be set on one replica
    /// (of several that list each other, the one with the smallest peer address founds).
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    value init: bool = false;
    /// Peer addresses of replicas to join; needed for the first start only.
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT,…")]
    value peers: Vec<String> = Vec::new();
    /// File with the token by which this replica joins a cluster, once: what `evermint cluster
    /// join-token` prints. Needed for the first start only.
    #[arg(long, value_name = "FILE")]
    maybe join_token_file: PathBuf = None;
    /// File with the admin token, which opens everything. Without it, oidc_issuer or api_client_ca,
    /// anyone who reaches the API may do anything.
    #[arg(long, value_name = "FILE")]
    maybe admin_token_file: PathBuf = None;
    /// Speak plain text on loopback, and ask for no admin token there if none is given: for trying
    /// things out, on a machine that nobody else uses.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    value insecure_loopback: bool = false;
    /// The same on other addresses. For tests of the project alone: builds without debug assertions
    /// refuse it.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    value insecure_network: bool = false;
    /// Out of touch with a leader for longer, a replica serves no bundles: it could serve what
    /// was revoked meanwhile.
    #[arg(long, value_name = "TIME")]
    value max_staleness: Time = Time::secs(300);
    /// Time that mints in flight have to end when the replica is stopped.
    #[arg(long, value_name = "TIME")]
    value shutdown_grace: Time = Time::secs(30);

    /// Where clients are listened to.
    #[arg(long, value_name = "IP:PORT", help_heading = "API")]
    value api_listen: SocketAddr = (Ipv4Addr::LOCALHOST, 7443).into();
    /// Where clients reach this replica; the address listened on if not given. Needed with
    /// 0.0.0.0.
    #[arg(long, value_name = "URL", help_heading = "API")]
    maybe api_advertise: String = None;
    /// Certificate chain of the API in PEM; with it, the API speaks TLS.
    #[arg(long, value_name = "FILE", help_heading = "API")]
    maybe api_tls_cert: PathBuf = None;
    /// Its private key in PEM.
    #[arg(long, value_name = "FILE", help_heading = "API")]
    maybe api_tls_key: PathBuf = None;

    /// Authorities whose client certificates operators may show instead of a token, in PEM; needs
    /// TLS. Not the one of the replicas.
    #[arg(long, value_name = "FILE", help_heading = "API")]
    maybe api_client_ca: PathBuf = None;
    /// What bearers of these certificates may do: NAME=admin, NAME=editor@WORKSPACE or
    /// NAME=reader@WORKSPACE, with * for all workspaces. Names are those of the certificate, with
    /// their kind: cn:alice, ou:ops, o:acme, dns:ci.example.com, email:a@example.com, uri:spiffe://…;
    /// one that ends in * stands for all that begin so.
    #[arg(long, value_delimiter = ',', value_name = "RULE,…", help_heading = "API")]
    value api_client_roles: Vec<RoleRule> = Vec::new();

    /// OpenID provider whose tokens operators may show; to the letter as its tokens name it. It is
    /// reached under the rules for issuers.
    #[arg(long, value_name = "URL", help_heading = "OpenID provider")]
    maybe oidc_issuer: String = None;
    /// Audience that its tokens have to be for.
    #[arg(long, value_name = "NAME", help_heading = "OpenID provider")]
    maybe oidc_audience: String = None;
    /// Claim that says what a token's bearer is: a name, or a path such as realm_access.roles.
    #[arg(long, value_name = "CLAIM", help_heading = "OpenID provider")]
    value oidc_roles_claim: String = "roles".to_owned();
    /// What that means here: VALUE=admin, VALUE=editor@WORKSPACE or VALUE=reader@WORKSPACE, with *
    /// for all workspaces; a value that ends in * stands for all that begin so.
    #[arg(long, value_delimiter = ',', value_name = "RULE,…", help_heading = "OpenID provider")]
    value oidc_roles: Vec<RoleRule> = Vec::new();
    /// Claim that says what a token may be used for; if not given, for all that its bearer may do.
    #[arg(long, value_name = "CLAIM", help_heading = "OpenID provider")]
    maybe oidc_scopes_claim: String = None;
    /// How far the provider's clock may be from the cluster's.
    #[arg(long, value_name = "TIME", help_heading = "OpenID provider")]
    value oidc_leeway: Time = Time::secs(30);
    /// How often its keys are fetched. While it is down, they are good for a day.
    #[arg(long, value_name = "TIME", help_heading = "OpenID provider")]
    value oidc_keys_ttl: Time = Time::secs(3_600);

    /// A gateway behind this one, such as OpenShell's: calls of methods that are not Evermint's
    /// are passed on to it as they came, so that one address serves both. It identifies its
    /// callers itself.
    #[arg(long, value_name = "URL", help_heading = "Upstream gateway")]
    maybe upstream_gateway: String = None;
    /// Authorities that may vouch for it, in PEM; the system's if not given.
    #[arg(long, value_name = "FILE", help_heading = "Upstream gateway")]
    maybe upstream_ca: PathBuf = None;
    /// Its id, and that of this cluster, in the tokens of sandboxes. To be the same on all
    /// replicas.
    #[arg(long, value_name = "ID", help_heading = "Upstream gateway")]
    value upstream_id: String = "openshell".to_owned();
    /// Public key in PEM of the tokens that it gives to sandboxes, which are taken here as well.
    #[arg(long, value_name = "FILE", help_heading = "Upstream gateway")]
    maybe upstream_token_key: PathBuf = None;
    /// The name of that key in the headers of the tokens.
    #[arg(long, value_name = "KID", help_heading = "Upstream gateway")]
    maybe upstream_token_kid: String = None;

    /// Where other replicas are listened to.
    #[arg(long, value_name = "IP:PORT", help_heading = "Peers")]
    value peer_listen: SocketAddr = (Ipv4Addr::LOCALHOST, 7444).into();
    /// Where other replicas reach this one; the address listened on if not given. Needed with
    /// 0.0.0.0.
    #[arg(long, value_name = "HOST:PORT", help_heading = "Peers")]
    maybe peer_advertise: String = None;
    /// How replicas know each other: by certificates that the cluster signs itself (built-in), by
    /// certificates from files, or not at all (off). By default files if they are given, off with
    /// --insecure-loopback, and else built-in.
    #[arg(long, value_enum, value_name = "WAY", help_heading = "Peers")]
    maybe peer_tls: PeerTls = None;
    /// How long a certificate is good for that the cluster signs itself; it is renewed at half of
    /// that.
    #[arg(long, value_name = "TIME", help_heading = "Peers")]
    value peer_tls_lifetime: Time = Time::secs(24 * 3_600);
    /// Authority that signs the certificates of all replicas, in PEM. This file and the two of this
    /// replica are read again when they change.
    #[arg(long, value_name = "FILE", help_heading = "Peers")]
    maybe peer_tls_ca: PathBuf = None;
    /// This replica's certificate chain in PEM, valid as a server and as a client.
    #[arg(long, value_name = "FILE", help_heading = "Peers")]
    maybe peer_tls_cert: PathBuf = None;
    /// Its private key in PEM.
    #[arg(long, value_name = "FILE", help_heading = "Peers")]
    maybe peer_tls_key: PathBuf = None;
    /// Name that the certificates of all replicas carry; the host of a replica's address if not
    /// given.
    #[arg(long, value_name = "NAME", help_heading = "Peers")]
    maybe peer_tls_name: String = None;

    /// File with the key-encryption key; `evermint keygen --out FILE` makes one.
    #[arg(long, value_name = "FILE", help_heading = "Key-encryption key")]
    maybe kek_file: PathBuf = None;
    /// Environment variable that holds it instead, in base64 or hex.
    #[arg(long, value_name = "NAME", help_heading = "Key-encryption key")]
    maybe kek_env: String = None;
    /// Program and arguments, separated by spaces, that print it instead: so a KMS or a vault can
    /// be asked. No shell reads them. It runs once, when the replica starts.
    #[arg(long, value_delimiter = ' ', value_name = "PROGRAM ARG…", help_heading = "Key-encryption key")]
    value kek_command: Vec<String> = Vec::new();
    /// How long such a command may run.
    #[arg(long, value_name = "TIME", help_heading = "Key-encryption key")]
    value kek_command_timeout: Time = Time::secs(30);
    /// File with the key-encryption key that the one above replaces, until `evermint keys status`
    /// says that it is not needed any more.
    #[arg(long, value_name = "FILE", help_heading = "Key-encryption key")]
    maybe kek_former_file: PathBuf = None;
    /// Environment variable that holds it instead.
    #[arg(long, value_name = "NAME", help_heading = "Key-encryption key")]
    maybe kek_former_env: String = None;
    /// Program and arguments that print it instead.
    #[arg(long, value_delimiter = ' ', value_name = "PROGRAM ARG…", help_heading = "Key-encryption key")]
    value kek_former_command: Vec<String> = Vec::new();
    /// Accept a file that its group or others may read, as some platforms mount secrets.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Key-encryption key")]
    value kek_any_mode: bool = false;

    /// Keep all memory of the replica in memory: nothing of it is swapped out. Needs a process
    /// without a limit of locked memory.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Memory")]
    value memory_lock: bool = false;
    /// Allow core dumps, and debuggers of the same user. They hold every secret that is in memory.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Memory")]
    value memory_core_dumps: bool = false;

    /// How often the leader keeps its lease alive.
    #[arg(long, value_name = "TIME", help_heading = "Raft")]
    value raft_heartbeat: Time = Time::millis(100);
    /// Shortest silence of the leader after which a replica stands for election.
    #[arg(long, value_name = "TIME", help_heading = "Raft")]
    value raft_election_min: Time = Time::millis(500);
    /// Longest, and the length of the leader's lease. A lost leader is replaced after about this
    /// plus a random time between the two.
    #[arg(long, value_name = "TIME", help_heading = "Raft")]
    value raft_election_max: Time = Time::millis(1_000);
    /// How often a replica tells the leader that it is alive.
    #[arg(long, value_name = "TIME", help_heading = "Raft")]
    value raft_beat: Time = Time::millis(300);
    /// Silence after which the leader gives a replica's shards to others.
    #[arg(long, value_name = "TIME", help_heading = "Raft")]
    value raft_lost_after: Time = Time::secs(3);
    /// How long a write is tried.
    #[arg(long, value_name = "TIME", help_heading = "Raft")]
    value raft_propose: Time = Time::secs(10);
    /// How long sending and installing one snapshot may take.
    #[arg(long, value_name = "TIME", help_heading = "Raft")]
    value raft_snapshot: Time = Time::secs(600);

    /// A snapshot is taken after so many new log entries.
    #[arg(long, value_name = "N", help_heading = "Store")]
    value store_snapshot_after: u64 = 5_000;
    /// So many log entries that a snapshot contains are kept for replicas that are behind.
    #[arg(long, value_name = "N", help_heading = "Store")]
    value store_snapshot_keep: u64 = 2_000;
    /// Memory that the store may use as a cache, in MiB.
    #[arg(long, value_name = "MIB", help_heading = "Store")]
    value store_cache_mib: u64 = 64;

    /// Number of shards, 1 to 4096. This and the following are fixed when the cluster is founded.
    #[arg(long, value_name = "N", help_heading = "Cluster, when it is founded")]
    value cluster_shards: u16 = 256;
    /// How long a mint ticket is valid: nobody else mints for so long after a replica was lost.
    #[arg(long, value_name = "TIME", help_heading = "Cluster, when it is founded")]
    value cluster_ticket_ttl: Time = Time::secs(60);
    /// How much earlier than its ticket a mint stops: covers clocks of different rates. A tenth
    /// to a half of the ticket.
    #[arg(long, value_name = "TIME", help_heading = "Cluster, when it is founded")]
    value cluster_ticket_margin: Time = Time::secs(10);
    /// How long a mint whose outcome is unknown waits at least for its replica to come back.
    #[arg(long, value_name = "TIME", help_heading = "Cluster, when it is founded")]
    value cluster_doubt_wait: Time = Time::secs(120);
    /// First pause after a failed mint; doubled with every further one.
    #[arg(long, value_name = "TIME", help_heading = "Cluster, when it is founded")]
    value cluster_backoff_base: Time = Time::secs(1);
    /// Longest pause after a failed mint.
    #[arg(long, value_name = "TIME", help_heading = "Cluster, when it is founded")]
    value cluster_backoff_cap: Time = Time::secs(300);
    /// Lifetime of a token that does not tell its own.
    #[arg(long, value_name = "TIME", help_heading = "Cluster, when it is founded")]
    value cluster_default_lifetime: Time = Time::secs(3_600);
    /// Audit records kept, 100 to 1000000.
    #[arg(long, value_name = "N", help_heading = "Cluster, when it is founded")]
    value cluster_audit_retention: u32 = 10_000;
    /// Audit records are dropped when they are older, 1h at least.
    #[arg(long, value_name = "TIME", help_heading = "Cluster, when it is founded")]
    value cluster_audit_max_age: Time = Time::secs(365 * 86_400);

    /// Reach issuers on this host's loopback without listing them, and those by plain http too. For
    /// tests.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Issuers")]
    value issuers_allow_loopback: bool = false;
    /// Private networks whose issuers may be reached, such as 10.20.0.0/16.
    #[arg(long, value_delimiter = ',', value_name = "CIDR,…", help_heading = "Issuers")]
    value issuers_allow_networks: Vec<Network> = Vec::new();
    /// Token endpoints that may be used beside those that profiles of the build and of the platform
    /// fix: hosts (idp.example.com, *.example.com) or URL prefixes.
    #[arg(long, value_delimiter = ',', value_name = "PATTERN,…", help_heading = "Issuers")]
    value issuers_allow_endpoints: Vec<EndpointPattern> = Vec::new();
    /// Token endpoints that a URL on this host's loopback answers for: ENDPOINT=URL. For tests;
    /// needs --issuers-allow-loopback.
    #[arg(long, value_delimiter = ',', value_name = "ENDPOINT=URL,…", help_heading = "Issuers")]
    value issuers_stand_ins: Vec<StandIn> = Vec::new();
    /// Directories below which material may name token files (client_assertion_file and others);
    /// if there is none, no file is read.
    #[arg(long, value_delimiter = ',', value_name = "DIR,…", help_heading = "Issuers")]
    value issuers_token_file_dirs: Vec<PathBuf> = Vec::new();
    /// Files with certificate authorities that are trusted beside the system's, in PEM.
    #[arg(long, value_delimiter = ',', value_name = "FILE,…", help_heading = "Issuers")]
    value issuers_ca_files: Vec<PathBuf> = Vec::new();
    /// Longest time for name, connection and TLS of one request.
    #[arg(long, value_name = "TIME", help_heading = "Issuers")]
    value issuers_connect_timeout: Time = Time::secs(5);
    /// Mints that this replica runs at one issuer at the same time.
    #[arg(long, value_name = "N", help_heading = "Issuers")]
    value issuers_concurrency: u32 = 16;
    /// Requests that one issuer gets from this replica in a minute.
    #[arg(long, value_name = "N", help_heading = "Issuers")]
    value issuers_requests_per_minute: u32 = 6_000;
    /// Failures in a row after which an issuer is left alone for a while.
    #[arg(long, value_name = "N", help_heading = "Issuers")]
    value issuers_breaker_failures: u32 = 5;
    /// For how long at first.
    #[arg(long, value_name = "TIME", help_heading = "Issuers")]
    value issuers_breaker_pause: Time = Time::secs(2);
    /// For how long at most.
    #[arg(long, value_name = "TIME", help_heading = "Issuers")]
    value issuers_breaker_pause_max: Time = Time::secs(30);

    /// The commands that the strategy `exec` may run, by name. In the file alone: whoever may set
    /// it decides what the replicas run.
    #[arg(skip)]
    value exec_commands: BTreeMap<String, CommandLine> = BTreeMap::new();

    /// Connections of clients at the same time.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    value limit_connections: usize = 8_192;
    /// Connections of one address at the same time; of IPv6, of one /64.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    value limit_connections_per_peer: usize = 1_024;
    /// Calls of one connection at the same time.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    value limit_streams: u32 = 4_096;
    /// How long TLS and the first bytes of HTTP/2 may take.
    #[arg(long, value_name = "TIME", help_heading = "Limits")]
    value limit_greeting: Time = Time::secs(10);
    /// How often a client is asked for a sign of life.
    #[arg(long, value_name = "TIME", help_heading = "Limits")]
    value limit_keepalive: Time = Time::secs(20);
    /// How long it may take to give one; a connection without one is closed.
    #[arg(long, value_name = "TIME", help_heading = "Limits")]
    value limit_keepalive_timeout: Time = Time::secs(10);
    /// Length of a call's header.
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    value limit_header_bytes: u32 = 16 << 10;
    /// Length of a request.
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    value limit_request_bytes: usize = 4 << 20;
    /// How long a request may take to arrive.
    #[arg(long, value_name = "TIME", help_heading = "Limits")]
    value limit_request_time: Time = Time::secs(20);
    /// Calls that one connection may have taken back before they were looked at; with more it is
    /// closed.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    value limit_resets: usize = 20;
    /// Calls of one connection that may break the protocol; with more it is closed.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    value limit_errors: usize = 256;
    /// Calls of one sandbox or operator in a second, on the average.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    value limit_calls_per_second: u32 = 1_000;
    /// Calls of one sandbox or operator at once.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    value limit_calls_burst: u32 = 2_000;
    /// Tokens from one address that are no good and are forgiven in a minute.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    value limit_failed_logins_per_minute: u32 = 60;
    /// Tokens from one address that are no good; with more its tokens are looked at one at a time.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    value limit_failed_logins_burst: u32 = 100;
    /// Providers of a workspace.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    value limit_providers: usize = 20_000;
    /// Credentials of a workspace.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    value limit_credentials: usize = 100_000;
    /// Inference routes of a workspace.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    value limit_routes: usize = 1_000;
    /// Sandboxes of a workspace.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    value limit_sandboxes: usize = 100_000;
    /// Custom profiles of a workspace, and of the platform.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    value limit_profiles: usize = 500;

    /// How log lines are written, to standard error.
    #[arg(long, value_enum, value_name = "FORMAT", help_heading = "Log")]
    value log_format: LogFormat = LogFormat::Text;
    /// What is logged: a level, and others by module, such as info,evermint_minter=debug. What
    /// openraft has to say of every message is left out unless asked for.
    #[arg(long, value_name = "FILTER", help_heading = "Log")]
    value log_filter: String = LOG_FILTER.to_owned();
}

impl Settings {
    /// The settings from flags and environment, which clap has put together, over those of a
    /// file, over the defaults.
    ///
    /// # Errors
    /// A usage error for a file that cannot be read or that has unknown or malformed settings.
    pub fn load(flags: Layer, file: Option<&Path>) -> Result<Self> {
        let file = file.map(read).transpose()?.unwrap_or_default();
        Ok(flags.over(file).resolve())
    }

    /// The settings in the text of a file, over the defaults.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_toml(text: &str) -> Result<Self> {
        Ok(parse(text)?.resolve())
    }

    /// What a new cluster is founded with.
    pub fn cluster(&self) -> ClusterSettings {
        ClusterSettings {
            shards: self.cluster_shards,
            ticket_ttl_ms: self.cluster_ticket_ttl.as_millis(),
            ticket_margin_ms: self.cluster_ticket_margin.as_millis(),
            doubt_wait_ms: self.cluster_doubt_wait.as_millis(),
            backoff_base_ms: self.cluster_backoff_base.as_millis(),
            backoff_cap_ms: self.cluster_backoff_cap.as_millis(),
            default_lifetime_ms: self.cluster_default_lifetime.as_millis(),
            audit_retention: self.cluster_audit_retention,
            audit_max_age_ms: self.cluster_audit_max_age.as_millis(),
        }
    }

    /// Checks that the settings fit together, and that they are safe.
    ///
    /// # Errors
    /// A usage error that names what does not fit.
    pub fn check(&self) -> Result<()> {
        let together = |what: &str, given: &[bool]| {
            if given.iter().any(|g| *g) && !given.iter().all(|g| *g) {
                return Err(usage(format!("{what} belong together: give all or none")));
            }
            Ok(())
        };
        together(
            "api_tls_cert and api_tls_key",
            &[self.api_tls_cert.is_some(), self.api_tls_key.is_some()],
        )?;
        together(
            "oidc_issuer and oidc_audience",
            &[self.oidc_issuer.is_some(), self.oidc_audience.is_some()],
        )?;
        if self.api_client_ca.is_some() && self.api_tls_cert.is_none() {
            return Err(usage(
                "api_client_ca needs TLS: give api_tls_cert and api_tls_key",
            ));
        }
        together(
            "peer_tls_ca, peer_tls_cert and peer_tls_key",
            &[
                self.peer_tls_ca.is_some(),
                self.peer_tls_cert.is_some(),
                self.peer_tls_key.is_some(),
            ],
        )?;
        together(
            "upstream_token_key and upstream_token_kid",
            &[
                self.upstream_token_key.is_some(),
                self.upstream_token_kid.is_some(),
            ],
        )?;
        match (self.peer_tls(), self.peer_tls_ca.is_some()) {
            (PeerTls::Files, false) => {
                return Err(usage(
                    "peer_tls is files: give peer_tls_ca, peer_tls_cert and peer_tls_key",
                ));
            }
            (PeerTls::BuiltIn | PeerTls::Off, true) => {
                return Err(usage(
                    "peer_tls_ca, peer_tls_cert and peer_tls_key are for peer_tls = \"files\"",
                ));
            }
            (PeerTls::Files, true) | (PeerTls::BuiltIn | PeerTls::Off, false) => {}
        }
        let sources = [
            self.kek_file.is_some(),
            self.kek_env.is_some(),
            !self.kek_command.is_empty(),
        ];
        let former = [
            self.kek_former_file.is_some(),
            self.kek_former_env.is_some(),
            !self.kek_former_command.is_empty(),
        ];
        for (names, sources) in [
            ("kek_file, kek_env and kek_command", sources),
            (
                "kek_former_file, kek_former_env and kek_former_command",
                former,
            ),
        ] {
            if sources.iter().filter(|given| **given).count() > 1 {
                return Err(usage(format!("{names} exclude each other: give one")));
            }
        }
        if !sources.contains(&true) {
            return Err(advised(
                "no key-encryption key: none of --kek-file, --kek-env and --kek-command is given",
                "`evermint keygen --out kek`, then `--kek-file kek`, on every replica the same",
            ));
        }
        for (name, listen, advertise) in [
            ("api", self.api_listen, &self.api_advertise),
            ("peer", self.peer_listen, &self.peer_advertise),
        ] {
            if listen.ip().is_unspecified() && advertise.is_none() {
                return Err(usage(format!(
                    "{name}_listen is {listen}, which nobody can be told to use: give {name}_advertise"
                )));
            }
        }
        for (name, line) in &self.exec_commands {
            let wrong = |problem| usage(format!("exec.commands.{name} {problem}"));
            line.check().map_err(wrong)?;
        }
        self.cluster()
            .validate()
            .map_err(|error| usage(format!("cluster settings: {error}")))?;
        self.check_network()
    }

    /// How replicas know each other.
    pub fn peer_tls(&self) -> PeerTls {
        let by_files = self.peer_tls_ca.is_some().then_some(PeerTls::Files);
        let insecure = self.insecure_loopback || self.insecure_network;
        let off = insecure.then_some(PeerTls::Off);
        self.peer_tls
            .or(by_files)
            .or(off)
            .unwrap_or(PeerTls::BuiltIn)
    }

    /// What is unsafe about the addresses listened on, if anything is.
    pub fn exposures(&self) -> Vec<String> {
        self.exposed().into_iter().map(|(_, what)| what).collect()
    }

    fn exposed(&self) -> Vec<(SocketAddr, String)> {
        let (api, peer) = (self.api_listen, self.peer_listen);
        let mut found = Vec::new();
        if self.api_tls_cert.is_none() {
            found.push((api, format!("the API at {api} speaks no TLS")));
        }
        let asks = self.admin_token_file.is_some()
            || self.oidc_issuer.is_some()
            || self.api_client_ca.is_some();
        if !asks {
            found.push((api, format!("the API at {api} asks for no token")));
        }
        if self.peer_tls() == PeerTls::Off {
            found.push((
                peer,
                format!("the peer port at {peer} speaks no mutual TLS"),
            ));
        }
        found
    }

    /// Nothing unsafe unless it was asked for, and then on loopback.
    fn check_network(&self) -> Result<()> {
        let network = self.insecure_network && TEST_BUILD;
        let is_admitted =
            |address: &SocketAddr| network || self.insecure_loopback && address.ip().is_loopback();
        let found: Vec<String> = self
            .exposed()
            .into_iter()
            .filter(|(address, _)| !is_admitted(address))
            .map(|(_, what)| what)
            .collect();
        if found.is_empty() {
            return Ok(());
        }
        Err(advised(
            format!("not safe: {}", found.join("; ")),
            "--api-tls-cert and --api-tls-key, --admin-token-file, and no --peer-tls off (docs/transport.md shows how); to try things out on this machine alone, --insecure-loopback",
        ))
    }
}

/// Puts the name in the environment and the default into a flag's help.
pub fn describe(arg: clap::Arg) -> clap::Arg {
    let name = arg.get_id().to_string();
    if !NAMES.contains(&name.as_str()) {
        return arg;
    }
    let defaults = toml::Table::try_from(Settings::default()).unwrap_or_default();
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let default = match defaults.get(&name) {
        None => String::new(),
        Some(toml::Value::Array(_)) => " [default: none]".to_owned(),
        Some(toml::Value::String(text)) => format!(" [default: {text}]"),
        Some(value) => format!(" [default: {value}]"),
    };
    arg.help(format!("{help}{default}"))
        .long_help(None)
        .env(format!("EVERMINT_{}", name.to_ascii_uppercase()))
}

fn read(path: &Path) -> Result<Layer> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| usage(format!("cannot read {}: {error}", path.display())))?;
    parse(&text).with_context(|| format!("in {}", path.display()))
}

/// Reads a file's text: `[api] listen` and `api_listen` are the same.
fn parse(text: &str) -> Result<Layer> {
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| usage(error.to_string().trim_end().to_owned()))?;
    let mut flat = toml::Table::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(section) if SECTIONS.contains(&key.as_str()) => {
                for (name, value) in section {
                    if !NAMES.contains(&format!("{key}_{name}").as_str()) {
                        return Err(unknown(&format!("{name} in [{key}]")));
                    }
                    flat.insert(format!("{key}_{name}"), value);
                }
            }
            toml::Value::Table(_) => return Err(unknown(&format!("section [{key}]"))),
            value => {
                if !NAMES.contains(&key.as_str()) {
                    return Err(unknown(&key));
                }
                flat.insert(key, value);
            }
        }
    }
    flat.try_into()
        .map_err(|error: toml::de::Error| usage(error.to_string().trim_end().to_owned()))
}

fn unknown(what: &str) -> anyhow::Error {
    usage(format!(
        "unknown setting: {what}; `evermint serve --help` lists all"
    ))
}
