//! TLS for tests: one certificate for localhost, which vouches for itself.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use evermint_gateway::TlsFiles;
use evermint_tls::{ClientAuth, Files, HANDSHAKE, incoming, server_config};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Server};

pub(crate) fn tls_files() -> TlsFiles {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
    TlsFiles {
        certificate: directory.join("server.pem"),
        key: directory.join("server.key"),
    }
}

/// The way to a server with that certificate.
pub(crate) fn endpoint(address: SocketAddr) -> Endpoint {
    let pem = std::fs::read(tls_files().certificate).unwrap();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(pem))
        .domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
    endpoint.tls_config(tls).unwrap()
}

/// Serves `router` by HTTP/2 over TLS with that certificate; gives its URL.
pub(crate) async fn serve(router: Router) -> String {
    let TlsFiles { certificate, key } = tls_files();
    let files = Files {
        certificate,
        key,
        ca: None,
    };
    let identity = files.read().unwrap().identity;
    let config = server_config(identity, ClientAuth::None).unwrap();
    let (_, configs) = watch::channel(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    tokio::spawn(async move {
        let incoming = pin!(incoming(TcpIncoming::from(listener), configs, HANDSHAKE));
        let server = Server::builder().add_routes(Routes::from(router));
        server.serve_with_incoming(incoming).await
    });
    url
}
