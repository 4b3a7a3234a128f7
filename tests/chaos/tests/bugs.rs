//! The checks find what they are for: each planted defect is caught, by the promise that it breaks,
//! in a short run that is made for it; and the same run without it is clean.
//!
//! The run without it is left to `just bugs`: CI has its mix for that.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use evermint_chaos::check::check;
use evermint_chaos::failpoint::Armed;
use evermint_chaos::history::{self, Call, Issuer, Place};
use evermint_chaos::net::Network;
use evermint_chaos::net::proxies::Proxies;
use evermint_chaos::operator::Operator;
use evermint_chaos::run::directed;
use evermint_chaos::settings::{SPARES, Settings};
use evermint_chaos::world::{Credential, World};
use evermint_cluster_tests::{evermint_failpoints, say};
use evermint_failpoint::{Action, Bug, Point};
use evermint_issuer::{Fault, Mode, Release};
use tokio::time::sleep;

/// How long something may take that is waited for.
const BOUND: Duration = Duration::from_secs(40);
/// How long the last part of a script lasts, in which the defect shows.
const SHOWS: Duration = Duration::from_secs(4);

/// How long a doubt about a mint may last: until the end of the token before it.
const DOUBT: Duration = Duration::from_secs(90);

/// Says that there is time for the runs without a defect, too.
const BOTH: &str = "EVERMINT_CHAOS_BUGS";

/// Runs a script with a defect, by which `promise` is broken; and if there is time, without it.
async fn is_caught(
    bug: Bug,
    promise: &str,
    script: impl AsyncFn(Arc<World>) -> Result<(), String>,
) {
    let with = broken(Some(bug), &script).await;
    assert!(
        with.iter().any(|v| v.starts_with(&format!("{promise} "))),
        "{bug:?} is not caught by {promise}: {with:#?}"
    );
    if std::env::var(BOTH).as_deref() == Ok("1") {
        let without = broken(None, &script).await;
        assert_eq!(without, Vec::<String>::new(), "without any defect");
    }
}

/// What is broken by the script, in words.
async fn broken(
    bug: Option<Bug>,
    script: &impl AsyncFn(Arc<World>) -> Result<(), String>,
) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        seed: 1,
        length: Duration::ZERO,
        replicas: 3,
        binary: evermint_failpoints().to_owned(),
        dir: dir.path().to_owned(),
        namespaces: false,
        only: Vec::new(),
        command: "cargo nextest run -p evermint-chaos".to_owned(),
    };
    let net = Network::Proxies(Proxies::up(3 + SPARES).await.unwrap());
    let failed = directed(settings, net, bug, script).await;
    if bug.is_none() {
        assert_eq!(failed, Vec::<String>::new(), "without any defect");
    }
    let lines = history::read(dir.path()).unwrap();
    let broken: Vec<_> = check(&lines).iter().map(ToString::to_string).collect();
    say(&format!("{bug:?}: {broken:#?} {failed:#?}"));
    broken
}

/// A credential at the strict issuer whose used tokens go on working, and who owns it.
async fn replayable(world: &Arc<World>) -> Result<(Credential, Place), String> {
    let credentials = world.credentials.iter();
    let mut fitting = credentials.filter(|c| c.issuer == Issuer::Strict && c.replay_safe);
    let credential = fitting.next().ok_or("there is one")?.clone();
    let status = world.refresh_status(&credential).await.ok_or("no status")?;
    let owner = status.owner.ok_or("no owner")?.replica;
    let place = world.with_id(owner).ok_or("nobody has that id")?;
    Ok((credential, place))
}

/// A copy of a directory, beside it.
fn copy(dir: &Path) -> io::Result<PathBuf> {
    let copy = dir.with_extension("copy");
    for file in walk(dir)? {
        let to = copy.join(file.strip_prefix(dir).unwrap());
        fs::create_dir_all(to.parent().unwrap())?;
        fs::copy(&file, to)?;
    }
    Ok(copy)
}

/// The files in and below a directory.
fn walk(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        match path.is_dir() {
            true => files.extend(walk(&path)?),
            false => files.push(path),
        }
    }
    Ok(files)
}

/// Waits until a credential has a newer value.
async fn minted(
    world: &Arc<World>,
    credential: &Credential,
    after: u64,
    bound: Duration,
) -> Result<(), String> {
    world
        .until("it is minted", bound, || async {
            let now = world.refresh_status(credential).await.ok_or("no status")?;
            match now.generation > after {
                true => Ok(()),
                false => Err(format!("{now:?}")),
            }
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_acknowledged_before_it_is_on_the_disk_is_caught() {
    is_caught(Bug::AckBeforeFlush, "I4", async |world| {
        let places = || world.members().map(|place| &world.places[place]);
        let members: Vec<Place> = world.members().collect();
        // Nothing is synced any more, and what a power cut leaves is what there is now.
        let hold = |place: &Place| Armed::arm(&world, *place, Point::BeforeSync, Action::Hold, "");
        let held: Result<Vec<_>, _> = members.iter().map(hold).collect();
        let held = held.map_err(|e| e.to_string())?;
        places().for_each(|place| assert!(place.pause()));
        let disks: Result<Vec<_>, _> = places().map(|place| copy(&place.data_dir)).collect();
        let disks = disks.map_err(|e| e.to_string())?;
        places().for_each(|place| place.resume());
        let mut operator = Operator::new(&world, "writer");
        for n in 1..=5 {
            let provider = world.credentials[0].provider.clone();
            operator
                .call(Call::UpdateProvider { provider, n }, None)
                .await;
        }
        for place in places() {
            place.may_end(true);
            place.kill();
        }
        drop(held);
        for (place, disk) in places().zip(disks) {
            fs::remove_dir_all(&place.data_dir).map_err(|e| e.to_string())?;
            fs::rename(disk, &place.data_dir).map_err(|e| e.to_string())?;
            place.start(&world.net);
        }
        world.well(&members, BOUND).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_that_does_not_keep_others_out_is_caught() {
    is_caught(Bug::NoTicketCheck, "I2", async |world| {
        let (credential, owner) = replayable(&world).await?;
        let status = world.refresh_status(&credential).await.ok_or("no status")?;
        world.strict.hold_before(&credential.client).await;
        world.rotate(&credential).await;
        world.strict.held(&credential.client, BOUND).await;
        // It is stopped in good order: its shards are given to others, and its mint may end.
        let stopping = Arc::clone(&world);
        let stopped = tokio::task::spawn_blocking(move || {
            stopping.places[owner].terminate(Duration::from_secs(30))
        });
        sleep(SHOWS).await;
        world
            .strict
            .handle()
            .release(&credential.client, Release::Drop);
        stopped.await.map_err(|e| e.to_string())?;
        world.places[owner].start(&world.net);
        minted(&world, &credential, status.generation, DOUBT).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_older_than_one_that_was_seen_is_caught() {
    is_caught(Bug::NoFence, "I3", async |world| {
        let leader = world.leader().ok_or("nobody leads")?;
        let behind = world.members().find(|place| *place != leader);
        let behind = behind.ok_or("there are others")?;
        let held = Armed::arm(&world, behind, Point::BeforeApply, Action::Hold, "");
        let held = held.map_err(|e| e.to_string())?;
        for credential in &world.credentials {
            world.rotate(credential).await;
        }
        sleep(SHOWS).await;
        drop(held);
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_past_its_end_is_caught() {
    is_caught(Bug::NoExpiry, "I5", async |world| {
        let (credential, _) = replayable(&world).await?;
        let status = world.refresh_status(&credential).await.ok_or("no status")?;
        let lives = Duration::from_secs(6);
        world.strict.access_ttl(&credential.client, lives).await;
        world.rotate(&credential).await;
        minted(&world, &credential, status.generation, BOUND).await?;
        // The issuer is down for as long as the value lives, and longer.
        let down = Fault {
            client: Some(credential.client.clone()),
            ..Fault::everybody(Mode::status(503))
        };
        world.strict.fault(down).await;
        sleep(lives + SHOWS).await;
        world
            .strict
            .handle()
            .clear_faults_of(Some(&credential.client));
        world
            .strict
            .access_ttl(
                &credential.client,
                evermint_chaos::settings::times::ACCESS_TTL,
            )
            .await;
        Ok(())
    })
    .await;
}
