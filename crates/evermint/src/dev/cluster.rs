//! Three replicas in this process: start, kill, start again.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use evermint_core::id::ReplicaId;
use evermint_core::port::StateView as _;

use crate::command::keygen;
use crate::duration::Time;
use crate::settings::Settings;
use crate::wire::Replica;

/// Replicas of the cluster.
const REPLICAS: usize = 3;
/// How long the cluster may take to form.
const FORM: Duration = Duration::from_secs(60);

/// One of the replicas, running or killed.
pub(super) struct Seat {
    settings: Settings,
    /// Its id, once it has one.
    pub(super) id: ReplicaId,
    running: Option<Replica>,
    killed: Option<Instant>,
}

impl Seat {
    /// Whether it runs.
    pub(super) fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// The URL of its API.
    pub(super) fn api(&self) -> String {
        format!("http://{}", self.settings.api_listen)
    }
}

/// The replicas.
pub(super) struct Cluster {
    /// By the order of their start.
    pub(super) seats: Vec<Seat>,
}

impl Cluster {
    /// Starts the replicas with their data below `home`, and waits until all vote.
    pub(super) async fn start(home: &Path, port_base: Option<u16>) -> Result<Self> {
        let kek_file = home.join("kek");
        if !kek_file.exists() {
            keygen::create(&kek_file)?;
        }
        let ports = match port_base {
            Some(base) => listed(base)?,
            None => free()?,
        };
        let first_peer = ports[0].1;
        let mut seats = Vec::new();
        for (i, (api, peer)) in ports.into_iter().enumerate() {
            let settings = Settings {
                data_dir: home.join(format!("replica-{}", i + 1)),
                init: i == 0,
                peers: if i == 0 {
                    vec![]
                } else {
                    vec![first_peer.to_string()]
                },
                kek_file: Some(kek_file.clone()),
                api_listen: api,
                peer_listen: peer,
                ..quick()
            };
            let replica = Box::pin(Replica::start(settings.clone()))
                .await
                .with_context(|| format!("replica {} does not start", i + 1))?;
            seats.push(Seat {
                settings,
                id: replica.node.identity().0,
                running: Some(replica),
                killed: None,
            });
        }
        let cluster = Self { seats };
        cluster.formed().await?;
        Ok(cluster)
    }

    /// Waits until all replicas vote and every shard has an owner.
    async fn formed(&self) -> Result<()> {
        let deadline = Instant::now() + FORM;
        loop {
            let formed = self.any().is_some_and(|replica| {
                let status = replica.raft();
                let state = replica.node.state();
                let owned = state.shards.len() == usize::from(state.settings().shards);
                status.voters.len() == REPLICAS && status.leader.is_some() && owned
            });
            if formed {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the replicas did not form a cluster within {FORM:?}; dev.log says more");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The URLs of all APIs.
    pub(super) fn urls(&self) -> Vec<String> {
        self.seats.iter().map(Seat::api).collect()
    }

    /// Those that run.
    pub(super) fn running(&self) -> impl Iterator<Item = &Replica> {
        self.seats.iter().filter_map(|seat| seat.running.as_ref())
    }

    /// The running replica whose state is the newest, and that knows a leader if any does.
    pub(super) fn any(&self) -> Option<&Replica> {
        self.running()
            .max_by_key(|r| (r.node.state().meta.position, r.raft().leader.is_some()))
    }

    /// Kills the leader, with everything that it does, and says which it was.
    pub(super) async fn kill_leader(&mut self) -> Option<ReplicaId> {
        // Without two others, nobody could lead.
        if self.running().count() < REPLICAS {
            return None;
        }
        let leader = self.any()?.raft().leader?;
        let seat = self.seats.iter_mut().find(|seat| seat.id == leader)?;
        let replica = seat.running.take()?;
        seat.killed = Some(Instant::now());
        replica.kill().await;
        Some(leader)
    }

    /// Starts those again that were killed so long ago.
    pub(super) async fn revive(&mut self, after: Duration) -> Result<()> {
        for seat in &mut self.seats {
            if seat.killed.is_some_and(|at| at.elapsed() >= after) {
                let settings = seat.settings.clone();
                let replica = Box::pin(Replica::start(settings))
                    .await
                    .with_context(|| format!("replica {} does not start again", seat.id))?;
                seat.running = Some(replica);
                seat.killed = None;
            }
        }
        Ok(())
    }

    /// Stops all, the leader last.
    pub(super) async fn shutdown(self) {
        let leader = self.any().and_then(|replica| replica.raft().leader);
        let (leading, following): (Vec<Seat>, Vec<Seat>) = self
            .seats
            .into_iter()
            .partition(|seat| Some(seat.id) == leader);
        for seat in following.into_iter().chain(leading) {
            if let Some(replica) = seat.running {
                replica.shutdown().await;
            }
        }
    }
}

/// Settings for a machine of one's own and tokens of a few seconds.
fn quick() -> Settings {
    Settings {
        insecure_loopback: true,
        issuers_allow_loopback: true,
        raft_heartbeat: Time::millis(100),
        raft_election_min: Time::millis(300),
        raft_election_max: Time::millis(600),
        raft_beat: Time::millis(200),
        raft_lost_after: Time::millis(1_000),
        cluster_shards: 64,
        cluster_ticket_ttl: Time::secs(6),
        cluster_ticket_margin: Time::millis(1_500),
        cluster_doubt_wait: Time::secs(2),
        cluster_backoff_base: Time::millis(250),
        cluster_backoff_cap: Time::secs(2),
        cluster_default_lifetime: Time::secs(60),
        shutdown_grace: Time::secs(5),
        ..Settings::default()
    }
}

type Ports = [(SocketAddr, SocketAddr); REPLICAS];

fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn listed(base: u16) -> Result<Ports> {
    if base == 0 || base > u16::MAX - 21 {
        bail!("--port-base must be 1 to {}", u16::MAX - 21);
    }
    Ok([0, 10, 20].map(|step| (at(base + step), at(base + step + 1))))
}

/// Ports that were free a moment ago.
fn free() -> Result<Ports> {
    // All are held until the last one is chosen, so that they differ.
    let mut held = Vec::new();
    let mut next = || -> Result<SocketAddr> {
        let listener = TcpListener::bind(at(0)).context("no free port")?;
        let address = listener.local_addr().context("no free port")?;
        held.push(listener);
        Ok(address)
    };
    Ok([(next()?, next()?), (next()?, next()?), (next()?, next()?)])
}
