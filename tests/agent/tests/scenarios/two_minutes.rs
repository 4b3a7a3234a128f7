//! For two minutes, replicas are killed, paused and started again at random, one at a time, while 200
//! calls a second go through the agent to an API that refuses any token that has expired, was
//! superseded beyond its grace, or is unknown to the issuer. None is refused, and none fails.
//!
//! The issuer's client may show a refresh token again: what a strict issuer makes of a lost answer is
//! shown in `tests/cluster`, and not what this is about.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use evermint_agent_tests::{Api, Judge};
use evermint_cluster_tests::{
    Admin, Cluster, Idp, Mints, Options, Process, Refreshing, Sandboxes, eventually, evermint, say,
    unix_ms,
};
use evermint_issuer::{Client, History, Rotation};
use evermint_proto::v1::inference_client::InferenceClient;
use evermint_proto::v1::providers_client::ProvidersClient;
use evermint_proto::v1::replay_policy::Kind;
use evermint_proto::v1::{SetRouteRequest, UpdateProviderRequest};
use futures::FutureExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

const LENGTH: Duration = Duration::from_secs(120);
/// 200 calls a second.
const PACE: Duration = Duration::from_millis(5);
/// Every so many calls through the agent, one goes to the API itself.
const DIRECT_EVERY: u64 = 10;
/// How long the issuer's tokens live.
const ACCESS_TTL: Duration = Duration::from_secs(20);
/// How long before its end a token is replaced.
const REFRESH_BEFORE: Duration = Duration::from_secs(10);
/// How long the API takes a token after there is a newer one.
const GRACE: Duration = Duration::from_secs(9);
/// How long a replica is down or stands still.
const HURT_MS: std::ops::Range<u64> = 300..3_000;
/// How long a replica may take to be well again.
const WELL: Duration = Duration::from_secs(40);
/// What calls to the API itself show.
const DIRECT: &str = "direct";
const SANDBOX: &str = "agent-1";

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_while_replicas_are_killed_paused_and_started_again() {
    let idp = Arc::new(Idp::built_in(ACCESS_TTL).await);
    let api = Api::judged(judge(Arc::clone(&idp))).await;
    let mut cluster = Cluster::start(Options::default()).await;
    let admin = cluster.admin().clone();
    let credential = register(&admin, &idp, &api).await;

    let state = TempDir::new().unwrap();
    let agent = Agent::start(&cluster, &state);
    agent.ready().await;

    let load = tokio::spawn(load(agent.address, api.address()));
    let hurt = hurt(&mut cluster, Instant::now() + LENGTH).await;
    let calls = load.await.unwrap();

    let generation = credential.status(&admin).await.generation;
    let (through, direct) = (calls.through.times(), calls.direct.times());
    say(&format!(
        "{} calls through the agent in {LENGTH:?}, {} failed; {hurt}; {generation} generations\n\
         through: {through}\n\
         direct:  {direct}, of {} calls, {} failed\n\
         ratio:   p50 {:.1}, p99 {:.1}",
        calls.through.count(),
        calls.through.failed.len(),
        calls.direct.count(),
        calls.direct.failed.len(),
        through.p50 / direct.p50,
        through.p99 / direct.p99,
    ));
    let failed = &calls.through.failed;
    assert!(
        failed.is_empty(),
        "{} calls failed: {:#?}",
        failed.len(),
        &failed[..failed.len().min(10)]
    );
    assert!(calls.direct.failed.is_empty(), "{:?}", calls.direct.failed);
    assert!(
        hurt.kills >= 3 && hurt.pauses >= 3,
        "the cluster was hardly hurt: {hurt}"
    );
    let rotations = LENGTH.as_secs() / ACCESS_TTL.as_secs();
    assert!(
        generation > rotations,
        "only {generation} generations were minted"
    );
    let expected = LENGTH.as_millis() / PACE.as_millis();
    assert!(
        calls.through.count() as u128 * 10 >= expected * 9,
        "the load was too low"
    );
}

/// A provider whose credential is refreshed, a route to the API, and a sandbox that may use both.
async fn register(admin: &Admin, idp: &Idp, api: &Api) -> Refreshing {
    let client = Client::new("agent-run")
        .secret("agent-run-secret")
        .rotation(Rotation::Replayable);
    idp.register(&client).await;
    let how = Mints {
        replay: Kind::Safe,
        refresh_before: Some(REFRESH_BEFORE),
        ..Mints::default()
    };
    let credential = Refreshing::register(admin, idp, "agent-run", &how).await;
    credential.minted_after(admin, 0).await;
    let update = UpdateProviderRequest {
        name: credential.provider.clone(),
        config: [("base_url".to_owned(), api.url())].into(),
        ..UpdateProviderRequest::default()
    };
    let call = async |channel| {
        ProvidersClient::new(channel)
            .update_provider(update.clone())
            .await
    };
    admin.call("set the base URL", call).await;
    let set = SetRouteRequest {
        provider: credential.provider.clone(),
        model: "routed".to_owned(),
        timeout_secs: 30,
        ..SetRouteRequest::default()
    };
    let call = async |channel| InferenceClient::new(channel).set_route(set.clone()).await;
    admin.call("set the route", call).await;
    Sandboxes::register(admin, SANDBOX, std::slice::from_ref(&credential.provider)).await;
    credential
}

/// An `evermint agent serve`.
struct Agent {
    address: SocketAddr,
    local: SocketAddr,
    _process: Process,
}

impl Agent {
    fn start(cluster: &Cluster, state: &TempDir) -> Self {
        let free = || {
            TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
        };
        let (address, local) = (free(), free());
        let urls: Vec<_> = (0..cluster.len())
            .map(|n| format!("http://127.0.0.1:{}", cluster.replica(n).api_port))
            .collect();
        let mut command = Command::new(evermint());
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"EVERMINT_") {
                command.env_remove(name);
            }
        }
        command
            .args([
                "agent",
                "serve",
                "--sandbox",
                SANDBOX,
                "--gateway",
                &urls.join(","),
            ])
            .args([
                "--listen",
                &address.to_string(),
                "--local-listen",
                &local.to_string(),
            ])
            .arg("--state-dir")
            .arg(state.path().join("state"));
        let process = Process::spawn(&mut command, &cluster.logs().join("agent.log"));
        Self {
            address,
            local,
            _process: process,
        }
    }

    async fn ready(&self) {
        let url = format!("http://{}/readyz", self.local);
        eventually("the agent is ready", WELL, async || {
            let answer = reqwest::get(&url).await.map_err(|e| e.to_string())?;
            answer
                .error_for_status()
                .map(drop)
                .map_err(|e| e.to_string())
        })
        .await;
    }
}

/// What the API thinks of a token: the issuer's own record decides.
fn judge(idp: Arc<Idp>) -> Judge {
    /// How old what is known may be: of a newer token it is learned by then.
    const FRESH: Duration = Duration::from_millis(250);
    let known = Arc::new(Mutex::new((Instant::now() - FRESH, History::default())));
    Arc::new(move |token| {
        let (idp, known) = (Arc::clone(&idp), Arc::clone(&known));
        async move {
            if token == DIRECT {
                return Ok(());
            }
            let shown = hex::encode(digest(&SHA256, token.as_bytes()));
            let mut known = known.lock().await;
            let is_known = known
                .1
                .records()
                .any(|r| r.access.as_deref() == Some(&shown[..12]));
            if !is_known || known.0.elapsed() >= FRESH {
                *known = (Instant::now(), idp.history().await);
            }
            verdict(&known.1, &shown[..12])
        }
        .boxed()
    })
}

fn verdict(history: &History, token: &str) -> Result<(), String> {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a short time"
    )]
    let served = |r: &evermint_issuer::Record| {
        let since_arrival = (r.served_ms? - r.arrived_ms).max(0.0) as u64;
        Some((r.access.clone()?, r.arrived_unix_ms + since_arrival))
    };
    let issued: Vec<_> = history.records().filter_map(served).collect();
    let at = issued
        .iter()
        .position(|(access, _)| access == token)
        .ok_or("it is unknown")?;
    let now = unix_ms();
    let age = |served: u64| Duration::from_millis(now.saturating_sub(served));
    if age(issued[at].1) >= ACCESS_TTL {
        return Err(format!(
            "it expired, {:?} after its issue",
            age(issued[at].1)
        ));
    }
    match issued.get(at + 1) {
        Some((_, newer)) if age(*newer) > GRACE => {
            Err(format!("it was superseded {:?} ago", age(*newer)))
        }
        _ => Ok(()),
    }
}

/// What was done to the cluster.
#[derive(Default)]
struct Hurt {
    kills: u32,
    pauses: u32,
}

impl std::fmt::Display for Hurt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} kills, {} pauses", self.kills, self.pauses)
    }
}

/// Hurts one replica after another; a majority always lives.
async fn hurt(cluster: &mut Cluster, until: Instant) -> Hurt {
    let mut random = StdRng::seed_from_u64(5);
    let mut hurt = Hurt::default();
    while Instant::now() < until {
        let replica = random.random_range(0..cluster.len());
        let down = Duration::from_millis(random.random_range(HURT_MS));
        if random.random_bool(0.5) {
            cluster.kill(replica);
            sleep(down).await;
            cluster.start_one(replica);
            hurt.kills += 1;
        } else {
            cluster.pause(replica);
            sleep(down).await;
            cluster.resume(replica);
            hurt.pauses += 1;
        }
        cluster.ready(WELL).await;
    }
    hurt
}

/// How a kind of call went.
#[derive(Default)]
struct Calls {
    ms: Vec<f64>,
    failed: Vec<String>,
}

impl Calls {
    fn count(&self) -> usize {
        self.ms.len() + self.failed.len()
    }

    fn take(&mut self, began_ms: u64, outcome: Result<Duration, String>) {
        match outcome {
            Ok(took) => self.ms.push(took.as_secs_f64() * 1000.0),
            Err(why) => self.failed.push(format!("{began_ms}: {why}")),
        }
    }

    fn times(&self) -> Times {
        let mut sorted = self.ms.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |part: usize| sorted[(sorted.len() * part / 1000).min(sorted.len() - 1)];
        Times {
            p50: at(500),
            p99: at(990),
            max: at(1000),
        }
    }
}

/// In milliseconds.
struct Times {
    p50: f64,
    p99: f64,
    max: f64,
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
            self.p50, self.p99, self.max
        )
    }
}

#[derive(Default)]
struct Both {
    through: Calls,
    direct: Calls,
}

/// Calls at a steady pace, whether those before have ended or not.
async fn load(agent: SocketAddr, api: SocketAddr) -> Both {
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(20))
        .build()
        .unwrap();
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut under_way = JoinSet::new();
    let mut both = Both::default();
    let ended = |both: &mut Both, (is_direct, began, outcome)| {
        let calls = if is_direct {
            &mut both.direct
        } else {
            &mut both.through
        };
        calls.take(began, outcome);
    };
    let until = Instant::now() + LENGTH;
    for n in 0.. {
        if Instant::now() >= until {
            break;
        }
        pace.tick().await;
        under_way.spawn(call(client.clone(), agent, false));
        if n % DIRECT_EVERY == 0 {
            under_way.spawn(call(client.clone(), api, true));
        }
        while let Some(done) = under_way.try_join_next() {
            ended(&mut both, done.unwrap());
        }
    }
    while let Some(done) = under_way.join_next().await {
        ended(&mut both, done.unwrap());
    }
    both
}

async fn call(
    client: reqwest::Client,
    address: SocketAddr,
    is_direct: bool,
) -> (bool, u64, Result<Duration, String>) {
    let (began_ms, began) = (unix_ms(), Instant::now());
    let request = client
        .post(format!("http://{address}/v1/chat/completions"))
        .bearer_auth(if is_direct { DIRECT } else { "whatever" })
        .body(r#"{"model":"mine","messages":[{"role":"user","content":"hi"}]}"#);
    let outcome = async {
        let answer = request.send().await.map_err(|e| format!("{e:?}"))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|e| format!("{e:?}"))?;
        if status == 200 && text.contains("hello") {
            Ok(began.elapsed())
        } else {
            Err(format!("{status}: {text}"))
        }
    };
    (is_direct, began_ms, outcome.await)
}
