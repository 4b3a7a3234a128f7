//! Chance for jitter, from a seed that comes from outside. Nothing secret depends on it.

use std::time::Duration;

use evermint_core::time::millis;

/// A sequence of numbers that look random: SplitMix64, from Steele, Lea and Flood, *Fast
/// Splittable Pseudorandom Number Generators* (2014), §2.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The sequence of `seed`.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A time from half of `d` to `d`: what follows a failure.
    pub(crate) fn within(&mut self, d: Duration) -> Duration {
        let half = millis(d) / 2;
        Duration::from_millis(millis(d) - self.roll() % (half + 1))
    }

    /// A time from three to five quarters of `d`: what recurs.
    pub(crate) fn around(&mut self, d: Duration) -> Duration {
        let quarter = millis(d) / 4;
        Duration::from_millis(millis(d) - quarter + self.roll() % (2 * quarter + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_in_its_bounds_and_spreads() {
        let mut dice = Dice::seeded(7);
        let second = Duration::from_secs(1);
        let within: Vec<_> = (0..1000).map(|_| dice.within(second)).collect();
        let around: Vec<_> = (0..1000).map(|_| dice.around(second)).collect();
        let ms = Duration::from_millis;
        assert!(within.iter().all(|d| (ms(500)..=ms(1000)).contains(d)));
        assert!(around.iter().all(|d| (ms(750)..=ms(1250)).contains(d)));
        for seen in [within, around] {
            let early = seen.iter().filter(|d| **d < seen[0]).count();
            let distinct: std::collections::BTreeSet<_> = seen.iter().collect();
            assert!(
                distinct.len() > 300,
                "{} values, {early} early",
                distinct.len()
            );
        }
    }

    #[test]
    fn no_time_has_no_jitter() {
        let mut dice = Dice::seeded(7);
        assert_eq!(dice.within(Duration::ZERO), Duration::ZERO);
        assert_eq!(dice.around(Duration::ZERO), Duration::ZERO);
    }
}
