//! The ends of root material. Client secrets, certificates and refresh tokens end too, and without
//! a word of it the first sign is a mint that fails. Operators declare these ends, and issuers tell
//! that of a refresh token with each answer; status announces the first one before it comes.
//!
//! An end that each mint puts off is no news: the next mint is due before it. One that stays where
//! it was from one mint to the next is the end of the authorization, and a person has to act.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::credential::{LearnedEnd, Refresh};
use crate::time::UnixMs;

const DAY: Duration = Duration::from_secs(86_400);

/// From this long before its end on, the end of a piece of material is announced.
pub const SOON: Duration = Duration::from_secs(30 * 86_400);

/// What a second piece of material beside a first one is called: the first one's name and this.
pub const NEXT: &str = "_next";

/// From this long before its end on, the announcement is urgent.
pub const URGENT: Duration = Duration::from_secs(7 * 86_400);

/// A mint whose answer told ends.
#[derive(Clone, Copy, Debug)]
pub struct Mint {
    /// When it was asked for: lifetimes count from there.
    pub at: UnixMs,
    /// When the one before was committed.
    pub before: Option<UnixMs>,
}

/// Takes in what an answer said: how long pieces of material last, in milliseconds. A piece that
/// `is_renewed` without a word of its end has an unknown one.
pub fn learn(
    known: &mut BTreeMap<String, LearnedEnd>,
    mint: Mint,
    lifetimes_ms: &BTreeMap<String, u64>,
    is_renewed: impl Fn(&str) -> bool,
) {
    known.retain(|name, _| lifetimes_ms.contains_key(name) || !is_renewed(name));
    for (name, ms) in lifetimes_ms {
        let at = mint.at + Duration::from_millis(*ms);
        let between = mint.before.map_or(Duration::ZERO, |b| mint.at.since(b));
        // Put off by less than half of the time that has passed: it does not move.
        let is_fixed = match known.get(name) {
            Some(was) if between > Duration::ZERO => at.since(was.at) < between / 2,
            Some(was) => was.is_fixed,
            None => false,
        };
        known.insert(name.clone(), LearnedEnd { at, is_fixed });
    }
}

/// When the material of a refresh ends: as the issuer said last, or else the operator.
pub fn ends(refresh: &Refresh) -> BTreeMap<String, UnixMs> {
    let learned = refresh.learned_ends.iter();
    let learned = learned.map(|(name, end)| (name.clone(), end.at));
    let mut ends = refresh.config.material_ends.clone();
    ends.extend(learned);
    ends
}

/// The ends about which a person has to do something: those that no mint puts off, and where two
/// pieces are valid side by side (`client_secret` and `client_secret_next`), the later one.
pub fn deadlines(refresh: &Refresh) -> BTreeMap<String, UnixMs> {
    let mut deadlines = ends(refresh);
    let learned = &refresh.learned_ends;
    deadlines.retain(|name, _| learned.get(name).is_none_or(|end| end.is_fixed));
    let beside = refresh.material.keys().filter_map(|next| {
        let name = next.strip_suffix(NEXT)?;
        refresh.material.contains_key(name).then_some((name, next))
    });
    for (name, next) in beside {
        let ends = (deadlines.remove(name), deadlines.remove(next));
        if let (Some(end), Some(next_end)) = ends {
            let later = if end < next_end { next.as_str() } else { name };
            deadlines.insert(later.to_owned(), end.max(next_end));
        }
    }
    deadlines
}

/// What is said of the piece of material that ends first, and what to do, once its end is near.
pub fn announcement(
    ends: &BTreeMap<String, UnixMs>,
    now: UnixMs,
) -> Option<(String, &'static str)> {
    let (name, end) = ends.iter().min_by_key(|(_, end)| **end)?;
    let left = end.since(now);
    let days = left.as_secs() / DAY.as_secs();
    let when = match days {
        _ if *end <= now => "has ended".to_owned(),
        0 => "ends within a day".to_owned(),
        1 => "ends in 1 day".to_owned(),
        days => format!("ends in {days} days"),
    };
    let remedy = match left {
        left if left <= URGENT => {
            "replace it now: get a new one from the issuer and configure the refresh with it"
        }
        left if left <= SOON => {
            "replace it in time: get a new one from the issuer and configure the refresh with it"
        }
        _ => return None,
    };
    Some((format!("material {name} {when}"), remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_end_is_announced_when_it_is_near() {
        let now = UnixMs(1_000);
        let in_days = |days: u64| now + DAY * u32::try_from(days).unwrap();
        for (days, said, todo) in [
            (31, "", ""),
            (30, "material b ends in 30 days", "in time"),
            (8, "material b ends in 8 days", "in time"),
            (7, "material b ends in 7 days", "now"),
            (1, "material b ends in 1 day", "now"),
            (0, "material b has ended", "now"),
        ] {
            let ends = BTreeMap::from([
                ("a".to_owned(), in_days(100)),
                ("b".to_owned(), in_days(days)),
            ]);
            let (cause, remedy) = announcement(&ends, now).unwrap_or_default();
            assert_eq!(cause, said);
            assert!(remedy.contains(todo), "{remedy}");
        }
        let ends = BTreeMap::from([("a".to_owned(), now + DAY / 2)]);
        let (cause, _) = announcement(&ends, now).unwrap();
        assert_eq!(cause, "material a ends within a day");
        assert_eq!(announcement(&BTreeMap::new(), now), None);
    }
}
