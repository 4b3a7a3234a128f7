//! When a credential falls due: pure functions of lifetime, settings and identity.
//!
//! Two windows scale with a token's lifetime. In the *advisory* window before its end a token is
//! replaced; in the *mandatory* window, the last minute, backoff gives way to urgency. Jitter is
//! a hash of credential and generation, so that it is the same on every replica, and so that
//! credentials that were registered together do not fall due together.

use std::time::Duration;

use xxhash_rust::xxh3::Xxh3;

use crate::credential::RefreshConfig;
use crate::id::{CredentialId, Generation};
use crate::settings::Settings;
use crate::time::UnixMs;

/// The widest advisory window, in milliseconds.
pub const ADVISORY_MAX_MS: u64 = 15 * 60_000;
/// The widest mandatory window, in milliseconds.
pub const MANDATORY_MAX_MS: u64 = 60_000;
/// The longest pause between tries in the mandatory window, in milliseconds.
pub const URGENT_RETRY_MS: u64 = 5_000;
/// The longest lifetime that is believed, in milliseconds: ten years.
pub const LIFETIME_MAX_MS: u64 = 10 * 366 * 86_400_000;
/// The longest `Retry-After` that is honoured, in milliseconds.
pub const RETRY_AFTER_MAX_MS: u64 = 3_600_000;
/// An unknown refusal waits at least this many backoff bases.
pub const UNKNOWN_REFUSAL_BASES: u64 = 30;

/// A number from 0 to `bound`, inclusive, that depends on the credential and `salt` alone.
fn jitter(credential: &CredentialId, salt: (&str, u64), bound: u64) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(&credential.provider.0.to_be_bytes());
    hasher.update(credential.key.as_str().as_bytes());
    hasher.update(salt.0.as_bytes());
    hasher.update(&salt.1.to_be_bytes());
    match bound.checked_add(1) {
        Some(n) => hasher.digest() % n,
        None => hasher.digest(),
    }
}

/// The lifetime that a token gets: what the issuer said, or else the configured default, within
/// the configured maximum. In milliseconds.
pub fn lifetime_ms(settings: &Settings, config: &RefreshConfig, issued: Option<u64>) -> u64 {
    issued
        .unwrap_or(settings.default_lifetime_ms)
        .min(config.max_lifetime_ms.unwrap_or(LIFETIME_MAX_MS))
        .min(LIFETIME_MAX_MS)
}

/// How long after it was asked for a token of this lifetime is replaced, in milliseconds.
///
/// The window before the end is `refresh_before_ms`, or min(15 min, lifetime / 4), with a
/// jitter of ±10 %; never more than half the lifetime. The not-before floor wins over it.
pub fn due_after_ms(
    config: &RefreshConfig,
    credential: &CredentialId,
    generation: Generation,
    lifetime_ms: u64,
) -> u64 {
    let window = config
        .refresh_before_ms
        .unwrap_or_else(|| (lifetime_ms / 4).min(ADVISORY_MAX_MS));
    let tenth = window / 10;
    let jittered = window - tenth + jitter(credential, ("due", generation.0), 2 * tenth);
    let due = lifetime_ms - jittered.min(lifetime_ms / 2);
    due.max(config.not_before_ms.unwrap_or(0)).min(lifetime_ms)
}

/// How long after a sandbox made a mint due none does so again: a quarter of the value's lifetime,
/// and a minute at least. A hostile sandbox costs an issuer four mints in a lifetime.
pub fn early_gap(lifetime: Option<Duration>) -> Duration {
    const LEAST: Duration = Duration::from_secs(60);
    lifetime.map_or(LEAST, |lifetime| (lifetime / 4).max(LEAST))
}

/// The mandatory window of a token with this lifetime.
pub fn mandatory_window(lifetime: Duration) -> Duration {
    (lifetime / 8).min(Duration::from_millis(MANDATORY_MAX_MS))
}

/// The token that is being served while retries go on.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// When it was asked for.
    pub issued_at: UnixMs,
    /// When it ends.
    pub expires_at: UnixMs,
}

impl Served {
    /// When its mandatory window begins.
    pub fn mandatory_from(self) -> UnixMs {
        self.expires_at
            .minus(mandatory_window(self.expires_at.since(self.issued_at)))
    }
}

/// When to try again after the `failures`-th failure in a row (counted from 1).
///
/// Exponential backoff with full jitter. A try is never put off past the beginning of the
/// mandatory window, and inside it tries follow each other within [`URGENT_RETRY_MS`]. The
/// issuer's `Retry-After` is honoured in any case.
pub fn retry_at(
    settings: &Settings,
    credential: &CredentialId,
    attempt: u64,
    failures: u32,
    now: UnixMs,
    served: Option<Served>,
    floor_ms: u64,
) -> UnixMs {
    let doublings = failures.saturating_sub(1).min(32);
    let mut step = settings
        .backoff_base_ms
        .saturating_mul(1 << doublings)
        .min(settings.backoff_cap_ms);
    let urgent_from = served
        .filter(|s| s.expires_at > now)
        .map(Served::mandatory_from);
    if urgent_from.is_some_and(|from| from <= now) {
        step = step.min(URGENT_RETRY_MS);
    }
    let mut delay = jitter(credential, ("retry", attempt), step).max(1);
    if let Some(from) = urgent_from.filter(|from| *from > now) {
        delay = delay.min(crate::time::millis(from.since(now)));
    }
    now + Duration::from_millis(delay.max(floor_ms.min(RETRY_AFTER_MAX_MS)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{CredentialKey, ProviderId};
    use crate::strategy::Strategy;

    fn credential(n: u128) -> CredentialId {
        CredentialId {
            provider: ProviderId(n),
            key: CredentialKey::new("TOKEN").unwrap(),
        }
    }

    fn config() -> RefreshConfig {
        RefreshConfig::new(
            Strategy::OAuth2ClientCredentials,
            "https://issuer.example/token",
        )
    }

    const HOUR: u64 = 3_600_000;

    #[test]
    fn a_token_is_replaced_in_its_advisory_window() {
        for (name, lifetime, change, low, high) in [
            ("an hour", HOUR, (None, None), 2_610_000, 2_790_000),
            ("a day", 24 * HOUR, (None, None), 85_410_000, 85_590_000),
            ("ten seconds", 10_000, (None, None), 7_250, 7_750),
            (
                "override",
                HOUR,
                (Some(600_000), None),
                2_940_000,
                3_060_000,
            ),
            (
                "never more than half",
                HOUR,
                (Some(HOUR), None),
                HOUR / 2,
                HOUR / 2,
            ),
            ("floor", HOUR, (None, Some(3_500_000)), 3_500_000, 3_500_000),
            (
                "floor beyond the end",
                HOUR,
                (None, Some(2 * HOUR)),
                HOUR,
                HOUR,
            ),
            ("no lifetime", 0, (None, None), 0, 0),
        ] {
            let config = RefreshConfig {
                refresh_before_ms: change.0,
                not_before_ms: change.1,
                ..config()
            };
            for n in 0..50 {
                let due = due_after_ms(&config, &credential(n), Generation(3), lifetime);
                assert!((low..=high).contains(&due), "{name}: {due}");
            }
        }
    }

    #[test]
    fn credentials_registered_together_do_not_fall_due_together() {
        let due: Vec<u64> = (0..1000)
            .map(|n| due_after_ms(&config(), &credential(n), Generation(1), HOUR))
            .collect();
        let busiest_second = (2_610..=2_790)
            .map(|s| due.iter().filter(|d| **d / 1000 == s).count())
            .max()
            .unwrap();
        assert!(busiest_second < 30, "{busiest_second} in one second");
    }

    #[test]
    fn backoff_grows_and_stays_below_its_cap() {
        let settings = Settings::default();
        for failures in 1..40 {
            for n in 0..50 {
                let at = retry_at(&settings, &credential(n), 1, failures, UnixMs(0), None, 0);
                let step = (1_000 * (1_u64 << (failures - 1).min(20))).min(300_000);
                assert!((1..=step).contains(&at.0), "{failures}: {}", at.0);
            }
        }
    }

    #[test]
    fn urgency_cuts_backoff_short_but_not_retry_after() {
        let settings = Settings::default();
        let served = Some(Served {
            issued_at: UnixMs(0),
            expires_at: UnixMs(HOUR),
        });
        let mandatory = HOUR - MANDATORY_MAX_MS;
        for n in 0..50 {
            let id = credential(n);
            let before = retry_at(&settings, &id, 1, 30, UnixMs(mandatory - 10), served, 0);
            assert!(before.0 <= mandatory);
            let inside = retry_at(&settings, &id, 1, 30, UnixMs(mandatory + 10), served, 0);
            assert!(inside.0 <= mandatory + 10 + URGENT_RETRY_MS);
            let asked = retry_at(
                &settings,
                &id,
                1,
                30,
                UnixMs(mandatory + 10),
                served,
                20_000,
            );
            assert_eq!(asked.0, mandatory + 20_010);
        }
    }

    #[test]
    fn a_lifetime_is_never_for_ever() {
        let settings = Settings::default();
        assert_eq!(lifetime_ms(&settings, &config(), None), HOUR);
        assert_eq!(
            lifetime_ms(&settings, &config(), Some(u64::MAX)),
            LIFETIME_MAX_MS
        );
        let capped = RefreshConfig {
            max_lifetime_ms: Some(5),
            ..config()
        };
        assert_eq!(lifetime_ms(&settings, &capped, Some(HOUR)), 5);
    }
}
