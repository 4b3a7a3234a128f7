//! Replicas on loopback, in one process, each with a data directory of its own.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(missing_docs, unreachable_pub, reason = "test support")]

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use evermint_core::command::{Answer, Command, Done};
use evermint_core::id::{Name, ProviderId, ProviderType, ReplicaId, Workspace};
use evermint_core::port::{Proposer, StateView};
use evermint_core::secret::{DataKeyId, WrappedKey};
use evermint_core::settings::Settings;
use evermint_replica::{Bootstrap, Config, Node, Role, Snapshots, Timing};
use tempfile::TempDir;

/// Longer than anything takes on a busy machine.
pub const BOUND: Duration = Duration::from_secs(60);

pub fn timing() -> Timing {
    Timing {
        heartbeat: Duration::from_millis(100),
        election_timeout_min: Duration::from_millis(400),
        election_timeout_max: Duration::from_millis(800),
        beat: Duration::from_millis(100),
        lost_after: Duration::from_secs(2),
        propose: Duration::from_secs(10),
        snapshot: Duration::from_secs(60),
    }
}

/// A place where a replica lives, whether it runs or not.
pub struct Home {
    pub dir: TempDir,
    pub address: SocketAddr,
}

impl Home {
    pub fn new() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            dir: tempfile::tempdir().unwrap(),
            address: free.local_addr().unwrap(),
        }
    }

    pub fn config(&self) -> Config {
        Config {
            api_address: format!("http://api-of-{}", self.address),
            timing: timing(),
            keks: vec!["test".to_owned()],
            ..Config::new(self.dir.path(), self.address)
        }
    }

    /// Empties the disk: whoever lives here next is another replica.
    pub fn wipe(&mut self) {
        self.dir = tempfile::tempdir().unwrap();
    }

    pub async fn restart(&self) -> Node {
        start(self.config()).await
    }
}

pub fn bootstrap() -> Bootstrap {
    Bootstrap {
        settings: Settings {
            shards: 16,
            ..Settings::default()
        },
        data_key: DataKeyId(1),
        wrapped: WrappedKey {
            kek: "test".to_owned(),
            nonce: [0; 12],
            ciphertext: vec![1, 2, 3],
        },
    }
}

pub async fn start(config: Config) -> Node {
    tokio::time::timeout(BOUND, Node::start(config))
        .await
        .expect("the replica starts in time")
        .unwrap()
}

/// Cuts the log early.
pub fn small_snapshots() -> Snapshots {
    Snapshots {
        after_entries: 20,
        keep_entries: 5,
    }
}

/// A cluster of `count` replicas, all voting.
pub async fn cluster(count: usize) -> Vec<(Home, Node)> {
    let first = Home::new();
    let config = Config {
        bootstrap: Some(bootstrap()),
        ..first.config()
    };
    let mut cluster = vec![(first, start(config).await)];
    for _ in 1..count {
        let home = Home::new();
        let node = join(&home, &cluster[0].1).await;
        cluster.push((home, node));
    }
    all_vote(cluster.iter().map(|(_, node)| node)).await;
    cluster
}

pub async fn join(home: &Home, peer: &Node) -> Node {
    let config = Config {
        peers: vec![peer.peer_address().to_owned()],
        ..home.config()
    };
    start(config).await
}

/// Waits until exactly these vote, and all of them know it.
pub async fn all_vote(nodes: impl IntoIterator<Item = &Node>) {
    let nodes: Vec<&Node> = nodes.into_iter().collect();
    let mut ids: Vec<ReplicaId> = nodes.iter().map(|n| n.identity().0).collect();
    ids.sort();
    for node in nodes {
        until("it votes with the others", || async {
            let status = node.status().await;
            (status.voters == ids && status.leader.is_some()).then_some(())
        })
        .await;
    }
}

/// Waits until `look` sees something.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let looking = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(BOUND, looking).await {
        Ok(seen) => seen,
        Err(_) => panic!("waited in vain until {what}"),
    }
}

/// The one that leads, by its place in the list.
pub async fn leader(nodes: &[(Home, Node)]) -> usize {
    until("one of them leads", || async {
        for (place, (_, node)) in nodes.iter().enumerate() {
            let status = node.status().await;
            if status.role == Role::Leader && status.staleness < Some(Duration::from_secs(1)) {
                return Some(place);
            }
        }
        None
    })
    .await
}

pub fn create(id: u128) -> Command {
    Command::CreateProvider {
        id: ProviderId(id),
        workspace: Workspace::default_workspace(),
        name: Name::new(format!("provider-{id}")).unwrap(),
        kind: ProviderType::new("generic").unwrap(),
        config: BTreeMap::from([("note".to_owned(), "x".repeat(200))]),
        notes: Default::default(),
        credentials: BTreeMap::new(),
    }
}

/// Creates a provider through `node`, and gives the answer.
pub async fn write(node: &Node, id: u128) -> Answer {
    let answer = node.propose(create(id)).await.unwrap();
    assert!(
        matches!(answer.outcome, Ok(Done::Version(_) | Done::Ok)),
        "{answer:?}"
    );
    answer
}

pub fn has(node: &Node, id: u128) -> bool {
    node.state().providers.contains_key(&ProviderId(id))
}

/// Waits until all have applied what the first one has, and compares their states.
pub async fn all_equal<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> u64 {
    let nodes: Vec<&Node> = nodes.into_iter().collect();
    until("all states are equal", || async {
        let states: Vec<_> = nodes.iter().map(|n| n.state()).collect();
        let position = states[0].meta.position;
        if states.iter().any(|s| s.meta.position != position) {
            return None;
        }
        let hashes: Vec<u64> = states.iter().map(|s| s.hash()).collect();
        assert!(
            hashes.iter().all(|h| *h == hashes[0]),
            "states differ at {position}"
        );
        Some(hashes[0])
    })
    .await
}

/// Every file below `dir`, the largest first.
pub fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort_by_key(|path| std::cmp::Reverse(path.metadata().unwrap().len()));
    found
}
