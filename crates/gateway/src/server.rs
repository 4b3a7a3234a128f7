//! The gRPC server of one replica.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evermint_proto::openshell::inference::v1::inference_server::InferenceServer as RoutesServer;
use evermint_proto::openshell::v1::open_shell_server::OpenShellServer;
use evermint_proto::v1::audit_server::AuditServer;
use evermint_proto::v1::cluster_server::ClusterServer;
use evermint_proto::v1::inference_server::InferenceServer;
use evermint_proto::v1::profiles_server::ProfilesServer;
use evermint_proto::v1::providers_server::ProvidersServer;
use evermint_proto::v1::ready::bundles_server::BundlesServer;
use evermint_proto::v1::refreshes_server::RefreshesServer;
use evermint_proto::v1::sandbox_tokens_server::SandboxTokensServer;
use evermint_proto::v1::sandboxes_server::SandboxesServer;
use evermint_tls::{ClientAuth, Files, Material, ServerConfigs};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;

use crate::call::{self, Around};
use crate::caller::{AdminToken, Door};
use crate::fence::Fence;
use crate::openshell::{self, Face};
use crate::others::Others;
use crate::passthrough::{Passage, UpstreamGateway};
use crate::service::{Services, TRIALS_MAX};
use crate::shared::{Ports, Shared};
use crate::token::TokenRules;
use crate::views::Views;
use crate::{health, names};

/// The largest request that is read, in bytes. A valid one stays below 1 MiB; the rest is room to
/// say which field of an invalid one is too large.
pub const REQUEST_MAX: usize = 4 << 20;
/// How long a request may take to arrive.
pub(crate) const REQUEST_TIME: Duration = Duration::from_secs(20);
/// HTTP/2 pings go out at this interval, and an answer has to come within the other.
pub(crate) const KEEPALIVE: (Duration, Duration) =
    (Duration::from_secs(20), Duration::from_secs(10));
/// How long the gateway behind this one has to take a connection.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Most streams of one connection: watchers of a whole node may share one.
const STREAMS_MAX: u32 = 4096;
/// Most calls of one connection that are worked on at once.
const CALLS_MAX: usize = 1024;
/// How long calls may run on after the shutdown began.
const DRAIN: Duration = Duration::from_secs(5);

/// What the server's operator may set.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bounds on reads.
    pub limits: Limits,
    /// The operator's token. Every call needs it, or a sandbox's own; without one anyone who
    /// reaches the server and shows no token may call.
    pub admin: Option<AdminToken>,
    /// Serves TLS with these files; plain HTTP/2 without.
    pub tls: Option<TlsFiles>,
    /// Where calls of methods go that are not ours; without it they are answered
    /// `UNIMPLEMENTED`.
    pub upstream_gateway: Option<UpstreamGateway>,
    /// Whose tokens sandboxes may show.
    pub tokens: TokenRules,
}

/// Bounds on reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Out of touch with a leader for longer, a replica serves no secrets.
    pub max_staleness: Duration,
    /// How long a call waits at most until this replica has applied what it asks for.
    pub catch_up: Duration,
    /// How often a watcher hears at least.
    pub heartbeat: Duration,
    /// The program's version, for status.
    pub version: &'static str,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_staleness: Duration::from_secs(300),
            catch_up: Duration::from_secs(2),
            heartbeat: Duration::from_secs(15),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// A certificate and its key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, with the chain up to a root that clients trust.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the TLS configuration cannot be read.
    #[error("cannot read {path}: {source}")]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The certificate or its key is not what it should be.
    #[error("TLS: {0}")]
    Tls(#[from] evermint_tls::Error),
    /// The gateway behind this one cannot be used.
    #[error("the upstream gateway {url} {problem}")]
    UpstreamGateway {
        /// Its URL, as it was given.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The descriptors of this build cannot be served.
    #[error("reflection cannot be served: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The server stopped.
    #[error("the gRPC server stopped: {0}")]
    Serve(tonic::transport::Error),
}

/// Serves every face on `listener` until `shutdown`; calls that run then have a few seconds to
/// end, and watch streams end at once.
///
/// # Errors
/// [`Error`].
pub async fn serve(
    listener: TcpListener,
    ports: Ports,
    config: Config,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let mut server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_concurrent_streams(STREAMS_MAX)
        .concurrency_limit_per_connection(CALLS_MAX);
    let tls = config.tls.as_ref().map(follow).transpose()?;
    let certificate = config.tls.as_ref().map(|files| &files.certificate);
    let chain = certificate.map(read).transpose()?;
    if let Ok(address) = listener.local_addr() {
        tracing::info!({ names::ADDRESS } = %address, tls = config.tls.is_some(), "serving gRPC");
    }

    let passage = config
        .upstream_gateway
        .as_ref()
        .map(Passage::new)
        .transpose()?;
    let shared = Arc::new(Shared {
        fence: Fence::new(Arc::clone(&ports.view)),
        others: Others::new(chain),
        passage: passage.clone(),
        tokens: config.tokens,
        views: Views::new(
            Arc::clone(&ports.view),
            Arc::clone(&ports.keyring),
            Arc::clone(&ports.catalog),
        ),
        ports,
        trials: Semaphore::new(TRIALS_MAX),
        limits: config.limits,
        shutdown: shutdown.clone(),
    });
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let routes = routes(&shared, config.admin, passage, health_service)?;
    let router = server.add_routes(routes);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let stopped = shutdown.clone().cancelled_owned();
    let serving = async {
        match tls {
            Some(configs) => {
                let incoming = std::pin::pin!(evermint_tls::incoming(incoming, configs));
                router.serve_with_incoming_shutdown(incoming, stopped).await
            }
            None => router.serve_with_incoming_shutdown(incoming, stopped).await,
        }
    };
    let fit = health::start(&shared, &reporter).await;
    tokio::select! {
        served = serving => served.map_err(Error::Serve),
        () = background(&shared, &reporter, fit) => Ok(()),
    }
}

/// Everything that goes on beside calls; ends after the shutdown, when the drain is over.
async fn background(shared: &Shared, reporter: &HealthReporter, fit: bool) {
    tokio::join!(
        shared.views.follow(shared.shutdown.clone()),
        health::report(shared, reporter, fit),
        async {
            shared.shutdown.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        },
    );
}

fn routes(
    shared: &Arc<Shared>,
    admin: Option<AdminToken>,
    passage: Option<Passage>,
    health: HealthServer<impl Health>,
) -> Result<Routes, Error> {
    let services = Services(Arc::clone(shared));
    let face = Face(Arc::clone(shared));
    macro_rules! limited {
        ($server:ident) => {
            $server::new(services.clone()).max_decoding_message_size(REQUEST_MAX)
        };
    }
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(evermint_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(evermint_proto::openshell::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let routes = Routes::new(limited!(ProvidersServer))
        .add_service(limited!(ProfilesServer))
        .add_service(limited!(RefreshesServer))
        .add_service(limited!(InferenceServer))
        .add_service(limited!(SandboxesServer))
        .add_service(limited!(SandboxTokensServer))
        .add_service(limited!(BundlesServer))
        .add_service(limited!(ClusterServer))
        .add_service(limited!(AuditServer))
        .add_service(
            OpenShellServer::new(face.clone()).max_decoding_message_size(openshell::REQUEST_MAX),
        )
        .add_service(RoutesServer::new(face).max_decoding_message_size(openshell::REQUEST_MAX))
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    let around = Arc::new(Around {
        door: Door {
            admin,
            shared: Arc::clone(shared),
        },
        passage,
    });
    let around = axum::middleware::from_fn_with_state(around, call::wrap);
    Ok(Routes::from(routes.into_axum_router().layer(around)))
}

/// Reads certificate and key, and reads them again whenever they change, as long as anybody asks.
fn follow(files: &TlsFiles) -> Result<ServerConfigs, Error> {
    let files = Files {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        ca: None,
    };
    let material = files.read()?;
    let (tell, configs) = watch::channel(Arc::new(tls_config(&material)?));
    tokio::spawn(async move {
        let take = |material: &Material| match tls_config(material) {
            Ok(config) => drop(tell.send_replace(Arc::new(config))),
            Err(error) => tracing::warn!(%error, "changed certificate files cannot be used"),
        };
        tokio::select! {
            () = evermint_tls::follow(files, material, take) => {}
            () = tell.closed() => {}
        }
    });
    Ok(configs)
}

fn tls_config(material: &Material) -> Result<rustls::ServerConfig, evermint_tls::Error> {
    evermint_tls::server_config(Arc::clone(&material.identity), ClientAuth::None)
}

fn read(path: &PathBuf) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::TlsFile {
        path: path.clone(),
        source,
    })
}
