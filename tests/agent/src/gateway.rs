//! A gateway that serves whatever bundle it is given.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use evermint_proto::v1;
use evermint_proto::v1::bundles_server::{Bundles, BundlesServer};
use evermint_proto::v1::report_token_response::Outcome;
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
    outcome: watch::Sender<Outcome>,
    reported: watch::Sender<Vec<v1::ReportTokenRequest>>,
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
        let outcome = watch::Sender::new(Outcome::Due);
        let reported = watch::Sender::new(Vec::new());
        let service = Service {
            bundle: bundle.subscribe(),
            outcome: outcome.subscribe(),
            reported: reported.clone(),
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
            outcome,
            reported,
            _server: server,
        }
    }

    /// Serves a bundle from now on.
    pub fn serve(&self, bundle: v1::Bundle) {
        self.bundle.send_replace(Some(bundle));
    }

    /// What it says to refused tokens from now on.
    pub fn answer_reports(&self, outcome: Outcome) {
        self.outcome.send_replace(outcome);
    }

    /// The refused tokens that it was told of.
    pub fn reported(&self) -> Vec<v1::ReportTokenRequest> {
        self.reported.borrow().clone()
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

#[derive(Clone)]
struct Service {
    bundle: watch::Receiver<Option<v1::Bundle>>,
    outcome: watch::Receiver<Outcome>,
    reported: watch::Sender<Vec<v1::ReportTokenRequest>>,
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

    async fn report_token(
        &self,
        request: Request<v1::ReportTokenRequest>,
    ) -> Result<Response<v1::ReportTokenResponse>, Status> {
        let request = request.into_inner();
        let generation = request.generation;
        self.reported.send_modify(|all| all.push(request));
        Ok(Response::new(v1::ReportTokenResponse {
            outcome: (*self.outcome.borrow()).into(),
            generation,
            not_before_ms: None,
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
