//! One run, from begin to end.

use std::sync::Arc;
use std::time::Duration;

use evermint_cluster_tests::say;
use evermint_failpoint::Bug;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::dice::Dice;
use crate::history::{Event, Phase, Way};
use crate::nemesis::{Struck, Track, tracks};
use crate::net::Network;
use crate::sandbox::Reader;
use crate::settings::Settings;
use crate::unfenced::Unfenced;
use crate::watcher;
use crate::world::World;
use crate::{campaign, failpoint, finale, load, nemesis, start};

/// How long a nemesis may take before the run is given up: longer than any has to.
const STRIKE_MAX: Duration = Duration::from_secs(400);
/// How long all stays healed before it is looked at: staleness bounds and backoffs pass.
const HEALED: Duration = Duration::from_secs(10);

/// Runs, and says what failed that no check on the history would see. The history is in the
/// directory of the settings.
pub async fn run(settings: Settings, net: Network) -> Vec<String> {
    let prepare = async |world: &Arc<World>| {
        if failpoint::available(world) {
            failpoint::install(world).map_err(|e| format!("failpoints: {e}"))?;
        } else {
            say("NO kills at a step: the program is no test build");
        }
        match nemesis::clock::install(world) {
            Ok(None) => Ok(()),
            Ok(Some(why)) => {
                say(&format!("NO faults of clocks: {why}"));
                Ok(())
            }
            Err(e) => Err(format!("clocks: {e}")),
        }
    };
    live(settings, net, prepare, async |world| faults(world).await).await
}

/// Kills replicas so many times, at one step after the other.
pub async fn kills(settings: Settings, net: Network, count: usize) -> Vec<String> {
    let armed = async |world: &Arc<World>| match failpoint::available(world) {
        true => failpoint::install(world).map_err(|e| format!("failpoints: {e}")),
        false => Err(format!("--binary has to be {}", failpoint::PROGRAM)),
    };
    let act = async |world: &Arc<World>| campaign::strike(world, nemesis::step::all(), count).await;
    live(settings, net, armed, act).await
}

/// Cuts the power so many times, of one replica, of a majority and of all; and makes disks fail in
/// other ways, once each for ten cuts.
pub async fn power(settings: Settings, net: Network, count: usize) -> Vec<String> {
    let grid = tokio::sync::OnceCell::new();
    let install = async |world: &Arc<World>| {
        let made = nemesis::power::Grid::install(world).await?;
        grid.set(made).map_err(|e| e.to_string())
    };
    let act = async |world: &Arc<World>| {
        let grid = grid.get().ok_or("no disks")?;
        campaign::strike(world, nemesis::power::all(grid), count).await?;
        let storage = nemesis::storage::all(grid);
        let others = storage.len() * count.div_ceil(10);
        campaign::strike(world, storage, others).await?;
        let lines = grid.acknowledged.load(std::sync::atomic::Ordering::Relaxed);
        say(&format!(
            "{lines} acknowledged lines in ledgers, each read on every replica"
        ));
        Ok(())
    };
    let failed = live(settings, net, install, act).await;
    if let Some(grid) = grid.get() {
        grid.down().await;
    }
    failed
}

/// A script instead of faults, perhaps with a planted defect.
pub async fn directed(
    settings: Settings,
    net: Network,
    bug: Option<Bug>,
    script: impl AsyncFn(Arc<World>) -> Result<(), String>,
) -> Vec<String> {
    let prepare = async |world: &Arc<World>| {
        if let Some(bug) = bug {
            failpoint::plant(world, bug);
        }
        failpoint::install(world).map_err(|e| format!("failpoints: {e}"))
    };
    let act = async |world: &Arc<World>| script(Arc::clone(world)).await;
    live(settings, net, prepare, act).await
}

/// A whole run: `prepare` comes before the first replica, `act` while everybody is busy.
async fn live(
    settings: Settings,
    net: Network,
    prepare: impl AsyncFnOnce(&Arc<World>) -> Result<(), String>,
    act: impl AsyncFnOnce(&Arc<World>) -> Result<(), String>,
) -> Vec<String> {
    let world = match start::world(settings, net).await {
        Ok(world) => world,
        Err(why) => return vec![why],
    };
    let interrupted = async {
        let mut stop = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .expect("signals can be listened for");
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = stop.recv() => {}
        }
    };
    tokio::select! {
        told = whole(&world, prepare, act) => if let Err(why) = told { world.fail(why) },
        () = interrupted => world.fail("interrupted"),
    }
    for place in &world.places {
        place.may_end(true);
        place.kill();
    }
    finale::search(&world);
    world.recorder.flush();
    world.net.down().await;
    std::mem::take(&mut *world.failed())
}

async fn whole(
    world: &Arc<World>,
    prepare: impl AsyncFnOnce(&Arc<World>) -> Result<(), String>,
    act: impl AsyncFnOnce(&Arc<World>) -> Result<(), String>,
) -> Result<(), String> {
    prepare(world).await?;
    let phase = |phase| {
        say(&format!("== {phase:?}"));
        world.recorder.note(Event::Phase { phase });
        world.recorder.flush();
    };
    let (stop, stopped) = watch::channel(false);
    let (stop_watching, watched) = watch::channel(false);
    let watching = tokio::spawn(watcher::watch(Arc::clone(world), watched));
    start::replicas(world).await?;
    start::register(world).await?;
    let mut running = load::start(world, &stopped);
    for (sandbox, way, registered) in start::sandboxes(world).await? {
        if way == Way::Polling {
            running.spawn(Unfenced::new(world, &sandbox, &stopped).run());
        }
        running.spawn(Reader::new(world, &sandbox, way, registered, &stopped).run());
    }

    phase(Phase::Faults);
    act(world).await?;
    phase(Phase::Healed);
    sleep(HEALED).await;
    finale::recover(world).await?;
    let mut aftermath = std::mem::take(&mut *world.aftermath.lock().await);
    while let Some(ended) = aftermath.join_next().await {
        ended.map_err(|e| format!("the harness itself: {e}"))?;
    }
    stop.send_replace(true);
    while let Some(ended) = running.join_next().await {
        ended.map_err(|e| format!("the harness itself: {e}"))?;
    }

    phase(Phase::Final);
    finale::look(world).await?;
    stop_watching.send_replace(true);
    watching
        .await
        .map_err(|e| format!("the harness itself: {e}"))
}

/// Lets every track strike until the time is over, and waits until all is whole.
async fn faults(world: &Arc<World>) -> Result<(), String> {
    let until = Instant::now() + world.settings.length;
    let mut running = JoinSet::new();
    for track in tracks(world) {
        let track = chosen(track, &world.settings.only);
        if !track.nemeses.is_empty() {
            running.spawn(strike(Arc::clone(world), track, until));
        }
    }
    let all = async {
        while let Some(ended) = running.join_next().await {
            ended.map_err(|e| format!("a nemesis: {e}"))?;
        }
        Ok(())
    };
    let bound = world.settings.length + STRIKE_MAX;
    tokio::time::timeout(bound, all)
        .await
        .map_err(|_| "a nemesis did not come to an end".to_owned())?
}

/// What is left of a track when only some nemeses are wanted.
fn chosen(mut track: Track, only: &[String]) -> Track {
    track.nemeses.retain(|nemesis| {
        let name = format!("{}/{}", nemesis.family(), nemesis.name());
        only.is_empty() || only.iter().any(|part| name.contains(part))
    });
    track
}

async fn strike(world: Arc<World>, track: Track, until: Instant) {
    let mut dice = Dice::new(world.settings.seed, track.name);
    let weighed: Vec<usize> = (0..track.nemeses.len())
        .flat_map(|n| std::iter::repeat_n(n, track.nemeses[n].weight() as usize))
        .collect();
    loop {
        sleep(dice.time(&track.pause)).await;
        if Instant::now() >= until {
            return;
        }
        let Some(n) = dice.pick(&weighed) else { return };
        let nemesis = &track.nemeses[n];
        match nemesis.strike(&world, &mut dice).await {
            Ok(Struck::Yes | Struck::No) => {}
            Err(missed) => world.fail(format!(
                "{}: {}: {missed}",
                nemesis.family(),
                nemesis.name()
            )),
        }
    }
}
