//! Faults of processes: killed, paused, stopped in good order, started again with or without what
//! they had.

use std::sync::Arc;
use std::time::Duration;

use evermint_issuer::{Fault as Script, Mode, Release};
use tokio::time::{Instant, sleep, timeout};

use super::{Missed, Nemesis, Struck};
use crate::dice::Dice;
use crate::history::{Event, Failover, Issuer, Place};
use crate::settings::times;
use crate::world::{Credential, World};

/// How long a killed replica stays away.
const AWAY: std::ops::Range<Duration> = Duration::ZERO..Duration::from_secs(5);
/// How long a replica may take to be one of the cluster again.
const BACK: Duration = Duration::from_secs(90);
/// How long to wait for a mint to be in flight.
const IN_FLIGHT: Duration = Duration::from_secs(8);
/// How long a credential whose mint was cut off may take to be minted again: its ticket, and a
/// doubt that waits as long as its token allows.
const MINTED: Duration = Duration::from_secs(90);
/// How long the cluster may take to acknowledge a write again.
const WRITTEN: Duration = Duration::from_secs(60);

/// Every nemesis of this family.
pub fn all() -> Vec<Box<dyn Nemesis>> {
    vec![
        Box::new(KillLeaderInFlight),
        Box::new(KillOwnerInFlight),
        Box::new(Kill { whom: Whom::Leader }),
        Box::new(Kill { whom: Whom::Any }),
        Box::new(KillAll),
        Box::new(Pause { ticket_halves: 1 }),
        Box::new(Pause { ticket_halves: 4 }),
        Box::new(Pause { ticket_halves: 20 }),
        Box::new(Restart),
        Box::new(RollingRestart),
        Box::new(Replace),
    ]
}

/// Whom it hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whom {
    Leader,
    Any,
}

impl Whom {
    fn places(self, world: &World, dice: &mut Dice) -> Vec<Place> {
        match self {
            Self::Leader => world.leader().into_iter().collect(),
            Self::Any => {
                let mut places: Vec<_> = world.members().collect();
                dice.shuffle(&mut places);
                places
            }
        }
    }
}

/// Kills, and starts again after a while.
struct Kill {
    whom: Whom,
}

#[async_trait::async_trait]
impl Nemesis for Kill {
    fn family(&self) -> &'static str {
        "process"
    }

    fn name(&self) -> &'static str {
        match self.whom {
            Whom::Leader => "kill the leader",
            Whom::Any => "kill a replica",
        }
    }

    async fn strike(&self, world: &Arc<World>, dice: &mut Dice) -> Result<Struck, Missed> {
        let Some(claim) = world.claim_one(&self.whom.places(world, dice)) else {
            return Ok(Struck::No);
        };
        let place = claim.places[0];
        let fault = world.fault(self.family(), self.name(), &claim.places, "");
        kill(world, place)?;
        fault.bites("the process is gone");
        sleep(dice.time(&AWAY)).await;
        world.places[place].start(&world.net);
        back(world, place).await?;
        Ok(Struck::Yes)
    }
}

/// Kills every member at once.
struct KillAll;

#[async_trait::async_trait]
impl Nemesis for KillAll {
    fn family(&self) -> &'static str {
        "process"
    }

    fn name(&self) -> &'static str {
        "kill all at once"
    }

    fn weight(&self) -> u32 {
        4
    }

    async fn strike(&self, world: &Arc<World>, dice: &mut Dice) -> Result<Struck, Missed> {
        let Some(claim) = world.claim_all(Duration::from_secs(20)).await else {
            return Ok(Struck::No);
        };
        let fault = world.fault(self.family(), self.name(), &claim.places, "");
        for place in &claim.places {
            world.places[*place].doom();
        }
        for place in &claim.places {
            world.places[*place].kill();
        }
        fault.bites("every process is gone");
        let mut order = claim.places.clone();
        dice.shuffle(&mut order);
        for place in order {
            sleep(dice.time(&(Duration::ZERO..Duration::from_secs(1)))).await;
            world.places[place].start(&world.net);
        }
        for place in &claim.places {
            back(world, *place).await?;
        }
        Ok(Struck::Yes)
    }
}

/// Stops the leader, or anyone, for so many halves of a ticket's time.
struct Pause {
    ticket_halves: u32,
}

#[async_trait::async_trait]
impl Nemesis for Pause {
    fn family(&self) -> &'static str {
        "process"
    }

    fn name(&self) -> &'static str {
        match self.ticket_halves {
            1 => "pause for half a ticket",
            4 => "pause for two tickets",
            _ => "pause for ten tickets",
        }
    }

    fn weight(&self) -> u32 {
        if self.ticket_halves > 10 { 3 } else { 8 }
    }

    async fn strike(&self, world: &Arc<World>, dice: &mut Dice) -> Result<Struck, Missed> {
        let whom = if dice.percent(60) {
            Whom::Leader
        } else {
            Whom::Any
        };
        let Some(claim) = world.claim_one(&whom.places(world, dice)) else {
            return Ok(Struck::No);
        };
        let place = claim.places[0];
        let length = times::TICKET_TTL * self.ticket_halves / 2;
        let detail = format!("{length:?}");
        let fault = world.fault(self.family(), self.name(), &claim.places, detail);
        if !world.places[place].pause() {
            return Err(Missed(format!("replica {place} does not run")));
        }
        fault.bites("every thread stands still");
        sleep(length).await;
        world.places[place].resume();
        back(world, place).await?;
        Ok(Struck::Yes)
    }
}

/// Stops one in good order, and starts it again.
struct Restart;

#[async_trait::async_trait]
impl Nemesis for Restart {
    fn family(&self) -> &'static str {
        "process"
    }

    fn name(&self) -> &'static str {
        "restart in good order"
    }

    fn weight(&self) -> u32 {
        4
    }

    async fn strike(&self, world: &Arc<World>, dice: &mut Dice) -> Result<Struck, Missed> {
        let Some(claim) = world.claim_one(&Whom::Any.places(world, dice)) else {
            return Ok(Struck::No);
        };
        let fault = world.fault(self.family(), self.name(), &claim.places, "");
        restart(world, claim.places[0]).await?;
        fault.bites("the process ended, and another one answers");
        Ok(Struck::Yes)
    }
}

/// Restarts one after the other, as an upgrade does.
struct RollingRestart;

#[async_trait::async_trait]
impl Nemesis for RollingRestart {
    fn family(&self) -> &'static str {
        "process"
    }

    fn name(&self) -> &'static str {
        "rolling restart"
    }

    fn weight(&self) -> u32 {
        2
    }

    async fn strike(&self, world: &Arc<World>, _dice: &mut Dice) -> Result<Struck, Missed> {
        let mut fault = None;
        for place in world.members() {
            let Some(claim) = world.claim(&[place]) else {
                continue;
            };
            let members: Vec<_> = world.members().collect();
            let fault =
                fault.get_or_insert_with(|| world.fault(self.family(), self.name(), &members, ""));
            restart(world, place).await?;
            fault.bites(format!(
                "replica {place} ended, and another process answers"
            ));
            drop(claim);
        }
        Ok(if fault.is_some() {
            Struck::Yes
        } else {
            Struck::No
        })
    }
}

async fn restart(world: &Arc<World>, place: Place) -> Result<(), Missed> {
    let ended = {
        let world = Arc::clone(world);
        let end = move || world.places[place].terminate(Duration::from_secs(30));
        tokio::task::spawn_blocking(end).await
    };
    if !ended.unwrap_or(false) {
        return Err(Missed(format!("replica {place} did not run")));
    }
    world.places[place].start(&world.net);
    back(world, place).await
}

/// Takes a replica's disk away; an empty one takes its place under another id.
struct Replace;

#[async_trait::async_trait]
impl Nemesis for Replace {
    fn family(&self) -> &'static str {
        "process"
    }

    fn name(&self) -> &'static str {
        "replace by an empty replica"
    }

    fn weight(&self) -> u32 {
        3
    }

    async fn strike(&self, world: &Arc<World>, dice: &mut Dice) -> Result<Struck, Missed> {
        // What only this disk and one other hold is safe only while no other one is in doubt.
        let Some(claim) = world.claim_all(Duration::from_secs(20)).await else {
            return Ok(Struck::No);
        };
        let members = claim.places.clone();
        if world.well(&members, Duration::from_secs(20)).await.is_err() {
            return Ok(Struck::No);
        }
        let Some(place) = dice.pick(&members) else {
            return Ok(Struck::No);
        };
        let old = world.places[place].id();
        let fault = world.fault(self.family(), self.name(), &[place], format!("was {old:?}"));
        kill(world, place)?;
        std::fs::remove_dir_all(&world.places[place].data_dir)
            .map_err(|e| format!("the disk of replica {place}: {e}"))?;
        world.places[place].start(&world.net);
        world
            .until("the empty replica is another one", BACK, || async {
                let status = world.status(place).await.ok_or("it does not answer")?;
                let votes = status
                    .replicas
                    .iter()
                    .any(|r| r.id == status.replica && r.voter);
                match votes && Some(status.replica) != old {
                    true => Ok(()),
                    false => Err(format!("id {}, votes: {votes}", status.replica)),
                }
            })
            .await?;
        fault.bites("it votes under another id");
        world.well(&members, BACK).await?;
        Ok(Struck::Yes)
    }
}

/// Kills the leader while the issuer holds a request of it, unserved.
struct KillLeaderInFlight;

#[async_trait::async_trait]
impl Nemesis for KillLeaderInFlight {
    fn family(&self) -> &'static str {
        "process"
    }

    fn name(&self) -> &'static str {
        "kill the leader in mid-mint"
    }

    fn weight(&self) -> u32 {
        25
    }

    async fn strike(&self, world: &Arc<World>, dice: &mut Dice) -> Result<Struck, Missed> {
        let Some(leader) = world.leader() else {
            return Ok(Struck::No);
        };
        kill_in_flight(self, world, dice, leader).await
    }
}

/// Kills whoever has a mint in flight.
struct KillOwnerInFlight;

#[async_trait::async_trait]
impl Nemesis for KillOwnerInFlight {
    fn family(&self) -> &'static str {
        "process"
    }

    fn name(&self) -> &'static str {
        "kill an owner in mid-mint"
    }

    fn weight(&self) -> u32 {
        20
    }

    async fn strike(&self, world: &Arc<World>, dice: &mut Dice) -> Result<Struck, Missed> {
        let mut places: Vec<_> = world.up();
        places.retain(|place| world.members().contains(place));
        let Some(place) = dice.pick(&places) else {
            return Ok(Struck::No);
        };
        kill_in_flight(self, world, dice, place).await
    }
}

async fn kill_in_flight(
    nemesis: &dyn Nemesis,
    world: &Arc<World>,
    dice: &mut Dice,
    place: Place,
) -> Result<Struck, Missed> {
    let Some(claim) = world.claim(&[place]) else {
        return Ok(Struck::No);
    };
    let Some(flight) = Flight::of(world, dice, place).await else {
        return Ok(Struck::No);
    };
    let client = flight.credential.client.clone();
    let replicas = claim.places.clone();
    let fault = world.fault(nemesis.family(), nemesis.name(), &replicas, &client);
    let (id, failed_before) = (fault.id, failed_reads(world));
    let at = Instant::now();
    kill(world, place)?;
    fault.bites(format!(
        "the issuer holds a request of {client}, and its sender is gone"
    ));
    flight.land(world);

    let write = async {
        let written = acknowledged_write(world, &flight.credential.provider).await;
        written.then(|| at.elapsed())
    };
    let away = dice.time(&AWAY);
    let again = async {
        sleep(away).await;
        world.places[place].start(&world.net);
        back(world, place).await
    };
    let (write, back) = tokio::join!(write, again);
    back?;
    drop((claim, fault));
    // The mint is waited for by itself: meanwhile others may strike.
    let measured = Arc::clone(world);
    let measure = async move {
        let world = measured;
        let minted = minted_after(&world, &flight.credential, flight.generation).await;
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        world.recorder.note(Event::Failover(Failover {
            fault: id,
            replica: place,
            client,
            write_ms: write.map(ms),
            mint_ms: minted.then(|| ms(at.elapsed())),
            failed_reads: failed_reads(&world) - failed_before,
        }));
    };
    world.aftermath.lock().await.spawn(measure);
    Ok(Struck::Yes)
}

/// A request of a replica that the strict issuer holds before it is served.
struct Flight {
    credential: Credential,
    generation: u64,
}

impl Flight {
    /// Brings a mint of `place` about, and waits until the issuer holds it.
    async fn of(world: &Arc<World>, dice: &mut Dice, place: Place) -> Option<Self> {
        let id = world.places[place].id()?;
        let mut strict: Vec<&Credential> = world
            .credentials
            .iter()
            .filter(|credential| credential.issuer == Issuer::Strict)
            .collect();
        dice.shuffle(&mut strict);
        for credential in strict {
            let Some(status) = world.refresh_status(credential).await else {
                continue;
            };
            let owned = status
                .owner
                .as_ref()
                .is_some_and(|owner| owner.replica == id);
            if !owned || status.ticket.is_some() || status.doubt.is_some() {
                continue;
            }
            let flight = Self {
                credential: credential.clone(),
                generation: status.generation,
            };
            let hold = Script::once(&credential.client, Mode::HoldBefore);
            world.strict.handle().fault(hold);
            let asked = world.rotate(credential).await;
            let held = asked && flight.is_held(world, id).await;
            if held {
                return Some(flight);
            }
            flight.land(world);
            return None;
        }
        None
    }

    async fn is_held(&self, world: &Arc<World>, id: u64) -> bool {
        let held = world.strict.handle().held(&self.credential.client);
        let held = timeout(IN_FLIGHT, held).await;
        let status = world.refresh_status(&self.credential).await;
        let ticket = status.and_then(|status| status.ticket);
        held.is_ok() && ticket.is_some_and(|ticket| ticket.replica == id)
    }

    /// Lets go of what is held, unserved, and holds nothing more.
    fn land(&self, world: &World) {
        let (issuer, client) = (world.strict.handle(), &self.credential.client);
        issuer.clear_faults_of(Some(client));
        issuer.release(client, Release::Drop);
    }
}

/// A write that may be done twice, at whichever replica takes it.
pub(super) async fn acknowledged_write(world: &Arc<World>, provider: &str) -> bool {
    let written = world
        .until("a write is acknowledged", WRITTEN, || async {
            match world.touch(provider).await {
                true => Ok(()),
                false => Err("none took it".to_owned()),
            }
        })
        .await;
    written.is_ok()
}

pub(super) async fn minted_after(
    world: &Arc<World>,
    credential: &Credential,
    generation: u64,
) -> bool {
    let minted = world
        .until("it is minted", MINTED, || async {
            let status = world.refresh_status(credential).await.ok_or("no status")?;
            match status.generation > generation {
                true => Ok(()),
                false => Err(format!("{status:?}")),
            }
        })
        .await;
    minted.is_ok()
}

pub(super) fn failed_reads(world: &World) -> u64 {
    world
        .failed_reads
        .load(std::sync::atomic::Ordering::Relaxed)
}

pub(super) fn kill(world: &World, place: Place) -> Result<(), Missed> {
    match world.places[place].kill() {
        true => Ok(()),
        false => Err(Missed(format!("replica {place} did not run"))),
    }
}

/// Waits until a replica answers, and has a vote.
pub(super) async fn back(world: &Arc<World>, place: Place) -> Result<(), Missed> {
    let answers = world
        .until("a replica is back", BACK, || async {
            if let Some(how) = world.places[place].reap() {
                return Err(format!("replica {place} ended by itself: {how}"));
            }
            match world.status(place).await {
                Some(_) => Ok(()),
                None => Err(format!("replica {place} does not answer")),
            }
        })
        .await;
    answers.map_err(Missed)
}
