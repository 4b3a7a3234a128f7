//! A replica for tests: it serves what it is told, as badly as it is told, and can be killed.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use evermint_client::{Builder, Changes, Client, Metrics, Snapshot, Timing};
use evermint_core::port::Clock;
use evermint_core::secret::Secret;
use evermint_core::time::{Clocks, MonoMs, UnixMs};
use evermint_proto::v1;
use evermint_proto::v1::bundles_server::{Bundles, BundlesServer};
use evermint_proto::v1::sandbox_tokens_server::{SandboxTokens, SandboxTokensServer};
use futures::Stream;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::metadata::MetadataMap;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};

/// Longer than anything takes; a test that waits so long has failed.
pub const BOUND: Duration = Duration::from_secs(30);
/// Where the cluster clock stands at boot time 0: in 2001, whatever the wall clock says.
pub const START: u64 = 1_000_000_000_000;

/// The only clock of a test: the client's boot time, and the cluster's clock less [`START`].
#[derive(Debug)]
pub struct Hand(AtomicU64);

impl Hand {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(1_000)))
    }

    pub fn now(&self) -> u64 {
        START + self.0.load(Ordering::SeqCst)
    }

    pub fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn read(&self) -> Clocks {
        Clocks {
            mono: MonoMs(0),
            boot: MonoMs(self.0.load(Ordering::SeqCst)),
            wall: UnixMs(0),
        }
    }
}

/// How a replica behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mood {
    Well,
    /// Takes requests and never answers.
    Hung,
    /// Like [`Mood::Well`] behind a proxy that ends streams after their first message.
    CutsStreams,
    /// Like [`Mood::Well`] behind a proxy that holds back what streams say.
    HoldsStreams,
    /// Streams say something once and never again.
    Mute,
    /// Serves what it has, whatever the reader has seen.
    Forgetful,
    Refuses(Code, &'static str),
    /// Wants this token.
    Wants(&'static str),
    /// This token has come to its end.
    Ended(&'static str),
}

/// What a replica was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub stream: bool,
    pub sandbox: String,
    pub workspace: String,
    pub min_generation: u64,
    pub known_revision: String,
    /// The `authorization` header; empty without one.
    pub authorization: String,
}

#[derive(Clone, Debug)]
struct State {
    mood: Mood,
    bundle: Option<v1::Bundle>,
    staleness_ms: u64,
}

pub struct Replica {
    pub address: SocketAddr,
    clock: Arc<Hand>,
    state: watch::Sender<State>,
    asked: watch::Sender<Vec<Asked>>,
    reported: watch::Sender<Vec<v1::ReportTokenRequest>>,
    renewed: watch::Sender<String>,
    tls: Option<(Vec<u8>, Vec<u8>)>,
    runtime: Option<Runtime>,
}

impl Replica {
    /// Serves on a port of its own.
    pub fn start(clock: &Arc<Hand>, bundle: v1::Bundle) -> Self {
        Self::start_at("127.0.0.1:0", clock, bundle, None)
    }

    pub fn start_at(
        address: &str,
        clock: &Arc<Hand>,
        bundle: v1::Bundle,
        tls: Option<(Vec<u8>, Vec<u8>)>,
    ) -> Self {
        let state = State {
            mood: Mood::Well,
            bundle: Some(bundle),
            staleness_ms: 0,
        };
        let mut replica = Self {
            address: address.parse().unwrap(),
            clock: Arc::clone(clock),
            state: watch::Sender::new(state),
            asked: watch::Sender::new(Vec::new()),
            reported: watch::Sender::new(Vec::new()),
            renewed: watch::Sender::new(String::new()),
            tls,
            runtime: None,
        };
        replica.restart();
        replica
    }

    /// Serves on the same port as before.
    pub fn restart(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let service = Service {
            clock: Arc::clone(&self.clock),
            state: self.state.subscribe(),
            asked: self.asked.clone(),
            reported: self.reported.clone(),
            renewed: self.renewed.clone(),
        };
        let (address, tls) = (self.address, self.tls.clone());
        let (bound_in, bound) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            let listener = TcpListener::bind(address).await.unwrap();
            bound_in.send(listener.local_addr().unwrap()).unwrap();
            let mut server = Server::builder();
            if let Some((certificate, key)) = tls {
                let identity = Identity::from_pem(certificate, key);
                let tls = ServerTlsConfig::new().identity(identity);
                server = server.tls_config(tls).unwrap();
            }
            server
                .add_service(BundlesServer::new(service.clone()))
                .add_service(SandboxTokensServer::new(service))
                .serve_with_incoming(TcpIncoming::from(listener))
                .await
                .unwrap();
        });
        self.address = bound.recv_timeout(BOUND).unwrap();
        self.runtime = Some(runtime);
    }

    /// Ends it at once, with all its connections.
    pub fn kill(&mut self) {
        let runtime = self.runtime.take().unwrap();
        let end = std::thread::spawn(move || runtime.shutdown_timeout(BOUND));
        end.join().unwrap();
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn mood(&self, mood: Mood) {
        self.state.send_modify(|state| state.mood = mood);
    }

    pub fn serve(&self, bundle: v1::Bundle) {
        self.state.send_modify(|state| state.bundle = Some(bundle));
    }

    pub fn delete_sandbox(&self) {
        self.state.send_modify(|state| state.bundle = None);
    }

    pub fn staleness(&self, ms: u64) {
        self.state.send_modify(|state| state.staleness_ms = ms);
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.borrow().clone()
    }

    /// Waits until it has given this as a sandbox's own token.
    pub async fn renewed(&self, authorization: &str) {
        let mut renewed = self.renewed.subscribe();
        let given = renewed.wait_for(|given| given == authorization);
        within(given).await.unwrap();
    }

    /// The tokens that were reported to it.
    pub fn reported(&self) -> Vec<v1::ReportTokenRequest> {
        self.reported.borrow().clone()
    }

    /// Waits until what it was asked is so.
    pub async fn until_asked(&self, what: impl Fn(&[Asked]) -> bool) {
        let mut asked = self.asked.subscribe();
        within(asked.wait_for(|asked| what(asked))).await.unwrap();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Clone)]
struct Service {
    clock: Arc<Hand>,
    state: watch::Receiver<State>,
    asked: watch::Sender<Vec<Asked>>,
    reported: watch::Sender<Vec<v1::ReportTokenRequest>>,
    renewed: watch::Sender<String>,
}

impl Service {
    /// The state, if it is to be answered from.
    async fn admit(&self, asked: Asked) -> Result<State, Status> {
        let min_generation = asked.min_generation;
        let given = asked.authorization.clone();
        self.asked.send_modify(|all| all.push(asked));
        let state = self.state.borrow().clone();
        match &state.mood {
            Mood::Hung => futures::future::pending().await,
            Mood::Refuses(code, reason) => return Err(spoken(*code, reason)),
            Mood::Wants(token) if given != format!("Bearer {token}") => {
                return Err(spoken(Code::Unauthenticated, "unauthenticated"));
            }
            Mood::Ended(token) if given == format!("Bearer {token}") => {
                return Err(spoken(Code::Unauthenticated, "token-expired"));
            }
            _ => {}
        }
        let Some(bundle) = &state.bundle else {
            return Err(spoken(Code::NotFound, "not-found"));
        };
        if bundle.generation < min_generation && state.mood != Mood::Forgetful {
            let mut status = spoken(Code::Unavailable, "behind");
            let pushback = "5".parse().unwrap();
            status
                .metadata_mut()
                .insert("grpc-retry-pushback-ms", pushback);
            return Err(status);
        }
        Ok(state)
    }

    fn message(&self, state: &State, held: bool) -> v1::WatchBundleResponse {
        let bundle = state.bundle.clone().unwrap();
        v1::WatchBundleResponse {
            generation: bundle.generation,
            bundle: (!held).then_some(bundle),
            staleness_ms: state.staleness_ms,
            server_time_ms: self.clock.now(),
        }
    }
}

fn spoken(code: Code, reason: &str) -> Status {
    let mut status = Status::new(code, reason);
    status
        .metadata_mut()
        .insert("evermint-reason", reason.parse().unwrap());
    status
}

#[tonic::async_trait]
impl Bundles for Service {
    async fn get_bundle(
        &self,
        request: Request<v1::GetBundleRequest>,
    ) -> Result<Response<v1::GetBundleResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let asked = Asked {
            stream: false,
            sandbox: request.sandbox,
            workspace: request.workspace,
            min_generation: request.min_generation,
            known_revision: String::new(),
            authorization: authorization(&metadata),
        };
        let state = self.admit(asked).await?;
        Ok(Response::new(v1::GetBundleResponse {
            bundle: state.bundle,
            staleness_ms: state.staleness_ms,
            server_time_ms: self.clock.now(),
            expiring: Vec::new(),
        }))
    }

    async fn report_token(
        &self,
        request: Request<v1::ReportTokenRequest>,
    ) -> Result<Response<v1::ReportTokenResponse>, Status> {
        let request = request.into_inner();
        self.reported.send_modify(|all| all.push(request.clone()));
        if let Mood::Refuses(code, reason) = &self.state.borrow().mood {
            return Err(spoken(*code, reason));
        }
        Ok(Response::new(v1::ReportTokenResponse {
            outcome: v1::report_token_response::Outcome::Due.into(),
            generation: request.generation,
            not_before_ms: None,
        }))
    }

    type WatchBundleStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchBundleResponse, Status>> + Send>>;

    async fn watch_bundle(
        &self,
        request: Request<v1::WatchBundleRequest>,
    ) -> Result<Response<Self::WatchBundleStream>, Status> {
        let (metadata, _, request) = request.into_parts();
        let asked = Asked {
            stream: true,
            sandbox: request.sandbox,
            workspace: request.workspace,
            min_generation: request.min_generation,
            known_revision: request.known_revision.clone(),
            authorization: authorization(&metadata),
        };
        let authorization = asked.authorization.clone();
        self.admit(asked).await?;
        let mut watching = Watching {
            authorization,
            service: self.clone(),
            state: self.state.clone(),
            held: request.known_revision,
            said: 0,
        };
        watching.state.mark_changed();
        let stream = futures::stream::unfold(Some(watching), |watching| async {
            let mut watching = watching?;
            match watching.next().await {
                Ok(message) => Some((Ok(message), Some(watching))),
                Err(Some(status)) => Some((Err(status), None)),
                Err(None) => None,
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

fn authorization(metadata: &MetadataMap) -> String {
    let header = metadata.get("authorization");
    header.map_or("", |v| v.to_str().unwrap()).to_owned()
}

/// Renews `t<n>` to `t<n + 1>`, good for an hour.
#[tonic::async_trait]
impl SandboxTokens for Service {
    async fn issue_sandbox_token(
        &self,
        _: Request<v1::IssueSandboxTokenRequest>,
    ) -> Result<Response<v1::IssueSandboxTokenResponse>, Status> {
        Err(spoken(Code::PermissionDenied, "permission-denied"))
    }

    async fn renew_sandbox_token(
        &self,
        request: Request<v1::RenewSandboxTokenRequest>,
    ) -> Result<Response<v1::RenewSandboxTokenResponse>, Status> {
        if let Mood::Refuses(code, reason) = &self.state.borrow().mood {
            return Err(spoken(*code, reason));
        }
        let shown = authorization(request.metadata());
        let number = shown.strip_prefix("Bearer t").and_then(|n| n.parse().ok());
        let number: u64 = number.ok_or_else(|| spoken(Code::Unauthenticated, "unauthenticated"))?;
        let (now, token) = (self.clock.now(), format!("t{}", number + 1));
        self.renewed.send_replace(format!("Bearer {token}"));
        Ok(Response::new(v1::RenewSandboxTokenResponse {
            token,
            expires_at_ms: now + 3_600_000,
            server_time_ms: now,
        }))
    }

    async fn revoke_sandbox_tokens(
        &self,
        _: Request<v1::RevokeSandboxTokensRequest>,
    ) -> Result<Response<v1::RevokeSandboxTokensResponse>, Status> {
        Err(spoken(Code::PermissionDenied, "permission-denied"))
    }
}

struct Watching {
    authorization: String,
    service: Service,
    state: watch::Receiver<State>,
    held: String,
    said: usize,
}

const HEARTBEAT: Duration = Duration::from_millis(50);

impl Watching {
    /// The next message; or the end, with or without a word.
    async fn next(&mut self) -> Result<v1::WatchBundleResponse, Option<Status>> {
        loop {
            let beat = timeout(HEARTBEAT, self.state.changed()).await.is_err();
            let state = self.state.borrow_and_update().clone();
            match &state.mood {
                Mood::Hung | Mood::HoldsStreams => futures::future::pending().await,
                Mood::Mute if self.said > 0 => futures::future::pending().await,
                Mood::CutsStreams if self.said > 0 => return Err(None),
                Mood::Refuses(code, reason) => return Err(Some(spoken(*code, reason))),
                Mood::Ended(token) if self.authorization == format!("Bearer {token}") => {
                    return Err(Some(spoken(Code::Unauthenticated, "token-expired")));
                }
                _ => {}
            }
            let Some(bundle) = &state.bundle else {
                return Err(Some(spoken(Code::NotFound, "not-found")));
            };
            let held = bundle.revision == self.held;
            if !held || beat || self.said == 0 {
                self.said += 1;
                self.held.clone_from(&bundle.revision);
                return Ok(self.service.message(&state, held));
            }
        }
    }
}

/// A bundle with one route and one credential, of the same value and without an end.
pub fn bundle(generation: u64, value: &str) -> v1::Bundle {
    bundle_until(generation, value, None)
}

/// The same, with an end on the cluster clock.
pub fn bundle_until(generation: u64, value: &str, expires_at_ms: Option<u64>) -> v1::Bundle {
    let token = v1::Token {
        values: [("API_TOKEN".to_owned(), value.to_owned())].into(),
        expires_at_ms,
        generation,
    };
    v1::Bundle {
        sandbox: "00000000-0000-0000-0000-000000000007".to_owned(),
        generation,
        revision: format!("of {value}"),
        routes: vec![v1::ResolvedRoute {
            name: "inference.local".to_owned(),
            provider: "vertex".to_owned(),
            provider_type: "google-vertex-ai".to_owned(),
            model: "gemini".to_owned(),
            credential_key: "API_TOKEN".to_owned(),
            token: Some(token.clone()),
            ..v1::ResolvedRoute::default()
        }],
        credentials: vec![v1::BundleCredential {
            provider: "vertex".to_owned(),
            key: "API_TOKEN".to_owned(),
            token: Some(token),
            unavailable: None,
            ..v1::BundleCredential::default()
        }],
        ..v1::Bundle::default()
    }
}

/// Short where a test has to wait for it, long where a slow machine must not be taken for a
/// failure.
pub fn timing() -> Timing {
    Timing {
        connect: Duration::from_secs(5),
        attempt: Duration::from_secs(5),
        silence: Duration::from_secs(20),
        keepalive: Duration::from_secs(10),
        keepalive_timeout: Duration::from_secs(10),
        penalty_base: Duration::from_millis(5),
        penalty_cap: Duration::from_millis(50),
        stream_min_life: Duration::from_secs(2),
        poll: Duration::from_millis(20),
        rewatch: Duration::from_secs(100),
        resolve: Duration::from_millis(50),
        failback: Duration::from_secs(100),
    }
}

pub fn builder(clock: &Arc<Hand>, replicas: &[&Replica]) -> Builder {
    Client::builder()
        .endpoints(replicas.iter().map(|r| r.url()))
        .sandbox("agent-7")
        .workspace("team-a")
        .clock(Arc::clone(clock) as Arc<dyn Clock>)
        .timing(timing())
}

/// A client that has its first bundle, and its changes since.
pub async fn ready(builder: Builder) -> (Client, Changes) {
    let client = builder.build().unwrap();
    let changes = client.subscribe();
    within(client.wait_ready()).await.unwrap();
    (client, changes)
}

/// The value that a caller would use now.
pub fn value(snapshot: &Snapshot) -> Option<String> {
    let token = snapshot.credential("API_TOKEN")?.token();
    token
        .value()
        .and_then(Secret::expose_str)
        .map(str::to_owned)
}

/// Waits until a snapshot is so.
pub async fn until(
    client: &Client,
    changes: &mut Changes,
    what: impl Fn(&Snapshot) -> bool,
) -> Arc<Snapshot> {
    loop {
        let snapshot = client.snapshot();
        if what(&snapshot) {
            return snapshot;
        }
        within(changes.changed()).await.unwrap();
    }
}

/// Waits until the value is this one.
pub async fn until_value(client: &Client, changes: &mut Changes, expected: &str) -> Arc<Snapshot> {
    until(client, changes, |s| value(s).as_deref() == Some(expected)).await
}

/// Waits until so much was counted. Counting wakes nobody, so that it is looked at.
pub async fn until_counted(client: &Client, what: impl Fn(&Metrics) -> bool) {
    until_seen(|| what(&client.metrics())).await;
}

/// Looks until something is so of which nobody tells.
pub async fn until_seen(what: impl Fn() -> bool) {
    let mut look = tokio::time::interval(Duration::from_millis(1));
    let seen = async {
        while !what() {
            look.tick().await;
        }
    };
    within(seen).await;
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(BOUND, future).await.expect("it takes too long")
}
