//! Waiting for the end of a mint that an operator asked for.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use evermint_proto::v1;

use super::refresh::statuses;
use crate::cli::Client;
use crate::duration::Time;
use crate::exit::NO_OUTCOME;
use crate::page::span;

/// How often the status is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A mint that is waited for.
pub(super) struct Wish<'a> {
    /// The provider's name.
    pub(super) provider: &'a str,
    /// The credential.
    pub(super) key: &'a str,
    /// The configuration under which it was asked for.
    pub(super) epoch: u64,
    /// Where the wish stands in the history: what a replica says that is behind does not count.
    pub(super) position: u64,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// A value is committed.
    Minted,
    /// The mint failed.
    Failed,
    /// Its outcome is unknown.
    InDoubt,
    /// The refresh was configured anew or deleted first.
    Voided,
    /// There was no outcome in time.
    Due,
}

impl End {
    /// The word that JSON shows.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Minted => "minted",
            Self::Failed => "failed",
            Self::InDoubt => "in-doubt",
            Self::Voided => "voided",
            Self::Due => "due",
        }
    }

    /// What became of `what`, for people.
    pub(super) fn told(self, what: &str, bound: Time) -> String {
        match self {
            Self::Minted => format!("{what} minted"),
            Self::Failed => format!("{what} could not be minted"),
            Self::InDoubt => format!("{what} is in doubt: nobody knows how its mint ended"),
            Self::Voided => format!("{what} was configured anew or deleted meanwhile"),
            Self::Due => format!("{what} is due; no outcome within {bound}"),
        }
    }

    /// The exit code of a command that waited.
    pub(super) fn code(self) -> ExitCode {
        match self {
            Self::Minted => ExitCode::SUCCESS,
            Self::Failed | Self::Voided => ExitCode::FAILURE,
            Self::InDoubt | Self::Due => ExitCode::from(NO_OUTCOME),
        }
    }

    /// The end of the mint that was wished for under `epoch`, if it has come to one.
    fn of(status: &v1::RefreshStatus, epoch: u64) -> Option<Self> {
        if status.authorization_epoch != epoch {
            return Some(Self::Voided);
        }
        if status.doubt.is_some() {
            return Some(Self::InDoubt);
        }
        let is_wish = |reason| matches!(reason, v1::Reason::Rotate | v1::Reason::First);
        let is_minting = status.ticket.as_ref().is_some_and(|t| is_wish(t.reason()));
        if is_minting || is_wish(status.wanted()) {
            return None;
        }
        Some(match status.failures {
            0 => Self::Minted,
            _ => Self::Failed,
        })
    }
}

/// Waits for the end of `wish`, for at most `bound`; shows on a terminal what goes on. Gives the
/// newest status, if there is one left.
///
/// # Errors
/// What the gateways refused.
pub(super) async fn settle(
    client: &Client,
    wish: &Wish<'_>,
    bound: Time,
) -> Result<(End, Option<v1::RefreshStatus>)> {
    let started = Instant::now();
    let mut line = Line::default();
    let mut newest = None;
    loop {
        let answer = statuses(client, wish.provider, wish.key, false).await?;
        if answer.position >= wish.position {
            let Some(status) = answer.refreshes.into_iter().next() else {
                return Ok((End::Voided, newest));
            };
            if let Some(end) = End::of(&status, wish.epoch) {
                return Ok((end, Some(status)));
            }
            newest = Some(status);
        }
        let elapsed = started.elapsed();
        if elapsed >= bound.get() {
            return Ok((End::Due, newest));
        }
        line.show(&progress(newest.as_ref(), elapsed));
        tokio::time::sleep(LOOK_EVERY.min(bound.get() - elapsed)).await;
    }
}

fn progress(status: Option<&v1::RefreshStatus>, elapsed: Duration) -> String {
    let ticket = status.and_then(|s| s.ticket.as_ref());
    let doing = match ticket {
        Some(ticket) => format!("minting on replica {}", ticket.replica),
        None => "waiting for the mint to start".to_owned(),
    };
    format!("{doing}, {}", span(evermint_core::time::millis(elapsed)))
}

/// A line on standard error that is written over and over, where that is a terminal.
#[derive(Default)]
struct Line {
    shown: bool,
}

impl Line {
    fn show(&mut self, text: &str) {
        let mut stderr = std::io::stderr().lock();
        if stderr.is_terminal() {
            self.shown = true;
            // Nobody is left to be told if this fails.
            let _ = write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush());
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(wanted: v1::Reason, ticket: Option<v1::Reason>, failures: u32) -> v1::RefreshStatus {
        v1::RefreshStatus {
            authorization_epoch: 7,
            wanted: wanted.into(),
            ticket: ticket.map(|reason| v1::Ticket {
                reason: reason.into(),
                ..Default::default()
            }),
            failures,
            ..Default::default()
        }
    }

    #[test]
    fn a_wish_ends_with_the_first_ticket_that_was_granted_for_it() {
        use v1::Reason::{Due, First, Retry, Rotate};
        for (status, end) in [
            (status(Rotate, None, 0), None),
            // An earlier mint is under way: the wish comes next.
            (status(Rotate, Some(Due), 0), None),
            (status(Retry, Some(Rotate), 0), None),
            (status(First, None, 0), None),
            (status(Retry, Some(First), 3), None),
            (status(Due, None, 0), Some(End::Minted)),
            // The next one is under way already.
            (status(Retry, Some(Due), 0), Some(End::Minted)),
            (status(Retry, None, 1), Some(End::Failed)),
            (status(Retry, Some(Retry), 1), Some(End::Failed)),
        ] {
            assert_eq!(End::of(&status, 7), end, "{status:?}");
        }
        assert_eq!(End::of(&status(Due, None, 0), 8), Some(End::Voided));
        let doubt = v1::RefreshStatus {
            doubt: Some(v1::Doubt::default()),
            ..status(Rotate, None, 0)
        };
        assert_eq!(End::of(&doubt, 7), Some(End::InDoubt));
    }
}
