//! All chance of a run. Each purpose has dice of its own, made from the seed and its name, so that
//! one more roll here changes nothing there.

use std::ops::Range;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

/// Dice for one purpose.
#[derive(Debug)]
pub struct Dice(StdRng);

impl Dice {
    /// Dice for `purpose` in the run of `seed`.
    pub fn new(seed: u64, purpose: &str) -> Self {
        let seed = xxhash_rust::xxh3::xxh3_64_with_seed(purpose.as_bytes(), seed);
        Self(StdRng::seed_from_u64(seed))
    }

    /// True that many times in a hundred.
    pub fn percent(&mut self, percent: u32) -> bool {
        self.0.random_range(0..100) < percent
    }

    /// A number in a range.
    pub fn number(&mut self, range: Range<u64>) -> u64 {
        self.0.random_range(range)
    }

    /// A time in a range, in whole milliseconds.
    pub fn time(&mut self, range: &Range<Duration>) -> Duration {
        self.0.random_range(range.start..range.end)
    }

    /// One of several; `None` of none.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        of.choose(&mut self.0).copied()
    }

    /// Brings them into any order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        items.shuffle(&mut self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dice_follow_from_seed_and_purpose_and_from_nothing_else() {
        let rolls = |seed, purpose| {
            let mut dice = Dice::new(seed, purpose);
            [(); 8].map(|()| dice.number(0..1_000_000))
        };
        assert_eq!(rolls(7, "network"), rolls(7, "network"));
        assert_ne!(rolls(7, "network"), rolls(8, "network"));
        assert_ne!(rolls(7, "network"), rolls(7, "process"));
    }
}
