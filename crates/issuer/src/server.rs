//! Starting and stopping: one listener on loopback, one router.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    routing::{get, post},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Handle, Policy, admin,
    desk::Desk,
    resource, revocation, token,
    wire::{Wire, WireListener},
};

/// What the issuer is started with. The default is strict, on a free port, without `/admin`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen: a loopback address; port 0 takes a free one.
    pub address: SocketAddr,
    /// How tokens live where a client does not say otherwise.
    pub policy: Policy,
    /// Time that every token request takes before it is served.
    pub latency: Duration,
    /// Whether the listener serves `/admin`, which hands out refresh tokens to anybody on this host.
    pub admin: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            policy: Policy::default(),
            latency: Duration::ZERO,
            admin: false,
        }
    }
}

/// The issuer, before it runs.
#[derive(Debug)]
pub struct Issuer;

impl Issuer {
    /// Listens and serves until [`Running::shutdown`] or the drop of what is returned.
    ///
    /// # Errors
    /// [`Error::NotLoopback`] for an address that others could reach, [`Error::Listen`] when the
    /// address cannot be had.
    pub async fn start(config: Config) -> Result<Running, Error> {
        let address = config.address;
        if !address.ip().is_loopback() {
            return Err(Error::NotLoopback(address));
        }
        let listen = |source| Error::Listen { address, source };
        let tcp = TcpListener::bind(address).await.map_err(listen)?;
        let url = format!("http://{}", tcp.local_addr().map_err(listen)?);

        let stop = CancellationToken::new();
        let desk = Arc::new(Desk::new(&config, url, stop.clone()));
        let mut router = Router::new()
            .route("/token", post(token::token))
            .route("/revoke", post(revocation::revoke))
            .route("/resource", get(resource::resource))
            .route("/introspect", post(resource::introspect));
        if config.admin {
            router = router.nest("/admin", admin::router());
        }
        let service = router
            .with_state(Arc::clone(&desk))
            .into_make_service_with_connect_info::<Wire>();
        let listener = WireListener {
            tcp,
            stop: stop.clone(),
        };
        let server = tokio::spawn(async move {
            let serving =
                axum::serve(listener, service).with_graceful_shutdown(stop.cancelled_owned());
            if let Err(error) = serving.await {
                tracing::error!(%error, "issuer stopped");
            }
        });
        tracing::info!(url = desk.url, "issuer listening");
        Ok(Running {
            handle: Handle::new(desk),
            server: Some(server),
        })
    }
}

/// A running issuer. Dropping it stops it too, without waiting.
#[derive(Debug)]
pub struct Running {
    handle: Handle,
    server: Option<JoinHandle<()>>,
}

impl Running {
    /// `http://127.0.0.1:PORT`, without a slash at the end.
    pub fn url(&self) -> &str {
        self.handle.url()
    }

    /// The token endpoint.
    pub fn token_url(&self) -> String {
        self.handle.token_url()
    }

    /// The revocation endpoint ([RFC 7009](https://www.rfc-editor.org/rfc/rfc7009)).
    pub fn revoke_url(&self) -> String {
        format!("{}/revoke", self.url())
    }

    /// What controls and observes it; may be cloned and kept.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Cuts every connection, ends every held request, and waits until all is gone.
    pub async fn shutdown(mut self) {
        self.handle.stop().await;
        if let Some(server) = self.server.take() {
            // It fails only when it panicked or its runtime goes down: it is gone in any case.
            let _ = server.await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.cancel();
    }
}
