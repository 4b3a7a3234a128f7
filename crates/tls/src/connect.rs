//! Connections that go out.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use crate::ClientConfigs;

/// Connects a tonic channel with TLS, each time with the newest configuration. The channel's
/// address is to be an `http` URL: what is underneath is not its concern.
#[derive(Clone)]
pub struct Connector {
    tcp: HttpConnector,
    configs: ClientConfigs,
    name: ServerName<'static>,
}

impl Connector {
    /// Connects to servers that show a certificate for `name`.
    pub fn new(configs: ClientConfigs, name: ServerName<'static>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        Self { tcp, configs, name }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        self.tcp.poll_ready(cx).map_err(io::Error::other)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.tcp.call(uri);
        let (configs, name) = (self.configs.clone(), self.name.clone());
        Box::pin(async move {
            let tcp = connecting.await.map_err(io::Error::other)?.into_inner();
            let connector = TlsConnector::from(configs.borrow().clone());
            let tls = connector.connect(name, tcp).await?;
            if tls.get_ref().1.alpn_protocol().is_none() {
                return Err(io::Error::other("the server speaks no HTTP/2"));
            }
            Ok(TokioIo::new(tls))
        })
    }
}
