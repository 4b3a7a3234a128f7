//! Which endpoint to ask: the one that served last; when it fails, the next one at once; one that
//! failed only after a while.

use std::net::SocketAddr;
use std::time::Duration;

use evermint_core::time::MonoMs;

use crate::dice::Dice;
use crate::error::Refusal;

/// One address of one URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Target {
    /// The URL's place in the list of endpoints.
    pub(crate) url: usize,
    /// One of the addresses that its host has.
    pub(crate) address: SocketAddr,
}

/// Whom to ask now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pick {
    /// This one.
    Use(Target),
    /// Nobody for so long: each one has failed just before.
    Wait(Duration),
    /// Nobody: no address is known.
    Nobody,
}

/// For how long an endpoint that failed is left alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Penalty {
    /// After the first failure; doubles with each one after it.
    pub(crate) base: Duration,
    /// At most.
    pub(crate) cap: Duration,
}

/// All endpoints, and how they did.
#[derive(Debug)]
pub(crate) struct Endpoints {
    known: Vec<Known>,
    current: Option<Target>,
    /// The URL that is asked rather than others.
    preferred: Option<usize>,
    penalty: Penalty,
    dice: Dice,
}

#[derive(Debug)]
struct Known {
    target: Target,
    /// Drawn, so that the sandboxes of a cluster spread over its replicas.
    rank: u64,
    /// In a row.
    failures: u32,
    /// Left alone until then.
    out_until: MonoMs,
    /// What it refused at last.
    refusal: Option<Refusal>,
}

impl Endpoints {
    /// No endpoint yet.
    pub(crate) fn new(penalty: Penalty, preferred: Option<usize>, dice: Dice) -> Self {
        Self {
            known: Vec::new(),
            current: None,
            preferred,
            penalty,
            dice,
        }
    }

    /// These are the addresses of a URL's host now. What is known of those that stay is kept.
    pub(crate) fn resolved(&mut self, url: usize, addresses: &[SocketAddr]) {
        self.known
            .retain(|k| k.target.url != url || addresses.contains(&k.target.address));
        for address in addresses {
            let target = Target {
                url,
                address: *address,
            };
            if self.known.iter().all(|k| k.target != target) {
                let rank = self.dice.roll();
                self.known.push(Known {
                    target,
                    rank,
                    failures: 0,
                    out_until: MonoMs(0),
                    refusal: None,
                });
            }
        }
    }

    /// Whether it is still one of the endpoints.
    pub(crate) fn knows(&self, target: Target) -> bool {
        self.known.iter().any(|k| k.target == target)
    }

    /// Whom to ask at `now`.
    pub(crate) fn pick(&self, now: MonoMs) -> Pick {
        let best = self
            .known
            .iter()
            .filter(|k| k.out_until <= now)
            .min_by_key(|k| {
                let is_current = Some(k.target) == self.current;
                let is_preferred = Some(k.target.url) == self.preferred;
                (k.failures, !is_current, !is_preferred, k.rank)
            });
        if let Some(best) = best {
            return Pick::Use(best.target);
        }
        match self.known.iter().map(|k| k.out_until).min() {
            Some(soonest) => Pick::Wait(soonest.since(now)),
            None => Pick::Nobody,
        }
    }

    /// Whom to try at `now` in order to go back there; `None` while the preferred endpoint serves,
    /// and while it has just failed.
    pub(crate) fn better(&self, now: MonoMs) -> Option<Target> {
        let preferred = self.preferred?;
        if self.current.is_none_or(|current| current.url == preferred) {
            return None;
        }
        let mut candidates = self.known.iter();
        let found = candidates.find(|k| k.target.url == preferred && k.out_until <= now)?;
        Some(found.target)
    }

    /// It serves, so far. Its failures are remembered: one that begins streams and breaks them is
    /// not well.
    pub(crate) fn serves(&mut self, target: Target) {
        if let Some(known) = self.find(target) {
            known.refusal = None;
            self.current = Some(target);
        }
    }

    /// It served.
    pub(crate) fn succeeded(&mut self, target: Target) {
        self.serves(target);
        if let Some(known) = self.find(target) {
            known.failures = 0;
        }
    }

    /// It did not serve, for good perhaps, and said when to come back perhaps.
    pub(crate) fn failed(
        &mut self,
        target: Target,
        now: MonoMs,
        refusal: Option<Refusal>,
        pushback: Option<Duration>,
    ) {
        let Penalty { base, cap } = self.penalty;
        let mut dice = self.dice.clone();
        if let Some(known) = self.find(target) {
            let doubled = base.saturating_mul(1 << known.failures.min(20));
            let penalty = dice.within(doubled.min(cap));
            known.failures = known.failures.saturating_add(1);
            known.out_until = now + penalty.max(pushback.unwrap_or_default());
            known.refusal = refusal;
        }
        self.dice = dice;
        if self.current == Some(target) {
            self.current = None;
        }
    }

    /// What an endpoint refused when it was asked last. Where none serves, this is why, more
    /// likely than what the others suffer from.
    pub(crate) fn refusal(&self) -> Option<&Refusal> {
        self.known.iter().find_map(|k| k.refusal.as_ref())
    }

    fn find(&mut self, target: Target) -> Option<&mut Known> {
        self.known.iter_mut().find(|k| k.target == target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PENALTY: Penalty = Penalty {
        base: Duration::from_millis(200),
        cap: Duration::from_secs(10),
    };

    fn address(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 7600))
    }

    fn target(host: u8) -> Target {
        Target {
            url: 0,
            address: address(host),
        }
    }

    fn three() -> Endpoints {
        let mut endpoints = Endpoints::new(PENALTY, None, Dice::seeded(1));
        endpoints.resolved(0, &[address(1), address(2), address(3)]);
        endpoints
    }

    fn picked(endpoints: &Endpoints, now: u64) -> Target {
        match endpoints.pick(MonoMs(now)) {
            Pick::Use(target) => target,
            other => panic!("{other:?}"),
        }
    }

    fn fail(endpoints: &mut Endpoints, target: Target, now: u64) {
        endpoints.failed(target, MonoMs(now), None, None);
    }

    #[test]
    fn every_endpoint_is_tried_at_once_before_any_is_waited_for() {
        let mut endpoints = three();
        let mut tried = Vec::new();
        for _ in 0..3 {
            let target = picked(&endpoints, 1_000);
            fail(&mut endpoints, target, 1_000);
            tried.push(target);
        }
        tried.sort();
        assert_eq!(tried, [target(1), target(2), target(3)]);
        let Pick::Wait(pause) = endpoints.pick(MonoMs(1_000)) else {
            panic!("all three have failed just now");
        };
        assert!((100..=200).contains(&pause.as_millis()), "{pause:?}");
        assert!(matches!(
            endpoints.pick(MonoMs(1_000) + pause),
            Pick::Use(_)
        ));
    }

    #[test]
    fn the_one_that_served_is_kept_until_it_fails() {
        let mut endpoints = three();
        let first = picked(&endpoints, 0);
        let other = if first == target(1) {
            target(2)
        } else {
            target(1)
        };
        endpoints.succeeded(other);
        assert_eq!(picked(&endpoints, 0), other);
        fail(&mut endpoints, other, 0);
        assert_ne!(picked(&endpoints, 0), other);
        // Its time is over, but another one is well.
        assert_ne!(picked(&endpoints, 60_000), other);
    }

    #[test]
    fn the_time_out_doubles_up_to_the_cap_and_a_success_ends_it() {
        let mut endpoints = Endpoints::new(PENALTY, None, Dice::seeded(3));
        endpoints.resolved(0, &[address(1)]);
        for step in [200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000] {
            fail(&mut endpoints, target(1), 0);
            let Pick::Wait(pause) = endpoints.pick(MonoMs(0)) else {
                panic!("it has just failed");
            };
            let bounds = Duration::from_millis(step / 2)..=Duration::from_millis(step);
            assert!(bounds.contains(&pause), "{pause:?} at {step}");
        }
        for (served, longest) in [(false, PENALTY.cap), (true, PENALTY.base)] {
            endpoints.serves(target(1));
            if served {
                endpoints.succeeded(target(1));
            }
            fail(&mut endpoints, target(1), 0);
            let Pick::Wait(pause) = endpoints.pick(MonoMs(0)) else {
                panic!("it has just failed");
            };
            assert!((longest / 2..=longest).contains(&pause), "{pause:?}");
        }
    }

    #[test]
    fn an_endpoint_is_not_asked_before_it_said_to() {
        let mut endpoints = Endpoints::new(PENALTY, None, Dice::seeded(3));
        endpoints.resolved(0, &[address(1)]);
        let minute = Duration::from_secs(60);
        endpoints.failed(target(1), MonoMs(0), None, Some(minute));
        assert_eq!(endpoints.pick(MonoMs(0)), Pick::Wait(minute));
    }

    #[test]
    fn addresses_come_and_go_and_those_that_stay_keep_their_record() {
        let mut endpoints = three();
        fail(&mut endpoints, target(1), 0);
        endpoints.succeeded(target(2));
        endpoints.resolved(0, &[address(1), address(4)]);
        endpoints.resolved(1, &[address(4)]);
        assert_eq!(
            endpoints.known.len(),
            3,
            "an address of two URLs counts twice"
        );
        assert!(endpoints.knows(target(1)) && !endpoints.knows(target(2)));
        // The one that served is gone, and the one that failed is still out.
        assert_eq!(picked(&endpoints, 0).address, address(4));
        endpoints.succeeded(target(2));
        assert_eq!(picked(&endpoints, 0).address, address(4));
    }

    #[test]
    fn sandboxes_spread_over_the_endpoints() {
        let mut chosen = [0; 3];
        for seed in 0..300 {
            let mut endpoints = Endpoints::new(PENALTY, None, Dice::seeded(seed));
            endpoints.resolved(0, &[address(1), address(2), address(3)]);
            let first = picked(&endpoints, 0);
            chosen[(1..=3).position(|n| target(n) == first).unwrap()] += 1;
        }
        assert!(chosen.iter().all(|n| *n > 60), "{chosen:?}");
    }

    #[test]
    fn a_refusal_stands_until_its_endpoint_says_something_else() {
        let refusal = Refusal {
            code: tonic::Code::Unauthenticated,
            reason: None,
            message: "who are you".to_owned(),
        };
        let mut endpoints = three();
        assert_eq!(endpoints.refusal(), None);
        endpoints.failed(target(1), MonoMs(0), Some(refusal.clone()), None);
        fail(&mut endpoints, target(2), 0);
        assert_eq!(endpoints.refusal(), Some(&refusal));
        fail(&mut endpoints, target(1), 0);
        assert_eq!(endpoints.refusal(), None);
    }

    #[test]
    fn the_preferred_endpoint_is_asked_first_and_gone_back_to() {
        for seed in 0..20 {
            let mut endpoints = Endpoints::new(PENALTY, Some(1), Dice::seeded(seed));
            endpoints.resolved(0, &[address(1), address(2)]);
            endpoints.resolved(1, &[address(3)]);
            let preferred = picked(&endpoints, 0);
            assert_eq!(preferred.address, address(3));
            endpoints.succeeded(preferred);
            assert_eq!(endpoints.better(MonoMs(0)), None, "it serves");
            fail(&mut endpoints, preferred, 0);
            let other = picked(&endpoints, 0);
            endpoints.succeeded(other);
            assert_eq!(endpoints.better(MonoMs(0)), None, "it has just failed");
            assert_eq!(endpoints.better(MonoMs(60_000)), Some(preferred));
            assert_eq!(picked(&endpoints, 60_000), other, "until it has answered");
            endpoints.succeeded(preferred);
            assert_eq!(picked(&endpoints, 60_000), preferred);
        }
    }

    #[test]
    fn with_no_address_known_there_is_nobody() {
        let mut endpoints = Endpoints::new(PENALTY, None, Dice::seeded(1));
        assert_eq!(endpoints.pick(MonoMs(0)), Pick::Nobody);
        endpoints.resolved(0, &[address(1)]);
        endpoints.resolved(0, &[]);
        assert_eq!(endpoints.pick(MonoMs(0)), Pick::Nobody);
    }
}
