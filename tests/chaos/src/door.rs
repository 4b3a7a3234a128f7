//! The way from replicas to an issuer: a door on the loopback of each place, since issuers without
//! TLS are reached on loopback only. A door can be shut, in several ways.

use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::history::Place;
use crate::net::Network;

/// How a door lets requests through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// At once.
    #[default]
    Open,
    /// It hangs up on everyone, and on whoever is inside.
    Shut,
    /// Everyone may come in, and nobody gets any further. Whoever is there when that ends is hung
    /// up on: nothing is let through late.
    Silent,
    /// Nobody comes in any more, ever: connections are refused. Whoever is inside is served.
    Closed,
    /// Answers take so much longer.
    Slow(Duration),
}

/// The doors to one issuer; closed when dropped.
#[derive(Debug)]
pub struct Doors {
    port: u16,
    doors: Vec<Arc<Door>>,
    _porters: JoinSet<()>,
}

/// One of them.
#[derive(Debug)]
pub struct Door {
    way: watch::Sender<Way>,
    turned_away: AtomicU64,
}

impl Doors {
    /// Doors at every place, that lead to `upstream`. Without namespaces all places share one.
    ///
    /// # Errors
    /// When a port cannot be had.
    pub fn to(upstream: SocketAddr, net: &Network, places: usize) -> Result<Self, String> {
        let bind = |port: u16| StdListener::bind((Ipv4Addr::LOCALHOST, port));
        let mut listeners = Vec::new();
        match net {
            // A loopback of its own has every port to give.
            Network::Namespaces(net) => {
                for place in 0..places {
                    listeners.push(net.at(place, || bind(upstream.port()))?);
                }
            }
            Network::Proxies(_) => listeners.push(bind(0)),
        }
        let mut porters = JoinSet::new();
        let mut doors = Vec::new();
        let mut port = 0;
        for listener in listeners {
            let listener = listener.map_err(|e| format!("a door: {e}"))?;
            let listen = || -> std::io::Result<(TcpListener, u16)> {
                listener.set_nonblocking(true)?;
                let port = listener.local_addr()?.port();
                Ok((TcpListener::from_std(listener)?, port))
            };
            let (listener, at) = listen().map_err(|e| format!("a door: {e}"))?;
            port = at;
            let door = Arc::new(Door {
                way: watch::channel(Way::Open).0,
                turned_away: AtomicU64::new(0),
            });
            porters.spawn(serve(listener, upstream, Arc::clone(&door)));
            doors.push(door);
        }
        Ok(Self {
            port,
            doors,
            _porters: porters,
        })
    }

    /// The token endpoint, as every replica reaches it.
    pub fn token_url(&self) -> String {
        format!("http://127.0.0.1:{}/token", self.port)
    }

    /// The door at a place.
    pub fn at(&self, place: Place) -> &Door {
        &self.doors[place % self.doors.len()]
    }
}

impl Door {
    /// Sets how it lets requests through.
    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// How many connections were turned away, held up or slowed down so far.
    pub fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }
}

async fn serve(listener: TcpListener, upstream: SocketAddr, door: Arc<Door>) {
    let mut inside = JoinSet::new();
    let mut way = door.way.subscribe();
    loop {
        // Whoever has a connection already when the door closes has come in.
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            _ = way.wait_for(|way| *way == Way::Closed) => break,
        };
        let Ok((guest, _)) = accepted else {
            break;
        };
        inside.spawn(pass(guest, upstream, Arc::clone(&door)));
        while inside.try_join_next().is_some() {}
    }
    drop(listener);
    inside.join_all().await;
}

async fn pass(guest: TcpStream, upstream: SocketAddr, door: Arc<Door>) {
    let mut way = door.way.subscribe();
    let now = *way.borrow_and_update();
    if now != Way::Open {
        door.turned_away.fetch_add(1, Ordering::Relaxed);
    }
    let delay = match now {
        Way::Open | Way::Closed => Duration::ZERO,
        Way::Slow(delay) => delay,
        Way::Shut => return,
        Way::Silent => {
            // Until it ends; the guest may leave before.
            let mut guest = guest;
            let mut byte = [0; 1024];
            loop {
                tokio::select! {
                    _ = way.changed() => return,
                    read = guest.read(&mut byte) => if !matches!(read, Ok(1..)) { return },
                }
            }
        }
    };
    let Ok(issuer) = TcpStream::connect(upstream).await else {
        return;
    };
    let _ = (guest.set_nodelay(true), issuer.set_nodelay(true));
    let (mut asks, mut hears) = guest.into_split();
    let (mut answers, mut listens) = issuer.into_split();
    let back = async {
        let mut bytes = vec![0; 16 << 10];
        while let Ok(n @ 1..) = answers.read(&mut bytes).await {
            sleep(delay).await;
            if hears.write_all(&bytes[..n]).await.is_err() {
                break;
            }
        }
    };
    let shut = async {
        // Whoever is inside when the door falls silent is cut off too.
        let _ = way
            .wait_for(|way| matches!(way, Way::Shut | Way::Silent))
            .await;
        door.turned_away.fetch_add(1, Ordering::Relaxed);
    };
    // Whoever hangs up first ends both ways.
    tokio::select! {
        _ = copy(&mut asks, &mut listens) => {}
        () = back => {}
        () = shut => {}
    }
}
