//! What all objects of this face have in common: a name in a workspace, times, and a place in a
//! list.

use std::fmt::Display;
use std::str::FromStr;

use evermint_core::command::{Command, Done};
use evermint_core::id::{Name, ProviderType, Workspace};
use evermint_core::time::UnixMs;
use tonic::Status;
use uuid::Uuid;

use super::{Face, status};
use crate::names;
use crate::shared::Written;

/// Entries of a page that says no size.
const PAGE: usize = 100;
/// Most entries of a page.
const PAGE_MAX: usize = 1000;

impl Face {
    /// Brings this replica up to date, if a leader answers: this face's clients expect to see
    /// through one replica what they wrote through another.
    pub(super) async fn settle(&self) {
        if let Err(status) = self.catch_up().await {
            tracing::debug!({ names::CODE } = ?status.code(), "a read is served as it stands");
        }
    }

    /// The workspace of a request, as it is now; an empty one is the default.
    ///
    /// # Errors
    /// `NOT_FOUND` for one that is not there; when no leader answers, whom a replica asks before it
    /// says so.
    pub(super) async fn workspace(&self, text: &str) -> Result<Workspace, Status> {
        self.settle().await;
        if text.is_empty() {
            return Ok(Workspace::default_workspace());
        }
        let none = || status::no_workspace(text);
        let workspace = Workspace::new(text).map_err(|_| none())?;
        // A gateway behind has workspaces of its own, in which nothing of ours need be yet.
        if self.behind().is_none() {
            self.find(|state| state.has_workspace(&workspace).then_some(()))
                .await?
                .ok_or_else(none)?;
        }
        Ok(workspace)
    }

    /// Proposes a command, whose refusal is told in this face's words.
    pub(super) async fn commit(&self, command: Command) -> Result<Written, Status> {
        let decided = self.decide(command).await?;
        decided.map_err(|refusal| status::refused(&refusal))
    }
}

/// The name of something that a request looks for. A text that cannot be a name is the name of
/// nothing, and gives `None`.
///
/// # Errors
/// `INVALID_ARGUMENT` for an empty one.
pub(super) fn wanted<T: FromStr>(field: &str, text: &str) -> Result<Option<T>, Status> {
    if text.trim().is_empty() {
        return Err(status::invalid(format!("{field} is required")));
    }
    Ok(text.parse().ok())
}

/// A field that has to be of a form.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub(super) fn parse<T>(field: &str, text: &str) -> Result<T, Status>
where
    T: FromStr,
    T::Err: Display,
{
    text.parse()
        .map_err(|error: T::Err| status::invalid(format!("{field} {error}")))
}

/// A name for an object whose creator gave it none.
pub(super) fn generated(kind: &ProviderType) -> Name {
    let tail = Uuid::new_v4().simple().to_string();
    Name::new(format!("{kind}-{}", &tail[..8])).expect("a type, a dash and digits are a name")
}

/// Whether a command changed anything.
pub(super) fn changed(done: &Done) -> bool {
    !matches!(done, Done::Changed(false))
}

/// A time as this face writes it.
pub(super) fn millis(time: UnixMs) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

/// A time as this face reads it; `None` for one that stands for no time.
pub(super) fn time(ms: i64) -> Option<UnixMs> {
    u64::try_from(ms).ok().filter(|ms| *ms > 0).map(UnixMs)
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
        let blank = wanted::<Name>("name", " ").unwrap_err();
        assert_eq!(blank.message(), "name is required");
        assert_eq!(wanted::<Name>("name", "a b").unwrap(), None);
        assert_eq!(wanted::<Name>("name", "A").unwrap().unwrap().as_str(), "A");
    }

    #[test]
    fn no_time_is_before_the_epoch() {
        for (ms, read) in [(-5, None), (0, None), (7, Some(UnixMs(7)))] {
            assert_eq!(time(ms), read);
        }
        assert_eq!(millis(UnixMs(u64::MAX)), i64::MAX);
    }
}
