//! The ends of root material. Client secrets, certificates and refresh tokens end too, and without
//! a word of it the first sign is a mint that fails. Operators declare these ends; status announces
//! the first one before it comes.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::UnixMs;

const DAY: Duration = Duration::from_secs(86_400);

/// From this long before its end on, the end of a piece of material is announced.
pub const SOON: Duration = Duration::from_secs(30 * 86_400);

/// From this long before its end on, the announcement is urgent.
pub const URGENT: Duration = Duration::from_secs(7 * 86_400);

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
