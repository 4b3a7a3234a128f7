//! Faults of the network between replicas: cut whole, one way, in part, for good; slow, lossy,
//! narrow. Clients reach every replica all the while, unless a cable is pulled.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::{Missed, Nemesis, Struck};
use crate::dice::Dice;
use crate::history::Place;
use crate::net::netem::Netem;
use crate::net::{Harm, Network, Rule};
use crate::settings::times;
use crate::world::World;

/// How long a cut lasts: shorter and longer than elections, tickets and staleness allow.
const CUT: std::ops::Range<Duration> = Duration::from_secs(2)..Duration::from_secs(25);
/// How long everyone together is worse than usual.
const BAD: std::ops::Range<Duration> = Duration::from_secs(5)..Duration::from_secs(20);
/// How long a harm may take to hit its first packet: heartbeats go every 100 ms, and reconnects
/// wait for a second at most.
const BITES: Duration = Duration::from_secs(20);
/// What a narrow link lets through, in kbit/s: less than the load needs at times.
const NARROW_KBIT: u32 = 400;

/// Every nemesis of this family that the network can.
pub fn all(namespaces: bool) -> Vec<Box<dyn Nemesis>> {
    let mut all: Vec<Box<dyn Nemesis>> = vec![
        Box::new(Cut {
            shape: Shape::Leader,
        }),
        Box::new(Cut {
            shape: Shape::Halves,
        }),
        Box::new(Cut {
            shape: Shape::OneWay,
        }),
        Box::new(Cut {
            shape: Shape::Bridge,
        }),
        Box::new(Cut { shape: Shape::Long }),
        Box::new(Cut {
            shape: Shape::Reset,
        }),
    ];
    if namespaces {
        all.push(Box::new(Cable));
        all.push(Box::new(Loss));
        all.push(Box::new(Narrow));
        all.push(Box::new(Delay { reorder: false }));
        all.push(Box::new(Delay { reorder: true }));
    }
    all
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// The leader from all others.
    Leader,
    /// A minority from a majority.
    Halves,
    /// What the leader sends to another vanishes, or what the other sends to it; the way back is good.
    OneWay,
    /// Two halves that only one replica can reach, both; it does not lead.
    Bridge,
    /// One way, and for longer than anything waits.
    Long,
    /// As halves, and connections are reset rather than silent.
    Reset,
}

/// Cuts ways between replicas.
struct Cut {
    shape: Shape,
}

impl Cut {
    /// From where to where; `None` if that is nothing to cut now.
    fn ways(&self, world: &World, dice: &mut Dice) -> Option<Vec<(Place, Place)>> {
        let mut members: Vec<Place> = world.members().collect();
        dice.shuffle(&mut members);
        // Followers say nothing to each other, so the leader is on one side of every cut.
        let leader = world.leader()?;
        match self.shape {
            Shape::Leader | Shape::OneWay | Shape::Long => {
                members.sort_by_key(|place| *place != leader);
            }
            Shape::Bridge => members.sort_by_key(|place| *place == leader),
            Shape::Halves | Shape::Reset => {}
        }
        let leads = members.contains(&leader);
        let minority = (members.len() - 1) / 2;
        // Who has joined meanwhile is cut off like everyone else.
        let spares: Vec<Place> = world.spares().collect();
        let from_all = |some: &[Place], others: &[Place]| both(some, &[others, &spares].concat());
        match self.shape {
            Shape::Leader => leads.then(|| from_all(&members[..1], &members[1..])),
            Shape::Halves | Shape::Reset => {
                Some(from_all(&members[..minority], &members[minority..]))
            }
            Shape::OneWay | Shape::Long => {
                let mut ends = [members[0], members[1]];
                dice.shuffle(&mut ends);
                leads.then(|| vec![(ends[0], ends[1])])
            }
            Shape::Bridge => {
                let rest = &members[1..];
                let (a, b) = rest.split_at(rest.len() / 2);
                let (c, d) = spares.split_at(spares.len() / 2);
                Some(both(&[a, c].concat(), &[b, d].concat()))
            }
        }
    }
}

/// Every way between two groups.
fn both(a: &[Place], b: &[Place]) -> Vec<(Place, Place)> {
    let mut ways = Vec::new();
    for a in a {
        for b in b {
            ways.extend([(*a, *b), (*b, *a)]);
        }
    }
    ways
}

#[async_trait::async_trait]
impl Nemesis for Cut {
    fn family(&self) -> &'static str {
        "network"
    }

    fn name(&self) -> &'static str {
        match self.shape {
            Shape::Leader => "isolate the leader",
            Shape::Halves => "cut a minority off",
            Shape::OneWay => "cut one way",
            Shape::Bridge => "leave a bridge",
            Shape::Long => "cut one way for long",
            Shape::Reset => "reset a minority's connections",
        }
    }

    fn weight(&self) -> u32 {
        if self.shape == Shape::Long { 4 } else { 10 }
    }

    async fn strike(&self, world: &Arc<World>, dice: &mut Dice) -> Result<Struck, Missed> {
        let Some(ways) = self.ways(world, dice) else {
            return Ok(Struck::No);
        };
        let harm = match self.shape {
            Shape::Reset => Harm::Reset,
            _ => Harm::Drop,
        };
        let length = match self.shape {
            Shape::Long => times::MAX_STALENESS * 2,
            _ => dice.time(&CUT),
        };
        harm_ways(self, world, &ways, harm, length).await
    }
}

/// Loses a part of all packets.
struct Loss;

#[async_trait::async_trait]
impl Nemesis for Loss {
    fn family(&self) -> &'static str {
        "network"
    }

    fn name(&self) -> &'static str {
        "lose packets"
    }

    async fn strike(&self, world: &Arc<World>, dice: &mut Dice) -> Result<Struck, Missed> {
        let percent = u32::try_from(dice.number(5..35)).unwrap_or(5);
        let members: Vec<Place> = world.members().collect();
        let mut ways = both(&members, &members);
        ways.retain(|(from, to)| from != to);
        ways.sort_unstable();
        ways.dedup();
        let length = dice.time(&BAD);
        harm_ways(self, world, &ways, Harm::Lose(percent), length).await
    }
}

async fn harm_ways(
    nemesis: &dyn Nemesis,
    world: &Arc<World>,
    ways: &[(Place, Place)],
    harm: Harm,
    length: Duration,
) -> Result<Struck, Missed> {
    let mut hit: Vec<Place> = ways.iter().map(|(from, _)| *from).collect();
    hit.sort_unstable();
    hit.dedup();
    let fault = world.fault(
        nemesis.family(),
        nemesis.name(),
        &hit,
        format!("{ways:?} {length:?}"),
    );
    let mut rules = Vec::new();
    let mut told = Ok(());
    for (from, to) in ways {
        match world.net.harm(*from, *to, harm).await {
            Ok(rule) => rules.push(rule),
            Err(why) => told = Err(why),
        }
    }
    if told.is_ok() {
        told = bites(world, &rules)
            .await
            .map(|hits| fault.bites(format!("{hits} packets hit")));
        sleep(length).await;
    }
    for rule in &rules {
        if let Err(why) = world.net.lift(rule).await {
            told = Err(why);
        }
    }
    if let Err(why) = &told {
        fault.missed(why);
    }
    told.map(|()| Struck::Yes).map_err(Missed)
}

/// Waits until a rule has hit something. Between replicas that are down nothing goes.
async fn bites(world: &Arc<World>, rules: &[Rule]) -> Result<u64, String> {
    world
        .until("a rule hits", BITES, || async {
            let mut hits = 0;
            for rule in rules {
                hits += world.net.hits(rule).await?;
            }
            match hits {
                0 => Err(format!("{rules:?}")),
                hits => Ok(hits),
            }
        })
        .await
}

/// Pulls a replica's cable: clients and the other replicas alike cannot reach it. The issuer can
/// still be reached.
struct Cable;

#[async_trait::async_trait]
impl Nemesis for Cable {
    fn family(&self) -> &'static str {
        "network"
    }

    fn name(&self) -> &'static str {
        "pull a cable"
    }

    async fn strike(&self, world: &Arc<World>, dice: &mut Dice) -> Result<Struck, Missed> {
        let Network::Namespaces(net) = &world.net else {
            return Ok(Struck::No);
        };
        // To clients it is as dead as one that was killed.
        let members: Vec<Place> = world.members().collect();
        let Some(claim) = dice.pick(&members).and_then(|place| world.claim(&[place])) else {
            return Ok(Struck::No);
        };
        let place = claim.places[0];
        let length = dice.time(&CUT);
        let fault = world.fault(
            self.family(),
            self.name(),
            &claim.places,
            format!("{length:?}"),
        );
        net.cable(place, false).await?;
        let seen = world
            .until("it cannot be reached", BITES, || async {
                match world.status(place).await {
                    None => Ok(()),
                    Some(_) => Err(format!("replica {place} answers")),
                }
            })
            .await;
        match &seen {
            Ok(()) => fault.bites("it answers nobody"),
            Err(why) => fault.missed(why),
        }
        sleep(length).await;
        net.cable(place, true).await?;
        seen?;
        Ok(Struck::Yes)
    }
}

/// Makes the link of a replica narrow.
struct Narrow;

#[async_trait::async_trait]
impl Nemesis for Narrow {
    fn family(&self) -> &'static str {
        "network"
    }

    fn name(&self) -> &'static str {
        "limit the rate of a replica"
    }

    fn weight(&self) -> u32 {
        6
    }

    async fn strike(&self, world: &Arc<World>, dice: &mut Dice) -> Result<Struck, Missed> {
        let Network::Namespaces(net) = &world.net else {
            return Ok(Struck::No);
        };
        let members: Vec<Place> = world.members().collect();
        let Some(place) = world.leading_member().or_else(|| dice.pick(&members)) else {
            return Ok(Struck::No);
        };
        let detail = format!("{NARROW_KBIT} kbit/s");
        let fault = world.fault(self.family(), self.name(), &[place], detail);
        net.rate(place, Some(NARROW_KBIT)).await?;
        sleep(dice.time(&BAD)).await;
        let limited = net.limited(place).await;
        net.rate(place, None).await?;
        match limited? {
            // An idle replica sends little; what it sent went through the limit all the same.
            0 => fault.bites("the limit stood, and nothing had to wait"),
            n => fault.bites(format!("{n} packets had to wait, or were dropped")),
        }
        Ok(Struck::Yes)
    }
}

/// Delays what a replica receives.
struct Delay {
    reorder: bool,
}

#[async_trait::async_trait]
impl Nemesis for Delay {
    fn family(&self) -> &'static str {
        "network"
    }

    fn name(&self) -> &'static str {
        match self.reorder {
            true => "delay and reorder",
            false => "delay",
        }
    }

    async fn strike(&self, world: &Arc<World>, dice: &mut Dice) -> Result<Struck, Missed> {
        let members: Vec<Place> = world.members().collect();
        let Some(place) = dice.pick(&members) else {
            return Ok(Struck::No);
        };
        // Up to what elections just bear, and beyond.
        let delay = dice.time(&(Duration::from_millis(20)..Duration::from_millis(400)));
        let netem = Netem {
            delay,
            jitter: delay / 2,
            loss_percent: 1,
            reorder: self.reorder,
            seed: dice.number(0..u64::MAX),
        };
        let fault = world.fault(self.family(), self.name(), &[place], format!("{netem:?}"));
        let length = dice.time(&BAD);
        let passed = netem.run(world, place, length).await;
        match passed {
            Ok(0) => {
                let why = "no packet came by".to_owned();
                fault.missed(&why);
                Err(Missed(why))
            }
            Ok(packets) => {
                fault.bites(format!("{packets} packets delayed"));
                Ok(Struck::Yes)
            }
            Err(why) => {
                fault.missed(&why);
                Err(Missed(why))
            }
        }
    }
}
