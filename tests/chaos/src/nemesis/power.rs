//! Power cuts under running replicas: what is not on the disk is gone, of one, of a majority, of all
//! at once, while writes and mints are under way. Each cut has a ledger of its own, into which the
//! harness writes until the lights go out; every line of it that was acknowledged has to be there
//! afterwards, on every replica.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evermint_proto::v1::providers_client::ProvidersClient;
use evermint_proto::v1::{GetProviderRequest, UpdateProviderRequest};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::process::{acknowledged_write, back, failed_reads};
use super::{Missed, Nemesis, Struck, storage};
use crate::dice::Dice;
use crate::disk::{Cutter, Disk};
use crate::history::{Call, Event, Failover, Place};
use crate::operator::Operator;
use crate::world::{Claim, World};

/// How long the ledger is written before the cut.
const BEFORE: std::ops::Range<Duration> = Duration::from_millis(200)..Duration::from_millis(1_200);
/// Writers of one ledger.
const WRITERS: usize = 3;
/// Lines of one ledger: a provider holds no more settings than a person would make.
const LINES_MAX: u64 = 150;
/// How many mints are asked for just before the cut.
const MINTS: usize = 4;
/// How long one line may take.
const LINE: Duration = Duration::from_secs(3);
/// How long a ledger may take to be opened, and to be readable again at a replica.
const BOUND: Duration = Duration::from_secs(60);
/// How long to wait for a moment when all replicas may be taken away.
const ALL: Duration = Duration::from_secs(60);

/// The disks of a run, one for each place.
pub struct Grid {
    disks: Vec<Disk>,
    cutter: Mutex<Cutter>,
    /// Lines that were acknowledged, over all cuts.
    pub acknowledged: AtomicU64,
}

impl Grid {
    /// Gives every place a disk of its own, and lets it be made to fail. Before any replica runs.
    ///
    /// # Errors
    /// What is missing: root, a loop device, ext4, python3 or cc.
    pub async fn install(world: &World) -> Result<Arc<Self>, String> {
        let mut disks = Vec::new();
        for place in &world.places {
            let image = world.settings.dir.join(format!("disk-{}.img", place.place));
            disks.push(Disk::make(image, place.data_dir.clone()).await?);
        }
        storage::install(world).await?;
        Ok(Arc::new(Self {
            disks,
            cutter: Mutex::new(Cutter::start()?),
            acknowledged: AtomicU64::new(0),
        }))
    }

    /// The disk of a place.
    pub fn disk(&self, place: Place) -> &Disk {
        &self.disks[place]
    }

    /// Cuts the power of the replicas at these places, all at once.
    async fn cut(&self, world: &World, places: &[Place]) -> Result<(), String> {
        for place in places {
            world.places[*place].may_end(true);
        }
        let disks: Vec<&Disk> = places.iter().map(|place| self.disk(*place)).collect();
        let dark = self
            .cutter
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .cut(&disks);
        // Whatever a process does between its disk's end and its own, nothing of it lasts.
        for place in places {
            world.places[*place].kill();
        }
        dark?;
        for disk in disks {
            disk.unmount().await?;
            disk.mount().await?;
        }
        Ok(())
    }

    /// Unmounts everything, after the last replica has ended.
    pub async fn down(&self) {
        for disk in &self.disks {
            // The mount namespace ends with the harness, and what is left in it as well.
            let _ = disk.unmount().await;
        }
    }
}

/// Every nemesis of this family.
pub fn all(grid: &Arc<Grid>) -> Vec<Box<dyn Nemesis>> {
    let cut = |how| -> Box<dyn Nemesis> {
        let grid = Arc::clone(grid);
        Box::new(Cut { how, grid })
    };
    vec![cut(How::One), cut(How::Majority), cut(How::All)]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    One,
    Majority,
    All,
}

/// Cuts the power of some replicas.
struct Cut {
    how: How,
    grid: Arc<Grid>,
}

#[async_trait::async_trait]
impl Nemesis for Cut {
    fn family(&self) -> &'static str {
        "power"
    }

    fn name(&self) -> &'static str {
        match self.how {
            How::One => "cut of one",
            How::Majority => "cut of a majority",
            How::All => "cut of all",
        }
    }

    async fn strike(&self, world: &Arc<World>, dice: &mut Dice) -> Result<Struck, Missed> {
        // One cut at a time: its ledger has to be read on every replica.
        let Some(claim) = world.claim_all(ALL).await else {
            return Ok(Struck::No);
        };
        let dark = self.places(&claim, dice);
        let ledger = Ledger::open(world, dice).await?;
        ledger.write(world);
        for _ in 0..MINTS {
            let credentials: Vec<_> = world.credentials.iter().collect();
            if let Some(credential) = dice.pick(&credentials) {
                world.rotate(credential).await;
            }
        }
        // The moment of the cut is what this is about; no event tells it.
        sleep(dice.time(&BEFORE)).await;
        let failed_before = failed_reads(world);
        let fault = world.fault(self.family(), self.name(), &dark, "");
        let at = Instant::now();
        self.grid.cut(world, &dark).await?;
        fault.bites("nothing can be written to a disk that is cut off");
        for place in &dark {
            world.places[*place].start(&world.net);
        }
        let written = acknowledged_write(world, &world.credentials[0].provider).await;
        let write = written.then(|| at.elapsed());
        for place in &dark {
            back(world, *place).await?;
            world.places[*place].may_end(false);
        }
        let lines = ledger.close().await;
        self.grid
            .acknowledged
            .fetch_add(lines.len() as u64, Ordering::Relaxed);
        for place in &claim.places {
            let found = read(world, *place, &ledger.provider).await?;
            let lost: Vec<_> = lines.difference(&found).collect();
            if !lost.is_empty() {
                world.fail(format!(
                    "I4: {}: replica {place} lost {} of {} acknowledged lines: {lost:?}",
                    self.name(),
                    lost.len(),
                    lines.len()
                ));
            }
        }
        world.recorder.note(Event::Failover(Failover {
            fault: fault.id,
            replica: dark[0],
            client: String::new(),
            write_ms: write.and_then(|time| u64::try_from(time.as_millis()).ok()),
            mint_ms: None,
            failed_reads: failed_reads(world) - failed_before,
        }));
        Ok(Struck::Yes)
    }
}

impl Cut {
    fn places(&self, claim: &Claim, dice: &mut Dice) -> Vec<Place> {
        let mut places = claim.places.clone();
        dice.shuffle(&mut places);
        let count = match self.how {
            How::One => 1,
            How::Majority => places.len() / 2 + 1,
            How::All => places.len(),
        };
        places.truncate(count);
        places
    }
}

/// A provider whose settings are lines that were written to it, each once.
struct Ledger {
    provider: String,
    lines: Arc<Mutex<BTreeSet<String>>>,
    next: Arc<AtomicU64>,
    stop: watch::Sender<bool>,
    writers: Mutex<JoinSet<()>>,
}

impl Ledger {
    async fn open(world: &Arc<World>, dice: &mut Dice) -> Result<Self, Missed> {
        let provider = format!(
            "ledger-{}-{}",
            world.recorder.number(),
            dice.number(0..1_000)
        );
        let mut keeper = Operator::new(world, format!("keeper of {provider}"));
        let create = Call::CreateProvider {
            provider: provider.clone(),
        };
        keeper.insist(create, BOUND, None).await?;
        Ok(Self {
            provider,
            lines: Arc::default(),
            next: Arc::default(),
            stop: watch::channel(false).0,
            writers: Mutex::default(),
        })
    }

    /// Starts its writers.
    fn write(&self, world: &Arc<World>) {
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..WRITERS {
            let (world, stop) = (Arc::clone(world), self.stop.subscribe());
            let (lines, next) = (Arc::clone(&self.lines), Arc::clone(&self.next));
            let provider = self.provider.clone();
            writers.spawn(async move {
                while !*stop.borrow() {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= LINES_MAX {
                        return;
                    }
                    let line = format!("line-{n}");
                    if write_line(&world, &provider, &line).await {
                        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                        lines.insert(line);
                    }
                }
            });
        }
    }

    /// Stops the writers; says which lines were acknowledged.
    async fn close(&self) -> BTreeSet<String> {
        self.stop.send_replace(true);
        let mut writers =
            std::mem::take(&mut *self.writers.lock().unwrap_or_else(PoisonError::into_inner));
        // A writer that panics has written nothing more.
        while writers.join_next().await.is_some() {}
        let lines = self.lines.lock();
        lines.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Writes one line at whichever replica takes it. Whether it was acknowledged.
async fn write_line(world: &Arc<World>, provider: &str, line: &str) -> bool {
    let request = UpdateProviderRequest {
        name: provider.to_owned(),
        config: [(line.to_owned(), "1".to_owned())].into(),
        ..UpdateProviderRequest::default()
    };
    let ask = |channel| {
        let (mut client, request) = (ProvidersClient::new(channel), request.clone());
        async move { client.update_provider(request).await }
    };
    let written = timeout(LINE, world.anywhere(ask)).await;
    matches!(written, Ok(Some(_)))
}

/// The lines that a replica has, once it has caught up with the leader.
async fn read(
    world: &Arc<World>,
    place: Place,
    provider: &str,
) -> Result<BTreeSet<String>, Missed> {
    let request = GetProviderRequest {
        name: provider.to_owned(),
        consistent: true,
        ..GetProviderRequest::default()
    };
    let what = format!("replica {place} shows its ledger");
    let found = world
        .until(&what, BOUND, || async {
            let mut client = ProvidersClient::new(world.channel(place));
            let answer = timeout(LINE, client.get_provider(request.clone())).await;
            let answer = answer.map_err(|_| "no answer".to_owned())?;
            let answer = answer.map_err(|status| status.to_string())?;
            let found = answer.into_inner().provider.ok_or("no provider")?;
            Ok(found.config.into_keys().collect())
        })
        .await;
    found.map_err(Missed)
}

/// Whether this machine can cut the power of its own disks.
///
/// # Errors
/// What is missing.
pub async fn available(dir: &Path) -> Result<(), String> {
    let disk = Disk::make(dir.join("probe.img"), dir.join("probe")).await?;
    let cut = Cutter::start().and_then(|mut cutter| cutter.cut(&[&disk]));
    disk.unmount().await?;
    cut
}
