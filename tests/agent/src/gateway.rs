//! A gateway that serves whatever bundle it is given.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use evermint_proto::v1;
use evermint_proto::v1::bundles_server::{Bundles, BundlesServer};
use futures::{Stream, StreamExt, stream};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// A running gateway; stopped when it is dropped.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    bundle: watch::Sender<Option<v1::Bundle>>,
    _server: JoinSet<()>,
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl Gateway {
    /// Serves nothing yet: it is unavailable.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let bundle = watch::Sender::new(None);
        let service = Service {
            bundle: bundle.subscribe(),
        };
        let mut server = JoinSet::new();
        server.spawn(async move {
            let serving = Server::builder()
                .add_service(BundlesServer::new(service))
                .serve_with_incoming(TcpIncoming::from(listener));
            let _ = serving.await;
        });
        Self {
            address,
            bundle,
            _server: server,
        }
    }

    /// Serves a bundle from now on.
    pub fn serve(&self, bundle: v1::Bundle) {
        self.bundle.send_replace(Some(bundle));
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

#[derive(Clone)]
struct Service {
    bundle: watch::Receiver<Option<v1::Bundle>>,
}

const HEARTBEAT: Duration = Duration::from_secs(1);

#[tonic::async_trait]
impl Bundles for Service {
    async fn get_bundle(
        &self,
        _: Request<v1::GetBundleRequest>,
    ) -> Result<Response<v1::GetBundleResponse>, Status> {
        let bundle = self.bundle.borrow().clone();
        let bundle = bundle.ok_or_else(|| Status::unavailable("not yet"))?;
        Ok(Response::new(v1::GetBundleResponse {
            bundle: Some(bundle),
            server_time_ms: now_ms(),
            ..v1::GetBundleResponse::default()
        }))
    }

    type WatchBundleStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchBundleResponse, Status>> + Send>>;

    async fn watch_bundle(
        &self,
        _: Request<v1::WatchBundleRequest>,
    ) -> Result<Response<Self::WatchBundleStream>, Status> {
        let mut bundle = self.bundle.clone();
        if bundle.borrow().is_none() {
            return Err(Status::unavailable("not yet"));
        }
        bundle.mark_changed();
        let messages = stream::unfold(bundle, |mut bundle| async {
            let changed = match timeout(HEARTBEAT, bundle.changed()).await {
                Ok(Ok(())) => true,
                Ok(Err(_)) => return None,
                Err(_) => false,
            };
            let now = bundle.borrow_and_update().clone()?;
            let message = v1::WatchBundleResponse {
                generation: now.generation,
                bundle: changed.then_some(now),
                staleness_ms: 0,
                server_time_ms: now_ms(),
            };
            Some((Ok(message), bundle))
        });
        Ok(Response::new(messages.boxed()))
    }
}
