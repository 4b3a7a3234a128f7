//! Faults of issuers, and of the way to them: out, silent, slow, overloaded, confused; and answers
//! that never arrive.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use evermint_issuer::{Fault as Script, Handle, History, Mode, Record};
use tokio::time::{sleep, timeout};

use super::{Missed, Nemesis, Struck};
use crate::dice::Dice;
use crate::door::Way;
use crate::history::{Issuer, Place};
use crate::load;
use crate::operator::Operator;
use crate::settings::times;
use crate::start::client;
use crate::world::{Credential, World};

/// How long an issuer is worse than usual.
const BAD: std::ops::Range<Duration> = Duration::from_secs(3)..Duration::from_secs(15);
/// How long a fault may take to meet its first request.
const BITES: Duration = Duration::from_secs(30);
/// How often an operator tries to configure something.
const TRIES_MAX: u32 = 30;

/// How many of the newest requests are looked at.
const NEWEST: usize = 100;

/// Every nemesis of this family.
pub fn all() -> Vec<Box<dyn Nemesis>> {
    vec![
        Box::new(Doors {
            way: Way::Shut,
            one: false,
        }),
        Box::new(Doors {
            way: Way::Shut,
            one: true,
        }),
        Box::new(Doors {
            way: Way::Silent,
            one: false,
        }),
        Box::new(Doors {
            way: Way::Silent,
            one: true,
        }),
        Box::new(Doors {
            way: Way::Slow(Duration::from_millis(1_500)),
            one: false,
        }),
        Box::new(Storm { status: 429 }),
        Box::new(Storm { status: 503 }),
        Box::new(LoseAnswer { torn: false }),
        Box::new(LoseAnswer { torn: true }),
        Box::new(HoldAnswer),
        Box::new(ChangeSecret),
    ]
}

/// The way to the issuers, of everyone or of one replica.
struct Doors {
    way: Way,
    one: bool,
}

#[async_trait::async_trait]
impl Nemesis for Doors {
    fn family(&self) -> &'static str {
        "issuer"
    }

    fn name(&self) -> &'static str {
        match (self.way, self.one) {
            (Way::Shut, false) => "hang up on everyone",
            (Way::Shut, true) => "hang up on one replica",
            (Way::Silent, false) => "fall silent",
            (Way::Silent, true) => "fall silent to one replica",
            (Way::Slow(_) | Way::Open | Way::Closed, _) => "answer slowly",
        }
    }

    async fn strike(&self, world: &Arc<World>, dice: &mut Dice) -> Result<Struck, Missed> {
        let mut places: Vec<Place> = (0..world.places.len()).collect();
        if self.one {
            places = dice.pick(&world.up()).into_iter().collect();
        }
        let doors: Vec<_> = places
            .iter()
            .flat_map(|p| [Issuer::Strict, Issuer::Real].map(|i| world.doors(i).at(*p)))
            .collect();
        let count = || doors.iter().map(|door| door.turned_away()).sum::<u64>();
        let before = count();
        let hit = if self.one { places.clone() } else { Vec::new() };
        let length = dice.time(&BAD);
        let fault = world.fault(self.family(), self.name(), &hit, format!("{length:?}"));
        doors.iter().for_each(|door| door.set(self.way));
        sleep(length).await;
        // A replica may own nothing that falls due in that time: then it is asked for.
        let mut met = count() > before;
        if !met {
            for credential in &world.credentials {
                world.rotate(credential).await;
            }
            let wait = world.until("somebody comes to the door", BITES, || async {
                (count() > before).then_some(()).ok_or("nobody".to_owned())
            });
            met = wait.await.is_ok();
        }
        doors.iter().for_each(|door| door.set(Way::Open));
        match (met, self.one) {
            (true, _) => fault.bites(format!("{} connections met it", count() - before)),
            // One that owns nothing, or is down itself, needs no issuer.
            (false, true) => fault.bites("the door was shut; the replica asked for nothing"),
            (false, false) => {
                fault.missed("nobody came to the door");
                return Err(Missed("nobody came to the door".to_owned()));
            }
        }
        Ok(Struck::Yes)
    }
}

/// The strict issuer refuses everyone for a while.
struct Storm {
    status: u16,
}

#[async_trait::async_trait]
impl Nemesis for Storm {
    fn family(&self) -> &'static str {
        "issuer"
    }

    fn name(&self) -> &'static str {
        match self.status {
            429 => "ask everyone to slow down",
            _ => "be unavailable",
        }
    }

    async fn strike(&self, world: &Arc<World>, dice: &mut Dice) -> Result<Struck, Missed> {
        let mode = match self.status {
            429 => Mode::too_many_requests(1),
            status => Mode::status(status),
        };
        let fault = world.fault(self.family(), self.name(), &[], "");
        let issuer = world.strict.handle();
        let began = last_seq(issuer);
        issuer.fault(Script::everybody(mode));
        for credential in world.credentials.iter().take(3) {
            world.rotate(credential).await;
        }
        let refused = |r: &Record| r.seq > began && r.status == Some(self.status);
        let met = timeout(BITES, issuer.until(|h| newest(h, refused))).await;
        sleep(dice.time(&BAD)).await;
        // What single clients are held for stays.
        issuer.clear_faults_of(None);
        match met {
            Ok(()) => fault.bites("requests were refused"),
            Err(_) => {
                let why = "no request came";
                fault.missed(why);
                return Err(Missed(why.to_owned()));
            }
        }
        Ok(Struck::Yes)
    }
}

/// The number of the newest request.
fn last_seq(issuer: &Handle) -> u64 {
    let history = issuer.history();
    history.records().next_back().map_or(0, |record| record.seq)
}

/// Whether one of the newest requests is such.
fn newest(history: &History, is_such: impl Fn(&Record) -> bool) -> Option<()> {
    history
        .records()
        .rev()
        .take(NEWEST)
        .any(is_such)
        .then_some(())
}

/// The strict issuer serves a request, and its answer never arrives whole: a single-use token is
/// spent for nothing. This is the loss that no client can prevent; it has to be noticed.
struct LoseAnswer {
    torn: bool,
}

#[async_trait::async_trait]
impl Nemesis for LoseAnswer {
    fn family(&self) -> &'static str {
        "issuer"
    }

    fn name(&self) -> &'static str {
        match self.torn {
            true => "tear an answer",
            false => "lose an answer",
        }
    }

    fn weight(&self) -> u32 {
        3
    }

    async fn strike(&self, world: &Arc<World>, dice: &mut Dice) -> Result<Struck, Missed> {
        let mode = match self.torn {
            true => Mode::Torn,
            false => Mode::DropAfter,
        };
        one_answer(self, world, dice, mode, BITES).await
    }
}

/// The strict issuer answers one request just before, or after, its ticket ends.
struct HoldAnswer;

#[async_trait::async_trait]
impl Nemesis for HoldAnswer {
    fn family(&self) -> &'static str {
        "issuer"
    }

    fn name(&self) -> &'static str {
        "answer at the last moment"
    }

    fn weight(&self) -> u32 {
        4
    }

    async fn strike(&self, world: &Arc<World>, dice: &mut Dice) -> Result<Struck, Missed> {
        let budget = times::TICKET_TTL - times::TICKET_MARGIN;
        let ms = dice.time(&(budget * 6 / 10..budget * 12 / 10)).as_millis();
        let mode = Mode::DelayAfter {
            ms: u64::try_from(ms).unwrap_or(0),
        };
        one_answer(self, world, dice, mode, BITES + times::TICKET_TTL).await
    }
}

/// The strict issuer gives a client another secret: nothing is minted with the old one, until an
/// operator configures the new one.
struct ChangeSecret;

#[async_trait::async_trait]
impl Nemesis for ChangeSecret {
    fn family(&self) -> &'static str {
        "issuer"
    }

    fn name(&self) -> &'static str {
        "change a client's secret"
    }

    fn weight(&self) -> u32 {
        4
    }

    async fn strike(&self, world: &Arc<World>, dice: &mut Dice) -> Result<Struck, Missed> {
        let of_strict = |c: &&Credential| c.issuer == Issuer::Strict;
        let strict: Vec<_> = world.credentials.iter().filter(of_strict).collect();
        let Some(credential) = dice.pick(&strict) else {
            return Ok(Struck::No);
        };
        let (issuer, name) = (world.strict.handle(), &credential.client);
        let secret = format!("{name}-secret-{}", world.recorder.number());
        let began = last_seq(issuer);
        world
            .client_secrets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.clone(), secret.clone());
        world.strict.register(&client(credential, secret)).await;
        world.rotate(credential).await;
        let of_client = |r: &Record| r.client.as_ref() == Some(name);
        let refused = |r: &Record| r.seq > began && of_client(r) && r.status == Some(401);
        let met = timeout(BITES, issuer.until(|h| newest(h, refused))).await;
        let fault = met.is_ok().then(|| {
            let fault = world.fault(self.family(), self.name(), &[], name);
            fault.bites("a request with the old one was refused");
            fault
        });
        let mut operator = Operator::new(world, "keeper of secrets");
        let mut tries = 0;
        while !load::configure(&mut operator, credential).await {
            tries += 1;
            if tries > TRIES_MAX {
                return Err(Missed(format!("{name}: no new secret could be configured")));
            }
        }
        // Somebody else may have configured it before it was used.
        Ok(if fault.is_some() {
            Struck::Yes
        } else {
            Struck::No
        })
    }
}

async fn one_answer(
    nemesis: &dyn Nemesis,
    world: &Arc<World>,
    dice: &mut Dice,
    mode: Mode,
    bound: Duration,
) -> Result<Struck, Missed> {
    let strict = world
        .credentials
        .iter()
        .filter(|c| c.issuer == Issuer::Strict);
    let strict: Vec<_> = strict.collect();
    let Some(credential) = dice.pick(&strict) else {
        return Ok(Struck::No);
    };
    let (issuer, client) = (world.strict.handle(), &credential.client);
    let began = last_seq(issuer);
    issuer.fault(Script::once(client, mode));
    world.rotate(credential).await;
    let of_client = |r: &Record| r.client.as_ref() == Some(client);
    let hit = |r: &Record| r.seq > began && of_client(r) && r.fault.is_some();
    let met = timeout(bound, issuer.until(|h| newest(h, hit))).await;
    issuer.clear_faults_of(Some(client));
    // Its mint may have been in doubt, or another fault took its request.
    if met.is_err() {
        return Ok(Struck::No);
    }
    let fault = world.fault(nemesis.family(), nemesis.name(), &[], client);
    fault.bites(format!("a request of {client} was answered so"));
    Ok(Struck::Yes)
}
