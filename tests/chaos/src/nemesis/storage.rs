//! Faults of a disk that keeps its power: full, read-only, one that fails or takes long to sync, and
//! one that gives back something else than was written.

use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::power::Grid;
use super::process::{acknowledged_write, back, kill};
use super::{Missed, Nemesis, Struck};
use crate::dice::Dice;
use crate::history::Place;
use crate::tool::run;
use crate::world::{Claim, Fault, World};

/// The library that makes syncs and writes fail.
const SHIM: &str = include_str!("../../shim/fault.c");
/// The directory whose files it is about, and the file that says what happens to them.
const PATH: &str = "CHAOS_DISK_PATH";
const FAULT: &str = "CHAOS_DISK_FAULT";
/// How long a disk stays as it is made.
const LASTS: std::ops::Range<Duration> = Duration::from_secs(2)..Duration::from_secs(5);
/// How long a fault may take to be met: something is synced all the time.
const MET: Duration = Duration::from_secs(10);
/// How long a replica that must not start may take to say so, and one that is new to belong.
const BOUND: Duration = Duration::from_secs(60);
/// How long to wait for a moment when a replica may be replaced.
const ALL: Duration = Duration::from_secs(30);
/// How many bytes are flipped, one time after the other, until something of use is hit.
const FLIPPED: [usize; 4] = [1, 10, 100, usize::MAX];

/// Compiles the library, and lets every replica start with it.
///
/// # Errors
/// What the compiler said.
pub async fn install(world: &World) -> Result<(), String> {
    let dir = &world.settings.dir;
    let (source, library) = (dir.join("fault.c"), dir.join("fault.so"));
    std::fs::write(&source, SHIM).map_err(|e| format!("{}: {e}", source.display()))?;
    let (from, to) = (source.display().to_string(), library.display().to_string());
    run(&["cc", "-shared", "-fPIC", "-O1", "-o", &to, &from, "-ldl"]).await?;
    for place in &world.places {
        place.env(PATH, Some(&place.data_dir.display().to_string()));
        place.env(
            FAULT,
            Some(&script(world, place.place).display().to_string()),
        );
        place.preload(&library);
    }
    Ok(())
}

/// The file that says what happens to the disk of a place.
fn script(world: &World, place: Place) -> PathBuf {
    world.settings.dir.join(format!("disk-fault-{place}"))
}

/// Every nemesis of this family.
pub fn all(grid: &Arc<Grid>) -> Vec<Box<dyn Nemesis>> {
    let boxed = |what| -> Box<dyn Nemesis> {
        let grid = Arc::clone(grid);
        Box::new(Storage { what, grid })
    };
    [
        What::Full,
        What::ReadOnly,
        What::SyncFails,
        What::SyncSlow,
        What::Flipped,
        What::Torn,
    ]
    .into_iter()
    .map(boxed)
    .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Full,
    ReadOnly,
    SyncFails,
    SyncSlow,
    Flipped,
    Torn,
}

/// Something is wrong with the disk of one replica.
struct Storage {
    what: What,
    grid: Arc<Grid>,
}

#[async_trait::async_trait]
impl Nemesis for Storage {
    fn family(&self) -> &'static str {
        "storage"
    }

    fn name(&self) -> &'static str {
        match self.what {
            What::Full => "disk full",
            What::ReadOnly => "disk read-only",
            What::SyncFails => "sync fails",
            What::SyncSlow => "sync takes long",
            What::Flipped => "a flipped byte",
            What::Torn => "a torn tail",
        }
    }

    async fn strike(&self, world: &Arc<World>, dice: &mut Dice) -> Result<Struck, Missed> {
        let damages = matches!(self.what, What::Flipped | What::Torn);
        let mut places: Vec<Place> = world.members().collect();
        dice.shuffle(&mut places);
        let place = places[0];
        let claim = match damages {
            // What only this disk and one other hold is safe only while no other one is in doubt.
            true => world.claim_all(ALL).await,
            false => world.claim(&[place]),
        };
        let Some(claim) = claim else {
            return Ok(Struck::No);
        };
        if damages && world.well(&claim.places, ALL).await.is_err() {
            return Ok(Struck::No);
        }
        world.places[place].may_end(true);
        let fault = world.fault(self.family(), self.name(), &[place], "");
        match self.what {
            What::Full => self.full(world, dice, place, &fault).await?,
            What::ReadOnly => self.read_only(world, place, &fault).await?,
            What::SyncFails => self.sync(world, dice, place, &fault, "sync-fails").await?,
            What::SyncSlow => {
                let ms = dice.number(200..1_500);
                let slow = format!("sync-slow {ms}");
                self.sync(world, dice, place, &fault, &slow).await?;
            }
            What::Flipped | What::Torn => {
                self.damaged(world, dice, &claim, place, &fault).await?;
            }
        }
        world.places[place].may_end(false);
        Ok(Struck::Yes)
    }
}

impl Storage {
    /// Fills the disk under the replica.
    async fn full(
        &self,
        world: &Arc<World>,
        dice: &mut Dice,
        place: Place,
        fault: &Fault,
    ) -> Result<(), Missed> {
        let filler = self.grid.disk(place).mount.join("filler");
        let fill = filler.clone();
        let filled = tokio::task::spawn_blocking(move || fill_up(&fill)).await;
        let bytes = filled
            .map_err(|e| Missed(e.to_string()))?
            .map_err(|e| Missed(format!("the disk could not be filled: {e}")))?;
        fault.bites(format!("no space after {bytes} more bytes"));
        others_go_on(world).await?;
        sleep(dice.time(&LASTS)).await;
        std::fs::remove_file(&filler).map_err(|e| Missed(format!("the filler: {e}")))?;
        well_again(world, place).await
    }

    /// Starts the replica on a disk that can only be read: it must not run there.
    async fn read_only(
        &self,
        world: &Arc<World>,
        place: Place,
        fault: &Fault,
    ) -> Result<(), Missed> {
        kill(world, place)?;
        let disk = self.grid.disk(place);
        // A process that was killed may take a moment to let go of its files.
        world
            .until("the disk is read-only", BOUND, || disk.remount("ro"))
            .await?;
        let refused = refuses_to_start(world, place).await;
        disk.remount("rw").await?;
        let said =
            refused?.ok_or_else(|| Missed("it runs on a disk that is read-only".to_owned()))?;
        fault.bites(said);
        well_again(world, place).await
    }

    /// Makes syncs fail, or take long.
    async fn sync(
        &self,
        world: &Arc<World>,
        dice: &mut Dice,
        place: Place,
        fault: &Fault,
        script_text: &str,
    ) -> Result<(), Missed> {
        let script = script(world, place);
        let hit = script.with_extension("hit");
        let io = |e: std::io::Error| Missed(format!("{}: {e}", script.display()));
        std::fs::write(&script, script_text).map_err(io)?;
        let met = world
            .until("a sync meets the fault", MET, || async {
                match hit.exists() {
                    true => Ok(()),
                    false => Err("none has".to_owned()),
                }
            })
            .await;
        others_go_on(world).await?;
        sleep(dice.time(&LASTS)).await;
        std::fs::remove_file(&script).map_err(io)?;
        met?;
        std::fs::remove_file(&hit).map_err(io)?;
        fault.bites(format!("a sync met {script_text}"));
        well_again(world, place).await
    }

    /// Damages what a replica has stored: it says which record, and does not start; an empty one
    /// takes its place.
    async fn damaged(
        &self,
        world: &Arc<World>,
        dice: &mut Dice,
        claim: &Claim,
        place: Place,
        fault: &Fault,
    ) -> Result<(), Missed> {
        let old = world.places[place].id();
        kill(world, place)?;
        let file = self.grid.disk(place).mount.join("raft/db");
        let mut done = Vec::new();
        let said = loop {
            let what = match self.what {
                What::Torn => tear(&file, dice),
                _ => flip(&file, dice, FLIPPED[done.len()]),
            };
            done.push(what.map_err(|e| Missed(format!("{}: {e}", file.display())))?);
            if let Some(said) = refuses_to_start(world, place).await? {
                break said;
            }
            // It hit what is of no use any more: the checks will see whether something is lost.
            if done.len() == FLIPPED.len() {
                return Err(Missed(format!("{done:?}, and it starts")));
            }
            world.well(&claim.places, BOUND).await?;
            kill(world, place)?;
        };
        let what = done.join(", then ");
        if !said.contains("damaged") {
            return Err(Missed(format!("{what}, and it only said: {said}")));
        }
        fault.bites(format!("{what}: {said}"));
        self.grid
            .disk(place)
            .wipe()
            .map_err(|e| Missed(format!("the disk of replica {place}: {e}")))?;
        world.places[place].start(&world.net);
        world
            .until("an empty replica takes its place", BOUND, || async {
                let status = world.status(place).await.ok_or("it does not answer")?;
                let mut voters = status.replicas.iter().filter(|r| r.voter);
                let votes = voters.any(|r| r.id == status.replica);
                match votes && Some(status.replica) != old {
                    true => Ok(()),
                    false => Err(format!("id {}, votes: {votes}", status.replica)),
                }
            })
            .await?;
        world.well(&claim.places, BOUND).await?;
        Ok(())
    }
}

/// Writes until nothing more fits. Says how much did.
fn fill_up(path: &Path) -> std::io::Result<u64> {
    let mut file = std::fs::File::create(path)?;
    let mut bytes = 0;
    for size in [1 << 20, 4096, 1] {
        let block = vec![0; size];
        loop {
            match file.write_all(&block) {
                Ok(()) => bytes += size as u64,
                Err(e) if e.kind() == std::io::ErrorKind::StorageFull => break,
                Err(e) => return Err(e),
            }
        }
    }
    Ok(bytes)
}

/// One byte each of so many records that name a provider is another one. Of some places there is a
/// newer version elsewhere in the file.
fn flip(file: &Path, dice: &mut Dice, count: usize) -> std::io::Result<String> {
    const NEEDLE: &[u8] = b"ledger-";
    let bytes = std::fs::read(file)?;
    let windows = bytes.windows(NEEDLE.len()).enumerate();
    let mut places: Vec<usize> = windows
        .filter_map(|(at, window)| (window == NEEDLE).then_some(at))
        .collect();
    dice.shuffle(&mut places);
    places.truncate(count);
    let file = std::fs::File::options().write(true).open(file)?;
    for place in &places {
        let at = place + dice.number(0..7) as usize;
        let bit = 1 << dice.number(0..8);
        file.write_all_at(&[bytes[at] ^ bit], at as u64)?;
    }
    file.sync_all()?;
    let (places, bytes) = (places.len(), bytes.len());
    Ok(format!("{places} of {bytes} bytes were flipped"))
}

/// The end of the file is not there.
fn tear(file: &Path, dice: &mut Dice) -> std::io::Result<String> {
    let bytes = std::fs::read(file)?;
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64;
    let keep = end * dice.number(40..95) / 100;
    let file = std::fs::File::options().write(true).open(file)?;
    file.set_len(keep)?;
    file.sync_all()?;
    Ok(format!("{keep} of {end} bytes were left"))
}

/// Starts a replica that may be damaged. Gives the last line that it said, unless it runs.
async fn refuses_to_start(world: &Arc<World>, place: Place) -> Result<Option<String>, String> {
    let home = &world.places[place];
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |m| m.len());
    let before = usize::try_from(length(home.log())).unwrap_or(usize::MAX);
    home.start(&world.net);
    world
        .until("it starts or refuses to", BOUND, || async {
            let _ = home.reap();
            match (home.pid(), world.status(place).await) {
                (None, _) | (_, Some(_)) => Ok(()),
                (Some(pid), None) => Err(format!("process {pid} runs, and does not answer")),
            }
        })
        .await?;
    if home.pid().is_some() {
        return Ok(None);
    }
    let log = std::fs::read_to_string(home.log()).map_err(|e| e.to_string())?;
    let said = log.get(before..).unwrap_or_default();
    let last = said.lines().rfind(|line| !line.trim().is_empty());
    Ok(Some(last.unwrap_or("nothing").to_owned()))
}

/// A disk of one replica is nobody else's trouble.
async fn others_go_on(world: &Arc<World>) -> Result<(), Missed> {
    match acknowledged_write(world, &world.credentials[0].provider).await {
        true => Ok(()),
        false => Err(Missed("no write is acknowledged any more".to_owned())),
    }
}

/// The replica runs, or did not survive and is started again; it takes part once more.
async fn well_again(world: &Arc<World>, place: Place) -> Result<(), Missed> {
    let home = &world.places[place];
    let _ = home.reap();
    if home.pid().is_some() && world.status(place).await.is_none() {
        home.kill();
    }
    home.start(&world.net);
    back(world, place).await?;
    let members: Vec<Place> = world.members().collect();
    // It answers; whether its consensus goes on as well shows in touch with the leader.
    if world.well(&members, MET).await.is_err() {
        home.kill();
        home.start(&world.net);
        back(world, place).await?;
    }
    Ok(())
}
