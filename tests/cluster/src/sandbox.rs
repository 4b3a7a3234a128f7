//! Sandboxes: readers of bundles that move between replicas and remember every answer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use evermint_issuer::History;
use evermint_proto::v1::{
    Bundle, CreateSandboxRequest, GetBundleRequest, WatchBundleRequest, WatchBundleResponse,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::Status;

use crate::admin::{Admin, bundles, may_pass, sandboxes};
use crate::wait::unix_ms;

/// The pause between two reads of one polling sandbox.
const PACE: Duration = Duration::from_millis(40);
/// How long one try at one replica may take; a stopped process takes for ever.
const TRY: Duration = Duration::from_secs(1);
/// A read that no replica has answered by then has failed.
const READ_BOUND: Duration = Duration::from_secs(5);
/// A stream that is silent for so long is left for another replica.
const SILENCE: Duration = Duration::from_secs(3);
/// A watching sandbox moves to another replica after 1 to this many messages.
const MESSAGES_MAX: u32 = 12;
/// How far the cluster clock may be from ours; it is reckoned from the leader's stamps.
const CLOCKS: u64 = 500;
/// How much longer than its end a token may be served by our clock, in milliseconds.
const EXPIRY: u64 = 250;

/// How a sandbox reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It asks again and again.
    Polling,
    /// It follows a stream.
    Watching,
}

/// Running readers.
#[derive(Debug)]
pub struct Sandboxes {
    stop: watch::Sender<bool>,
    readers: Vec<JoinHandle<Findings>>,
}

/// What one sandbox has seen.
#[derive(Clone, Debug)]
pub struct Findings {
    /// Its name.
    pub sandbox: String,
    /// How it read.
    pub way: Way,
    /// Answers: bundles read, and messages of streams.
    pub answers: u64,
    /// Tries that a replica did not answer, so that another one was asked.
    pub detours: u64,
    /// The longest time from a question to its answer, detours included.
    pub slowest: Duration,
    /// Every broken promise, in words.
    pub broken: Vec<String>,
    /// Credentials that were served once, and then were not: `provider key: cause`.
    pub gaps: Vec<String>,
    /// Every token that was served, by the first 12 hex digits of its SHA-256, and when it was
    /// served last, in milliseconds since 1970.
    tokens: BTreeMap<String, u64>,
    /// The newest generation of each credential.
    generations: BTreeMap<(String, String), u64>,
}

impl Sandboxes {
    /// Registers a sandbox that may use `providers`. Says where that stands in the history: a
    /// replica that is behind does not know of it yet.
    pub async fn register(admin: &Admin, name: &str, providers: &[String]) -> u64 {
        let request = CreateSandboxRequest {
            workspace: String::new(),
            name: name.to_owned(),
            providers: providers.to_vec(),
        };
        let call = async |channel| sandboxes(channel).create_sandbox(request.clone()).await;
        let what = format!("create sandbox {name}");
        admin.call(&what, call).await.position
    }

    /// Starts a reader for each of the sandboxes, which were registered at these positions.
    pub fn start(admin: &Admin, readers: impl IntoIterator<Item = (String, Way, u64)>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let readers = readers.into_iter().enumerate();
        let readers = readers.map(|(seed, (name, way, registered))| {
            let reader = Reader {
                admin: admin.clone(),
                replicas: admin.replicas(),
                random: StdRng::seed_from_u64(seed as u64),
                seen: registered,
                revision: String::new(),
                stopped: stopped.clone(),
                findings: Findings::new(&name, way),
            };
            tokio::spawn(reader.run())
        });
        Self {
            readers: readers.collect(),
            stop,
        }
    }

    /// Stops the readers, and collects what they have seen.
    pub async fn stop(self) -> Vec<Findings> {
        self.stop.send_replace(true);
        let mut all = Vec::new();
        for reader in self.readers {
            all.push(reader.await.expect("a reader does not panic"));
        }
        all
    }
}

impl Findings {
    fn new(sandbox: &str, way: Way) -> Self {
        Self {
            sandbox: sandbox.to_owned(),
            way,
            answers: 0,
            detours: 0,
            slowest: Duration::ZERO,
            broken: Vec::new(),
            gaps: Vec::new(),
            tokens: BTreeMap::new(),
            generations: BTreeMap::new(),
        }
    }

    /// How many different tokens it was given.
    pub fn tokens(&self) -> usize {
        self.tokens.len()
    }

    /// Checks every token against the issuer's own record of it: it was issued, and was served
    /// while the issuer held it for good. Says what was not so.
    pub fn against(&self, history: &History, access_ttl: Duration) -> Vec<String> {
        let ttl_ms = access_ttl.as_secs_f64() * 1000.0;
        let ends: BTreeMap<&str, f64> = history
            .records()
            .filter_map(|record| {
                let since_arrival = record.served_ms? - record.arrived_ms;
                #[allow(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit")]
                let served_unix_ms = record.arrived_unix_ms as f64 + since_arrival;
                Some((record.access.as_deref()?, served_unix_ms + ttl_ms))
            })
            .collect();
        let problem = |(token, last_ms): (&String, &u64)| match ends.get(token.as_str()) {
            None => Some(format!("{}: {token} was never issued", self.sandbox)),
            #[allow(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit")]
            Some(end) if *last_ms as f64 >= *end => Some(format!(
                "{}: {token} was served {} ms after its end at the issuer",
                self.sandbox,
                *last_ms as f64 - end
            )),
            Some(_) => None,
        };
        self.tokens.iter().filter_map(problem).collect()
    }

    fn answered(&mut self, asked: Instant) {
        self.answers += 1;
        self.slowest = self.slowest.max(asked.elapsed());
    }

    /// Takes note of a bundle that was certainly not served before `served_ms`.
    fn take(&mut self, replica: usize, served_ms: u64, bundle: &Bundle) {
        for credential in &bundle.credentials {
            let name = (credential.provider.clone(), credential.key.clone());
            let known = self.generations.get(&name).copied();
            let Some(token) = &credential.token else {
                if let (Some(_), Some(why)) = (known, &credential.unavailable) {
                    let gap = format!("{} {}: {}", name.0, name.1, why.cause);
                    if !self.gaps.contains(&gap) {
                        self.gaps.push(gap);
                    }
                }
                continue;
            };
            if known.is_some_and(|known| token.generation < known) {
                self.broken.push(format!(
                    "replica {replica} served generation {} of {name:?} after {known:?}",
                    token.generation
                ));
            }
            self.generations.insert(name.clone(), token.generation);
            if token
                .expires_at_ms
                .is_some_and(|end| end + EXPIRY <= served_ms)
            {
                self.broken.push(format!(
                    "replica {replica} served {name:?} generation {} at {served_ms}, which had ended at {:?}",
                    token.generation, token.expires_at_ms
                ));
            }
            for value in token.values.values() {
                self.tokens.insert(digest12(value), served_ms);
            }
        }
    }
}

/// A token as the issuers' histories show it: 12 hex digits of its SHA-256.
pub fn digest12(token: &str) -> String {
    hex::encode(&digest(&SHA256, token.as_bytes()).as_ref()[..6])
}

struct Reader {
    admin: Admin,
    replicas: usize,
    random: StdRng,
    /// The highest generation that any replica gave; where the sandbox was registered at first.
    seen: u64,
    /// The revision of that bundle.
    revision: String,
    stopped: watch::Receiver<bool>,
    findings: Findings,
}

impl Reader {
    async fn run(mut self) -> Findings {
        while !*self.stopped.borrow() {
            match self.findings.way {
                Way::Polling => {
                    self.poll().await;
                    tokio::time::sleep(PACE).await;
                }
                Way::Watching => self.follow().await,
            }
        }
        self.findings
    }

    /// One read, at one replica after the other until one answers.
    async fn poll(&mut self) {
        let asked = Instant::now();
        let first = self.random.random_range(0..self.replicas);
        for replica in (0..self.replicas).cycle().skip(first) {
            let request = GetBundleRequest {
                sandbox: self.findings.sandbox.clone(),
                workspace: String::new(),
                min_generation: self.seen,
                min_ttl_ms: 0,
                consistent: false,
            };
            let asked_ms = unix_ms();
            let mut client = bundles(self.admin.on(replica));
            let problem = match timeout(TRY, client.get_bundle(request)).await {
                Ok(Ok(answer)) => {
                    let answer = answer.into_inner();
                    self.clock(replica, answer.server_time_ms);
                    let bundle = answer.bundle.unwrap_or_default();
                    self.believe(replica, asked_ms, bundle);
                    self.findings.answered(asked);
                    return;
                }
                Ok(Err(status)) if may_pass(&status) => said(&status),
                Ok(Err(status)) => return self.broken(format!("a read: {}", said(&status))),
                Err(_) => format!("no answer within {TRY:?}"),
            };
            if asked.elapsed() > READ_BOUND {
                return self.broken(format!(
                    "no replica answered a read within {READ_BOUND:?}; at last replica {replica}: {problem}"
                ));
            }
            self.findings.detours += 1;
            if replica + 1 == self.replicas {
                tokio::time::sleep(PACE).await;
            }
        }
    }

    /// Follows one stream for a while, at the first replica that gives a message.
    async fn follow(&mut self) {
        let asked = Instant::now();
        let first = self.random.random_range(0..self.replicas);
        for replica in (0..self.replicas).cycle().skip(first) {
            let problem = match self.stream(replica, asked).await {
                Ok(()) => return,
                Err(problem) => problem,
            };
            if asked.elapsed() > READ_BOUND {
                return self.broken(format!(
                    "no replica gave a stream within {READ_BOUND:?}; at last replica {replica}: {problem}"
                ));
            }
            self.findings.detours += 1;
            if replica + 1 == self.replicas {
                tokio::time::sleep(PACE).await;
            }
        }
    }

    /// A stream at one replica, until it is time to move on.
    ///
    /// # Errors
    /// Why there was not even a first message.
    async fn stream(&mut self, replica: usize, asked: Instant) -> Result<(), String> {
        let request = WatchBundleRequest {
            sandbox: self.findings.sandbox.clone(),
            workspace: String::new(),
            min_generation: self.seen,
            known_revision: self.revision.clone(),
        };
        let mut client = bundles(self.admin.on(replica));
        let open = async {
            let mut stream = client.watch_bundle(request).await?.into_inner();
            let first = stream.message().await?;
            Ok::<_, Status>((stream, first))
        };
        let (mut stream, first) = match timeout(TRY, open).await {
            Ok(Ok((stream, Some(first)))) => (stream, first),
            Ok(Ok((_, None))) => return Err("the stream ended at once".to_owned()),
            Ok(Err(status)) if may_pass(&status) => return Err(said(&status)),
            Ok(Err(status)) => {
                self.broken(format!("a stream: {}", said(&status)));
                return Ok(());
            }
            Err(_) => return Err(format!("no message within {TRY:?}")),
        };
        self.message(replica, first);
        self.findings.answered(asked);
        for _ in 0..self.random.random_range(0..MESSAGES_MAX) {
            let next = tokio::select! {
                next = timeout(SILENCE, stream.message()) => next,
                _ = self.stopped.changed() => return Ok(()),
            };
            // A stream may end, break or fall silent at any time: then another replica is asked,
            // and that has to work.
            let Ok(Ok(Some(message))) = next else {
                return Ok(());
            };
            self.message(replica, message);
            self.findings.answers += 1;
        }
        Ok(())
    }

    fn message(&mut self, replica: usize, message: WatchBundleResponse) {
        self.clock(replica, message.server_time_ms);
        match message.bundle {
            Some(bundle) => self.believe(replica, message.server_time_ms, bundle),
            None if message.generation < self.seen => self.broken(format!(
                "replica {replica} sent a heartbeat of generation {} after {}",
                message.generation, self.seen
            )),
            None => self.seen = message.generation,
        }
    }

    fn believe(&mut self, replica: usize, served_ms: u64, bundle: Bundle) {
        if bundle.generation < self.seen {
            return self.broken(format!(
                "replica {replica} gave bundle generation {} after {}",
                bundle.generation, self.seen
            ));
        }
        self.seen = bundle.generation;
        self.findings.take(replica, served_ms, &bundle);
        self.revision = bundle.revision;
    }

    fn clock(&mut self, replica: usize, server_ms: u64) {
        let ours = unix_ms();
        if ours.abs_diff(server_ms) > CLOCKS {
            self.broken(format!(
                "replica {replica} believes it is {server_ms}, and it is {ours}"
            ));
        }
    }

    fn broken(&mut self, what: String) {
        let sandbox = &self.findings.sandbox;
        let at = unix_ms();
        self.findings.broken.push(format!("{at} {sandbox}: {what}"));
    }
}

fn said(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}
