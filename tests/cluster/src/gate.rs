//! A door before an issuer that can be shut so that connecting hangs: whoever knocks has sent
//! nothing yet, and is let in later by the kernel alone, even while his process stands still.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A connection that is not there by then hangs: on loopback it takes microseconds.
const HANGS: Duration = Duration::from_millis(300);
/// The state of a socket that waits for the answer to its first packet, as the kernel shows it.
const SYN_SENT: &str = "02";

/// The door; it is open at first.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    upstream: SocketAddr,
    listener: Arc<TcpListener>,
    /// Passes connections on while the door is open.
    porter: Option<JoinSet<()>>,
    /// What fills the queue of the listener while it is shut.
    fillers: Vec<TcpStream>,
    guests: Arc<Mutex<Vec<Guest>>>,
}

/// One connection that was let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guest {
    /// Bytes that came from it.
    pub sent: u64,
    /// Whether it has hung up.
    pub left: bool,
}

impl Gate {
    /// A door before `upstream`.
    pub async fn before(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port on loopback");
        // The shortest queue there is: one connection waits, others hang.
        rustix::net::listen(&listener, 0).expect("a shorter queue");
        let mut gate = Self {
            address: listener.local_addr().expect("its address"),
            upstream,
            listener: Arc::new(listener),
            porter: None,
            fillers: Vec::new(),
            guests: Arc::default(),
        };
        gate.open();
        gate
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everyone who was let in, in order.
    pub fn guests(&self) -> Vec<Guest> {
        lock(&self.guests).clone()
    }

    /// Closes every connection, and lets nobody in. Returns when connecting hangs.
    pub async fn shut(&mut self) {
        self.porter = None;
        while let Ok(connected) = timeout(HANGS, TcpStream::connect(self.address)).await {
            self.fillers.push(connected.expect("loopback connects"));
        }
    }

    /// Lets in who waits, and everyone else.
    pub fn open(&mut self) {
        self.fillers.clear();
        let listener = Arc::clone(&self.listener);
        let guests = Arc::clone(&self.guests);
        let upstream = self.upstream;
        let mut porter = JoinSet::new();
        porter.spawn(async move {
            let mut inside = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let number = {
                    let mut guests = lock(&guests);
                    guests.push(Guest::default());
                    guests.len() - 1
                };
                inside.spawn(serve(stream, upstream, Arc::clone(&guests), number));
            }
        });
        self.porter = Some(porter);
    }

    /// Whether somebody knocks: a connection to the door is asked for, and hangs.
    pub fn is_knocked_at(&self) -> bool {
        let sockets = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's sockets");
        let door = format!(":{:04X}", self.address.port());
        sockets.lines().any(|line| {
            let mut columns = line.split_ascii_whitespace().skip(2);
            let remote = columns.next().is_some_and(|remote| remote.ends_with(&door));
            remote && columns.next() == Some(SYN_SENT)
        })
    }
}

/// Passes on what a guest sends, and what it is answered.
async fn serve(
    guest: TcpStream,
    upstream: SocketAddr,
    guests: Arc<Mutex<Vec<Guest>>>,
    number: usize,
) {
    let (mut from, mut to) = guest.into_split();
    let Ok(upstream) = TcpStream::connect(upstream).await else {
        return;
    };
    let (mut answers, mut questions) = upstream.into_split();
    let asking = async {
        let mut bytes = vec![0; 16 << 10];
        while let Ok(n @ 1..) = from.read(&mut bytes).await {
            lock(&guests)[number].sent += n as u64;
            if questions.write_all(&bytes[..n]).await.is_err() {
                break;
            }
        }
        lock(&guests)[number].left = true;
    };
    // Whoever hangs up first ends both ways.
    tokio::select! {
        () = asking => {}
        _ = copy(&mut answers, &mut to) => {}
    }
}

fn lock(guests: &Mutex<Vec<Guest>>) -> std::sync::MutexGuard<'_, Vec<Guest>> {
    guests.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::eventually;

    #[tokio::test]
    async fn a_shut_door_lets_nobody_in_until_it_is_opened() {
        let upstream = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut gate = Gate::before(upstream.local_addr().unwrap()).await;
        gate.shut().await;
        let before = gate.guests().len();
        let address = gate.address;
        let visitor = tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            stream
        });
        let bound = Duration::from_secs(20);
        eventually("he knocks", bound, async || {
            gate.is_knocked_at().then_some(()).ok_or(String::new())
        })
        .await;
        assert!(!visitor.is_finished());
        assert_eq!(gate.guests().len(), before);
        gate.open();
        let _stream = visitor.await.unwrap();
        eventually("he is heard", bound, async || {
            let guests = gate.guests();
            let heard = guests.iter().any(|guest| guest.sent == 5);
            heard.then_some(()).ok_or(format!("{guests:?}"))
        })
        .await;
    }
}
