//! A tap on the way between replicas: it passes on what they say to each other, and writes it down.

use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Before one replica; in use until it is dropped.
#[derive(Debug)]
pub(crate) struct Tap {
    pub(crate) port: u16,
    _porter: JoinSet<()>,
}

impl Tap {
    /// Passes connections on to `port` of loopback. Each way of each is written to a file in `dir`.
    pub(crate) async fn before(port: u16, dir: &Path) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port on loopback");
        let own = listener.local_addr().expect("its address").port();
        let dir: Arc<PathBuf> = Arc::new(dir.to_owned());
        let mut porter = JoinSet::new();
        porter.spawn(async move {
            let mut guests = JoinSet::new();
            for number in 0_u64.. {
                let Ok((guest, _)) = listener.accept().await else {
                    return;
                };
                let files = ["to", "from"].map(|way| dir.join(format!("{way}-{port}.{number}")));
                guests.spawn(pass(
                    guest,
                    SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
                    files,
                ));
                while guests.try_join_next().is_some() {}
            }
        });
        Self {
            port: own,
            _porter: porter,
        }
    }
}

/// Passes a connection on until both sides have hung up, or one is gone.
async fn pass(mut guest: TcpStream, to: SocketAddr, [there, back]: [PathBuf; 2]) {
    let Ok(mut host) = TcpStream::connect(to).await else {
        return;
    };
    let ((from_guest, to_guest), (from_host, to_host)) = (guest.split(), host.split());
    tokio::join!(
        copy(from_guest, to_host, &there),
        copy(from_host, to_guest, &back)
    );
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, file: &Path) {
    let mut file = File::create(file).expect("a file");
    let mut chunk = vec![0; 1 << 16];
    while let Ok(n @ 1..) = from.read(&mut chunk).await {
        // Written down before it is passed on: what is there was seen.
        file.write_all(&chunk[..n]).expect("it is written down");
        if to.write_all(&chunk[..n]).await.is_err() {
            break;
        }
    }
    // Who hung up may still be spoken to.
    let _ = to.shutdown().await;
}
