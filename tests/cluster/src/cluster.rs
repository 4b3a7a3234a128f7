//! Replicas as processes: started, killed, paused, started again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use evermint_proto::v1::{
    CreateJoinTokenRequest, GetClusterStatusRequest, GetClusterStatusResponse, Role,
};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::timeout;

use crate::admin::{Admin, cluster};
use crate::binary::evermint;
use crate::config::{self, Options};
use crate::ports::free_port;
use crate::process::{Process, tail};
use crate::tap::Tap;
use crate::wait::{eventually, say};

/// How long a cluster may take to be there: elections, joins, a loaded machine.
const START: Duration = Duration::from_secs(40);
/// How long it may take to have a leader again.
const ELECTION: Duration = Duration::from_secs(15);
/// How long one replica may take to say how it sees the cluster.
const STATUS: Duration = Duration::from_secs(2);

/// One cluster at a time, also where all tests are threads of one process: they measure times.
static ONE_AT_A_TIME: LazyLock<Arc<Mutex<()>>> = LazyLock::new(Arc::default);

/// Replicas on loopback, each with a data directory of its own under one temporary directory.
#[derive(Debug)]
pub struct Cluster {
    dir: Option<TempDir>,
    replicas: Vec<Replica>,
    admin: Admin,
    /// Given back last, when all processes are gone.
    _turn: OwnedMutexGuard<()>,
}

/// One place for a replica: its ports and its directory. Whether a process lives there is another
/// matter.
#[derive(Debug)]
pub struct Replica {
    /// Where clients reach it.
    pub api_port: u16,
    /// Where other replicas reach it.
    pub peer_port: u16,
    /// What it keeps.
    pub data_dir: PathBuf,
    /// Where its join token is, if it needs one.
    pub join_token: PathBuf,
    pub(crate) config: PathBuf,
    log: PathBuf,
    tap: Option<Tap>,
    process: Option<Process>,
}

impl Cluster {
    /// Three replicas that have found each other, have a leader and own all shards.
    pub async fn start(options: Options) -> Self {
        let turn = Arc::clone(&ONE_AT_A_TIME).lock_owned().await;
        let binary = evermint();
        let dir = TempDir::with_prefix("evermint-cluster-").expect("a temporary directory");
        let logs = dir.path().join("logs");
        std::fs::create_dir(&logs).expect("a directory for the logs");
        let tapped = dir.path().join("tapped");
        std::fs::create_dir(&tapped).expect("a directory for what is tapped");
        let mut replicas: Vec<_> = (0..options.replicas)
            .map(|n| Replica {
                api_port: free_port(),
                peer_port: free_port(),
                data_dir: dir.path().join(format!("replica-{n}")),
                join_token: dir.path().join(format!("replica-{n}.join")),
                config: dir.path().join(format!("replica-{n}.toml")),
                log: logs.join(format!("replica-{n}.log")),
                tap: None,
                process: None,
            })
            .collect();
        if options.tapped {
            for replica in &mut replicas {
                replica.tap = Some(Tap::before(replica.peer_port, &tapped).await);
            }
        }
        config::write_kek(dir.path(), binary);
        for replica in &replicas {
            config::write(&options, dir.path(), replica, &replicas);
        }
        let urls = replicas
            .iter()
            .map(|r| format!("http://127.0.0.1:{}", r.api_port));
        let mut cluster = Self {
            admin: Admin::new(urls),
            dir: Some(dir),
            replicas,
            _turn: turn,
        };
        let joins_by_token = options.certificates.is_some();
        for n in 0..cluster.len() - options.later {
            if joins_by_token && n > 0 {
                cluster.join_token(n).await;
            }
            cluster.start_one(n);
        }
        cluster.ready(START).await;
        cluster
    }

    /// Makes a join token for a replica that is yet to start, as an operator does.
    pub async fn join_token(&self, n: usize) {
        let request = CreateJoinTokenRequest::default();
        let making = async || {
            let mut client = cluster(self.admin.turn());
            let made = client.create_join_token(request).await;
            Ok(made
                .map_err(|status| status.to_string())?
                .into_inner()
                .token)
        };
        let token = eventually("a join token", START, making).await;
        let path = &self.replicas[n].join_token;
        std::fs::write(path, token).expect("a file for the token");
    }

    /// Runs the program of a replica that is to end by itself, and gives what it said.
    pub fn refused(&self, n: usize) -> String {
        let replica = &self.replicas[n];
        let mut command = Command::new(evermint());
        config::serve(&mut command, &replica.config);
        let process = Process::spawn(&mut command, &replica.log);
        let status = process.ended(START);
        assert!(!status.success(), "replica {n} was let in");
        tail(&replica.log)
    }

    /// How many replicas it has, running or not.
    #[allow(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.replicas.len()
    }

    /// Calls to it.
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// The directory of what its replicas say.
    pub fn logs(&self) -> PathBuf {
        self.root().join("logs")
    }

    /// The directory of what its replicas said to each other, if that was to be written down.
    pub fn tapped(&self) -> PathBuf {
        self.root().join("tapped")
    }

    /// The file of the key-encryption key.
    pub fn kek(&self) -> PathBuf {
        config::kek(self.root())
    }

    /// The configuration file of a replica.
    pub fn config(&self, n: usize) -> &Path {
        &self.replicas[n].config
    }

    /// Gives a replica, from its next start on, another key-encryption key and the one before it.
    pub fn rekey(&self, n: usize, kek: &Path, former: Option<&Path>) {
        config::rekey(&self.replicas[n].config, kek, former);
    }

    fn root(&self) -> &Path {
        self.dir.as_ref().expect("until it is dropped").path()
    }

    /// One of its replicas.
    pub fn replica(&self, n: usize) -> &Replica {
        &self.replicas[n]
    }

    /// All others.
    pub fn others(&self, n: usize) -> impl Iterator<Item = usize> + use<> {
        (0..self.len()).filter(move |other| *other != n)
    }

    /// Those that run and are not paused.
    pub fn up(&self) -> impl Iterator<Item = usize> {
        (0..self.len()).filter(|n| self.admin.is_up(*n))
    }

    /// How many have run so far, and so have a log.
    fn started(&self) -> usize {
        self.replicas.iter().filter(|r| r.log.exists()).count()
    }

    /// Starts the process of a replica, with whatever its data directory holds.
    pub fn start_one(&mut self, n: usize) {
        let replica = &mut self.replicas[n];
        assert!(replica.process.is_none(), "replica {n} runs already");
        let mut command = Command::new(evermint());
        config::serve(&mut command, &replica.config);
        replica.process = Some(Process::spawn(&mut command, &replica.log));
        self.admin.mark(n, true);
    }

    /// The id of a replica's process.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pid(&self, n: usize) -> u32 {
        let process = self.replicas[n].process.as_ref();
        process.expect("the replica runs").id()
    }

    /// Kills a replica with SIGKILL. Returns when it is gone.
    pub fn kill(&mut self, n: usize) {
        self.take(n).kill();
    }

    /// Kills all that run with SIGKILL, at once.
    pub fn kill_all(&mut self) {
        let mut killed = Vec::new();
        for n in 0..self.len() {
            if self.replicas[n].process.is_some() {
                let process = self.take(n);
                process.signal(Signal::KILL);
                killed.push(process);
            }
        }
        killed.into_iter().for_each(Process::kill);
    }

    /// The process of a replica, which is about to end.
    fn take(&mut self, n: usize) -> Process {
        let mut process = self.replicas[n].process.take().expect("it runs");
        assert_eq!(process.exit(), None, "replica {n} ended by itself");
        self.admin.mark(n, false);
        process
    }

    /// Asks a replica to end with SIGTERM, and waits until it has.
    pub fn terminate(&mut self, n: usize, bound: Duration) -> std::process::ExitStatus {
        self.take(n).terminate(bound)
    }

    /// Stops a replica with SIGSTOP; its sockets stay open.
    pub fn pause(&mut self, n: usize) {
        self.admin.mark(n, false);
        self.replicas[n].running().pause();
    }

    /// Lets a paused replica go on.
    pub fn resume(&mut self, n: usize) {
        self.replicas[n].running().resume();
        self.admin.mark(n, true);
    }

    /// The cluster as one replica sees it; `None` if that does not answer.
    pub async fn status(&self, n: usize) -> Option<GetClusterStatusResponse> {
        if !self.admin.is_up(n) {
            return None;
        }
        let mut client = cluster(self.admin.on(n));
        let request = GetClusterStatusRequest::default();
        let answer = timeout(STATUS, client.get_cluster_status(request)).await;
        Some(answer.ok()?.ok()?.into_inner())
    }

    /// The replica that leads, once there is one that a quorum follows.
    pub async fn leader(&self) -> usize {
        eventually("a leader with a quorum", ELECTION, async || {
            let mut seen = Vec::new();
            for n in 0..self.len() {
                seen.extend(self.status(n).await.map(|status| (n, status)));
            }
            let newest = seen.iter().map(|(_, s)| s.term).max().unwrap_or(0);
            let leads = |s: &GetClusterStatusResponse| s.role() == Role::Leader && s.term == newest;
            let leader = seen.iter().find(|(_, s)| leads(s));
            let followers = |id| seen.iter().filter(|(_, s)| s.leader == Some(id)).count();
            match leader {
                Some((n, status)) if followers(status.replica) * 2 > self.len() => Ok(*n),
                Some(_) | None => Err(format!(
                    "{:?}",
                    seen.iter()
                        .map(|(n, s)| (n, s.role(), s.term, s.leader))
                        .collect::<Vec<_>>()
                )),
            }
        })
        .await
    }

    /// Which of its replicas bears a Raft id.
    pub async fn with_id(&self, id: u64) -> usize {
        for n in 0..self.len() {
            if self.status(n).await.is_some_and(|s| s.replica == id) {
                return n;
            }
        }
        panic!("no running replica has the id {id}")
    }

    /// Waits until every running replica votes, follows the same leader and is in touch with it,
    /// and every shard is owned by one of them.
    pub async fn ready(&self, bound: Duration) {
        eventually("the cluster is ready", bound, async || {
            let mut ids = Vec::new();
            let mut leaders = Vec::new();
            for n in self.up() {
                let Some(status) = self.status(n).await else {
                    return Err(format!("replica {n} does not answer"));
                };
                let voters = status.replicas.iter().filter(|r| r.voter).count();
                let itself = status.replicas.iter().find(|r| r.id == status.replica);
                let owns = itself.is_some_and(|r| r.voter && r.shards > 0);
                if status.unowned_shards > 0
                    || voters != self.started()
                    || !owns
                    || status.staleness_ms.is_none()
                {
                    return Err(format!("replica {n}: {status:?}"));
                }
                ids.push(status.replica);
                leaders.push(status.leader);
            }
            leaders.dedup();
            match leaders[..] {
                [Some(leader)] if ids.contains(&leader) => Ok(()),
                _ => Err(format!("leaders {leaders:?} of replicas {ids:?}")),
            }
        })
        .await;
    }

    /// Waits until every running replica has applied what the leader has applied now, and says
    /// how far that is.
    pub async fn caught_up(&self) -> u64 {
        let leader = self.leader().await;
        let status = self.status(leader).await.expect("the leader answers");
        for n in self.up() {
            let what = format!("replica {n} catches up");
            eventually(&what, START, async || match self.status(n).await {
                Some(own) if own.position >= status.position => Ok(()),
                own => Err(format!(
                    "{:?} of {}",
                    own.map(|s| s.position),
                    status.position
                )),
            })
            .await;
        }
        status.position
    }
}

impl Replica {
    /// Where other replicas knock.
    pub(crate) fn peer_door(&self) -> u16 {
        self.tap.as_ref().map_or(self.peer_port, |tap| tap.port)
    }

    /// How much its mint journal holds, in bytes: 0 if no mint of it is open. An entry grows when
    /// the answer of its mint is added.
    pub fn journalled(&self) -> u64 {
        let dir = config::journal(&self.data_dir);
        let entries = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        // An entry that is still being written has another name.
        let entries = entries
            .flatten()
            .filter(|e| e.path().extension() == Some("mint".as_ref()));
        let sizes = entries.filter_map(|e| Some(e.metadata().ok()?.len()));
        sizes.sum()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        for (n, replica) in self.replicas.iter_mut().enumerate() {
            replica.process = None;
            if failed {
                say(&format!("--- replica {n}\n{}", tail(&replica.log)));
            }
        }
        if failed && let Some(dir) = self.dir.take() {
            say(&format!("kept: {}", dir.keep().display()));
        }
    }
}
