//! Kills at a line: replicas of the test build kill themselves at a step of a mint, at a duty of the
//! leader, or at the disk.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evermint_failpoint::{Action, Point};
use evermint_proto::v1::Verdict;
use tokio::time::{Instant, sleep};

use super::process::{acknowledged_write, back, failed_reads, minted_after};
use super::{Missed, Nemesis, Struck};
use crate::dice::Dice;
use crate::failpoint::{Armed, available};
use crate::history::{Event, Failover, Place};
use crate::world::{Claim, Credential, Fault, World};

/// How long a replica may take to come to an armed point.
const REACH: Duration = Duration::from_secs(8);
/// How long the leader may take to notice that a replica is lost, or that a ticket has ended.
const DUTY: Duration = Duration::from_secs(15);
/// How long a process that killed itself may take to be gone.
const GONE: Duration = Duration::from_secs(5);
/// How long a killed replica stays away.
const AWAY: std::ops::Range<Duration> = Duration::ZERO..Duration::from_secs(2);
/// How often an armed point is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long to wait for a moment when all replicas may be taken away.
const ALL: Duration = Duration::from_secs(20);

/// Every point at which a replica is killed.
pub const POINTS: [Point; 14] = [
    Point::BeforeTicket,
    Point::AfterTicket,
    Point::BeforeSend,
    Point::AfterAnswer,
    Point::AfterJournal,
    Point::BeforeCommit,
    Point::AfterCommit,
    Point::BeforeSync,
    Point::AfterSync,
    Point::BeforeApply,
    Point::BeforeExpire,
    Point::AfterExpire,
    Point::BeforeAssign,
    Point::AfterAssign,
];

/// Every nemesis of this family.
pub fn all() -> Vec<Box<dyn Nemesis>> {
    let busy = Busy::default();
    let kill = |point| -> Box<dyn Nemesis> {
        let busy = busy.clone();
        Box::new(KillAt { point, busy })
    };
    POINTS.into_iter().map(kill).collect()
}

/// Credentials that somebody is using for a kill.
#[derive(Clone, Debug, Default)]
struct Busy(Arc<Mutex<BTreeSet<String>>>);

impl Busy {
    fn with<T>(&self, look: impl FnOnce(&mut BTreeSet<String>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A credential whose next mint is meant; free again when dropped.
struct Target {
    credential: Credential,
    generation: u64,
    owner: Place,
    busy: Busy,
}

impl Drop for Target {
    fn drop(&mut self) {
        self.busy.with(|busy| busy.remove(&self.credential.key));
    }
}

/// Kills whoever comes to `point`.
struct KillAt {
    point: Point,
    busy: Busy,
}

#[async_trait::async_trait]
impl Nemesis for KillAt {
    fn family(&self) -> &'static str {
        "step"
    }

    fn name(&self) -> &'static str {
        self.point.name()
    }

    fn weight(&self) -> u32 {
        2
    }

    async fn strike(&self, world: &Arc<World>, dice: &mut Dice) -> Result<Struck, Missed> {
        if !available(world) {
            return Ok(Struck::No);
        }
        if Point::MINT.contains(&self.point) {
            self.in_a_mint(world, dice).await
        } else if Point::DUTIES.contains(&self.point) {
            self.on_duty(world, dice).await
        } else {
            self.at_the_disk(world, dice).await
        }
    }
}

impl KillAt {
    /// Kills the owner of a credential when its mint comes to the point.
    async fn in_a_mint(&self, world: &Arc<World>, dice: &mut Dice) -> Result<Struck, Missed> {
        let Some(target) = self.target(world, dice, |_| true).await else {
            return Ok(Struck::No);
        };
        let Some(claim) = world.claim(&[target.owner]) else {
            return Ok(Struck::No);
        };
        let armed = self.arm(world, target.owner, &target.credential.key)?;
        let failed_before = failed_reads(world);
        let asked = world.rotate(&target.credential).await;
        if !asked || !acts(&armed, REACH).await {
            return spared(world, &claim, [armed]).await;
        }
        let died = Instant::now();
        let client = target.credential.client.clone();
        let fault = world.fault(self.family(), self.name(), &claim.places, client);
        gone(world, target.owner, &fault).await?;
        let recovery = Recovery {
            replica: target.owner,
            died,
            failed_before,
            target,
        };
        recovery.run(world, dice, claim, fault).await
    }

    /// Kills the leader when it comes to a duty, for which another replica dies first.
    async fn on_duty(&self, world: &Arc<World>, dice: &mut Dice) -> Result<Struck, Missed> {
        let Some(leader) = world.leader() else {
            return Ok(Struck::No);
        };
        let Some(target) = self.target(world, dice, |owner| owner != leader).await else {
            return Ok(Struck::No);
        };
        let pair = [leader, target.owner];
        let claim = match world.claim(&pair) {
            Some(claim) => claim,
            None => match world.claim_all(ALL).await {
                Some(claim) => claim,
                None => return Ok(Struck::No),
            },
        };
        let key = target.credential.key.clone();
        // A ticket that nobody settles ends by the leader's clock; an owner that is lost, too,
        // and its shards are given to others.
        let subject = match self.point {
            Point::BeforeExpire | Point::AfterExpire => key.as_str(),
            _ => "",
        };
        let duty = self.arm(world, leader, subject)?;
        let armed = arm(world, target.owner, Point::BeforeSend, &key)?;
        let failed_before = failed_reads(world);
        let asked = world.rotate(&target.credential).await;
        if !asked || !acts(&armed, REACH).await {
            return spared(world, &claim, [armed, duty]).await;
        }
        let detail = target.credential.client.clone();
        let fault = world.fault(self.family(), self.name(), &pair, detail);
        ended(world, target.owner).await?;
        let acted = acts(&duty, DUTY).await;
        let died = Instant::now();
        if acted {
            gone(world, leader, &fault).await?;
        } else {
            // Another one leads by now: the owner alone died, which is a kill as well.
            fault.bites(format!("only replica {} was killed", target.owner));
        }
        let recovery = Recovery {
            replica: leader,
            died,
            failed_before,
            target,
        };
        let struck = recovery.run(world, dice, claim, fault).await?;
        Ok(if acted { struck } else { Struck::No })
    }

    /// Kills the leader between its disk and everybody else.
    async fn at_the_disk(&self, world: &Arc<World>, dice: &mut Dice) -> Result<Struck, Missed> {
        let Some(leader) = world.leader() else {
            return Ok(Struck::No);
        };
        let Some(target) = self.target(world, dice, |_| true).await else {
            return Ok(Struck::No);
        };
        let Some(claim) = world.claim(&[leader]) else {
            return Ok(Struck::No);
        };
        let failed_before = failed_reads(world);
        let armed = self.arm(world, leader, "")?;
        // Its ticket is something to write, if nothing else is.
        world.rotate(&target.credential).await;
        if !acts(&armed, REACH).await {
            return Ok(Struck::No);
        }
        let died = Instant::now();
        let fault = world.fault(self.family(), self.name(), &claim.places, "");
        gone(world, leader, &fault).await?;
        let recovery = Recovery {
            replica: leader,
            died,
            failed_before,
            target,
        };
        recovery.run(world, dice, claim, fault).await
    }

    fn arm(&self, world: &World, place: Place, subject: &str) -> Result<Armed, Missed> {
        arm(world, place, self.point, subject)
    }

    /// An idle credential whose owner will do: one of the leader's, if there is one.
    async fn target(
        &self,
        world: &Arc<World>,
        dice: &mut Dice,
        will_do: impl Fn(Place) -> bool,
    ) -> Option<Target> {
        let mut credentials: Vec<&Credential> = world.credentials.iter().collect();
        dice.shuffle(&mut credentials);
        let leader = world.leader();
        // An answer that dies with its replica costs a strict issuer's grant: seldom enough.
        let spare_grants = self.point == Point::AfterAnswer && dice.percent(75);
        credentials.sort_by_key(|credential| spare_grants && !credential.replay_safe);
        let wants_leader = dice.percent(50);
        let mut other = None;
        for credential in credentials {
            let free = self.busy.with(|busy| busy.insert(credential.key.clone()));
            if !free {
                continue;
            }
            let mut target = Target {
                credential: credential.clone(),
                generation: 0,
                owner: 0,
                busy: self.busy.clone(),
            };
            let Some(status) = world.refresh_status(credential).await else {
                continue;
            };
            let idle = status.ticket.is_none() && status.doubt.is_none();
            let owner = status.owner.as_ref().and_then(|o| world.with_id(o.replica));
            let Some(owner) = owner.filter(|owner| will_do(*owner)) else {
                continue;
            };
            if !idle || status.verdict() != Verdict::Fresh || !world.places[owner].is_up() {
                continue;
            }
            target.generation = status.generation;
            target.owner = owner;
            if !wants_leader || Some(owner) == leader {
                return Some(target);
            }
            other.get_or_insert(target);
        }
        other
    }
}

fn arm(world: &World, place: Place, point: Point, subject: &str) -> Result<Armed, Missed> {
    world.places[place].may_end(true);
    Armed::arm(world, place, point, Action::Kill, subject)
        .map_err(|e| Missed(format!("{point} could not be armed: {e}")))
}

/// Waits until the point has acted. If it has not in time, it does not any more.
async fn acts(armed: &Armed, bound: Duration) -> bool {
    let until = Instant::now() + bound;
    while !armed.has_acted() {
        if Instant::now() > until && armed.disarm() {
            return false;
        }
        sleep(LOOK_EVERY).await;
    }
    true
}

/// Waits until the process at `place` has ended, and says so.
async fn gone(world: &Arc<World>, place: Place, fault: &Fault) -> Result<(), Missed> {
    ended(world, place).await?;
    fault.bites(format!("replica {place} killed itself there"));
    Ok(())
}

async fn ended(world: &Arc<World>, place: Place) -> Result<(), Missed> {
    let ended = world
        .until("the process has ended", GONE, || async {
            // The watcher may see it first.
            let _ = world.places[place].reap();
            match world.places[place].pid() {
                None => Ok(()),
                Some(pid) => Err(format!("process {pid} lives")),
            }
        })
        .await;
    ended.map_err(Missed)
}

/// Nothing is to be killed after all. Whoever came to a point before it was disarmed is brought back.
async fn spared<const N: usize>(
    world: &Arc<World>,
    claim: &Claim,
    armed: [Armed; N],
) -> Result<Struck, Missed> {
    for armed in &armed {
        armed.disarm();
    }
    let acted = armed.iter().any(Armed::has_acted);
    for place in &claim.places {
        if acted {
            // Whether it was this one shows now.
            let _ = ended(world, *place).await;
        }
        if world.places[*place].pid().is_none() {
            world.places[*place].start(&world.net);
            back(world, *place).await?;
        }
        world.places[*place].may_end(false);
    }
    Ok(Struck::No)
}

/// The way back from a kill.
struct Recovery {
    /// Who was killed.
    replica: Place,
    died: Instant,
    failed_before: u64,
    /// The credential whose mint was cut off.
    target: Target,
}

impl Recovery {
    async fn run(
        self,
        world: &Arc<World>,
        dice: &mut Dice,
        claim: Claim,
        fault: Fault,
    ) -> Result<Struck, Missed> {
        let Self {
            died,
            failed_before,
            target,
            replica,
        } = self;
        let id = fault.id;
        let write = async {
            let provider = &target.credential.provider;
            let written = acknowledged_write(world, provider).await;
            written.then(|| died.elapsed())
        };
        let away = dice.time(&AWAY);
        let again = async {
            sleep(away).await;
            for place in &claim.places {
                world.places[*place].start(&world.net);
            }
            for place in &claim.places {
                back(world, *place).await?;
                world.places[*place].may_end(false);
            }
            Ok::<_, Missed>(())
        };
        let (write, again) = tokio::join!(write, again);
        again?;
        drop((claim, fault));
        // The mint is waited for by itself: meanwhile others may strike.
        let measured = Arc::clone(world);
        let measure = async move {
            let world = measured;
            let minted = minted_after(&world, &target.credential, target.generation).await;
            let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            world.recorder.note(Event::Failover(Failover {
                fault: id,
                replica,
                client: target.credential.client.clone(),
                write_ms: write.map(ms),
                mint_ms: minted.then(|| ms(died.elapsed())),
                failed_reads: failed_reads(&world) - failed_before,
            }));
        };
        world.aftermath.lock().await.spawn(measure);
        Ok(Struck::Yes)
    }
}
