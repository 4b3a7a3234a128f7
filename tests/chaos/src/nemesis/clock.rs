//! Wall clocks that are wrong: set ahead or back, by seconds or hours, or running too fast or too
//! slow. One replica at a time, by libfaketime in front of the test build, whose every clock comes
//! from the C library; monotonic clocks stay as they are, and so does the machine's own clock.
//!
//! The cluster clock follows a majority, so every promise about time has to hold meanwhile.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Missed, Nemesis, Struck};
use crate::dice::Dice;
use crate::failpoint::available;
use crate::history::Place;
use crate::world::World;

/// Where Debian has the library: below a directory of the architecture's name.
const LIBRARIES: &str = "/usr/lib";
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";
/// How long a clock stays wrong.
const WRONG: std::ops::Range<Duration> = Duration::from_secs(5)..Duration::from_secs(25);
/// How often a clock that drifts is set on: the library looks as often.
const LOOKS: Duration = Duration::from_secs(1);
/// How long a replica may take to show its new time: it may be down meanwhile.
const SHOWS: Duration = Duration::from_secs(60);
/// How exactly one replica knows another one's clock, in milliseconds.
const ERROR_MS: u64 = 3_000;

/// Lets every replica of the test build start with the library in front of the system's, and the
/// right time. Says why not, if it cannot be done.
///
/// # Errors
/// When a file cannot be written.
pub fn install(world: &World) -> std::io::Result<Option<String>> {
    if !available(world) {
        return Ok(Some("the program is no test build".to_owned()));
    }
    let Some(library) = library() else {
        return Ok(Some("libfaketime is not installed".to_owned()));
    };
    for place in &world.places {
        set(world, place.place, 0)?;
        let file = file(world, place.place).display().to_string();
        place.env("FAKETIME_TIMESTAMP_FILE", Some(&file));
        place.env("FAKETIME_CACHE_DURATION", Some("1"));
        place.env("FAKETIME_DONT_FAKE_MONOTONIC", Some("1"));
        place.preload(&library);
    }
    Ok(None)
}

/// Removes what the library leaves behind when its process is killed.
pub(crate) fn tidy(pid: u32) {
    for name in [
        format!("faketime_shm_{pid}"),
        format!("sem.faketime_sem_{pid}"),
    ] {
        // It is there only if the library was.
        let _ = std::fs::remove_file(Path::new("/dev/shm").join(name));
    }
}

fn library() -> Option<PathBuf> {
    let architectures = std::fs::read_dir(LIBRARIES).ok()?;
    let mut found = architectures.filter_map(|dir| Some(dir.ok()?.path().join(LIBRARY)));
    found.find(|path| path.exists())
}

fn file(world: &World, place: Place) -> PathBuf {
    world.settings.dir.join(format!("clock-{place}"))
}

/// Sets the clock of a place so much ahead of the right time.
fn set(world: &World, place: Place, ahead_ms: i64) -> std::io::Result<()> {
    let (sign, ms) = (
        if ahead_ms < 0 { '-' } else { '+' },
        ahead_ms.unsigned_abs(),
    );
    let text = format!("{sign}{}.{:03}\n", ms / 1_000, ms % 1_000);
    // In one step: nobody may read half of it.
    let (file, beside) = (file(world, place), file(world, place).with_extension("new"));
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, &file)
}

/// Every nemesis of this family.
pub fn all() -> Vec<Box<dyn Nemesis>> {
    vec![
        Box::new(Jump { back: false }),
        Box::new(Jump { back: true }),
        Box::new(Drift { slow: false }),
        Box::new(Drift { slow: true }),
    ]
}

/// The clock is set, and set right again after a while.
struct Jump {
    back: bool,
}

#[async_trait::async_trait]
impl Nemesis for Jump {
    fn family(&self) -> &'static str {
        "clock"
    }

    fn name(&self) -> &'static str {
        match self.back {
            true => "jump back",
            false => "jump ahead",
        }
    }

    async fn strike(&self, world: &Arc<World>, dice: &mut Dice) -> Result<Struck, Missed> {
        let Some(place) = whom(world, dice) else {
            return Ok(Struck::No);
        };
        let most = dice
            .pick(&[10_000, 60_000, 600_000, 7_200_000])
            .unwrap_or(10_000);
        let by = dice.number(most / 2..most).cast_signed();
        let by = if self.back { -by } else { by };
        let fault = world.fault(self.family(), self.name(), &[place], format!("{by} ms"));
        set(world, place, by).map_err(|e| Missed(e.to_string()))?;
        let seen = is_ahead(world, place, by).await;
        sleep(dice.time(&WRONG)).await;
        set(world, place, 0).map_err(|e| Missed(e.to_string()))?;
        fault.bites(seen?);
        is_ahead(world, place, 0).await?;
        Ok(Struck::Yes)
    }
}

/// The clock runs at another rate, and is set right in the end.
struct Drift {
    slow: bool,
}

#[async_trait::async_trait]
impl Nemesis for Drift {
    fn family(&self) -> &'static str {
        "clock"
    }

    fn name(&self) -> &'static str {
        match self.slow {
            true => "run slow",
            false => "run fast",
        }
    }

    async fn strike(&self, world: &Arc<World>, dice: &mut Dice) -> Result<Struck, Missed> {
        let Some(place) = whom(world, dice) else {
            return Ok(Struck::No);
        };
        // Half as fast, or twice.
        let percent: i64 = if self.slow { -50 } else { 100 };
        let detail = format!("{percent:+} %");
        let fault = world.fault(self.family(), self.name(), &[place], detail);
        let began = Instant::now();
        let length = dice.time(&WRONG) + Duration::from_secs(10);
        let mut by = 0;
        while began.elapsed() < length {
            sleep(LOOKS).await;
            let passed = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
            by = passed / 100 * percent;
            set(world, place, by).map_err(|e| Missed(e.to_string()))?;
        }
        let seen = is_ahead(world, place, by).await;
        set(world, place, 0).map_err(|e| Missed(e.to_string()))?;
        fault.bites(seen?);
        is_ahead(world, place, 0).await?;
        Ok(Struck::Yes)
    }
}

/// Whose clock: the leader's, mostly.
fn whom(world: &World, dice: &mut Dice) -> Option<Place> {
    if !Path::new(&file(world, 0)).exists() {
        return None;
    }
    let members: Vec<Place> = world.members().collect();
    let any = dice.pick(&members);
    if dice.percent(60) {
        world.leading_member()
    } else {
        any
    }
}

/// Waits until some replica tells that the clock of `place` is that far ahead of its own.
async fn is_ahead(world: &Arc<World>, place: Place, by: i64) -> Result<String, Missed> {
    let look = || async {
        // An empty replica may have taken its place meanwhile.
        let id = world.places[place].id();
        for witness in world.up().into_iter().filter(|witness| *witness != place) {
            let Some(status) = world.status(witness).await else {
                continue;
            };
            let clock = |id| {
                let replica = status.replicas.iter().find(|r| Some(r.id) == id)?;
                replica.clock_ahead_ms
            };
            let (Some(it), Some(own)) = (clock(id), clock(Some(status.replica))) else {
                continue;
            };
            let ahead = it - own;
            return match ahead.abs_diff(by) < ERROR_MS {
                true => Ok(format!(
                    "replica {witness} sees it {ahead} ms ahead of its own"
                )),
                false => Err(format!(
                    "replica {witness} sees it {ahead} ms ahead, not {by}"
                )),
            };
        }
        Err("nobody knows its clock".to_owned())
    };
    Ok(world.until("the clock is seen", SHOWS, look).await?)
}
