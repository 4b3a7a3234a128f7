//! Sandboxes: readers of bundles that move between replicas, and note everything they are given.
//! They judge nothing.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evermint_client::{Client, Snapshot};
use evermint_cluster_tests::digest12;
use evermint_proto::v1::bundles_client::BundlesClient;
use evermint_proto::v1::{Bundle, BundleCredential, GetBundleRequest, WatchBundleRequest};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};

use crate::dice::Dice;
use crate::history::{Event, Nanos, Place, Served, Way};
use crate::operator::said;
use crate::world::World;

/// The pause between two reads of one polling sandbox, and between two looks at the library.
const PACE: Duration = Duration::from_millis(250);
/// How long one try at one replica may take: longer than a replica waits to catch up.
const TRY: Duration = Duration::from_secs(3);
/// A read that no replica has answered by then has failed: time for two rounds.
const READ_BOUND: Duration = Duration::from_secs(10);
/// A stream that is silent for so long is left for another replica.
const SILENCE: Duration = Duration::from_secs(5);
/// A watching sandbox moves to another replica after 1 to this many messages.
const MESSAGES_MAX: u64 = 20;
/// An unchanged snapshot of the library is noted again after so many looks.
const LOOKS: u32 = 8;

/// The contents that were noted so far.
#[derive(Debug, Default)]
pub struct Contents(Mutex<HashMap<Vec<Served>, u64>>);

impl Contents {
    /// The number of a content, which is noted if it is new.
    pub(crate) fn number(&self, world: &World, credentials: Vec<Served>) -> u64 {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(content) = known.get(&credentials) {
            return *content;
        }
        let content = known.len() as u64 + 1;
        world.recorder.note(Event::Content {
            content,
            credentials: credentials.clone(),
        });
        known.insert(credentials, content);
        content
    }
}

/// One reader of one sandbox.
pub struct Reader {
    world: Arc<World>,
    sandbox: String,
    name: String,
    way: Way,
    dice: Dice,
    /// The newest generation that it was given; where the sandbox was registered at first.
    seen: u64,
    revision: String,
    stop: watch::Receiver<bool>,
}

impl Reader {
    /// A reader of a sandbox that was registered at `registered`.
    pub fn new(
        world: &Arc<World>,
        sandbox: &str,
        way: Way,
        registered: u64,
        stop: &watch::Receiver<bool>,
    ) -> Self {
        let kind = match way {
            Way::Polling => "polling",
            Way::Watching => "watching",
            Way::Library => "library",
        };
        let name = format!("{sandbox}/{kind}");
        Self {
            dice: Dice::new(world.settings.seed, &name),
            world: Arc::clone(world),
            sandbox: sandbox.to_owned(),
            name,
            way,
            seen: registered,
            revision: String::new(),
            stop: stop.clone(),
        }
    }

    /// Reads until it is told to stop.
    pub async fn run(mut self) {
        if self.way == Way::Library {
            return self.library().await;
        }
        let mut stop = self.stop.clone();
        while !*stop.borrow_and_update() {
            self.read().await;
            if self.way == Way::Polling {
                sleep(PACE).await;
            }
        }
    }

    /// One read, or one stream, at one replica after the other until one answers.
    async fn read(&mut self) {
        let world = Arc::clone(&self.world);
        let began = Instant::now();
        let asked = world.recorder.now();
        let mut said = Vec::new();
        while began.elapsed() < READ_BOUND {
            // A sandbox knows the replicas, and not which of them run.
            let mut places: Vec<Place> = world.members().collect();
            self.dice.shuffle(&mut places);
            for place in places {
                let tried = match self.way {
                    Way::Polling => timeout(TRY, self.poll(place)).await,
                    Way::Watching | Way::Library => Ok(self.follow(place).await),
                };
                match tried {
                    Ok(Ok(())) => return,
                    Ok(Err(why)) => said.push((place, why)),
                    Err(_) => said.push((place, format!("no answer within {TRY:?}"))),
                }
            }
            sleep(PACE).await;
        }
        world.failed_reads.fetch_add(1, Ordering::Relaxed);
        world.recorder.note(Event::ReadFailed {
            sandbox: self.sandbox.clone(),
            reader: self.name.clone(),
            way: self.way,
            asked,
            said,
        });
    }

    /// # Errors
    /// Why this replica gave nothing.
    async fn poll(&mut self, place: Place) -> Result<(), String> {
        let request = GetBundleRequest {
            sandbox: self.sandbox.clone(),
            min_generation: self.seen,
            ..GetBundleRequest::default()
        };
        let asked = self.world.recorder.now();
        let mut client = BundlesClient::new(self.world.channel(place));
        let answer = client.get_bundle(request).await.map_err(|s| said(&s))?;
        let answer = answer.into_inner();
        let bundle = answer.bundle.unwrap_or_default();
        self.take(asked, place, answer.staleness_ms, bundle);
        Ok(())
    }

    /// Follows a stream until it is time to move on.
    ///
    /// # Errors
    /// Why there was not even a first message.
    async fn follow(&mut self, place: Place) -> Result<(), String> {
        let request = WatchBundleRequest {
            sandbox: self.sandbox.clone(),
            min_generation: self.seen,
            known_revision: self.revision.clone(),
            ..WatchBundleRequest::default()
        };
        let mut asked = self.world.recorder.now();
        let mut client = BundlesClient::new(self.world.channel(place));
        let open = async {
            let mut stream = client.watch_bundle(request).await?.into_inner();
            let first = stream.message().await?;
            first
                .map(|first| (stream, first))
                .ok_or(Status::new(Code::Unavailable, "the stream ended at once"))
        };
        let opened = timeout(TRY, open).await;
        let opened = opened.map_err(|_| format!("no message within {TRY:?}"))?;
        let (mut stream, mut message) = opened.map_err(|status| said(&status))?;
        for _ in 0..self.dice.number(1..MESSAGES_MAX) {
            match message.bundle.take() {
                Some(bundle) => self.take(asked, place, message.staleness_ms, bundle),
                None => self.sign_of_life(asked, place, message.staleness_ms, message.generation),
            }
            asked = self.world.recorder.now();
            let next = tokio::select! {
                next = timeout(SILENCE, stream.message()) => next,
                _ = self.stop.changed() => return Ok(()),
            };
            // A stream may end, break or fall silent at any time: then another replica is asked,
            // and that has to work.
            let Ok(Ok(Some(next))) = next else {
                return Ok(());
            };
            message = next;
        }
        Ok(())
    }

    fn take(&mut self, asked: Nanos, place: Place, staleness_ms: u64, bundle: Bundle) {
        let credentials = bundle.credentials.into_iter().map(served).collect();
        let content = self.world.contents.number(&self.world, credentials);
        self.revision = bundle.revision;
        let place = Some((place, staleness_ms));
        self.note(asked, place, bundle.generation, Some(content));
    }

    fn sign_of_life(&mut self, asked: Nanos, place: Place, staleness_ms: u64, generation: u64) {
        self.note(asked, Some((place, staleness_ms)), generation, None);
    }

    fn note(
        &mut self,
        asked: Nanos,
        from: Option<(Place, u64)>,
        generation: u64,
        content: Option<u64>,
    ) {
        self.world.reads.fetch_add(1, Ordering::Relaxed);
        self.world.recorder.note(Event::Read {
            sandbox: self.sandbox.clone(),
            reader: self.name.clone(),
            way: self.way,
            asked,
            replica: from.map(|(place, _)| place),
            generation,
            after: self.seen,
            staleness_ms: from.map(|(_, ms)| ms),
            content,
        });
        self.seen = self.seen.max(generation);
    }

    /// Looks at what the client library holds, again and again.
    async fn library(&mut self) {
        let world = Arc::clone(&self.world);
        let urls = world
            .members()
            .map(|p| format!("http://{}", world.net.api(p)));
        let client = Client::builder()
            .endpoints(urls)
            .sandbox(&self.sandbox)
            .allow_plaintext()
            .max_staleness(crate::settings::times::MAX_STALENESS)
            .build();
        let client = match client {
            Ok(client) => client,
            Err(why) => return world.fail(format!("the client library: {why}")),
        };
        let mut last = (0, 0);
        let mut looks = 0;
        while !*self.stop.borrow() {
            let asked = world.recorder.now();
            let snapshot = client.snapshot();
            if let Some(generation) = snapshot.generation() {
                let content = world.contents.number(&world, held(&snapshot));
                looks += 1;
                if last != (generation.0, content) || looks >= LOOKS {
                    self.note(asked, None, generation.0, Some(content));
                    (last, looks) = ((generation.0, content), 0);
                }
            }
            tokio::select! {
                () = sleep(PACE) => {}
                _ = self.stop.changed() => {}
            }
        }
    }
}

fn served(credential: BundleCredential) -> Served {
    let token = credential.token.unwrap_or_default();
    // Every credential here has one output.
    let value = token.values.values().next();
    Served {
        provider: credential.provider,
        key: credential.key,
        generation: token.generation,
        token: value.map(|value| digest12(value)),
        expires_at_ms: token.expires_at_ms,
        unavailable: credential.unavailable.map_or(String::new(), |u| u.cause),
    }
}

/// What the library would hand out at this moment.
fn held(snapshot: &Snapshot) -> Vec<Served> {
    let served = snapshot.credentials().map(|credential| {
        let token = credential.token();
        let unusable = token.usable().err();
        Served {
            provider: credential.provider().to_owned(),
            key: credential.key().to_owned(),
            generation: token.generation().map_or(0, |g| g.0),
            token: token
                .value()
                .map(|value| digest12(value.expose_str().unwrap_or_default())),
            expires_at_ms: None,
            unavailable: unusable.map_or(String::new(), |why| why.to_string()),
        }
    });
    served.collect()
}
