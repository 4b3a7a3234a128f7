//! How far the clock of an issuer is from this replica's, where that made it refuse an assertion.
//!
//! The difference is measured from the `Date` of the refusal, and the next assertion for the same
//! issuer is dated by the issuer's clock. Nothing is corrected before a refusal: a `Date` that an
//! intermediary has cached would spoil assertions that are good.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use url::Url;

use crate::transport::Answer;

/// A clock that is off by more may be why an assertion is refused.
const NOTED_FROM: Duration = Duration::from_secs(60);

/// A clock that is off by more is not corrected for: an assertion that is dated so far away would
/// be of use for too long.
const CORRECTED_TO: Duration = Duration::from_secs(3_600);

/// Issuers that are remembered.
const ISSUERS_MAX: usize = 1024;

/// The difference between two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skew {
    /// This replica's clock is ahead of the issuer's.
    Ahead(Duration),
    /// This replica's clock is behind the issuer's.
    Behind(Duration),
}

impl Skew {
    /// The difference that an answer tells of, if it is large enough to matter.
    pub fn of(answer: &Answer) -> Option<Self> {
        let (ours, theirs) = (answer.received_at, answer.date()?);
        let skew = match ours.duration_since(theirs) {
            Ok(ahead) => Self::Ahead(ahead),
            Err(error) => Self::Behind(error.duration()),
        };
        (skew.size() > NOTED_FROM).then_some(skew)
    }

    fn size(self) -> Duration {
        match self {
            Self::Ahead(by) | Self::Behind(by) => by,
        }
    }
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (by, side) = match self {
            Self::Ahead(by) => (by, "ahead of"),
            Self::Behind(by) => (by, "behind"),
        };
        write!(
            f,
            "this replica's clock is {} s {side} the issuer's",
            by.as_secs()
        )
    }
}

/// What was learnt of the clocks of issuers.
#[derive(Debug, Default)]
pub struct Skews(Mutex<HashMap<String, Skew>>);

impl Skews {
    /// Remembers what a refusal told; `None` forgets.
    pub fn learn(&self, url: &str, skew: Option<Skew>) {
        let mut skews = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let issuer = issuer(url);
        match skew.filter(|skew| skew.size() <= CORRECTED_TO) {
            Some(skew) if skews.len() < ISSUERS_MAX || skews.contains_key(&issuer) => {
                skews.insert(issuer, skew);
            }
            Some(_) => {}
            None => {
                skews.remove(&issuer);
            }
        }
    }

    /// The time by the clock of the issuer at `url`, as far as it is known.
    pub fn now(&self, url: &str) -> SystemTime {
        let now = SystemTime::now();
        let skews = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let corrected = match skews.get(&issuer(url)) {
            Some(Skew::Ahead(by)) => now.checked_sub(*by),
            Some(Skew::Behind(by)) => now.checked_add(*by),
            None => Some(now),
        };
        corrected.unwrap_or(now)
    }
}

/// Host and port.
fn issuer(url: &str) -> String {
    Url::parse(url).map_or_else(|_| String::new(), |url| url.origin().ascii_serialization())
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://idp.example/token";

    fn off(skews: &Skews, url: &str) -> i64 {
        let now = SystemTime::now();
        match skews.now(url).duration_since(now) {
            Ok(later) => i64::try_from(later.as_secs()).unwrap(),
            Err(earlier) => -i64::try_from(earlier.duration().as_secs()).unwrap(),
        }
    }

    #[test]
    fn a_refusal_teaches_the_issuers_clock_and_nobody_elses() {
        let skews = Skews::default();
        skews.learn(URL, Some(Skew::Ahead(Duration::from_secs(300))));
        assert!((-300..=-298).contains(&off(&skews, "https://idp.example/other")));
        assert!((0..=2).contains(&off(&skews, "https://idp.example:8443/token")));
        skews.learn(URL, Some(Skew::Behind(Duration::from_secs(300))));
        assert!((299..=302).contains(&off(&skews, URL)));
        skews.learn(URL, None);
        assert!((0..=2).contains(&off(&skews, URL)));
    }

    #[test]
    fn a_clock_that_is_far_off_is_not_corrected_for() {
        let skews = Skews::default();
        skews.learn(URL, Some(Skew::Behind(Duration::from_secs(3_601))));
        assert!((0..=2).contains(&off(&skews, URL)));
    }
}
