//! What all objects of this face have in common: a name in a workspace, and a place in a list.

use evermint_core::command::Done;
use evermint_core::id::{Name, Workspace};
use evermint_core::time::UnixMs;
use tonic::Status;

use super::status;

/// Entries of a page that says no size.
const PAGE: usize = 100;
/// Most entries of a page.
const PAGE_MAX: usize = 1000;

/// The workspace of a request; an empty one is the default.
///
/// # Errors
/// `NOT_FOUND`: a text that cannot be a workspace's name is the name of none.
pub(super) fn workspace(text: &str) -> Result<Workspace, Status> {
    if text.is_empty() {
        return Ok(Workspace::default_workspace());
    }
    Workspace::new(text).map_err(|_| status::no_workspace(text))
}

/// The name of something that a request looks for. A text that cannot be a name is the name of
/// nothing, and gives `None`.
///
/// # Errors
/// `INVALID_ARGUMENT` for an empty one.
pub(super) fn wanted(field: &str, text: &str) -> Result<Option<Name>, Status> {
    if text.trim().is_empty() {
        return Err(status::invalid(format!("{field} is required")));
    }
    Ok(Name::new(text).ok())
}

/// Whether a command changed anything.
pub(super) fn changed(done: &Done) -> bool {
    !matches!(done, Done::Changed(false))
}

/// A time as this face writes it.
pub(super) fn millis(time: UnixMs) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

/// The page of `limit` objects after the first `offset`.
pub(super) fn page<T>(all: Vec<T>, limit: u32, offset: u32) -> impl Iterator<Item = T> {
    let size = match usize::try_from(limit).unwrap_or(PAGE_MAX) {
        0 => PAGE,
        size => size.min(PAGE_MAX),
    };
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    all.into_iter().skip(offset).take(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_bounds() {
        let cut = |limit, offset| page((0..2500).collect(), limit, offset).collect::<Vec<u32>>();
        for (limit, offset, first, len) in [
            (0, 0, Some(0), 100),
            (7, 3, Some(3), 7),
            (5000, 0, Some(0), 1000),
            (1000, 2400, Some(2400), 100),
            (1, 2500, None, 0),
            (1, u32::MAX, None, 0),
        ] {
            let got = cut(limit, offset);
            assert_eq!(
                (got.first().copied(), got.len()),
                (first, len),
                "{limit} {offset}"
            );
        }
    }

    #[test]
    fn names_are_looked_for_as_they_are() {
        assert_eq!(workspace("").unwrap().as_str(), "default");
        assert_eq!(workspace("a b").unwrap_err().code(), tonic::Code::NotFound);
        assert_eq!(
            wanted("name", " ").unwrap_err().message(),
            "name is required"
        );
        assert_eq!(wanted("name", "a b").unwrap(), None);
    }
}
