//! Pass-through: calls of methods that are not ours go on to a gateway behind this replica, as they
//! came, so that one address serves both.
//!
//! Nothing is decoded. Metadata, deadlines, messages, trailers and the end of either side pass on
//! frame by frame, with the back-pressure of HTTP/2. Who calls is the other gateway's to find out:
//! it sees the caller's own credentials.

use std::path::PathBuf;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use tonic::Status;
use tonic::transport::Channel;
use tower_service::Service as _;

use crate::server::{CONNECT_TIMEOUT, Error, KEEPALIVE, read};
use crate::{access, outgoing, status};

/// The packages whose methods are all answered here; of OpenShell's, those that have
/// a row in the table of [`access`].
const OWN: [&str; 3] = ["/evermint.v1.", "/grpc.health.", "/grpc.reflection."];

/// A gateway behind this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamGateway {
    /// Where it is: `http://…` or `https://…`.
    pub url: String,
    /// PEM certificates of the authorities that may vouch for it; the system's if not given.
    pub ca: Option<PathBuf>,
}

/// Whether this replica answers `path` itself.
pub(crate) fn is_own(path: &str) -> bool {
    OWN.iter().any(|own| path.starts_with(own)) || access::method(path).is_some()
}

/// The way to the other gateway. It connects when it is needed, and again when it breaks.
#[derive(Clone)]
pub(crate) struct Passage(Channel);

impl Passage {
    pub(crate) fn new(upstream: &UpstreamGateway) -> Result<Self, Error> {
        let unusable = |problem: String| Error::UpstreamGateway {
            url: upstream.url.clone(),
            problem,
        };
        let ca = upstream.ca.as_ref().map(read).transpose()?;
        if ca.is_some() && upstream.url.starts_with("http://") {
            return Err(unusable("has a CA, but is no https:// URL".to_owned()));
        }
        let tls = || evermint_tls::trusting(ca.as_deref(), None);
        let channel = outgoing::channel(&upstream.url, tls, |endpoint| {
            endpoint
                .connect_timeout(CONNECT_TIMEOUT)
                .http2_keep_alive_interval(KEEPALIVE.0)
                .keep_alive_timeout(KEEPALIVE.1)
                .keep_alive_while_idle(true)
        });
        channel.map(Self).map_err(unusable)
    }

    /// The connection, for calls that are made rather than passed on.
    pub(crate) fn channel(&self) -> Channel {
        self.0.clone()
    }

    /// Passes one call on, which is none of [ours](is_own): the caller's token for us is not for
    /// others to see. The answer's messages follow as they come; when the caller goes away,
    /// the other gateway is told by the reset of its stream.
    pub(crate) async fn call(mut self, request: Request) -> Response {
        let path = request.uri().path().to_owned();
        let request = request.map(tonic::body::Body::new);
        let answered = async {
            std::future::poll_fn(|cx| self.0.poll_ready(cx)).await?;
            self.0.call(request).await
        };
        match answered.await {
            Ok(answer) => answer.map(Body::new),
            Err(error) => {
                tracing::warn!(%error, path, "the gateway behind this one did not answer");
                Status::into_http::<Body>(status::upstream_unreachable())
            }
        }
    }
}
