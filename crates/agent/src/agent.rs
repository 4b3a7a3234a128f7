//! A running agent.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evermint_client::Client;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::ca::Ca;
use crate::config::Config;
use crate::error::Error;
use crate::local::Local;
use crate::metrics::Counters;
use crate::names;
use crate::rotation::Rotations;
use crate::server::{Face, Server};
use crate::shared::Shared;
use crate::upstream::Upstream;

/// A running agent; stopped by [`Agent::shutdown`], or with its runtime.
pub struct Agent {
    pub(crate) server: Server,
    address: SocketAddr,
    local_address: SocketAddr,
}

impl Agent {
    /// Opens the local authority, listens, and follows the sandbox's bundle with `client`.
    ///
    /// # Errors
    /// [`Error::Setting`], [`Error::State`] or [`Error::Listen`].
    pub async fn start(config: Config, client: Client) -> Result<Self, Error> {
        config.check()?;
        let authorities: Vec<_> = CertificateDer::pem_slice_iter(&config.authorities)
            .collect::<Result<_, _>>()
            .map_err(|e| Error::setting("authorities", e.to_string()))?;
        if authorities.is_empty() && !config.authorities.is_empty() {
            return Err(Error::setting("authorities", "holds no certificate in PEM"));
        }
        let shared = Arc::new(Shared {
            client,
            upstream: Upstream::new(config.limits.connect, &authorities),
            ca: Ca::open(&config.state_dir)?,
            limits: config.limits,
            unbound: config.unbound,
            rotations: Rotations::new(config.limits.rotation),
            counters: Counters::default(),
        });
        let local = Arc::new(Local::new(config.metadata, config.metrics));
        let (front, address) = listen(config.listen).await?;
        let (inside, local_address) = listen(config.local_listen).await?;
        let server = Server::new(shared, local);
        let face = if address.ip().is_loopback() {
            Face::Front
        } else {
            Face::FrontOnNetwork
        };
        server.listen(front, face);
        server.listen(inside, Face::Local);
        tracing::info!({ names::LISTEN } = %address, "the agent takes calls");
        Ok(Self {
            server,
            address,
            local_address,
        })
    }

    /// Where calls and proxy requests go.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where health, metrics and the metadata endpoints are.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// The certificate of the local authority, in PEM.
    pub fn certificate_file(&self) -> PathBuf {
        self.server.shared.ca.certificate_file()
    }

    /// What the system trusts, and the local authority, in PEM.
    pub fn bundle_file(&self) -> PathBuf {
        self.server.shared.ca.bundle_file()
    }

    /// Waits for the sandbox's bundle.
    ///
    /// # Errors
    /// [`Error::NotReady`] after `bound`.
    pub async fn ready(&self, bound: Duration) -> Result<(), Error> {
        let client = &self.server.shared.client;
        let mut cause = "no gateway answers".to_owned();
        let waiting = async {
            // A refusal may pass: a sandbox may be started before it is registered.
            while let Err(error) = client.wait_ready().await {
                cause = error.to_string();
                if error == evermint_client::Error::Closed {
                    std::future::pending::<()>().await;
                }
            }
        };
        match timeout(bound, waiting).await {
            Ok(()) => Ok(()),
            Err(_) => Err(Error::NotReady {
                waited: bound,
                cause,
            }),
        }
    }

    /// Ends in good order: takes nothing new, and lets calls under way end within `grace`. Says
    /// whether they did.
    pub async fn shutdown(self, grace: Duration) -> bool {
        self.server.shutdown(grace).await
    }
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent")
            .field("address", &self.address)
            .field("local_address", &self.local_address)
            .finish_non_exhaustive()
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}
