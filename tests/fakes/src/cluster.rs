//! A cluster in memory: one state, the real `apply`, and a leader that can be away.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use evermint_core::apply::apply;
use evermint_core::audit::Origin;
use evermint_core::command::{Answer, Command, Proposal};
use evermint_core::id::{
    CredentialId, InstallationId, Name, Position, ProviderId, ProviderType, ReplicaId, RequestId,
    SessionId, ShardId, Workspace,
};
use evermint_core::invariant;
use evermint_core::port::{Change, Clock, ProposeError, Proposer, StateView, Touched};
use evermint_core::settings::Settings;
use evermint_core::state::State;
use evermint_core::time::UnixMs;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::BroadcastStream;

use evermint_seal::{Kek, Keyring};

use crate::{DATA_KEY, TokioClock};

/// A [`Proposer`] and a [`StateView`] over one state in memory.
pub struct FakeCluster {
    inner: Mutex<Inner>,
    changes: broadcast::Sender<Change>,
    applied: watch::Sender<Position>,
    clock: Arc<TokioClock>,
    keyring: Arc<Keyring>,
    me: (ReplicaId, SessionId),
}

struct Inner {
    state: State,
    requests: u128,
    trouble: Trouble,
    staleness: Option<Duration>,
}

/// What becomes of proposals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    NoLeader,
    AnswersLost,
}

impl FakeCluster {
    /// A bootstrapped cluster whose one replica owns every shard.
    pub fn new(settings: Settings, clock: Arc<TokioClock>) -> Arc<Self> {
        let me = (ReplicaId(1), SessionId(77));
        let kek = Kek::generate().expect("the system has randomness");
        let wrapped = evermint_seal::generate_data_key(&kek).expect("the system has randomness");
        let keyring = Keyring::new(kek);
        keyring
            .load([(DATA_KEY, &wrapped)])
            .expect("it was wrapped by the same key");
        let cluster = Self {
            inner: Mutex::new(Inner {
                state: State::default(),
                requests: 0,
                trouble: Trouble::None,
                staleness: Some(Duration::ZERO),
            }),
            changes: broadcast::channel(1024).0,
            applied: watch::channel(Position(0)).0,
            clock,
            keyring: Arc::new(keyring),
            me,
        };
        let shards = settings.shards;
        cluster.apply(Command::Bootstrap {
            settings,
            data_key: DATA_KEY,
            wrapped,
            installation: InstallationId(1),
            peer_address: "127.0.0.1:7444".to_owned(),
            api_address: "http://127.0.0.1:7443".to_owned(),
        });
        let cluster = Arc::new(cluster);
        cluster.assign_all((0..shards).map(ShardId), me.1);
        cluster
    }

    /// The keyring that opens what this cluster holds.
    pub fn keyring(&self) -> Arc<Keyring> {
        Arc::clone(&self.keyring)
    }

    /// Gives `shards` to this replica in the life `session`.
    pub fn assign_all(&self, shards: impl IntoIterator<Item = ShardId>, session: SessionId) {
        let based_on = self.lock().state.meta.placement_version;
        self.apply(Command::AssignShards {
            based_on,
            moves: shards
                .into_iter()
                .map(|shard| (shard, self.me.0, session))
                .collect(),
        });
    }

    /// Creates a provider without credentials.
    pub fn provider(&self, id: u128, name: &str) -> ProviderId {
        self.apply(Command::CreateProvider {
            id: ProviderId(id),
            workspace: Workspace::default_workspace(),
            name: Name::new(name).expect("a name"),
            kind: ProviderType::new("generic").expect("a type"),
            config: BTreeMap::new(),
            notes: Default::default(),
            credentials: BTreeMap::new(),
        });
        ProviderId(id)
    }

    /// Applies a command, come what may.
    pub fn apply(&self, command: Command) -> Answer {
        let mut inner = self.lock();
        inner.requests += 1;
        let proposal = Proposal {
            by: None,
            request: RequestId(inner.requests),
            command,
        };
        let before = inner.state.clone();
        let (answer, touched) = apply(&mut inner.state, &proposal, self.clock.read().wall);
        invariant::check_step(&before, &inner.state).expect("apply keeps the promises");
        let change = Change {
            state: Arc::new(inner.state.clone()),
            touched: Touched::Keys(touched),
        };
        self.applied.send_replace(inner.state.meta.position);
        // Nobody has to listen.
        let _ = self.changes.send(change);
        answer
    }

    /// From now on no leader is reached.
    pub fn lose_leader(&self) {
        self.lock().trouble = Trouble::NoLeader;
    }

    /// From now on proposals are applied and their answers lost.
    pub fn lose_answers(&self) {
        self.lock().trouble = Trouble::AnswersLost;
    }

    /// All is well again.
    pub fn heal(&self) {
        self.lock().trouble = Trouble::None;
    }

    /// What [`StateView::staleness`] says from now on.
    pub fn set_staleness(&self, staleness: Option<Duration>) {
        self.lock().staleness = staleness;
    }

    /// Waits until `holds` of a state, the present one included.
    pub async fn until<T>(self: &Arc<Self>, what: &str, holds: impl Fn(&State) -> Option<T>) -> T {
        let mut applied = self.applied.subscribe();
        let wait = async {
            loop {
                applied.borrow_and_update();
                if let Some(found) = holds(&self.lock().state) {
                    return found;
                }
                applied.changed().await.expect("the cluster lives");
            }
        };
        match tokio::time::timeout(Duration::from_secs(86_400), wait).await {
            Ok(found) => found,
            Err(_) => panic!("waited a day in vain until {what}"),
        }
    }

    /// The ids of all credentials, in order.
    pub fn credentials(&self) -> Vec<CredentialId> {
        self.lock().state.credentials.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Proposer for FakeCluster {
    async fn propose_for(
        &self,
        _by: Option<Origin>,
        command: Command,
    ) -> Result<Answer, ProposeError> {
        tokio::task::yield_now().await;
        let trouble = self.lock().trouble;
        match trouble {
            Trouble::NoLeader => Err(ProposeError::Unavailable("no leader".to_owned())),
            Trouble::AnswersLost => {
                self.apply(command);
                Err(ProposeError::Unknown("the answer was lost".to_owned()))
            }
            Trouble::None => Ok(self.apply(command)),
        }
    }
}

#[async_trait]
impl StateView for FakeCluster {
    fn state(&self) -> Arc<State> {
        Arc::new(self.lock().state.clone())
    }

    fn changes(&self) -> BoxStream<'static, Change> {
        BroadcastStream::new(self.changes.subscribe())
            .filter_map(|change| async { change.ok() })
            .boxed()
    }

    async fn reached(&self, position: Position, bound: Duration) -> bool {
        let mut applied = self.applied.subscribe();
        let wait = applied.wait_for(|p| *p >= position);
        tokio::time::timeout(bound, wait).await.is_ok()
    }

    async fn read_index(&self) -> Result<Position, ProposeError> {
        let inner = self.lock();
        match inner.trouble {
            Trouble::NoLeader => Err(ProposeError::Unavailable("no leader".to_owned())),
            Trouble::None | Trouble::AnswersLost => Ok(inner.state.meta.position),
        }
    }

    fn staleness(&self) -> Option<Duration> {
        self.lock().staleness
    }

    fn in_touch(&self) -> Duration {
        Duration::MAX
    }

    fn now(&self) -> UnixMs {
        self.clock.read().wall.max(self.lock().state.meta.clock)
    }

    fn identity(&self) -> (ReplicaId, SessionId) {
        self.me
    }
}
