//! Calls to upstreams: one pool of connections, bounded in time.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::{Instant, timeout_at};

use crate::body::Body;

/// Bounds of calls to upstreams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a connection may take to come about, TLS apart.
    pub connect: Duration,
    /// How long an answer may fall silent while it is listened to.
    pub idle: Duration,
    /// How long a call may take in all, where its route does not say.
    pub call: Duration,
    /// The largest body that is read: one that names a model. In bytes.
    pub body_max: usize,
    /// The largest other body that is kept, so that a call can be made again. In bytes.
    pub replay_max: usize,
    /// How long a call waits for another token when its own was refused.
    pub rotation: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(120),
            call: Duration::from_secs(600),
            body_max: 32 << 20,
            replay_max: 1 << 20,
            rotation: Duration::from_secs(15),
        }
    }
}

/// Idle connections are kept for so long.
const POOL_IDLE: Duration = Duration::from_secs(60);
/// So many for each host.
const POOL_MAX: usize = 64;

/// Makes calls.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    client: Client<HttpsConnector<HttpConnector>, Body>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Nothing was sent.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// It may have been carried out.
    #[error("it broke off: {0}")]
    Broken(String),
    /// The time was over.
    #[error("it has not answered in time")]
    Late,
}

impl Upstream {
    /// Trusts what the system trusts, and `authorities` too.
    pub(crate) fn new(connect: Duration, authorities: &[CertificateDer<'static>]) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots.add_parsable_certificates(authorities.iter().cloned());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider speaks TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(connect));
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(POOL_MAX)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .build(connector);
        Self { client }
    }

    /// Makes a call, up to the head of its answer. Dropping the future gives the call up.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) async fn call(
        &self,
        request: Request<Body>,
        deadline: Instant,
    ) -> Result<Response<Incoming>, Failure> {
        match timeout_at(deadline, self.client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if error.is_connect() => Err(Failure::Unreachable(innermost(&error))),
            Ok(Err(error)) => Err(Failure::Broken(innermost(&error))),
            Err(_) => Err(Failure::Late),
        }
    }
}

/// What is at the bottom of an error: the layers above say only that there is one.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
