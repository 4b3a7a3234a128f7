//! What is believed: the newest bundle, fenced by its generation, and how fresh it is.

use std::sync::Arc;
use std::time::Duration;

use evermint_core::bundle::{OlderBundle, SeenGeneration};
use evermint_core::id::Position;
use evermint_core::time::{MonoMs, UnixMs};
use evermint_proto::v1;

use crate::content::Content;
use crate::server_clock::ServerClock;

/// What a replica gave: a bundle, or a heartbeat about the one that is held.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) content: Option<Content>,
    pub(crate) generation: Position,
    pub(crate) server_time: UnixMs,
    pub(crate) staleness: Duration,
}

/// Longer than any call takes: only a machine that slept, which the clock of calls does not count,
/// sees an answer travel so long.
const TRAVEL_MAX: Duration = Duration::from_secs(60);

/// How it came, on this machine's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Heard {
    /// As the answer to a request.
    Answer { sent: MonoMs, received: MonoMs },
    /// As a later message of a stream.
    Message { received: MonoMs },
}

/// Why it is not believed: ask another replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unbelievable {
    /// The fence of G6.
    #[error(transparent)]
    Older(#[from] OlderBundle),
    /// It tells nothing of the cluster's time: taken for the worst case, it would end values hours
    /// early until the next answer.
    #[error("the machine slept while the answer was on its way")]
    Slept,
    /// It speaks of a bundle that was never given.
    #[error("no bundle was given")]
    NoBundle,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// The content is another one now.
    Changed,
    /// The content is confirmed.
    Confirmed,
}

/// The newest that was seen. Which replica it came from does not matter.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    /// The highest generation, of whatever is held or was held.
    seen: SeenGeneration,
    held: Option<Held>,
}

/// A bundle, and what is known of its time. A new one replaces it as a whole.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) content: Arc<Content>,
    pub(crate) generation: Position,
    pub(crate) clock: ServerClock,
    /// The content was the newest at this time of the cluster clock.
    pub(crate) fresh_as_of: UnixMs,
}

impl Cache {
    /// The `min_generation` of the next request.
    pub(crate) fn seen(&self) -> Position {
        self.seen.newest().unwrap_or_default()
    }

    /// The `known_revision` of the next request.
    pub(crate) fn revision(&self) -> &str {
        self.held.as_ref().map_or("", |h| &h.content.revision)
    }

    /// What readers may see.
    pub(crate) fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// Takes what a replica gave, or refuses it and stays as it is.
    ///
    /// # Errors
    /// [`Unbelievable`].
    pub(crate) fn take(&mut self, given: Given, heard: Heard) -> Result<Taken, Unbelievable> {
        if let Heard::Answer { sent, received } = heard
            && received.since(sent) > TRAVEL_MAX
        {
            return Err(Unbelievable::Slept);
        }
        let mut seen = self.seen;
        seen.accept(given.generation)?;
        let before = self.held.as_ref();
        // What has the revision that is held is what is held.
        let new = given
            .content
            .filter(|c| before.is_none_or(|h| h.content.revision != c.revision));
        let taken = if new.is_some() {
            Taken::Changed
        } else {
            Taken::Confirmed
        };
        let content = match (new, before) {
            (Some(content), _) => Arc::new(content),
            (None, Some(held)) => Arc::clone(&held.content),
            (None, None) => return Err(Unbelievable::NoBundle),
        };
        let clock_before = before.map(|h| h.clock);
        let clock = match (heard, clock_before) {
            (Heard::Message { received }, Some(clock)) => clock.heard(received, given.server_time),
            // A message without any answer before it cannot be; nothing is lost by its receipt.
            (Heard::Message { received }, None) => {
                ServerClock::answered(None, received, received, given.server_time)
            }
            (Heard::Answer { sent, received }, before) => {
                ServerClock::answered(before, sent, received, given.server_time)
            }
        };
        let fresh_as_of = given.server_time.minus(given.staleness);
        self.held = Some(Held {
            content,
            generation: given.generation,
            clock,
            fresh_as_of: before.map_or(fresh_as_of, |h| h.fresh_as_of.max(fresh_as_of)),
        });
        self.seen = seen;
        Ok(taken)
    }

    /// A gateway says that there is no such sandbox. It was asked with `min_generation`, so that it
    /// knows of the bundle that was seen, and says that the sandbox is deleted since.
    ///
    /// Whether anything was held.
    pub(crate) fn deleted(&mut self) -> bool {
        self.held.take().is_some()
    }
}

impl Given {
    /// The answer of a call; `None` if it holds no bundle.
    pub(crate) fn answer(answer: v1::GetBundleResponse) -> Option<Self> {
        let bundle = answer.bundle?;
        Some(Self {
            generation: Position(bundle.generation),
            content: Some(bundle.into()),
            server_time: UnixMs(answer.server_time_ms),
            staleness: Duration::from_millis(answer.staleness_ms),
        })
    }

    /// A message of a stream.
    pub(crate) fn message(message: v1::WatchBundleResponse) -> Self {
        let of_bundle = message.bundle.as_ref().map(|b| b.generation);
        Self {
            generation: Position(of_bundle.unwrap_or(message.generation)),
            content: message.bundle.map(Into::into),
            server_time: UnixMs(message.server_time_ms),
            staleness: Duration::from_millis(message.staleness_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_800_000_000_000;

    fn bundle(generation: u64, revision: &str) -> Given {
        Given {
            content: Some(Content {
                revision: revision.to_owned(),
                ..Content::default()
            }),
            ..beat(generation)
        }
    }

    fn beat(generation: u64) -> Given {
        Given {
            content: None,
            generation: Position(generation),
            server_time: UnixMs(START),
            staleness: Duration::ZERO,
        }
    }

    fn at(ms: u64) -> Heard {
        Heard::Answer {
            sent: MonoMs(ms),
            received: MonoMs(ms),
        }
    }

    const OLDER: Result<Taken, Unbelievable> = Err(Unbelievable::Older(OlderBundle {
        given: Position(6),
        seen: Position(7),
    }));

    #[test]
    fn a_bundle_is_taken_confirmed_or_refused() {
        for (what, given, expected, revision) in [
            ("a newer one", bundle(8, "b"), Ok(Taken::Changed), "b"),
            ("an equal one", bundle(7, "a"), Ok(Taken::Confirmed), "a"),
            (
                "one that lost an expired value",
                bundle(7, "b"),
                Ok(Taken::Changed),
                "b",
            ),
            (
                "a newer one of the same content",
                bundle(9, "a"),
                Ok(Taken::Confirmed),
                "a",
            ),
            ("an older one", bundle(6, "b"), OLDER, "a"),
            ("a heartbeat", beat(7), Ok(Taken::Confirmed), "a"),
            (
                "a heartbeat that the revision still stands",
                beat(9),
                Ok(Taken::Confirmed),
                "a",
            ),
            ("an older heartbeat", beat(6), OLDER, "a"),
        ] {
            let mut cache = Cache::default();
            cache.take(bundle(7, "a"), at(0)).unwrap();
            let generation = given.generation;
            assert_eq!(cache.take(given, at(10)), expected, "{what}");
            assert_eq!(cache.revision(), revision, "{what}");
            let seen = if expected.is_ok() {
                generation
            } else {
                Position(7)
            };
            assert_eq!(cache.seen(), seen, "{what}");
            assert_eq!(cache.held().unwrap().generation, seen, "{what}");
        }
    }

    #[test]
    fn a_heartbeat_about_nothing_is_refused() {
        let mut cache = Cache::default();
        assert_eq!(cache.take(beat(7), at(0)), Err(Unbelievable::NoBundle));
        assert_eq!(cache.seen(), Position(0));
    }

    #[test]
    fn an_answer_that_outlasted_a_sleep_is_asked_for_again() {
        let mut cache = Cache::default();
        for (received, expected) in [
            (7_200_000, Err(Unbelievable::Slept)),
            (60_001, Err(Unbelievable::Slept)),
            (60_000, Ok(Taken::Changed)),
        ] {
            let heard = Heard::Answer {
                sent: MonoMs(0),
                received: MonoMs(received),
            };
            assert_eq!(cache.take(bundle(7, "a"), heard), expected, "{received}");
            assert_eq!(cache.held().is_some(), expected.is_ok());
        }
    }

    #[test]
    fn a_refused_bundle_does_not_freshen_the_one_that_is_held() {
        let mut cache = Cache::default();
        cache.take(bundle(7, "a"), at(0)).unwrap();
        let before = cache.held().unwrap().clone();
        let mut older = bundle(6, "b");
        older.server_time = UnixMs(START + 60_000);
        assert_eq!(cache.take(older, at(60_000)), OLDER);
        let held = cache.held().unwrap();
        assert_eq!(
            (held.clock, held.fresh_as_of),
            (before.clock, before.fresh_as_of)
        );
    }

    #[test]
    fn freshness_counts_from_the_newest_contact_with_a_leader() {
        let mut cache = Cache::default();
        for (server_time, staleness, fresh_as_of) in [
            (START + 1_000, 400, START + 600),
            (START + 2_000, 5_000, START + 600),
            (START + 3_000, 0, START + 3_000),
        ] {
            let given = Given {
                server_time: UnixMs(server_time),
                staleness: Duration::from_millis(staleness),
                ..bundle(7, "a")
            };
            cache.take(given, at(0)).unwrap();
            assert_eq!(cache.held().unwrap().fresh_as_of, UnixMs(fresh_as_of));
        }
    }

    #[test]
    fn the_fence_outlives_a_deletion() {
        let mut cache = Cache::default();
        assert!(!cache.deleted());
        cache.take(bundle(7, "a"), at(0)).unwrap();
        assert!(cache.deleted());
        assert!(cache.held().is_none());
        assert_eq!((cache.seen(), cache.revision()), (Position(7), ""));
        assert_eq!(cache.take(bundle(6, "a"), at(0)), OLDER);
        assert_eq!(cache.take(bundle(8, "a"), at(0)), Ok(Taken::Changed));
    }
}
