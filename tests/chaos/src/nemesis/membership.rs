//! Changes of the membership under load: two empty replicas join, and leave again. They belong to
//! the track of processes, so that nobody takes a disk away in between.

use std::sync::Arc;
use std::time::Duration;

use evermint_proto::v1::RemoveReplicaRequest;
use evermint_proto::v1::cluster_client::ClusterClient;
use tokio::time::sleep;

use super::{Missed, Nemesis, Struck};
use crate::dice::Dice;
use crate::history::Place;
use crate::world::World;

/// How long a replica may take to get its vote, or to lose it.
const BOUND: Duration = Duration::from_secs(90);
/// How long the larger cluster stays.
const STAYS: std::ops::Range<Duration> = Duration::from_secs(2)..Duration::from_secs(15);

/// Every nemesis of this family.
pub fn all() -> Vec<Box<dyn Nemesis>> {
    vec![Box::new(GrowAndShrink)]
}

/// Two join, one after the other or at once; then they are removed while they run.
struct GrowAndShrink;

#[async_trait::async_trait]
impl Nemesis for GrowAndShrink {
    fn family(&self) -> &'static str {
        "membership"
    }

    fn name(&self) -> &'static str {
        "two join and leave"
    }

    fn weight(&self) -> u32 {
        4
    }

    async fn strike(&self, world: &Arc<World>, dice: &mut Dice) -> Result<Struck, Missed> {
        let spares: Vec<Place> = world.spares().collect();
        let fault = world.fault(self.family(), self.name(), &spares, "");
        for place in &spares {
            world.places[*place].may_end(true);
            world.places[*place].start(&world.net);
        }
        let mut ids = Vec::new();
        for place in &spares {
            ids.push(joined(world, *place).await?);
        }
        fault.bites(format!("{ids:?} vote, beside the others"));
        sleep(dice.time(&STAYS)).await;
        let mut leaving: Vec<(Place, u64)> = spares.into_iter().zip(ids).collect();
        dice.shuffle(&mut leaving);
        for (place, id) in leaving {
            removed(world, id).await?;
            world.places[place].kill();
            std::fs::remove_dir_all(&world.places[place].data_dir)
                .map_err(|e| Missed(format!("the disk of replica {place}: {e}")))?;
        }
        Ok(Struck::Yes)
    }
}

/// Waits until the replica at `place` votes. Gives its id.
async fn joined(world: &Arc<World>, place: Place) -> Result<u64, Missed> {
    let joined = world
        .until("a replica joins", BOUND, || async {
            let status = world.status(place).await.ok_or("it does not answer")?;
            let mut members = status.replicas.iter();
            match members.any(|r| r.id == status.replica && r.voter) {
                true => Ok(status.replica),
                false => Err(format!("replica {} does not vote", status.replica)),
            }
        })
        .await;
    Ok(joined?)
}

/// Removes a replica, and waits until no other one counts it any more.
async fn removed(world: &Arc<World>, id: u64) -> Result<(), Missed> {
    let removed = world
        .until("a replica is removed", BOUND, || async {
            // Of what is asked for twice nothing is left the second time.
            let ask = |channel| {
                let request = RemoveReplicaRequest { replica: id };
                let mut client = ClusterClient::new(channel);
                async move { client.remove_replica(request).await }
            };
            let _ = world.anywhere(ask).await;
            let leader = world.leader().ok_or("nobody leads")?;
            let status = world.status(leader).await.ok_or("it does not answer")?;
            match status.replicas.iter().any(|r| r.id == id) {
                true => Err(format!("{id} is a member still")),
                false => Ok(()),
            }
        })
        .await;
    Ok(removed?)
}
