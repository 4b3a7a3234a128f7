//! What is known of the other replicas: the leader hears it from their beats, and tells it on in
//! its answers, so that an operator may ask any replica.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use evermint_core::id::{Position, ReplicaId, SessionId};
use evermint_core::time::{MonoMs, UnixMs, millis};
use evermint_proto::replica::v1 as wire;

/// The newest word of each replica.
#[derive(Debug, Default)]
pub(crate) struct Hearsay(Mutex<BTreeMap<ReplicaId, Word>>);

/// What a replica said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) session: SessionId,
    /// When it came, by the time since boot.
    pub(crate) at: MonoMs,
    /// Its wall clock then.
    pub(crate) wall: UnixMs,
    pub(crate) applied: Position,
    pub(crate) erased: Position,
    pub(crate) keks: Vec<String>,
}

/// What is known of one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Its life.
    pub session: SessionId,
    /// How long ago the leader heard of it.
    pub age: Duration,
    /// The newest position that it had applied then.
    pub applied: Position,
    /// Nothing of the history up to here is left in its log.
    pub erased: Position,
    /// The names of the key-encryption keys that it has; first the one that is to wrap all data
    /// keys.
    pub keks: Vec<String>,
    /// By how many milliseconds its wall clock is ahead of the cluster clock.
    pub ahead_ms: i64,
}

impl Word {
    /// Its wall clock `now`, if nobody has set it since.
    fn wall(&self, now: MonoMs) -> UnixMs {
        self.wall + now.since(self.at)
    }
}

impl Hearsay {
    /// A replica's own word.
    pub(crate) fn hear(&self, replica: ReplicaId, word: Word) {
        self.lock().insert(replica, word);
    }

    /// All that the leader said, received `now`. What it did not name is no member any more.
    pub(crate) fn repeat(&self, heard: Vec<wire::Heard>, now: MonoMs) {
        let words = heard.into_iter().filter_map(|heard| {
            let session = <[u8; 16]>::try_from(&heard.session[..]).ok()?;
            let word = Word {
                session: SessionId(u128::from_be_bytes(session)),
                at: now - Duration::from_millis(heard.age_ms),
                wall: UnixMs(heard.wall_ms),
                applied: Position(heard.applied),
                erased: Position(heard.erased),
                keks: names(heard.keks),
            };
            Some((ReplicaId(heard.replica), word))
        });
        *self.lock() = words.collect();
    }

    /// What to tell others.
    pub(crate) fn tell(&self, now: MonoMs) -> Vec<wire::Heard> {
        let known = self.lock();
        let told = known.iter().map(|(replica, word)| wire::Heard {
            replica: replica.0,
            session: word.session.0.to_be_bytes().to_vec().into(),
            age_ms: millis(now.since(word.at)),
            applied: word.applied.0,
            erased: word.erased.0,
            keks: word.keks.clone(),
            wall_ms: word.wall.0,
        });
        told.collect()
    }

    /// The wall clock of a replica `now`, as far as it is known.
    pub(crate) fn wall(&self, replica: ReplicaId, now: MonoMs) -> Option<UnixMs> {
        self.lock().get(&replica).map(|word| word.wall(now))
    }

    /// What is known of the replicas for which `is_member` holds, when the cluster clock shows
    /// `cluster`; the others are forgotten.
    pub(crate) fn of(
        &self,
        now: MonoMs,
        cluster: UnixMs,
        is_member: impl Fn(ReplicaId) -> bool,
    ) -> BTreeMap<ReplicaId, Heard> {
        let mut known = self.lock();
        known.retain(|replica, _| is_member(*replica));
        let of = |word: &Word| Heard {
            session: word.session,
            age: now.since(word.at),
            applied: word.applied,
            erased: word.erased,
            keks: word.keks.clone(),
            ahead_ms: word
                .wall(now)
                .0
                .cast_signed()
                .saturating_sub(cluster.0.cast_signed()),
        };
        known.iter().map(|(id, word)| (*id, of(word))).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ReplicaId, Word>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Most key-encryption keys that a replica can have, and the longest name of one, in bytes.
const KEKS_MAX: (usize, usize) = (4, 64);

/// The names that a peer sent, if they can be any.
pub(crate) fn names(keks: Vec<String>) -> Vec<String> {
    let keks = keks.into_iter().filter(|name| name.len() <= KEKS_MAX.1);
    keks.take(KEKS_MAX.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_knows_what_its_leader_heard_and_how_long_ago() {
        let leader = Hearsay::default();
        let word = |at| Word {
            session: SessionId(9),
            at: MonoMs(at),
            wall: UnixMs(7_000_000),
            applied: Position(40),
            erased: Position(30),
            keks: vec!["k".to_owned()],
        };
        leader.hear(ReplicaId(1), word(1_000));
        leader.hear(ReplicaId(2), word(700));
        let follower = Hearsay::default();
        follower.hear(ReplicaId(3), word(1));
        follower.repeat(leader.tell(MonoMs(1_000)), MonoMs(50_000));
        let cluster = UnixMs(7_000_600);
        let known = follower.of(MonoMs(50_200), cluster, |_| true);
        assert_eq!(known.len(), 2, "the leader did not name the third");
        assert_eq!(known[&ReplicaId(2)].age, Duration::from_millis(500));
        assert_eq!(known[&ReplicaId(2)].erased, Position(30));
        assert_eq!(known[&ReplicaId(2)].ahead_ms, -100);
        let members = follower.of(MonoMs(50_200), cluster, |id| id == ReplicaId(1));
        assert_eq!(members.len(), 1);
    }
}
