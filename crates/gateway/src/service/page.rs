//! Pages of lists. A page token names the last object of the page before, so that a list that
//! changes meanwhile skips nothing and repeats nothing that stands still.

use evermint_core::time::UnixMs;

use crate::rim::Rim;

/// Entries of a page that says no size.
const DEFAULT: usize = 100;
/// Most entries of a page.
const MAX: usize = 1000;

/// The number of entries that `asked` stands for.
pub(super) fn size(asked: u32) -> usize {
    match usize::try_from(asked).unwrap_or(MAX) {
        0 => DEFAULT,
        size => size.min(MAX),
    }
}

/// The place of an object in a list that is ordered by age.
pub(super) type Age = (UnixMs, u128);

/// The token of the page after the object at `age`.
pub(super) fn age_token((created_at, id): Age) -> String {
    format!("{:x}.{id:x}", created_at.0)
}

/// Reads a token back; an empty one stands for the first page.
pub(super) fn parse_age(rim: &mut Rim, token: &str) -> Option<Option<Age>> {
    if token.is_empty() {
        return Some(None);
    }
    let age = token.split_once('.').and_then(|(created_at, id)| {
        let created_at = u64::from_str_radix(created_at, 16).ok()?;
        let id = u128::from_str_radix(id, 16).ok()?;
        Some((UnixMs(created_at), id))
    });
    if age.is_none() {
        rim.problem("page_token", "is not a token that this service gave");
    }
    age.map(Some)
}

/// The page of `size` objects after `after`, by age, and the token of the next page.
pub(super) fn by_age<T>(
    objects: impl Iterator<Item = (Age, T)>,
    after: Option<Age>,
    size: usize,
) -> (Vec<T>, String) {
    let mut rest: Vec<(Age, T)> = objects
        .filter(|(age, _)| after.is_none_or(|after| *age > after))
        .collect();
    rest.sort_unstable_by_key(|(age, _)| *age);
    let more = rest.len() > size;
    rest.truncate(size);
    let token = match rest.last() {
        Some((age, _)) if more => age_token(*age),
        _ => String::new(),
    };
    (rest.into_iter().map(|(_, object)| object).collect(), token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_cover_everything_once() {
        let objects = || (0..25_u128).map(|id| ((UnixMs(u64::try_from(id % 3).unwrap()), id), id));
        let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let (page, token) = by_age(objects(), after, 10);
            seen.extend(page);
            pages += 1;
            if token.is_empty() {
                break;
            }
            after = parse_age(&mut Rim::default(), &token).unwrap();
        }
        assert_eq!(pages, 3);
        seen.sort_unstable();
        assert_eq!(seen, (0..25).collect::<Vec<_>>());
    }

    #[test]
    fn a_full_last_page_has_no_successor() {
        let objects = (0..10_u128).map(|id| ((UnixMs(0), id), id));
        let (page, token) = by_age(objects, None, 10);
        assert_eq!((page.len(), token.as_str()), (10, ""));
    }

    #[test]
    fn sizes_are_bounded() {
        for (asked, size_given) in [
            (0, 100),
            (1, 1),
            (1000, 1000),
            (1001, 1000),
            (u32::MAX, 1000),
        ] {
            assert_eq!(size(asked), size_given);
        }
    }
}
