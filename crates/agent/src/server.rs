//! Connections: plain or TLS, HTTP/1.1 or HTTP/2, told apart by their first bytes; and their end.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::answer::text;
use crate::body::Body;
use crate::ca::{OWN, Shown, host_of, is_own};
use crate::proxy::Endpoint;
use crate::shared::Shared;
use crate::{inference, local, proxy};

/// Most connections at once, of both listeners together. More wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 4096;
/// How long a connection may take to say something, and to agree on TLS.
const HELLO: Duration = Duration::from_secs(10);
/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(30);
/// The pause after the system refused a connection, such as for want of descriptors.
const BREATH: Duration = Duration::from_millis(50);
/// How Google's metadata server is known.
const METADATA: &str = "metadata.google.internal";
/// The first byte of a TLS connection.
const TLS: u8 = 0x16;

/// What is at the other end of a connection, and so what its requests are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Face {
    /// The listener for calls and proxy requests.
    Front,
    /// The same, beyond loopback: TLS only.
    FrontOnNetwork,
    /// The listener for health, metrics and metadata.
    Local,
    /// The inside of a tunnel to `inference.local`.
    Inference,
    /// The inside of a tunnel to an endpoint that a credential is bound to.
    Bound(Endpoint),
}

/// Everything that runs, and how it is stopped.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) shared: Arc<Shared>,
    pub(crate) local: Arc<local::Local>,
    /// No new requests.
    drain: CancellationToken,
    /// No requests any more.
    stop: CancellationToken,
    tasks: TaskTracker,
    connections: Arc<Semaphore>,
}

impl Server {
    pub(crate) fn new(shared: Arc<Shared>, local: Arc<local::Local>) -> Self {
        Self {
            shared,
            local,
            drain: CancellationToken::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        }
    }

    /// Takes connections until the end.
    pub(crate) fn listen(&self, listener: TcpListener, face: Face) {
        let server = self.clone();
        self.spawn(async move {
            let accept = async {
                loop {
                    let permit = Arc::clone(&server.connections).acquire_owned().await;
                    match listener.accept().await {
                        Ok((stream, _)) => {
                            let connection = server.clone().connection(stream, face.clone());
                            server.spawn(async move {
                                Box::pin(connection).await;
                                drop(permit);
                            });
                        }
                        Err(_) => sleep(BREATH).await,
                    }
                }
            };
            tokio::select! {
                () = accept => {}
                () = server.drain.cancelled() => {}
            }
        });
    }

    /// Runs something until it or the server ends.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = task => {}
                () = stop.cancelled() => {}
            }
        });
    }

    /// Ends in good order: takes nothing new, and lets requests under way end within `grace`. Says
    /// whether they did.
    pub(crate) async fn shutdown(&self, grace: Duration) -> bool {
        self.drain.cancel();
        self.tasks.close();
        let drained = timeout(grace, self.tasks.wait()).await.is_ok();
        self.stop.cancel();
        self.tasks.wait().await;
        drained
    }

    async fn connection(self, stream: TcpStream, face: Face) {
        let mut first = [0];
        let peeked = tokio::select! {
            peeked = timeout(HELLO, stream.peek(&mut first)) => peeked,
            () = self.drain.cancelled() => return,
        };
        // Whoever says nothing is not answered.
        let Ok(Ok(1)) = peeked else { return };
        let _ = stream.set_nodelay(true);
        match (first[0] == TLS, &face) {
            (true, Face::Front | Face::FrontOnNetwork) => {
                Box::pin(self.secure(stream, OWN[0].to_owned(), Face::Front)).await;
            }
            (true, _) | (false, Face::FrontOnNetwork) => {}
            (false, _) => self.requests(stream, face).await,
        }
    }

    /// Speaks TLS as `host`, then takes requests.
    pub(crate) async fn secure<S>(self, stream: S, host: String, face: Face)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let shown = Shown {
            ca: Arc::clone(&self.shared),
            host,
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider speaks TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(shown));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        if let Ok(Ok(stream)) = timeout(HELLO, acceptor.accept(stream)).await {
            self.requests(stream, face).await;
        }
    }

    /// Takes the requests of a connection until its end.
    pub(crate) async fn requests<S>(self, stream: S, face: Face)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let drain = self.drain.clone();
        let service = service_fn(move |request| {
            let (server, face) = (self.clone(), face.clone());
            async move { Ok::<_, Infallible>(Box::pin(server.answer(&face, request)).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(20))
            .max_concurrent_streams(256);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        // A caller that goes away is no error of ours.
        tokio::select! {
            _ = connection.as_mut() => return,
            () = drain.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    }

    async fn answer(&self, face: &Face, request: Request<Incoming>) -> Response<Body> {
        if matches!(face, Face::Front | Face::Local) && is_misled(&request) {
            return text(
                StatusCode::MISDIRECTED_REQUEST,
                "this agent is not the host that was asked for\n",
            );
        }
        match face {
            Face::Local => self.local.serve(&self.shared, &request),
            Face::Inference => inference::serve(&self.shared, request).await,
            Face::Bound(endpoint) => proxy::bound(&self.shared, endpoint, request).await,
            Face::Front | Face::FrontOnNetwork => {
                let absolute = is_for_a_proxy(&request);
                if request.method() == Method::CONNECT {
                    proxy::connect(self, request).await
                } else if absolute {
                    proxy::absolute(self, request).await
                } else {
                    inference::serve(&self.shared, request).await
                }
            }
        }
    }
}

/// Whether the request names a whole URL, as requests to proxies do. Over HTTP/2, all do.
fn is_for_a_proxy<B>(request: &Request<B>) -> bool {
    request.version() < Version::HTTP_2 && request.uri().authority().is_some()
}

/// Whether a browser was led here: by a name that somebody else has made to point to this address, or
/// by a page of another site. What a page does is not what the sandbox wants.
fn is_misled<B>(request: &Request<B>) -> bool {
    if request.method() == Method::CONNECT || is_for_a_proxy(request) {
        return false;
    }
    let header = |name| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    if header("sec-fetch-site").is_some_and(|site| site.ends_with("-site")) {
        return true;
    }
    let named = request.uri().authority().cloned();
    let named = named.or_else(|| header("host")?.parse().ok());
    named.is_some_and(|authority| {
        let host = host_of(&authority);
        !is_own(&host) && host != METADATA && host.parse::<IpAddr>().is_err()
    })
}
