//! What operators do all the while. Open loop: the pace does not wait for answers that are late,
//! and is bounded by the number of operators, each of whom makes one call at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tonic::Code;

use crate::history::{Answer, Call, Event, Issuer};
use crate::operator::{Ended, Minting, Operator};
use crate::settings::times;
use crate::world::{Credential, World};

/// Registers are written and read by so many operators each.
const REGISTER_OPERATORS: usize = 3;
/// How often each of them makes a call.
const REGISTER_PACE: Duration = Duration::from_millis(400);
/// How many registers are used at the same time.
const REGISTERS: usize = 2;
/// After so many calls of one operator, the next register is taken: a linearizability checker
/// likes short histories.
const REGISTER_CALLS: u64 = 60;
/// How often something about a provider is changed.
const CHANGE_PACE: Duration = Duration::from_millis(700);
/// The pause between two steps in the life of a provider.
const LIFE_PACE: std::ops::Range<Duration> = Duration::from_secs(1)..Duration::from_secs(5);
/// How often credentials that have lost their grant are looked for.
const CARE_PACE: Duration = Duration::from_secs(5);
/// The sandbox to which providers are attached, and from which they are detached.
pub const MOVING: &str = "moving";

/// Starts every operator; they end when they are told to stop.
pub fn start(world: &Arc<World>, stop: &watch::Receiver<bool>) -> JoinSet<()> {
    let mut operators = JoinSet::new();
    for register in 0..REGISTERS {
        for n in 0..REGISTER_OPERATORS {
            let operator = Operator::new(world, format!("register-{register}-{n}"));
            operators.spawn(use_registers(operator, register, stop.clone()));
        }
    }
    operators.spawn(change(Operator::new(world, "changer"), stop.clone()));
    operators.spawn(live(Operator::new(world, "lifecycle"), stop.clone()));
    operators.spawn(care(Operator::new(world, "carer"), stop.clone()));
    operators
}

/// Names the registers that are used one after the other.
fn register_name(register: usize, round: u64) -> String {
    format!("register-{register}-{round}")
}

async fn use_registers(mut operator: Operator, register: usize, stop: watch::Receiver<bool>) {
    let mut ticks = interval(REGISTER_PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for call in 0.. {
        ticks.tick().await;
        if *stop.borrow() {
            return;
        }
        let name = register_name(register, call / REGISTER_CALLS);
        // Whoever comes first makes it; for all others it is there.
        if call % REGISTER_CALLS == 0 {
            let create = Call::CreateProvider {
                provider: name.clone(),
            };
            let made = operator
                .insist(create, Duration::from_secs(120), None)
                .await;
            if let Err(why) = made {
                return operator.world().fail(why);
            }
        }
        let what = match operator.dice.percent(50) {
            true => Call::WriteRegister {
                register: name,
                value: operator.world().recorder.number(),
            },
            false => Call::ReadRegister { register: name },
        };
        operator.call(what, None).await;
    }
}

/// Rotates credentials, and sets a growing number on their providers.
async fn change(mut operator: Operator, stop: watch::Receiver<bool>) {
    let world = Arc::clone(operator.world());
    let mut ticks = interval(CHANGE_PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*stop.borrow() {
        ticks.tick().await;
        let at = operator.dice.number(0..world.credentials.len() as u64);
        let credential = &world.credentials[usize::try_from(at).expect("small")];
        let what = match operator.dice.percent(25) {
            true => Call::Rotate {
                provider: credential.provider.clone(),
                key: credential.key.clone(),
            },
            false => Call::UpdateProvider {
                provider: credential.provider.clone(),
                n: world.recorder.number(),
            },
        };
        operator.call(what, None).await;
    }
}

/// Providers that come, are configured, reconfigured and given away, and go.
async fn live(mut operator: Operator, stop: watch::Receiver<bool>) {
    for n in 0.. {
        let name = format!("life-{n}");
        let credential = Credential {
            provider: name.clone(),
            key: format!("LIFE_{n}"),
            client: name.clone(),
            issuer: Issuer::Strict,
            replay_safe: false,
        };
        let attach = Call::Attach {
            sandbox: MOVING.to_owned(),
            provider: name.clone(),
        };
        let detach = Call::Detach {
            sandbox: MOVING.to_owned(),
            provider: name.clone(),
        };
        let rotate = Call::Rotate {
            provider: name.clone(),
            key: credential.key.clone(),
        };
        let steps = [
            Step::Call(Call::CreateProvider {
                provider: name.clone(),
            }),
            Step::Configure,
            Step::Call(attach),
            Step::Call(rotate),
            Step::Configure,
            Step::Call(detach),
            Step::Call(Call::DeleteRefresh {
                provider: name.clone(),
                key: credential.key.clone(),
            }),
            Step::Call(Call::DeleteProvider { provider: name }),
        ];
        for step in steps {
            let pause = operator.dice.time(&LIFE_PACE);
            sleep(pause).await;
            if *stop.borrow() {
                return;
            }
            match step {
                Step::Configure => {
                    configure(&mut operator, &credential).await;
                }
                // A step that was refused is left out; one of which nobody knows is made again.
                Step::Call(what) => {
                    for _ in 0..20 {
                        match operator.call(what.clone(), None).await {
                            Ended::Ok(_) => break,
                            Ended::Fail(code) if code != Code::Unavailable => break,
                            Ended::Fail(_) | Ended::Info => sleep(CHANGE_PACE).await,
                        }
                    }
                }
            }
        }
    }
}

enum Step {
    Configure,
    Call(Call),
}

/// Puts a credential under a refresh with a new grant. Whether that was acknowledged.
pub async fn configure(operator: &mut Operator, credential: &Credential) -> bool {
    let world = Arc::clone(operator.world());
    let idp = world.issuer(credential.issuer);
    let grant = idp.grant(&credential.client).await;
    let changed = {
        let changed = world.client_secrets.lock();
        let changed = changed.unwrap_or_else(std::sync::PoisonError::into_inner);
        changed.get(&credential.client).cloned()
    };
    let grant = match changed {
        Some(secret) => grant.with_secret(&secret),
        None => grant,
    };
    world.plant(&grant);
    world.recorder.note(Event::Granted {
        issuer: credential.issuer,
        client: credential.client.clone(),
        grant: grant.id.clone(),
        refresh_token: evermint_cluster_tests::digest12(&grant.refresh_token),
    });
    let minting = Minting {
        provider: &credential.provider,
        key: &credential.key,
        grant: &grant,
        issuer: credential.issuer,
        replay_safe: credential.replay_safe,
        refresh_before: operator.dice.time(&times::REFRESH_BEFORE),
    };
    let what = Call::ConfigureRefresh {
        provider: credential.provider.clone(),
        key: credential.key.clone(),
        client: credential.client.clone(),
    };
    operator.call(what, Some(&minting)).await.is_ok()
}

/// Gives a new grant to whatever has lost its own: a strict issuer's answer may die with the
/// replica that it was sent to, and then only a person can help.
async fn care(mut operator: Operator, stop: watch::Receiver<bool>) {
    let world = Arc::clone(operator.world());
    while !*stop.borrow() {
        sleep(CARE_PACE).await;
        look_after(&mut operator, &world).await;
    }
}

/// Looks once after every credential. How many had lost their grant.
pub async fn look_after(operator: &mut Operator, world: &Arc<World>) -> usize {
    use evermint_proto::v1::Verdict;
    let mut lost = 0;
    for credential in &world.credentials {
        let status = world.refresh_status(credential).await;
        let gone = status.is_some_and(|s| s.verdict() == Verdict::NeedsReauthorization);
        if gone {
            lost += 1;
            configure(operator, credential).await;
        }
    }
    lost
}

/// Where a write stands, if it was acknowledged.
pub fn position(ended: &Ended) -> Option<u64> {
    match ended {
        Ended::Ok(Answer::Written { position }) => Some(*position),
        _ => None,
    }
}
