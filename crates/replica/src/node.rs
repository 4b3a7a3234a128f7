//! One replica, from its start to its end.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use evermint_core::audit::Origin;
use evermint_core::command::{Answer, Command, Done, Kind, Refusal};
use evermint_core::id::{Position, ReplicaId, SessionId};
use evermint_core::port::{Change, ProposeError, Proposer, StateView};
use evermint_core::state::State;
use evermint_core::time::UnixMs;
use futures::stream::BoxStream;
use openraft::SnapshotPolicy;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tonic::transport::server::TcpIncoming;
use uuid::Uuid;

use crate::clock::Timekeeper;
use crate::config::Config;
use crate::disk::Disk;
use crate::durable::WeakStore;
use crate::error::Error;
use crate::local::Local;
use crate::network::Network;
use crate::peers::Peers;
use crate::raft::Raft;
use crate::security::Security;
use crate::server::Door;
use crate::status::Status;
use crate::{
    disk, duties, entrance, eraser, members, propose, pulse, refused, security, server, status,
};

/// How long the end of a replica waits for what is under way.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);

/// One running replica. Clones share it. Dropping the last one stops it as a crash would;
/// [`shutdown`](Self::shutdown) stops it in good order.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

struct Inner {
    local: Arc<Local>,
    store: WeakStore,
    listen: SocketAddr,
    peer_address: String,
    tasks: TaskTracker,
    closed: std::sync::Mutex<Option<futures::future::BoxFuture<'static, ()>>>,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl Node {
    /// Starts a replica: goes on with what is in its data directory, or founds or joins a
    /// cluster. Returns once it has a place in one; it may still be catching up. Waits for its
    /// peers as long as it takes.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::InUse`], [`Error::WrongKek`], [`Error::Format`],
    /// [`Error::Damaged`] and [`Error::Io`] say why it cannot start.
    pub async fn start(config: Config) -> Result<Self, Error> {
        config.validate()?;
        let clock = Timekeeper::new(config.clock.clone());
        let mut disk = Disk::open(&config, clock.clone()).await?;
        let security = Security::new(config.tls.as_ref(), &config.data_dir, &disk.identity)?;
        let incoming = TcpIncoming::bind(config.listen)
            .map_err(Error::io(format!("listen on {}", config.listen)))?
            .with_nodelay(Some(true));
        let listen = incoming
            .local_addr()
            .map_err(Error::io("read the address listened on"))?;
        let peer_address = config
            .peer_address
            .clone()
            .unwrap_or_else(|| listen.to_string());

        let stop = CancellationToken::new();
        let stop_on_drop = stop.clone().drop_guard();
        let tasks = TaskTracker::new();
        let door = Arc::new(Door::new(
            disk.identity.installation,
            peer_address.clone(),
            config.bootstrap.is_some(),
            security.clone(),
        ));
        tasks.spawn(server::serve(incoming, door.clone(), stop.clone()));

        let peers = Peers::new(security.clone());
        let mut identity = disk.identity;
        let views = disk.machine.views();
        let is_known = match &security {
            Security::BuiltIn(built_in) => built_in.is_known(&views.state()),
            Security::Files(_) | Security::Plain => true,
        };
        let me = match identity.member {
            Some(me) if is_known || me.replica == entrance::FOUNDER => me,
            _ => {
                if config.peers.is_empty() && config.bootstrap.is_none() {
                    let problem = "this replica is in no cluster: give it peers to join, or let \
                                   it found a cluster";
                    return Err(Error::Config(problem.to_owned()));
                }
                let me = entrance::find_place(&config, &peers, &security, &identity, &peer_address)
                    .await?;
                identity.member = Some(me);
                identity.write(&config.data_dir.join(disk::IDENTITY))?;
                tracing::info!(replica = %me.replica, "has a place in a cluster");
                me
            }
        };

        if let Security::BuiltIn(built_in) = &security {
            built_in.settle(me, &views.state())?;
        }
        let network = Network {
            me,
            peers: peers.clone(),
            views: views.clone(),
            retry: config.timing.heartbeat,
            snapshot_deadline: config.timing.snapshot,
        };
        let raft_config = Arc::new(raft_config(&config)?);
        let (store, closed) = (disk.store.downgrade(), disk.store.closed());
        drop(disk.store);
        disk.log.stand_down(me.replica);
        let raft = Raft::new(me.replica.0, raft_config, network, disk.log, disk.machine)
            .await
            .map_err(|e| Error::Stopped(e.to_string()))?;
        let session = SessionId(Uuid::new_v4().as_u128());
        let local = Local::new(me, session, raft, views, clock, peers, &config);
        let node = Self(Arc::new(Inner {
            local: Arc::new(local),
            store,
            listen,
            peer_address,
            tasks,
            closed: std::sync::Mutex::new(Some(Box::pin(closed))),
            stop,
            _stop_on_drop: stop_on_drop,
        }));
        let stopping = stop_raft(node.0.local.raft.clone(), node.0.stop.clone());
        node.0.tasks.spawn(stopping);
        // From now on peers see a member.
        let taken = door.local.set(node.0.local.clone());
        debug_assert!(taken.is_ok(), "set once");
        entrance::found_if_founder(&node.0.local, &config, &identity, &node.0.peer_address).await?;
        if let Security::BuiltIn(built_in) = security {
            if me.replica == entrance::FOUNDER {
                built_in.found(&node.0.local).await?;
            }
            node.spawn(security::keep(built_in, node.0.local.clone()));
        }
        node.spawn(pulse::run(node.0.local.clone()));
        node.spawn(duties::run(node.0.local.clone()));
        node.spawn(members::run(node.0.local.clone()));
        node.spawn(eraser::run(node.0.local.clone()));
        node.spawn(refused::record(node.0.local.clone()));
        node.spawn(entrance::announce(
            node.0.local.clone(),
            identity,
            node.0.peer_address.clone(),
            config.api_address.clone(),
        ));
        Ok(node)
    }

    /// Runs a part of the replica until it stops.
    fn spawn(&self, part: impl Future<Output = ()> + Send + 'static) {
        let stop = self.0.stop.clone();
        self.0.tasks.spawn(async move {
            stop.run_until_cancelled(part).await;
        });
    }

    /// Where it listens for other replicas.
    pub fn listen_address(&self) -> SocketAddr {
        self.0.listen
    }

    /// Where other replicas reach it.
    pub fn peer_address(&self) -> &str {
        &self.0.peer_address
    }

    /// How this replica sees itself and its cluster.
    pub async fn status(&self) -> Status {
        status::of(&self.0.local, self.0.store.disk_bytes()).await
    }

    /// Takes a replica out of the cluster, at the wish of `by`. Its id is never used again; to come back it needs an
    /// empty data directory.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is no such replica, [`Error::Config`] if it is the last one,
    /// [`Error::Propose`] if no leader answers.
    pub async fn remove_replica(
        &self,
        by: Option<Origin>,
        replica: ReplicaId,
    ) -> Result<(), Error> {
        let state = self.state();
        if state.replicas.len() == 1 && state.replicas.contains_key(&replica) {
            let problem = "the last replica of a cluster cannot be removed";
            return Err(Error::Config(problem.to_owned()));
        }
        match self
            .propose_for(by, Command::RemoveReplica { replica })
            .await?
            .outcome
        {
            Ok(Done::Changed(false)) => Err(Refusal::NotFound(Kind::Replica).into()),
            Ok(_) => Ok(()),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Gives this replica's shards to the others: it is about to stop. It goes on serving reads.
    pub async fn drain(&self) {
        let local = &self.0.local;
        local.draining.store(true, Ordering::Relaxed);
        let bound = local.timing.beat * 2;
        // If nobody hears of it now, the next beat tells.
        let _ = tokio::time::timeout(bound, pulse::beat(local)).await;
    }

    /// Resolves with the reason when the replica stops by itself: its disk failed, or it is broken.
    /// The process should end then, and be started again.
    pub async fn failed(&self) -> Error {
        let mut metrics = self.0.local.raft.metrics();
        let stopped = metrics.wait_for(|m| m.running_state.is_err()).await;
        let reason = stopped.map(|m| m.running_state.as_ref().err().map(ToString::to_string));
        let reason = reason.ok().flatten();
        Error::Stopped(reason.unwrap_or_else(|| "Raft has ended".to_owned()))
    }

    /// Stops in good order: shards go to the others, what is under way ends, the store is closed.
    /// Everything acknowledged is on the disk in any case.
    pub async fn shutdown(&self) {
        self.drain().await;
        self.0.stop.cancel();
        self.0.tasks.close();
        let closed = self
            .0
            .closed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let ended = async {
            self.0.tasks.wait().await;
            if let Some(closed) = closed {
                closed.await;
            }
        };
        if tokio::time::timeout(SHUTDOWN_PATIENCE, ended)
            .await
            .is_err()
        {
            tracing::warn!("the replica did not end in time");
        }
    }
}

#[async_trait]
impl Proposer for Node {
    async fn propose_for(
        &self,
        by: Option<Origin>,
        command: Command,
    ) -> Result<Answer, ProposeError> {
        propose::propose_for(&self.0.local, by, command).await
    }
}

#[async_trait]
impl StateView for Node {
    fn state(&self) -> Arc<State> {
        self.0.local.views.state()
    }

    fn changes(&self) -> BoxStream<'static, Change> {
        self.0.local.views.changes()
    }

    async fn reached(&self, position: Position, bound: Duration) -> bool {
        self.0.local.views.reached(position, bound).await
    }

    async fn read_index(&self) -> Result<Position, ProposeError> {
        propose::read_index(&self.0.local).await
    }

    fn staleness(&self) -> Option<Duration> {
        self.0.local.staleness()
    }

    fn in_touch(&self) -> Duration {
        self.0.local.in_touch()
    }

    fn now(&self) -> UnixMs {
        self.0.local.clock.now()
    }

    fn identity(&self) -> (ReplicaId, SessionId) {
        (self.0.local.me.replica, self.0.local.session)
    }
}

fn raft_config(config: &Config) -> Result<openraft::Config, Error> {
    let ms = |d: Duration| evermint_core::time::millis(d);
    let (timing, snapshots) = (&config.timing, &config.snapshots);
    let raft = openraft::Config {
        cluster_name: "evermint".to_owned(),
        heartbeat_interval: ms(timing.heartbeat),
        election_timeout_min: ms(timing.election_timeout_min),
        election_timeout_max: ms(timing.election_timeout_max),
        install_snapshot_timeout: ms(timing.snapshot),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshots.after_entries),
        max_in_snapshot_log_to_keep: snapshots.keep_entries,
        // A replica that is behind by more than there is log anyway gets a snapshot.
        replication_lag_threshold: snapshots.after_entries + snapshots.keep_entries,
        ..openraft::Config::default()
    };
    raft.validate().map_err(|e| Error::Config(e.to_string()))
}

/// Stops Raft when the replica stops, however that comes about.
async fn stop_raft(raft: Raft, stop: CancellationToken) {
    stop.cancelled().await;
    if let Err(error) = raft.shutdown().await {
        tracing::error!(%error, "Raft did not end well");
    }
}
