//! A bare tonic server of the same service: it answers with bytes that it was given, and does
//! nothing else. The named thing beside which bundle reads and watches are measured.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use evermint_proto::v1;
use evermint_proto::v1::ready;
use evermint_proto::v1::ready::bundles_server::{Bundles, BundlesServer};
use futures::{Stream, StreamExt};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// What it answers with now.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) bundle: Bytes,
    pub(crate) generation: u64,
}

/// A running echo.
pub(crate) struct Echo {
    pub(crate) url: String,
    pub(crate) answer: Arc<watch::Sender<Answer>>,
    server: tokio::task::JoinHandle<()>,
}

impl Echo {
    /// Serves `bundle` on a free port of loopback.
    pub(crate) fn start(bundle: Bytes) -> anyhow::Result<Self> {
        let answer = Arc::new(watch::Sender::new(Answer {
            bundle,
            generation: 0,
        }));
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?.with_nodelay(Some(true));
        let url = format!("http://{}", incoming.local_addr()?);
        let service = BundlesServer::new(Service(Arc::clone(&answer)));
        let server = tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            // It ends with the benchmark.
            let _ = server.serve_with_incoming(incoming).await;
        });
        Ok(Self {
            url,
            answer,
            server,
        })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Service(Arc<watch::Sender<Answer>>);

#[tonic::async_trait]
impl Bundles for Service {
    async fn get_bundle(
        &self,
        _: Request<v1::GetBundleRequest>,
    ) -> Result<Response<ready::GetBundleResponse>, Status> {
        Ok(Response::new(ready::GetBundleResponse {
            bundle: Some(self.0.borrow().bundle.clone()),
            staleness_ms: 0,
            server_time_ms: 0,
            expiring: Vec::new(),
        }))
    }

    async fn report_token(
        &self,
        _: Request<v1::ReportTokenRequest>,
    ) -> Result<Response<v1::ReportTokenResponse>, Status> {
        Err(Status::unimplemented("nothing is minted here"))
    }

    type WatchBundleStream =
        Pin<Box<dyn Stream<Item = Result<ready::WatchBundleResponse, Status>> + Send>>;

    async fn watch_bundle(
        &self,
        _: Request<v1::WatchBundleRequest>,
    ) -> Result<Response<Self::WatchBundleStream>, Status> {
        let answers = WatchStream::new(self.0.subscribe()).map(|answer| {
            Ok(ready::WatchBundleResponse {
                bundle: Some(answer.bundle),
                staleness_ms: 0,
                server_time_ms: 0,
                generation: answer.generation,
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
