//! Fakes of the ports, for tests of this crate and of others: a whole cluster in memory, with the
//! real `apply`, under the test's control.
//!
//! A [`FakeCluster`] is one replica of a cluster whose leader never fails. It can be
//! [held](FakeCluster::hold), as if entries did not reach it, be out of touch with the leader, and
//! lose answers. Its clock runs with tokio's, which a test may pause.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use evermint_core::apply::apply;
use evermint_core::audit::Origin;
use evermint_core::command::{Answer, Command, Done, Outcome, Proposal};
use evermint_core::credential::{Reason, RefreshConfig};
use evermint_core::id::{
    CredentialId, InstallationId, Position, ReplicaId, RequestId, SessionId, TicketId,
};
use evermint_core::mint::{Failure, FailureClass, MintOrder, Minted, Probed};
use evermint_core::port::{Change, Prober, ProposeError, Proposer, StateView, Touched};
use evermint_core::record::Key;
use evermint_core::secret::{DataKeyId, Secret};
use evermint_core::settings::Settings;
use evermint_core::state::State;
use evermint_core::strategy::Strategy;
use evermint_core::time::UnixMs;
use evermint_seal::{Context, Kek, Keyring, generate_data_key};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::BroadcastStream;
use uuid::Uuid;

use crate::Ports;
use crate::port::{
    ClusterControl, ControlError, FieldProblem, Peer, Post, RaftStatus, RefreshPolicy, Role, Web,
};

/// The cluster clock when a [`FakeCluster`] starts.
pub const START: UnixMs = UnixMs(1_800_000_000_000);

/// Changes that a slow reader may be behind before they are merged.
const CHANGES_MAX: usize = 64;

/// One replica of a cluster in memory. All of its ports are this object; cloning it is cheap.
#[derive(Clone)]
pub struct FakeCluster(Arc<Cluster>);

struct Cluster {
    inner: Mutex<Inner>,
    changes: broadcast::Sender<Change>,
    applied: watch::Sender<Position>,
    started: Instant,
    keyring: Arc<Keyring>,
}

struct Inner {
    /// What the leader has committed.
    committed: State,
    /// What this replica has applied of it.
    visible: Arc<State>,
    /// Committed, and not applied here.
    backlog: Option<Vec<Key>>,
    touch: Touch,
    faults: Vec<ProposeError>,
    log: Vec<Command>,
    skipped: Duration,
}

/// Whether the replica is in touch with the leader.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Touch {
    Never,
    Now,
    LostAt(Instant),
}

impl FakeCluster {
    /// A bootstrapped cluster, with a fresh key ring, whose replica 1 owns every shard.
    pub fn new() -> Self {
        let kek = Kek::generate().expect("the system gives random bytes");
        let wrapped = generate_data_key(&kek).expect("the system gives random bytes");
        let keyring = Arc::new(Keyring::new(kek));
        let cluster = Self(Arc::new(Cluster {
            inner: Mutex::new(Inner {
                committed: State::default(),
                visible: Arc::new(State::default()),
                backlog: None,
                touch: Touch::Now,
                faults: Vec::new(),
                log: Vec::new(),
                skipped: Duration::ZERO,
            }),
            changes: broadcast::Sender::new(CHANGES_MAX),
            applied: watch::Sender::new(Position(0)),
            started: Instant::now(),
            keyring,
        }));
        let settings = Settings {
            shards: 4,
            ..Settings::default()
        };
        cluster.apply(Command::Bootstrap {
            settings,
            data_key: DataKeyId(1),
            wrapped,
            installation: InstallationId(1),
            peer_address: "127.0.0.1:1".to_owned(),
            api_address: "http://127.0.0.1:2".to_owned(),
        });
        let session = cluster.identity().1;
        cluster.apply(Command::AssignShards {
            based_on: 0,
            moves: (0..4)
                .map(|shard| (evermint_core::id::ShardId(shard), ReplicaId(1), session))
                .collect(),
        });
        cluster
    }

    /// All ports of it, with [`AllowAll`] as policy.
    pub fn ports(&self) -> Ports {
        self.ports_with(Arc::new(AllowAll))
    }

    /// All ports of it, with a policy of the test's.
    pub fn ports_with(&self, policy: Arc<dyn RefreshPolicy>) -> Ports {
        Ports {
            proposer: Arc::new(self.clone()),
            view: Arc::new(self.clone()),
            keyring: Arc::clone(&self.0.keyring),
            catalog: Arc::new(evermint_profiles::catalog()),
            policy,
            prober: Arc::new(self.clone()),
            control: Arc::new(self.clone()),
            web: Arc::new(self.clone()),
        }
    }

    /// The key ring of its ports.
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.0.keyring
    }

    /// What the leader has committed, whether or not it is applied here.
    pub fn committed(&self) -> State {
        self.lock().committed.clone()
    }

    /// Every command that was committed, in order.
    pub fn log(&self) -> Vec<Command> {
        self.lock().log.clone()
    }

    /// From now on entries do not reach this replica, although it thinks itself in touch.
    pub fn hold(&self) {
        self.lock().backlog.get_or_insert_default();
    }

    /// Lets entries through again, those that were held first.
    pub fn release(&self) {
        let mut inner = self.lock();
        if let Some(keys) = inner.backlog.take() {
            self.publish(&mut inner, keys);
        }
    }

    /// From now on this replica is out of touch with the leader: its staleness grows, and it can
    /// neither propose nor ask.
    pub fn cut_off(&self) {
        self.lock().touch = Touch::LostAt(Instant::now());
    }

    /// As if this replica had not been in touch with a leader since it started.
    pub fn never_in_touch(&self) {
        self.lock().touch = Touch::Never;
    }

    /// In touch again.
    pub fn reconnect(&self) {
        self.lock().touch = Touch::Now;
    }

    /// The next proposal fails like this; one that is [unknown](ProposeError::Unknown) takes
    /// effect all the same.
    pub fn fail_next(&self, error: ProposeError) {
        self.lock().faults.push(error);
    }

    /// Pushes the cluster clock ahead, as the stamp of a new leader may.
    pub fn push_clock(&self, by: Duration) {
        self.lock().skipped += by;
    }

    /// Commits a command past all ports.
    pub fn apply(&self, command: Command) -> Answer {
        self.apply_for(None, command)
    }

    fn apply_for(&self, by: Option<Origin>, command: Command) -> Answer {
        let at = self.now();
        let mut inner = self.lock();
        self.commit(&mut inner, by, command, at)
    }

    /// Runs the mint of a credential under a refresh: a ticket, and its result, with `token` as
    /// the value of every output. Gives the answer to the commit.
    ///
    /// # Panics
    /// If the credential has no refresh or a ticket out: the test is wrong.
    pub fn mint(&self, credential: &CredentialId, token: &str, lifetime: Duration) -> Answer {
        let ticket = self.grant(credential);
        let state = self.state();
        let refresh = state.credentials[credential].refresh.as_ref();
        let outputs = refresh.iter().flat_map(|r| r.config.outputs.values());
        let outputs = outputs.chain([&credential.key]).map(|key| {
            let context = Context::value(credential, key);
            let sealed = self.0.keyring.seal(&context, &Secret::from(token));
            (key.clone(), sealed.expect("the data key is loaded"))
        });
        self.apply(Command::CommitMint {
            credential: credential.clone(),
            ticket,
            outputs: outputs.collect(),
            lifetime_ms: Some(evermint_core::time::millis(lifetime)),
            new_material: BTreeMap::new(),
            material_lifetimes_ms: BTreeMap::new(),
        })
    }

    /// Runs a mint that fails.
    ///
    /// # Panics
    /// As [`mint`](Self::mint).
    pub fn fail(&self, credential: &CredentialId, failure: Failure) -> Answer {
        let ticket = self.grant(credential);
        self.apply(Command::FailMint {
            credential: credential.clone(),
            ticket,
            failure,
        })
    }

    /// Grants a ticket; a credential that is not due is made due first, as by an operator.
    ///
    /// # Panics
    /// As [`mint`](Self::mint).
    pub fn grant(&self, id: &CredentialId) -> TicketId {
        let due = self.committed().credentials[id].due();
        if due.is_some_and(|(at, _)| at > self.now()) {
            self.apply(Command::RotateCredential {
                credential: id.clone(),
            });
        }
        let state = self.committed();
        let credential = &state.credentials[id];
        let refresh = credential.refresh.as_ref().expect("it has a refresh");
        let ticket = TicketId(Uuid::new_v4().as_u128());
        let owner = &state.shards[&credential.shard];
        let answer = self.apply(Command::GrantTicket {
            credential: id.clone(),
            ticket,
            owner: owner.replica,
            session: owner.session,
            shard_epoch: owner.epoch,
            epoch: refresh.epoch,
            expected_generation: credential.generation,
            expected_attempt: credential.attempt,
            reason: Reason::Due,
        });
        assert!(
            matches!(answer.outcome, Ok(Done::Granted { .. })),
            "{:?}",
            answer.outcome
        );
        ticket
    }

    fn commit(
        &self,
        inner: &mut Inner,
        by: Option<Origin>,
        command: Command,
        at: UnixMs,
    ) -> Answer {
        inner.log.push(command.clone());
        let proposal = Proposal {
            by,
            request: RequestId(Uuid::new_v4().as_u128()),
            command,
        };
        let (answer, keys) = apply(&mut inner.committed, &proposal, at);
        match &mut inner.backlog {
            Some(backlog) => backlog.extend(keys),
            None => self.publish(inner, keys),
        }
        answer
    }

    fn publish(&self, inner: &mut Inner, keys: Vec<Key>) {
        let state = Arc::new(inner.committed.clone());
        let data_keys = state.data_keys.iter().map(|(id, key)| (*id, key.as_ref()));
        self.0.keyring.load(data_keys).expect("the KEK is the same");
        let position = state.meta.position;
        inner.visible = Arc::clone(&state);
        let change = Change {
            state,
            touched: Touched::Keys(keys),
        };
        // Nobody may be listening.
        let _ = self.0.changes.send(change);
        self.0.applied.send_replace(position);
    }

    fn is_in_touch(&self) -> bool {
        self.lock().touch == Touch::Now
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for FakeCluster {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Proposer for FakeCluster {
    async fn propose_for(
        &self,
        by: Option<Origin>,
        command: Command,
    ) -> Result<Answer, ProposeError> {
        if !self.is_in_touch() {
            return Err(ProposeError::Unavailable("cut off".to_owned()));
        }
        let fault = self.lock().faults.pop();
        match fault {
            Some(error @ ProposeError::Unavailable(_)) => Err(error),
            Some(error @ ProposeError::Unknown(_)) => {
                self.apply_for(by, command);
                Err(error)
            }
            None => Ok(self.apply_for(by, command)),
        }
    }
}

#[async_trait]
impl StateView for FakeCluster {
    fn state(&self) -> Arc<State> {
        Arc::clone(&self.lock().visible)
    }

    fn changes(&self) -> BoxStream<'static, Change> {
        let cluster = self.clone();
        BroadcastStream::new(self.0.changes.subscribe())
            .map(move |change| {
                change.unwrap_or_else(|_| Change {
                    state: cluster.state(),
                    touched: Touched::Everything,
                })
            })
            .boxed()
    }

    async fn reached(&self, position: Position, bound: Duration) -> bool {
        let mut applied = self.0.applied.subscribe();
        let reached = applied.wait_for(|applied| *applied >= position);
        matches!(tokio::time::timeout(bound, reached).await, Ok(Ok(_)))
    }

    async fn read_index(&self) -> Result<Position, ProposeError> {
        if !self.is_in_touch() {
            return Err(ProposeError::Unavailable("cut off".to_owned()));
        }
        Ok(self.lock().committed.meta.position)
    }

    fn staleness(&self) -> Option<Duration> {
        match self.lock().touch {
            Touch::Never => None,
            Touch::Now => Some(Duration::ZERO),
            Touch::LostAt(since) => Some(since.elapsed()),
        }
    }

    fn in_touch(&self) -> Duration {
        match self.lock().touch {
            Touch::Now => self.0.started.elapsed(),
            Touch::Never | Touch::LostAt(_) => Duration::ZERO,
        }
    }

    fn now(&self) -> UnixMs {
        let skipped = self.lock().skipped;
        START + self.0.started.elapsed() + skipped
    }

    fn identity(&self) -> (ReplicaId, SessionId) {
        (ReplicaId(1), SessionId(7))
    }
}

/// An issuer that grants every scope to whoever shows a `client_secret` other than "wrong".
#[async_trait]
impl Prober for FakeCluster {
    async fn probe(&self, order: MintOrder) -> Probed {
        let secret = order.secrets.get("client_secret");
        let mint = if secret.is_some_and(|s| s.expose() == b"wrong") {
            Err(Failure {
                class: FailureClass::ConfigRefused,
                cause: "the issuer answered invalid_client".to_owned(),
                remedy: "check the client secret".to_owned(),
                retry_after_ms: None,
            })
        } else {
            Ok(Minted {
                token: Secret::from("a token to throw away"),
                extra_outputs: BTreeMap::new(),
                lifetime: Some(Duration::from_secs(3600)),
                new_material: BTreeMap::new(),
                material_lifetimes: BTreeMap::new(),
                scopes: Some(order.config.scopes.clone()),
            })
        };
        Probed {
            endpoint: Some(Ok("answers (HTTP 405)".to_owned())),
            mint: (!order.config.strategy.consumes_material()).then_some(mint),
        }
    }
}

/// A web in which there is nothing.
#[async_trait]
impl Web for FakeCluster {
    async fn get(&self, url: &str) -> Result<Vec<u8>, String> {
        Err(format!("nothing is at {url}"))
    }

    async fn post(&self, _: Post) -> Result<u16, String> {
        Err("nothing is there".to_owned())
    }
}

#[async_trait]
impl ClusterControl for FakeCluster {
    fn status(&self) -> RaftStatus {
        let (replica, session) = self.identity();
        let applied = self.state().meta.position.0;
        let own = Peer {
            session: Some(session),
            lag: Some(0),
            last_heard: Some(Duration::ZERO),
            erased: Some(self.state().meta.destroyed),
            keks: self.0.keyring.kek_names(),
            clock_ahead_ms: Some(0),
        };
        RaftStatus {
            role: Role::Leader,
            term: 3,
            leader: Some(replica),
            voters: BTreeSet::from([replica]),
            last_log_index: applied,
            applied_index: applied,
            snapshot_index: 0,
            peers: BTreeMap::from([(replica, own)]),
        }
    }

    async fn remove_replica(
        &self,
        by: Option<Origin>,
        replica: ReplicaId,
    ) -> Result<bool, ControlError> {
        if replica == self.identity().0 {
            return Err(ControlError::Refused(
                "the last voter cannot be removed".to_owned(),
            ));
        }
        let outcome: Outcome = self
            .propose_for(by, Command::RemoveReplica { replica })
            .await?
            .outcome;
        Ok(outcome == Ok(Done::Changed(true)))
    }
}

/// A policy that finds nothing wrong, and knows the usual secrets.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl RefreshPolicy for AllowAll {
    fn is_secret(&self, _: Strategy, material: &str) -> bool {
        matches!(material, "client_secret" | "refresh_token" | "private_key")
    }

    fn takes(&self, _: Strategy, _: &str) -> bool {
        true
    }

    fn check(&self, _: &RefreshConfig, _: &BTreeMap<String, Secret>) -> Vec<FieldProblem> {
        Vec::new()
    }
}

/// A policy that wants what the strategies want: `client_id` and the secret of each, and a token
/// endpoint that is https or on loopback.
#[derive(Clone, Copy, Debug, Default)]
pub struct WantMaterial;

impl RefreshPolicy for WantMaterial {
    fn is_secret(&self, strategy: Strategy, material: &str) -> bool {
        AllowAll.is_secret(strategy, material)
    }

    fn takes(&self, _: Strategy, material: &str) -> bool {
        matches!(
            material,
            "client_id" | "client_secret" | "refresh_token" | "client_email" | "private_key"
        )
    }

    fn check(
        &self,
        config: &RefreshConfig,
        secrets: &BTreeMap<String, Secret>,
    ) -> Vec<FieldProblem> {
        let (public, secret) = match config.strategy {
            Strategy::OAuth2RefreshToken => ("client_id", "refresh_token"),
            Strategy::GoogleServiceAccountJwt => ("client_email", "private_key"),
            _ => ("client_id", "client_secret"),
        };
        let mut problems = Vec::new();
        let url = &config.token_url;
        if !url.starts_with("https://") && !url.starts_with("http://127.0.0.1") {
            problems.push(FieldProblem {
                field: "token_url".to_owned(),
                problem: "must be an https URL".to_owned(),
            });
        }
        let missing = [
            (public, config.material.contains_key(public)),
            (secret, secrets.contains_key(secret)),
        ];
        for (name, there) in missing {
            if !there {
                problems.push(FieldProblem {
                    field: format!("material[{name:?}]"),
                    problem: format!("is needed by {}", config.strategy),
                });
            }
        }
        problems
    }
}
