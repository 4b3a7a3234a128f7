//! Loopback with a proxy before each peer port, where there are no namespaces. A proxy learns from
//! the kernel whose connection it has accepted, so that it knows from where to where bytes go.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evermint_cluster_tests::free_port;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Harm, Rule};
use crate::history::Place;

/// How long a proxy looks for the owner of a connection.
const LOOK: Duration = Duration::from_millis(500);

/// The proxies of one run; closed when dropped.
#[derive(Debug)]
pub struct Proxies {
    ports: Vec<Ports>,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    api: u16,
    listen: u16,
    proxy: u16,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Told when rules change.
    rules: watch::Sender<Vec<Rule>>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    hits: BTreeMap<u64, u64>,
    /// The process at each place.
    pids: BTreeMap<Place, u32>,
}

impl Proxies {
    /// Opens a proxy for each place.
    ///
    /// # Errors
    /// When a port cannot be had.
    pub async fn up(places: usize) -> Result<Self, String> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            rules: watch::channel(Vec::new()).0,
        });
        let mut tasks = JoinSet::new();
        let mut ports = Vec::new();
        for place in 0..places {
            let own = Ports {
                api: free_port(),
                listen: free_port(),
                proxy: free_port(),
            };
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, own.proxy)).await;
            let listener = listener.map_err(|e| format!("port {}: {e}", own.proxy))?;
            tasks.spawn(serve(listener, place, own.listen, Arc::clone(&shared)));
            ports.push(own);
        }
        Ok(Self {
            ports,
            shared,
            _tasks: tasks,
        })
    }

    /// Takes note of which process runs at a place.
    pub fn runs(&self, place: Place, pid: u32) {
        self.shared.state().pids.insert(place, pid);
    }

    pub(super) fn api(&self, place: Place) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports[place].api).into()
    }

    pub(super) fn peer_listen(&self, place: Place) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports[place].listen).into()
    }

    pub(super) fn peer(&self, place: Place) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports[place].proxy).into()
    }

    pub(super) fn harm(&self, from: Place, to: Place, harm: Harm) -> Result<Rule, String> {
        if let Harm::Lose(_) = harm {
            return Err("proxies cannot lose single packets".to_owned());
        }
        let handle = {
            let mut state = self.shared.state();
            state.next += 1;
            state.next
        };
        let rule = Rule {
            from,
            to,
            harm,
            handle,
        };
        self.shared
            .rules
            .send_modify(|rules| rules.push(rule.clone()));
        Ok(rule)
    }

    pub(super) fn hits(&self, rule: &Rule) -> u64 {
        let state = self.shared.state();
        state.hits.get(&rule.handle).copied().unwrap_or(0)
    }

    pub(super) fn lift(&self, rule: &Rule) {
        let same = |other: &Rule| other.handle == rule.handle;
        self.shared
            .rules
            .send_modify(|rules| rules.retain(|other| !same(other)));
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose socket has this local port.
    fn owner(&self, port: u16) -> Option<Place> {
        let sockets = fs::read_to_string("/proc/net/tcp").ok()?;
        let local = format!("0100007F:{port:04X}");
        let inode = sockets.lines().find_map(|line| {
            let columns: Vec<&str> = line.split_ascii_whitespace().collect();
            (columns.get(1)? == &local).then(|| columns.get(9).copied())?
        })?;
        let link = format!("socket:[{inode}]");
        let holds = |pid: u32| {
            let fds = fs::read_dir(format!("/proc/{pid}/fd"))
                .into_iter()
                .flatten();
            fds.flatten()
                .any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == link.as_str()))
        };
        let pids = self.state().pids.clone();
        pids.into_iter()
            .find(|(_, pid)| holds(*pid))
            .map(|(place, _)| place)
    }
}

async fn serve(listener: TcpListener, to: Place, port: u16, shared: Arc<Shared>) {
    let mut open = JoinSet::new();
    while let Ok((stream, from)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        open.spawn(async move {
            let (port_of, looked) = (from.port(), Arc::clone(&shared));
            let look = tokio::task::spawn_blocking(move || looked.owner(port_of));
            let Ok(Ok(Some(from))) = tokio::time::timeout(LOOK, look).await else {
                return;
            };
            let Ok(upstream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else {
                return;
            };
            // Nothing is won by waiting for more.
            let _ = (stream.set_nodelay(true), upstream.set_nodelay(true));
            let (near, far) = (stream.into_split(), upstream.into_split());
            tokio::select! {
                () = pass(near.0, far.1, from, to, &shared) => {}
                () = pass(far.0, near.1, to, from, &shared) => {}
            }
        });
        while open.try_join_next().is_some() {}
    }
}

/// Passes bytes on until either side ends, as far as the rules allow.
async fn pass(
    mut source: OwnedReadHalf,
    mut sink: OwnedWriteHalf,
    from: Place,
    to: Place,
    shared: &Shared,
) {
    let mut rules = shared.rules.subscribe();
    let mut bytes = vec![0; 16 << 10];
    loop {
        let read = tokio::select! {
            read = source.read(&mut bytes) => read,
            reset = resets(&mut rules, from, to) => {
                shared.hit(reset);
                return;
            }
        };
        let Ok(n @ 1..) = read else { return };
        loop {
            let rule = {
                let rules = rules.borrow_and_update();
                applies(&rules, from, to)
            };
            let Some(rule) = rule else { break };
            shared.hit(rule.handle);
            if rule.harm == Harm::Reset {
                return;
            }
            if rules.changed().await.is_err() {
                return;
            }
        }
        if sink.write_all(&bytes[..n]).await.is_err() {
            return;
        }
    }
}

fn applies(rules: &[Rule], from: Place, to: Place) -> Option<Rule> {
    let fits = |rule: &&Rule| rule.from == from && rule.to == to;
    rules.iter().find(fits).cloned()
}

/// Waits until connections from one place to another are to be reset.
async fn resets(rules: &mut watch::Receiver<Vec<Rule>>, from: Place, to: Place) -> u64 {
    let reset =
        |rules: &Vec<Rule>| applies(rules, from, to).is_some_and(|rule| rule.harm == Harm::Reset);
    if rules.wait_for(reset).await.is_err() {
        std::future::pending::<()>().await;
    }
    applies(&rules.borrow(), from, to).map_or(0, |rule| rule.handle)
}

impl Shared {
    fn hit(&self, handle: u64) {
        *self.state().hits.entry(handle).or_default() += 1;
    }
}
