//! What breaks things. Each family of faults has a file of its own; a nemesis injects one kind of
//! fault, once, proves that it took effect, and makes whole again what it broke.
//!
//! A fault that did not take effect fails the run: [`Missed`]. One for which there was no occasion
//! (no place was free, nothing was being minted) is [`Struck::No`], and another one is chosen.

pub mod clock;
pub mod issuer;
pub mod membership;
pub mod network;
pub mod power;
pub mod process;
pub mod step;
pub mod storage;

use std::sync::Arc;

use crate::dice::Dice;
use crate::net::Network;
use crate::world::World;

/// Why a fault had no effect.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Missed(pub String);

impl From<String> for Missed {
    fn from(why: String) -> Self {
        Self(why)
    }
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Struck {
    /// It took effect, and is over.
    Yes,
    /// There was no occasion for it.
    No,
}

/// One kind of fault.
#[async_trait::async_trait]
pub trait Nemesis: Send + Sync {
    /// The family, such as `process`.
    fn family(&self) -> &'static str;

    /// What it does, such as `kill the leader`.
    fn name(&self) -> &'static str;

    /// How often it is chosen among those of its track.
    fn weight(&self) -> u32 {
        10
    }

    /// Does it once, from begin to end. Everything is whole again when this returns, also with an
    /// error; replicas may still be on their way back.
    ///
    /// # Errors
    /// When the fault was injected and did not take effect.
    async fn strike(&self, world: &Arc<World>, dice: &mut Dice) -> Result<Struck, Missed>;
}

/// Nemeses that strike one after the other; tracks strike at the same time.
pub struct Track {
    /// Its name.
    pub name: &'static str,
    /// What it chooses from.
    pub nemeses: Vec<Box<dyn Nemesis>>,
    /// The pause between two of its faults.
    pub pause: std::ops::Range<std::time::Duration>,
}

/// Nemeses of two families that must not strike at the same time.
fn both(mut one: Vec<Box<dyn Nemesis>>, other: Vec<Box<dyn Nemesis>>) -> Vec<Box<dyn Nemesis>> {
    one.extend(other);
    one
}

/// Every track of a run. A family of faults is plugged in here.
pub fn tracks(world: &World) -> Vec<Track> {
    use std::time::Duration;
    let namespaces = matches!(world.net, Network::Namespaces(_));
    let track = |name, nemeses, pause: std::ops::Range<u64>| Track {
        name,
        nemeses,
        pause: Duration::from_secs(pause.start)..Duration::from_secs(pause.end),
    };
    vec![
        track("process", both(process::all(), membership::all()), 1..4),
        track("network", network::all(namespaces), 5..20),
        track("issuer", issuer::all(), 8..25),
        track("step", step::all(), 5..15),
        track("clock", clock::all(), 5..20),
    ]
}
