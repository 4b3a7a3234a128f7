//! gRPC to one endpoint: connections, the sandbox's token, and bounds in time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use evermint_core::port::Clock;
use evermint_core::time::MonoMs;
use evermint_proto::v1;
use evermint_proto::v1::bundles_client::BundlesClient;
use evermint_tls::Connector;
use rustls::pki_types::ServerName;
use tokio::time::timeout;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, Endpoint};
use tonic::{Request, Streaming};

use crate::auth::TokenSource;
use crate::endpoints::Target;
use crate::failure::Failure;
use crate::timing::Timing;
use crate::url::Url;

/// The largest bundle, in bytes.
const BUNDLE_MAX: usize = 16 << 20;

/// Connections to endpoints, each made when it is needed first and kept.
pub(crate) struct Wire {
    pub(crate) urls: Vec<Url>,
    pub(crate) ca: Option<Certificate>,
    pub(crate) source: Option<Arc<dyn TokenSource>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) timing: Timing,
    pub(crate) channels: HashMap<Target, Channel>,
}

/// The answer to a request that was sent at this time of the machine's clock.
pub(crate) struct Answer<T> {
    pub(crate) sent: MonoMs,
    pub(crate) message: T,
}

/// A stream that has begun, with its first message.
pub(crate) type Begun = (
    Answer<v1::WatchBundleResponse>,
    Streaming<v1::WatchBundleResponse>,
);

impl Wire {
    /// Asks once.
    pub(crate) async fn call(
        &mut self,
        target: Target,
        request: v1::GetBundleRequest,
    ) -> Result<Answer<v1::GetBundleResponse>, Failure> {
        let bound = self.timing.attempt;
        let mut client = self.client(target)?;
        let attempt = async {
            let request = authenticated(self.source.as_deref(), request).await?;
            let sent = self.clock.read().boot;
            let answer = client.get_bundle(request).await;
            let message = answer.map_err(|s| Failure::of_call(&s))?.into_inner();
            Ok(Answer { sent, message })
        };
        let outcome = timeout(bound, attempt).await;
        outcome.unwrap_or_else(|_| {
            self.channels.remove(&target);
            Err(Failure::passing(format!("no answer within {bound:?}")))
        })
    }

    /// Begins to follow.
    pub(crate) async fn watch(
        &mut self,
        target: Target,
        request: v1::WatchBundleRequest,
    ) -> Result<Begun, Failure> {
        let bound = self.timing.attempt;
        let mut client = self.client(target)?;
        let attempt = async {
            let request = authenticated(self.source.as_deref(), request).await?;
            let sent = self.clock.read().boot;
            let answer = client.watch_bundle(request).await;
            let mut stream = answer
                .map_err(|s| Failure::of_stream(&s, false))?
                .into_inner();
            let message = next(&mut stream, bound).await?;
            Ok((Answer { sent, message }, stream))
        };
        let outcome = timeout(bound, attempt).await;
        outcome.unwrap_or_else(|_| {
            self.channels.remove(&target);
            Err(Failure::silent(bound))
        })
    }

    /// Forgets the connections to endpoints that are gone.
    pub(crate) fn retain(&mut self, stays: impl Fn(&Target) -> bool) {
        self.channels.retain(|target, _| stays(target));
    }

    fn client(&mut self, target: Target) -> Result<BundlesClient<Channel>, Failure> {
        let client = BundlesClient::new(self.channel(target)?);
        Ok(client.max_decoding_message_size(BUNDLE_MAX))
    }

    /// The connection to an endpoint.
    pub(crate) fn channel(&mut self, target: Target) -> Result<Channel, Failure> {
        if let Some(channel) = self.channels.get(&target) {
            return Ok(channel.clone());
        }
        let channel = self.connect(target)?;
        self.channels.insert(target, channel.clone());
        Ok(channel)
    }

    /// Connects to the address, and speaks to the host: TLS and requests name the URL's host.
    fn connect(&self, target: Target) -> Result<Channel, Failure> {
        let url = &self.urls[target.url];
        let Timing {
            connect,
            keepalive,
            keepalive_timeout,
            ..
        } = self.timing;
        // TLS is the connector's concern, whose channels are plain to tonic.
        let endpoint = Endpoint::from_shared(format!("http://{}", target.address));
        let endpoint = endpoint.map_err(Failure::passing)?;
        let endpoint = endpoint
            .origin(url.origin().clone())
            .user_agent(concat!("evermint-client/", env!("CARGO_PKG_VERSION")))
            .map_err(Failure::passing)?
            .connect_timeout(connect)
            .tcp_keepalive(Some(keepalive))
            .http2_keep_alive_interval(keepalive)
            .keep_alive_timeout(keepalive_timeout)
            .keep_alive_while_idle(true);
        let Some(name) = url.certified() else {
            return Ok(endpoint.connect_lazy());
        };
        let name = ServerName::try_from(name).map_err(Failure::passing)?;
        let ca = self.ca.as_ref().map(AsRef::as_ref);
        let configs = evermint_tls::trusting(ca, None).map_err(Failure::passing)?;
        Ok(endpoint.connect_with_connector_lazy(Connector::new(configs, name)))
    }
}

/// A request with the sandbox's token.
pub(crate) async fn authenticated<T>(
    source: Option<&dyn TokenSource>,
    message: T,
) -> Result<Request<T>, Failure> {
    let mut request = Request::new(message);
    if let Some(source) = source {
        let token = source
            .token()
            .await
            .map_err(|e| Failure::passing(format!("the sandbox has no token: {e}")))?;
        let text = token.expose_str().unwrap_or_default();
        let mut header: MetadataValue<_> = format!("Bearer {text}")
            .parse()
            .map_err(|_| Failure::passing("the sandbox's token cannot be sent"))?;
        header.set_sensitive(true);
        request.metadata_mut().insert("authorization", header);
    }
    Ok(request)
}

/// Whether `ca` can be used: found out when the client is built, not when it connects.
pub(crate) fn check_ca(ca: &Certificate) -> Result<(), String> {
    match evermint_tls::trusting(Some(ca.as_ref()), None) {
        Ok(_) => Ok(()),
        Err(evermint_tls::Error::Authorities(problem)) => Err(problem),
        Err(error) => Err(error.to_string()),
    }
}

/// The next message of a stream, within `bound`.
pub(crate) async fn next(
    stream: &mut Streaming<v1::WatchBundleResponse>,
    bound: Duration,
) -> Result<v1::WatchBundleResponse, Failure> {
    match timeout(bound, stream.message()).await {
        Ok(Ok(Some(message))) => Ok(message),
        Ok(Ok(None)) => Err(Failure::cut("it ended")),
        Ok(Err(status)) => Err(Failure::of_stream(&status, true)),
        Err(_) => Err(Failure::silent(bound)),
    }
}
