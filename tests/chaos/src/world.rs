//! The world of one run: places, network, issuers, and what is known of them now. Operators,
//! sandboxes and nemeses all share it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evermint_cluster_tests::Idp;
use evermint_proto::v1::GetClusterStatusRequest;
use evermint_proto::v1::GetClusterStatusResponse;
use evermint_proto::v1::cluster_client::ClusterClient;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint};

use crate::door::Doors;
use crate::history::{Event, FaultId, Issuer, Place, Recorder};
use crate::net::Network;
use crate::place::Residence;
use crate::sandbox::Contents;
use crate::settings::Settings;

/// How long one call to one replica may take: longer than a proposal of it.
const CALL: Duration = Duration::from_secs(7);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(1);
/// How long one replica may take to say how it sees the cluster.
const STATUS: Duration = Duration::from_secs(2);
/// How often something that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A credential that is there for the whole run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Its provider.
    pub provider: String,
    /// Its key.
    pub key: String,
    /// Its client at the issuer.
    pub client: String,
    /// Where it is minted.
    pub issuer: Issuer,
    /// Whether a used refresh token goes on working: then a doubt is settled at once.
    pub replay_safe: bool,
}

/// The cluster as it was seen a moment ago.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Who leads, by the newest term.
    pub leader: Option<Place>,
    /// That term.
    pub term: u64,
    /// What each place said; absent if it did not.
    pub statuses: Vec<Option<GetClusterStatusResponse>>,
}

/// All of it.
pub struct World {
    /// What was asked for.
    pub settings: Settings,
    /// What is seen is noted here.
    pub recorder: Arc<Recorder>,
    /// How places are connected.
    pub net: Network,
    /// The places: those of the founding members, and some that are empty.
    pub places: Vec<Residence>,
    /// The built-in issuer.
    pub strict: Idp,
    /// The issuer that others wrote; the built-in one again where node is missing.
    pub real: Idp,
    /// The ways to the first.
    pub strict_doors: Doors,
    /// The ways to the second.
    pub real_doors: Doors,
    /// What is minted all the time.
    pub credentials: Vec<Credential>,
    /// The cluster as it is seen.
    pub seen: watch::Sender<Seen>,
    pub(crate) channels: Vec<Channel>,
    pub(crate) claims: Claims,
    pub(crate) contents: Contents,
    /// Reads that were answered.
    pub(crate) reads: AtomicU64,
    /// Reads that no replica answered.
    pub(crate) failed_reads: AtomicU64,
    /// Secrets of clients that the strict issuer has given other ones than at first.
    pub(crate) client_secrets: Mutex<BTreeMap<String, String>>,
    /// What must not turn up in any file.
    pub(crate) secrets: Mutex<BTreeSet<String>>,
    /// What is still being measured after its fault is over.
    pub(crate) aftermath: tokio::sync::Mutex<JoinSet<()>>,
    /// Set when something went wrong that no check would see.
    pub(crate) failed: Mutex<Vec<String>>,
}

impl World {
    /// The connection to a replica, whether it runs or not.
    pub fn channel(&self, place: Place) -> Channel {
        self.channels[place].clone()
    }

    /// Places whose replicas run and are not paused.
    pub fn up(&self) -> Vec<Place> {
        let up = self.places.iter().filter(|place| place.is_up());
        up.map(|place| place.place).collect()
    }

    /// The founding places.
    pub fn members(&self) -> std::ops::Range<Place> {
        0..self.settings.replicas
    }

    /// The places that are empty at first.
    pub fn spares(&self) -> std::ops::Range<Place> {
        self.settings.replicas..self.places.len()
    }

    /// Which place bears a Raft id.
    pub fn with_id(&self, id: u64) -> Option<Place> {
        let found = self.places.iter().find(|place| place.id() == Some(id));
        found.map(|place| place.place)
    }

    /// Who leads, as it was seen a moment ago.
    pub fn leader(&self) -> Option<Place> {
        self.seen.borrow().leader
    }

    /// Which place leads, if it is one that stays: others may be removed in the middle of a fault.
    pub fn leading_member(&self) -> Option<Place> {
        self.leader()
            .filter(|leader| self.members().contains(leader))
    }

    /// The ways to an issuer.
    pub fn doors(&self, issuer: Issuer) -> &Doors {
        match issuer {
            Issuer::Strict => &self.strict_doors,
            Issuer::Real => &self.real_doors,
        }
    }

    /// An issuer.
    pub fn issuer(&self, issuer: Issuer) -> &Idp {
        match issuer {
            Issuer::Strict => &self.strict,
            Issuer::Real => &self.real,
        }
    }

    /// The cluster as one replica sees it now; `None` if that does not say.
    pub async fn status(&self, place: Place) -> Option<GetClusterStatusResponse> {
        self.ask_status(place, false).await
    }

    /// The same, with the hash of its state.
    pub async fn status_with_hash(&self, place: Place) -> Option<GetClusterStatusResponse> {
        self.ask_status(place, true).await
    }

    async fn ask_status(&self, place: Place, state_hash: bool) -> Option<GetClusterStatusResponse> {
        if !self.places[place].is_up() {
            return None;
        }
        let request = GetClusterStatusRequest {
            consistent: false,
            state_hash,
        };
        let mut client = ClusterClient::new(self.channel(place));
        let answer = timeout(STATUS, client.get_cluster_status(request)).await;
        Some(answer.ok()?.ok()?.into_inner())
    }

    /// Waits until `look` finds what it looks for. A look that says why not yet makes a better
    /// report.
    ///
    /// # Errors
    /// What the last look said, when `bound` has passed.
    pub async fn until<T, Look>(
        &self,
        what: &str,
        bound: Duration,
        mut look: impl FnMut() -> Look,
    ) -> Result<T, String>
    where
        Look: Future<Output = Result<T, String>>,
    {
        let started = Instant::now();
        loop {
            match look().await {
                Ok(found) => return Ok(found),
                Err(why) if started.elapsed() > bound => {
                    return Err(format!("{what}: not within {bound:?}: {why}"));
                }
                Err(_) => sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Waits until the replicas of `places` all run, vote, follow one leader and are in touch with
    /// it, and every shard has an owner among the members.
    ///
    /// # Errors
    /// What is missing, when `bound` has passed.
    pub async fn well(&self, places: &[Place], bound: Duration) -> Result<(), String> {
        self.until("the cluster is well", bound, || async {
            let statuses = futures::future::join_all(places.iter().copied().map(|place| self.status(place))).await;
            let mut leaders = BTreeSet::new();
            for (place, status) in places.iter().zip(&statuses) {
                let status = status.as_ref().ok_or(format!("{place} does not answer"))?;
                let voters = status.replicas.iter().filter(|r| r.voter).count();
                let in_touch = status.staleness_ms.is_some_and(|ms| ms < 3_000);
                if status.unowned_shards > 0 || voters != places.len() || !in_touch {
                    let members: Vec<_> = status.replicas.iter().map(|r| (r.id, r.voter)).collect();
                    return Err(format!(
                        "{place}: role {:?}, members {members:?}, {} shards without an owner, stale for {:?} ms",
                        status.role(),
                        status.unowned_shards,
                        status.staleness_ms,
                    ));
                }
                leaders.insert(status.leader);
            }
            match leaders.first() {
                Some(Some(_)) if leaders.len() == 1 => Ok(()),
                _ => Err(format!("leaders {leaders:?}")),
            }
        })
        .await
    }

    /// Takes note of a fault that is about to be injected.
    pub fn fault(
        self: &Arc<Self>,
        family: &str,
        name: &str,
        replicas: &[Place],
        detail: impl Into<String>,
    ) -> Fault {
        let id = self.recorder.number();
        self.recorder.note(Event::FaultBegins {
            fault: id,
            family: family.to_owned(),
            name: name.to_owned(),
            replicas: replicas.to_vec(),
            detail: detail.into(),
        });
        Fault {
            id,
            recorder: Arc::clone(&self.recorder),
        }
    }

    /// Takes note of something that fails the run, whatever the checks say.
    pub fn fail(&self, why: impl Into<String>) {
        let why = why.into();
        evermint_cluster_tests::say(&format!("FAILED: {why}"));
        self.failed().push(why);
    }

    pub(crate) fn failed(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims places for a fault that makes their replicas unavailable, as long as a majority of
    /// the members stays unclaimed; `None` if that cannot be.
    pub fn claim(self: &Arc<Self>, wanted: &[Place]) -> Option<Claim> {
        let spared = self.settings.replicas / 2 + 1;
        let most = self.settings.replicas - spared;
        self.claims.take(wanted, most).then(|| Claim {
            places: wanted.to_vec(),
            world: Arc::clone(self),
        })
    }

    /// Claims one of the places that nobody has claimed, in the order given.
    pub fn claim_one(self: &Arc<Self>, of: &[Place]) -> Option<Claim> {
        of.iter().find_map(|place| self.claim(&[*place]))
    }

    /// Claims every founding place, as soon as nobody has claimed any.
    pub async fn claim_all(self: &Arc<Self>, bound: Duration) -> Option<Claim> {
        let all: Vec<Place> = self.members().collect();
        let wait = async {
            loop {
                let freed = self.claims.freed.notified();
                if self.claims.is_free() && self.claims.take(&all, all.len()) {
                    return Claim {
                        places: all,
                        world: Arc::clone(self),
                    };
                }
                freed.await;
            }
        };
        timeout(bound, wait).await.ok()
    }
}

/// Places whose replicas are being made unavailable.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    taken: Mutex<BTreeSet<Place>>,
    freed: Notify,
}

impl Claims {
    fn taken(&self) -> std::sync::MutexGuard<'_, BTreeSet<Place>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_free(&self) -> bool {
        self.taken().is_empty()
    }

    fn take(&self, wanted: &[Place], most: usize) -> bool {
        let mut taken = self.taken();
        let free = wanted.iter().all(|place| !taken.contains(place));
        let fits = free && taken.len() + wanted.len() <= most;
        if fits {
            taken.extend(wanted);
        }
        fits
    }
}

/// Places that belong to one nemesis until this is dropped.
pub struct Claim {
    /// Which.
    pub places: Vec<Place>,
    world: Arc<World>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.world
            .claims
            .taken()
            .retain(|place| !self.places.contains(place));
        self.world.claims.freed.notify_waiters();
    }
}

/// A fault of which note was taken; it ends when this is dropped.
#[derive(Debug)]
pub struct Fault {
    /// Its number.
    pub id: FaultId,
    recorder: Arc<Recorder>,
}

impl Fault {
    /// It was seen to take effect.
    pub fn bites(&self, evidence: impl Into<String>) {
        self.recorder.note(Event::FaultBites {
            fault: self.id,
            evidence: evidence.into(),
        });
    }

    /// It did not take effect.
    pub fn missed(&self, why: impl Into<String>) {
        self.recorder.note(Event::FaultMissed {
            fault: self.id,
            why: why.into(),
        });
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        self.recorder.note(Event::FaultEnds { fault: self.id });
    }
}

/// Connections to every place, made when they are used, and again whenever they have to be.
pub(crate) fn channels(net: &Network, places: usize) -> Vec<Channel> {
    let channel = |place| {
        Endpoint::from_shared(format!("http://{}", net.api(place)))
            .expect("a URL")
            .connect_timeout(CONNECT)
            .timeout(CALL)
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(2))
            .connect_lazy()
    };
    (0..places).map(channel).collect()
}
