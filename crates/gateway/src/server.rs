//! The gRPC server of one replica.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evermint_proto::openshell::inference::v1::inference_server::InferenceServer as RoutesServer;
use evermint_proto::openshell::v1::open_shell_server::OpenShellServer;
use evermint_proto::v1::audit_server::AuditServer;
use evermint_proto::v1::cluster_server::ClusterServer;
use evermint_proto::v1::inference_server::InferenceServer;
use evermint_proto::v1::keys_server::KeysServer;
use evermint_proto::v1::profiles_server::ProfilesServer;
use evermint_proto::v1::providers_server::ProvidersServer;
use evermint_proto::v1::ready::bundles_server::BundlesServer;
use evermint_proto::v1::refreshes_server::RefreshesServer;
use evermint_proto::v1::sandbox_tokens_server::SandboxTokensServer;
use evermint_proto::v1::sandboxes_server::SandboxesServer;
use evermint_tls::{ClientAuth, ClientConfigs, Files, Material, ServerConfigs};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;

use crate::bounds::Bounds;
use crate::call::{self, Around};
use crate::caller::{AdminToken, Door, Ways};
use crate::doorway::Doorway;
use crate::fence::Fence;
use crate::logins::Logins;
use crate::oidc::{Oidc, Verifier};
use crate::openshell::{self, Face};
use crate::others::Others;
use crate::passthrough::{Passage, UpstreamGateway};
use crate::rates::Rates;
use crate::refusals::Refusals;
use crate::roles::RoleRule;
use crate::service::{Services, TRIALS_MAX};
use crate::shared::{Ports, Shared};
use crate::token::TokenRules;
use crate::views::Views;
use crate::{health, names};

/// HTTP/2 pings go out at this interval, and an answer has to come within the other.
pub(crate) const KEEPALIVE: (Duration, Duration) =
    (Duration::from_secs(20), Duration::from_secs(10));
/// How long the gateway behind this one has to take a connection.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Most calls of one connection that are worked on at once.
const CALLS_MAX: usize = 1024;
/// How long calls may run on after the shutdown began.
const DRAIN: Duration = Duration::from_secs(5);

/// What the server's operator may set.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bounds on reads.
    pub limits: Limits,
    /// Bounds on callers.
    pub bounds: Bounds,
    /// The token that opens everything. With neither this nor `oidc` nor `certificates`, anyone who
    /// reaches the server and shows no token may call.
    pub admin: Option<AdminToken>,
    /// An OpenID provider whose tokens operators may show.
    pub oidc: Option<Oidc>,
    /// Client certificates that operators may show; needs TLS.
    pub certificates: Option<ClientCertificates>,
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

/// Whose certificates operators may show, and what these mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// PEM certificates of the authorities that sign them.
    pub ca: PathBuf,
    /// What their bearers may do.
    pub roles: Vec<RoleRule>,
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
    let bounds = config.bounds;
    let mut server = Server::builder()
        .http2_keepalive_interval(Some(bounds.keepalive))
        .http2_keepalive_timeout(Some(bounds.keepalive_timeout))
        .http2_max_header_list_size(bounds.header_bytes)
        .http2_max_pending_accept_reset_streams(Some(bounds.resets))
        .http2_max_local_error_reset_streams(Some(bounds.errors))
        .max_concurrent_streams(bounds.streams)
        .concurrency_limit_per_connection(CALLS_MAX);
    let tls = config
        .tls
        .as_ref()
        .map(|files| follow(files, config.certificates.as_ref()))
        .transpose()?;
    let (tls, neighbours) = tls.unzip();
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
        others: Others::new(neighbours),
        passage: passage.clone(),
        tokens: config.tokens,
        views: Views::new(
            Arc::clone(&ports.view),
            Arc::clone(&ports.keyring),
            Arc::clone(&ports.catalog),
        ),
        ports,
        refusals: Refusals::default(),
        trials: Semaphore::new(TRIALS_MAX),
        limits: config.limits,
        rates: Rates::new(&bounds),
        logins: Logins::new(&bounds),
        bounds,
        shutdown: shutdown.clone(),
    });
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let oidc = config
        .oidc
        .map(|oidc| Arc::new(Verifier::new(oidc, Arc::clone(&shared.ports.web))));
    let ways = Ways {
        admin: config.admin,
        oidc: oidc.clone(),
        certificates: config.certificates.map(|c| c.roles),
    };
    let routes = routes(&shared, ways, passage, health_service)?;
    let router = server.add_routes(routes);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let incoming = Doorway::new(incoming, &shared.bounds);
    let greeting = shared.bounds.greeting;
    let stopped = shutdown.clone().cancelled_owned();
    let serving = async {
        match tls {
            Some(configs) => {
                let incoming = std::pin::pin!(evermint_tls::incoming(incoming, configs, greeting));
                router.serve_with_incoming_shutdown(incoming, stopped).await
            }
            None => router.serve_with_incoming_shutdown(incoming, stopped).await,
        }
    };
    let fit = health::start(&shared, &reporter).await;
    tokio::select! {
        served = serving => served.map_err(Error::Serve),
        () = background(&shared, &reporter, fit, oidc) => Ok(()),
    }
}

/// Everything that goes on beside calls; ends after the shutdown, when the drain is over.
async fn background(
    shared: &Shared,
    reporter: &HealthReporter,
    fit: bool,
    oidc: Option<Arc<Verifier>>,
) {
    tokio::join!(
        async {
            if let Some(oidc) = oidc {
                oidc.keys.follow(shared.shutdown.clone()).await;
            }
        },
        shared.rates.sweep(shared.shutdown.clone()),
        shared.views.follow(shared.shutdown.clone()),
        health::report(shared, reporter, fit),
        shared
            .shutdown
            .run_until_cancelled(shared.refusals.record(shared)),
        async {
            shared.shutdown.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        },
    );
}

fn routes(
    shared: &Arc<Shared>,
    ways: Ways,
    passage: Option<Passage>,
    health: HealthServer<impl Health>,
) -> Result<Routes, Error> {
    let services = Services(Arc::clone(shared));
    let face = Face(Arc::clone(shared));
    macro_rules! limited {
        ($server:ident) => {
            $server::new(services.clone()).max_decoding_message_size(shared.bounds.request_bytes)
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
        .add_service(limited!(KeysServer))
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
            ways,
            shared: Arc::clone(shared),
        },
        passage,
    });
    let around = axum::middleware::from_fn_with_state(around, call::wrap);
    Ok(Routes::from(routes.into_axum_router().layer(around)))
}

/// Reads certificate and key, and reads them again whenever they change, as long as anybody asks.
/// They say how callers are served, and which other replicas are trusted.
fn follow(
    files: &TlsFiles,
    clients: Option<&ClientCertificates>,
) -> Result<(ServerConfigs, ClientConfigs), Error> {
    let files = Files {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        ca: clients.map(|clients| clients.ca.clone()),
    };
    let material = files.read()?;
    let (tell, configs) = watch::channel(Arc::new(tls_config(&material)?));
    let (tell_neighbours, neighbours) = watch::channel(Arc::new(neighbour_config(&material)?));
    tokio::spawn(async move {
        let take = |material: &Material| match (tls_config(material), neighbour_config(material)) {
            (Ok(server), Ok(neighbour)) => {
                tell.send_replace(Arc::new(server));
                tell_neighbours.send_replace(Arc::new(neighbour));
            }
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(%error, "changed certificate files cannot be used");
            }
        };
        tokio::select! {
            () = evermint_tls::follow(files, material, take) => {}
            () = tell.closed() => {}
        }
    });
    Ok((configs, neighbours))
}

fn tls_config(material: &Material) -> Result<rustls::ServerConfig, evermint_tls::Error> {
    // Sandboxes show none.
    let clients = match &material.roots {
        Some(roots) => ClientAuth::Optional(Arc::clone(roots)),
        None => ClientAuth::None,
    };
    evermint_tls::server_config(Arc::clone(&material.identity), clients)
}

/// Other replicas' certificates come from where this one's does.
fn neighbour_config(material: &Material) -> Result<rustls::ClientConfig, evermint_tls::Error> {
    evermint_tls::trusting_alike(&material.identity.cert)
}

pub(crate) fn read(path: &PathBuf) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::TlsFile {
        path: path.clone(),
        source,
    })
}
