//! How a world comes to be: network, issuers, replicas, and what is registered with them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evermint_cluster_tests::Idp;
use evermint_issuer::{Authentication, Client, Rotation};
use tokio::sync::watch;

use crate::door::Doors;
use crate::history::{Call, Event, Issuer, Phase, Place, Recorder, Run, Way};
use crate::load;
use crate::net::Network;
use crate::operator::Operator;
use crate::place::Residence;
use crate::settings::{SPARES, Settings, times};
use crate::world::{Claims, Credential, Seen, World, channels};

/// How long the cluster may take to be there.
const START: Duration = Duration::from_secs(90);
/// How long one call of the set-up may take.
const CALL: Duration = Duration::from_secs(60);
/// Credentials at the strict issuer; every third may show a used refresh token again.
const STRICT: usize = 24;
/// Credentials at the real provider.
const REAL: usize = 8;

/// A world without any replica yet.
///
/// # Errors
/// What is missing.
pub async fn world(settings: Settings, net: Network) -> Result<Arc<World>, String> {
    let dir = &settings.dir;
    let io = |e: std::io::Error| format!("{}: {e}", dir.display());
    fs::create_dir_all(dir.join("logs")).map_err(io)?;
    let recorder = Arc::new(Recorder::create(dir).map_err(io)?);
    recorder.note(Event::Run(run(&settings, &net)));
    recorder.note(Event::Phase {
        phase: Phase::SetUp,
    });
    keygen(&settings)?;

    let places = settings.replicas + SPARES;
    let strict = Idp::built_in(times::ACCESS_TTL).await;
    let real = Idp::real(times::ACCESS_TTL).await;
    let world = World {
        strict_doors: Doors::to(strict.address(), &net, places)?,
        real_doors: Doors::to(real.address(), &net, places)?,
        strict,
        real,
        credentials: credentials(),
        seen: watch::channel(Seen::default()).0,
        channels: channels(&net, places),
        claims: Claims::default(),
        failed: Mutex::default(),
        aftermath: tokio::sync::Mutex::default(),
        contents: crate::sandbox::Contents::default(),
        reads: AtomicU64::new(0),
        failed_reads: AtomicU64::new(0),
        client_secrets: Mutex::default(),
        secrets: Mutex::default(),
        places: (0..places)
            .map(|place| Residence::new(&settings, place, &recorder))
            .collect(),
        settings,
        recorder,
        net,
    };
    Ok(Arc::new(world))
}

fn run(settings: &Settings, net: &Network) -> Run {
    let ms = |time: Duration| u64::try_from(time.as_millis()).expect("a short time");
    Run {
        seed: settings.seed,
        seconds: settings.length.as_secs(),
        replicas: settings.replicas,
        network: net.name().to_owned(),
        ticket_ttl_ms: ms(times::TICKET_TTL),
        ticket_margin_ms: ms(times::TICKET_MARGIN),
        doubt_wait_ms: ms(times::DOUBT_WAIT),
        max_staleness_ms: ms(times::MAX_STALENESS),
        access_ttl_ms: ms(times::ACCESS_TTL),
        command: settings.command.clone(),
    }
}

/// Makes the key-encryption key, as an operator does.
fn keygen(settings: &Settings) -> Result<(), String> {
    let path = settings.dir.join("kek");
    let made = Command::new(&settings.binary)
        .args(["keygen", "--out"])
        .arg(&path)
        .output()
        .map_err(|e| format!("{}: {e}", settings.binary.display()))?;
    if !made.status.success() {
        return Err(format!("evermint keygen: {made:?}"));
    }
    // Its directory is kept when a run fails.
    let only_ours = fs::Permissions::from_mode(0o600);
    fs::set_permissions(&path, only_ours).map_err(|e| e.to_string())
}

fn credentials() -> Vec<Credential> {
    let strict = (0..STRICT).map(|n| {
        let client = format!("strict-{n}");
        credential(client, Issuer::Strict, n % 3 == 2)
    });
    // The real provider knows these clients.
    let real = (0..REAL).map(|n| credential(format!("rt-{n:03}"), Issuer::Real, false));
    strict.chain(real).collect()
}

fn credential(client: String, issuer: Issuer, replay_safe: bool) -> Credential {
    Credential {
        key: client.to_uppercase().replace('-', "_"),
        provider: client.clone(),
        client,
        issuer,
        replay_safe,
    }
}

/// Starts the founding replicas, and waits until they are a cluster.
///
/// # Errors
/// What was not so in time.
pub async fn replicas(world: &Arc<World>) -> Result<(), String> {
    let members: Vec<Place> = world.members().collect();
    let io = |e: std::io::Error| format!("a configuration: {e}");
    for place in &members {
        world.places[*place]
            .configure(&world.net, &members, true)
            .map_err(io)?;
        world.places[*place].start(&world.net);
    }
    world.well(&members, START).await?;
    // From now on there is a cluster to join, and no other may be founded.
    for place in &world.places {
        place.configure(&world.net, &members, false).map_err(io)?;
    }
    Ok(())
}

/// Registers what is there for the whole run, and waits until every credential is minted.
///
/// # Errors
/// What was not so in time.
pub async fn register(world: &Arc<World>) -> Result<(), String> {
    let mut operator = Operator::new(world, "founder");
    for credential in &world.credentials {
        if credential.issuer == Issuer::Strict {
            let secret = format!("{}-secret", credential.client);
            world.strict.register(&client(credential, secret)).await;
        }
        let create = Call::CreateProvider {
            provider: credential.provider.clone(),
        };
        operator.insist(create, CALL, None).await?;
        let mut tries = 0;
        while !load::configure(&mut operator, credential).await {
            tries += 1;
            if tries > 20 {
                return Err(format!("{} could not be configured", credential.provider));
            }
        }
    }
    for credential in &world.credentials {
        world
            .until("the first mint", START, || async {
                let status = world.refresh_status(credential).await.ok_or("no status")?;
                match status.generation > 0 {
                    true => Ok(()),
                    false => Err(format!("{status:?}")),
                }
            })
            .await?;
    }
    Ok(())
}

/// A client of the strict issuer, for that credential.
pub(crate) fn client(credential: &Credential, secret: String) -> Client {
    let client = Client::new(&credential.client)
        .secret(secret)
        .authentication(Authentication::Basic);
    match credential.replay_safe {
        true => client.rotation(Rotation::Replayable),
        false => client,
    }
}

/// A sandbox, how it reads, and where it was registered.
pub type Registered = (String, Way, u64);

/// Registers the sandboxes: each may use some of the providers.
///
/// # Errors
/// What was not so in time.
pub async fn sandboxes(world: &Arc<World>) -> Result<Vec<Registered>, String> {
    let mut operator = Operator::new(world, "sandbox founder");
    let ways = [Way::Polling, Way::Watching, Way::Library];
    let mut all = Vec::new();
    for n in 0..3 {
        let providers = world.credentials.iter().skip(n).step_by(2);
        let providers: Vec<_> = providers.map(|c| c.provider.clone()).collect();
        all.push((format!("sandbox-{n}"), providers));
    }
    all.push((load::MOVING.to_owned(), Vec::new()));
    let mut registered = Vec::new();
    for (name, providers) in all {
        let create = Call::CreateSandbox {
            sandbox: name.clone(),
            providers,
        };
        let ended = operator.call(create, None).await;
        let position = load::position(&ended).ok_or(format!("{name}: {ended:?}"))?;
        registered.extend(ways.map(|way| (name.clone(), way, position)));
    }
    Ok(registered)
}

impl World {
    /// Takes note of secrets that must not turn up anywhere.
    pub fn plant(&self, grant: &evermint_cluster_tests::Grant) {
        let mut secrets = self
            .secrets
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        secrets.insert(grant.refresh_token.clone());
        secrets.insert(grant.secret.clone());
    }

    /// The secrets that were planted.
    pub fn planted(&self) -> BTreeSet<String> {
        let secrets = self.secrets.lock();
        secrets
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }
}
