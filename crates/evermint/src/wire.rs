//! The wiring: puts one replica together from settings, and takes it apart again in good order.
//!
//! ```text
//! settings ─ KEK ──────────► keyring ◄── data keys of the state, whenever they change
//!          ─ data dir, peers ► node (Raft, sled): proposer and view for all below
//!          ─ issuers ───────► minter ─► policy of the gateway
//!                             actors: proposer, view, minter, keyring, journal
//!                             gateway: proposer, view, keyring, policy, control
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use async_trait::async_trait;
use evermint_core::command::Refusal;
use evermint_core::credential::RefreshConfig;
use evermint_core::id::ReplicaId;
use evermint_core::port::{Proposer, StateView, Touched};
use evermint_core::record::Key;
use evermint_core::secret::{DataKeyId, Secret};
use evermint_core::strategy::Strategy;
use evermint_gateway::{
    AdminToken, ClusterControl, ControlError, FieldProblem, Limits, Peer, Ports, RaftStatus,
    RefreshPolicy, Role, TlsFiles,
};
use evermint_minter::{HttpMinter, SystemClock, refresher};
use evermint_replica::{Node, Status};
use evermint_seal::{FileAccess, Kek, Keyring, generate_data_key};
use futures::StreamExt as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::exit::{advised, usage};
use crate::settings::Settings;

/// The id of a cluster's first data key.
const FIRST_DATA_KEY: DataKeyId = DataKeyId(1);

/// How old the status of the Raft group may be.
const STATUS_EVERY: Duration = Duration::from_millis(100);

/// The directory of the mint journal, beside the store.
const JOURNAL: &str = "journal";

/// A running replica.
pub struct Replica {
    /// Where it listens to clients.
    pub api_addr: SocketAddr,
    /// Where it listens to other replicas.
    pub peer_addr: SocketAddr,
    /// Consensus and the applied state.
    pub node: Node,
    /// Seals and opens values.
    pub keyring: Arc<Keyring>,
    raft: watch::Receiver<RaftStatus>,
    stop: CancellationToken,
    /// Ends what `stop` lets finish.
    kill: CancellationToken,
    parts: JoinSet<Ended>,
}

/// A part that has ended.
struct Ended {
    part: &'static str,
    /// Whether nothing was left undone.
    outcome: Result<bool>,
}

impl Replica {
    /// Starts a replica: returns once it listens, and is on its way into its cluster.
    ///
    /// # Errors
    /// What is wrong with the settings, the key, the data directory or the addresses, and what to
    /// do about it.
    pub async fn start(settings: Settings) -> Result<Self> {
        settings.check()?;
        let kek = kek(&settings)?;
        let admin = settings
            .admin_token_file
            .as_deref()
            .map(admin_token)
            .transpose()?;
        let minter = Arc::new(HttpMinter::new(&issuers(&settings)?)?);

        let listener = TcpListener::bind(settings.api_listen)
            .await
            .map_err(|error| busy("clients", settings.api_listen, &error))?;
        let api_addr = listener.local_addr().context("the API's address")?;

        let node = Node::start(node_config(&settings, &kek, api_addr)?)
            .await
            .map_err(|error| explain(error, &settings))?;
        let view: Arc<dyn StateView> = Arc::new(node.clone());
        let proposer: Arc<dyn Proposer> = Arc::new(node.clone());
        let keyring = Arc::new(Keyring::new(kek));
        load_keys(&keyring, view.as_ref())?;

        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let (loaded, ready) = watch::channel(keyring.active().is_some());
        let (tell, raft) = watch::channel(raft_status(node.status().await));
        let mut parts = JoinSet::new();
        let raft_part = keep_status(node.clone(), tell, stop.clone());
        parts.spawn(async move {
            Ended {
                part: "consensus",
                outcome: raft_part.await.map(|()| true),
            }
        });
        let keys = keep_keys(
            Arc::clone(&view),
            Arc::clone(&keyring),
            loaded,
            stop.clone(),
        );
        parts.spawn(async move {
            Ended {
                part: "the keyring",
                outcome: keys.await.map(|()| true),
            }
        });
        let actors = run_actors(
            evermint_actors::Config {
                proposer: Arc::clone(&proposer),
                view: Arc::clone(&view),
                minter: minter.clone(),
                keyring: Arc::clone(&keyring),
                clock: Arc::new(SystemClock),
                journal_dir: settings.data_dir.join(JOURNAL),
            },
            ready,
            settings.shutdown_grace.get(),
            stop.clone(),
            kill.clone(),
        );
        parts.spawn(async move {
            Ended {
                part: "the actors",
                outcome: actors.await,
            }
        });
        let ports = Ports {
            proposer,
            view,
            keyring: Arc::clone(&keyring),
            policy: Arc::new(Policy(minter)),
            control: Arc::new(Control {
                node: node.clone(),
                status: raft.clone(),
            }),
        };
        let server = evermint_gateway::serve(
            listener,
            ports,
            gateway_config(&settings, admin),
            stop.clone(),
        );
        let killed = kill.clone();
        parts.spawn(async move {
            let served = tokio::select! {
                served = server => served.map_err(anyhow::Error::from),
                () = killed.cancelled() => Ok(()),
            };
            Ended {
                part: "the API",
                outcome: served.map(|()| true),
            }
        });
        Ok(Self {
            api_addr,
            peer_addr: node.listen_address(),
            node,
            keyring,
            raft,
            stop,
            kill,
            parts,
        })
    }

    /// Waits until a part of the replica has failed for good, and says why. Cancel safe.
    pub async fn failed(&mut self) -> anyhow::Error {
        let ended = self.parts.join_next().await;
        match ended {
            Some(Ok(Ended { part, outcome })) => match outcome {
                Ok(_) => anyhow!("{part} ended by itself"),
                Err(error) => error.context(format!("{part} failed")),
            },
            Some(Err(panic)) => anyhow!("a part of the replica failed: {panic}"),
            None => anyhow!("the replica has ended"),
        }
    }

    /// The Raft group as this replica saw it a moment ago.
    pub fn raft(&self) -> RaftStatus {
        self.raft.borrow().clone()
    }

    /// Stops in good order: no new calls, shards go to others, mints in flight end within the
    /// settings' grace, then consensus. Whether all mints ended.
    pub async fn shutdown(mut self) -> bool {
        self.stop.cancel();
        self.node.drain().await;
        let mut drained = true;
        while let Some(ended) = self.parts.join_next().await {
            drained &= matches!(
                ended,
                Ok(Ended {
                    outcome: Ok(true),
                    ..
                })
            );
        }
        self.node.shutdown().await;
        drained
    }

    /// Stops as a crash would, as far as that is possible without ending the process: nothing in
    /// flight ends well, and nobody is told.
    pub async fn kill(mut self) {
        self.kill.cancel();
        self.stop.cancel();
        while self.parts.join_next().await.is_some() {}
        // With its last clone, the node goes as in a crash.
    }
}

fn kek(settings: &Settings) -> Result<Kek> {
    let access = if settings.kek_any_mode {
        FileAccess::Any
    } else {
        FileAccess::OwnerOnly
    };
    match (&settings.kek_file, &settings.kek_env) {
        (Some(path), _) if !path.exists() => Err(advised(
            format!("there is no key-encryption key at {}", path.display()),
            format!(
                "`evermint keygen --out {}` for a new cluster; for one that exists, copy the file of another replica",
                path.display()
            ),
        )),
        (Some(path), _) => Ok(Kek::from_file(path, access)?),
        (None, Some(variable)) => Ok(Kek::from_env(variable)?),
        (None, None) => Err(usage("kek_file or kek_env is needed")),
    }
}

fn admin_token(path: &Path) -> Result<AdminToken> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        advised(
            format!(
                "cannot read the admin token from {}: {error}",
                path.display()
            ),
            "make one with `openssl rand -hex 32`, in a file that only its owner may read",
        )
    })?;
    let token = text.trim();
    if token.len() < 16 {
        return Err(usage(format!(
            "the admin token in {} is shorter than 16 characters",
            path.display()
        )));
    }
    Ok(AdminToken::new(&Secret::from(token)))
}

fn issuers(settings: &Settings) -> Result<evermint_minter::Config> {
    let ca_certificates = settings
        .issuers_ca_files
        .iter()
        .map(|path| {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
        })
        .collect::<Result<_>>()?;
    Ok(evermint_minter::Config {
        allow_loopback: settings.issuers_allow_loopback,
        allow_networks: settings.issuers_allow_networks.clone(),
        allow_endpoints: settings.issuers_allow_endpoints.clone(),
        ca_certificates,
        connect_timeout_ms: settings.issuers_connect_timeout.as_millis(),
        concurrency: settings.issuers_concurrency,
        requests_per_minute: settings.issuers_requests_per_minute,
        breaker_failures: settings.issuers_breaker_failures,
        breaker_pause_ms: settings.issuers_breaker_pause.as_millis(),
        breaker_pause_max_ms: settings.issuers_breaker_pause_max.as_millis(),
    })
}

fn node_config(
    settings: &Settings,
    kek: &Kek,
    api_addr: SocketAddr,
) -> Result<evermint_replica::Config> {
    let mut config = evermint_replica::Config::new(&settings.data_dir, settings.peer_listen);
    config.peer_address.clone_from(&settings.peer_advertise);
    config.api_address = settings.api_advertise.clone().unwrap_or_else(|| {
        let scheme = if settings.api_tls_cert.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{api_addr}")
    });
    config.peers.clone_from(&settings.peers);
    if settings.init {
        config.bootstrap = Some(evermint_replica::Bootstrap {
            settings: settings.cluster(),
            data_key: FIRST_DATA_KEY,
            wrapped: generate_data_key(kek)?,
        });
    }
    if let (Some(ca), Some(certificate), Some(key)) = (
        &settings.peer_tls_ca,
        &settings.peer_tls_cert,
        &settings.peer_tls_key,
    ) {
        config.tls = Some(evermint_replica::Tls {
            certificate: certificate.clone(),
            key: key.clone(),
            ca: ca.clone(),
            server_name: settings.peer_tls_name.clone(),
        });
    }
    config.timing = evermint_replica::Timing {
        heartbeat: settings.raft_heartbeat.get(),
        election_timeout_min: settings.raft_election_min.get(),
        election_timeout_max: settings.raft_election_max.get(),
        beat: settings.raft_beat.get(),
        lost_after: settings.raft_lost_after.get(),
        propose: settings.raft_propose.get(),
        snapshot: settings.raft_snapshot.get(),
    };
    config.snapshots = evermint_replica::Snapshots {
        after_entries: settings.store_snapshot_after,
        keep_entries: settings.store_snapshot_keep,
    };
    config.cache_bytes = settings.store_cache_mib.saturating_mul(1 << 20);
    Ok(config)
}

fn gateway_config(settings: &Settings, admin: Option<AdminToken>) -> evermint_gateway::Config {
    let tls = match (&settings.api_tls_cert, &settings.api_tls_key) {
        (Some(certificate), Some(key)) => Some(TlsFiles {
            certificate: certificate.clone(),
            key: key.clone(),
        }),
        (_, _) => None,
    };
    evermint_gateway::Config {
        limits: Limits {
            max_staleness: settings.max_staleness.get(),
            version: env!("CARGO_PKG_VERSION"),
            ..Limits::default()
        },
        admin,
        tls,
    }
}

fn busy(whom: &str, address: SocketAddr, error: &std::io::Error) -> anyhow::Error {
    advised(
        format!("cannot listen to {whom} at {address}: {error}"),
        "another address with --api-listen or --peer-listen, or stop what listens there",
    )
}

/// What keeps a node from starting, in the words of this program's settings.
fn explain(error: evermint_replica::Error, settings: &Settings) -> anyhow::Error {
    use evermint_replica::Error;
    let dir = settings.data_dir.display();
    let advice = match &error {
        Error::InUse(_) => {
            format!("stop the replica that uses {dir}, or give this one a --data-dir of its own")
        }
        Error::Removed => format!("move {dir} away: the replica then joins as a new one"),
        Error::Config(_) => return usage(error.to_string()),
        Error::Format { .. }
        | Error::Damaged(_)
        | Error::Io { .. }
        | Error::Refused(_)
        | Error::Propose(_)
        | Error::Stopped(_) => {
            return anyhow::Error::new(error)
                .context(format!("the replica in {dir} does not start"));
        }
    };
    advised(error.to_string(), advice)
}

/// Loads the data keys of the newest state.
fn load_keys(keyring: &Keyring, view: &dyn StateView) -> Result<(), evermint_seal::Error> {
    let state = view.state();
    keyring.load(state.data_keys.iter().map(|(id, key)| (*id, key.as_ref())))
}

/// Loads data keys whenever they change, and tells when the first is there. Fails when one cannot
/// be used: a replica with the wrong KEK must not own credentials that it cannot open.
async fn keep_keys(
    view: Arc<dyn StateView>,
    keyring: Arc<Keyring>,
    loaded: watch::Sender<bool>,
    stop: CancellationToken,
) -> Result<()> {
    let mut changes = view.changes();
    // What was applied between the first load and the subscription.
    load_keys(&keyring, view.as_ref())?;
    loop {
        loaded.send_if_modified(|ready| {
            let before = std::mem::replace(ready, keyring.active().is_some());
            before != *ready
        });
        let change = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            change = changes.next() => change,
        };
        let concerns_keys = match change.map(|change| change.touched) {
            Some(Touched::Everything) => true,
            Some(Touched::Keys(keys)) => keys.iter().any(|key| matches!(key, Key::DataKey(_))),
            None => {
                stop.cancelled().await;
                return Ok(());
            }
        };
        if concerns_keys {
            load_keys(&keyring, view.as_ref())?;
        }
    }
}

/// Runs the actor tree from when the first data key is there until the replica stops. Whether all
/// mints in flight ended then.
async fn run_actors(
    config: evermint_actors::Config,
    mut ready: watch::Receiver<bool>,
    grace: Duration,
    stop: CancellationToken,
    kill: CancellationToken,
) -> Result<bool> {
    let ready = async { ready.wait_for(|ready| *ready).await.is_ok() };
    let ready = tokio::select! {
        () = stop.cancelled() => return Ok(true),
        ready = ready => ready,
    };
    if !ready {
        // The keyring failed, and tells so itself.
        stop.cancelled().await;
        return Ok(true);
    }
    let tree = evermint_actors::Tree::start(config).await?;
    stop.cancelled().await;
    let grace = if kill.is_cancelled() {
        Duration::ZERO
    } else {
        grace
    };
    Ok(tree.shutdown(grace).await)
}

/// The gateway's question what a refresh has to look like, answered by the minter.
struct Policy(Arc<HttpMinter>);

impl RefreshPolicy for Policy {
    fn is_secret(&self, strategy: Strategy, material: &str) -> bool {
        let fields = refresher(strategy).schema().fields;
        fields
            .iter()
            .any(|field| field.secret && field.name == material)
    }

    fn check(
        &self,
        config: &RefreshConfig,
        secrets: &BTreeMap<String, Secret>,
    ) -> Vec<FieldProblem> {
        let problems = self.0.validate(config, secrets).into_iter();
        problems
            .map(|error| FieldProblem {
                field: match error.field.as_str() {
                    "token_url" | "scopes" => error.field,
                    material => format!("material[{material:?}]"),
                },
                problem: error.problem,
            })
            .collect()
    }
}

/// The gateway's view of the Raft group.
struct Control {
    node: Node,
    status: watch::Receiver<RaftStatus>,
}

#[async_trait]
impl ClusterControl for Control {
    fn status(&self) -> RaftStatus {
        self.status.borrow().clone()
    }

    async fn remove_replica(&self, replica: ReplicaId) -> Result<bool, ControlError> {
        use evermint_replica::Error;
        match self.node.remove_replica(replica).await {
            Ok(()) => Ok(true),
            Err(Error::Refused(Refusal::NotFound(_))) => Ok(false),
            Err(Error::Propose(error)) => Err(ControlError::Propose(error)),
            Err(error) => Err(ControlError::Refused(error.to_string())),
        }
    }
}

/// Keeps the status of the Raft group at hand, and fails when consensus has stopped for good.
async fn keep_status(
    node: Node,
    tell: watch::Sender<RaftStatus>,
    stop: CancellationToken,
) -> Result<()> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(STATUS_EVERY) => {}
        }
        let status = node.status().await;
        if let Some(why) = status.stopped {
            return Err(anyhow!(why));
        }
        tell.send_replace(raft_status(status));
    }
}

fn raft_status(status: Status) -> RaftStatus {
    let lagging = status.lag.iter().map(|(id, lag)| {
        let peer = Peer {
            lag: *lag,
            ..Peer::default()
        };
        (*id, peer)
    });
    let mut peers: BTreeMap<ReplicaId, Peer> = lagging.collect();
    let me = Peer {
        session: Some(status.session),
        lag: None,
        last_heard: Some(Duration::ZERO),
    };
    peers.insert(status.replica, me);
    RaftStatus {
        role: match status.role {
            evermint_replica::Role::Leader => Role::Leader,
            evermint_replica::Role::Follower => Role::Follower,
            evermint_replica::Role::Candidate => Role::Candidate,
            evermint_replica::Role::Learner => Role::Learner,
            evermint_replica::Role::Stopped => Role::Down,
        },
        term: status.term,
        leader: status.leader,
        voters: status.voters.into_iter().collect(),
        last_log_index: status.log.last.unwrap_or(0),
        applied_index: status.log.applied.unwrap_or(0),
        snapshot_index: status.log.snapshot.unwrap_or(0),
        peers,
    }
}
