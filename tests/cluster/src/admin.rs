//! Calls to the cluster, as an operator makes them: any replica, and another one if that cannot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use evermint_proto::v1::bundles_client::BundlesClient;
use evermint_proto::v1::cluster_client::ClusterClient;
use evermint_proto::v1::providers_client::ProvidersClient;
use evermint_proto::v1::refreshes_client::RefreshesClient;
use evermint_proto::v1::sandboxes_client::SandboxesClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

/// How long one call to one replica may take.
const CALL: Duration = Duration::from_secs(5);
/// How long connecting may take; on loopback only a stopped process takes long.
const CONNECT: Duration = Duration::from_secs(1);
/// How long the cluster may take to carry out a call: an election, and a call that hangs.
const BOUND: Duration = Duration::from_secs(20);
/// The pause before another round.
const PAUSE: Duration = Duration::from_millis(50);

/// A client of every replica.
#[derive(Clone, Debug)]
pub struct Admin {
    channels: Vec<Channel>,
    /// Which replicas are worth asking: the harness knows whom it has stopped.
    up: Arc<[AtomicBool]>,
    next: Arc<AtomicUsize>,
}

impl Admin {
    /// A client of the replicas at `urls`. Connects when it is used, and again whenever it has to.
    pub fn new(urls: impl IntoIterator<Item = String>) -> Self {
        let channel = |url: String| {
            Endpoint::from_shared(url)
                .expect("a URL")
                .connect_timeout(CONNECT)
                .timeout(CALL)
                .connect_lazy()
        };
        let channels: Vec<_> = urls.into_iter().map(channel).collect();
        Self {
            up: channels.iter().map(|_| AtomicBool::new(false)).collect(),
            channels,
            next: Arc::default(),
        }
    }

    /// The connection to one replica, whether it runs or not.
    pub fn on(&self, replica: usize) -> Channel {
        self.channels[replica].clone()
    }

    /// How many replicas there are, running or not.
    pub fn replicas(&self) -> usize {
        self.channels.len()
    }

    /// Takes note of whether a replica is worth asking.
    pub(crate) fn mark(&self, replica: usize, up: bool) {
        self.up[replica].store(up, Ordering::Relaxed);
    }

    pub(crate) fn is_up(&self, replica: usize) -> bool {
        self.up[replica].load(Ordering::Relaxed)
    }

    /// The next replica in turn that is up.
    pub(crate) fn turn(&self) -> Channel {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let turns = (first..).map(|turn| turn % self.channels.len());
        let mut up = turns.take(self.channels.len()).filter(|n| self.is_up(*n));
        self.on(up.next().expect("no replica is up"))
    }

    /// Makes a call at one replica after the other until one carries it out. It may be carried out
    /// more than once: for calls that do no harm then.
    ///
    /// # Panics
    /// When none has within 20 s, or when it is refused.
    pub async fn call<T>(
        &self,
        what: &str,
        call: impl AsyncFn(Channel) -> Result<Response<T>, Status>,
    ) -> T {
        match self.attempt(call).await {
            Ok(answer) => answer,
            Err(status) => panic!("{what}: {status:?}"),
        }
    }

    /// The same, for calls whose refusal is looked at.
    ///
    /// # Errors
    /// The refusal, or what the last replica said.
    pub async fn attempt<T>(
        &self,
        call: impl AsyncFn(Channel) -> Result<Response<T>, Status>,
    ) -> Result<T, Status> {
        let started = Instant::now();
        loop {
            match call(self.turn()).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) if may_pass(&status) && started.elapsed() < BOUND => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(status) => return Err(status),
            }
        }
    }
}

/// Whether another replica, or the same one a little later, may do better.
pub(crate) fn may_pass(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown
    )
}

/// The services by the channel that reaches them.
pub(crate) fn providers(channel: Channel) -> ProvidersClient<Channel> {
    ProvidersClient::new(channel)
}

pub(crate) fn refreshes(channel: Channel) -> RefreshesClient<Channel> {
    RefreshesClient::new(channel)
}

pub(crate) fn sandboxes(channel: Channel) -> SandboxesClient<Channel> {
    SandboxesClient::new(channel)
}

pub(crate) fn bundles(channel: Channel) -> BundlesClient<Channel> {
    BundlesClient::new(channel)
}

pub(crate) fn cluster(channel: Channel) -> ClusterClient<Channel> {
    ClusterClient::new(channel)
}
