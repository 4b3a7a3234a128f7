//! Where a replica can be stopped, and how.

use std::fmt;
use std::str::FromStr;

/// A place in a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// A mint is due; its ticket is not asked for yet.
    BeforeTicket,
    /// The ticket is granted; the owner knows, its journal does not.
    AfterTicket,
    /// The journal says `sending`; nothing was sent.
    BeforeSend,
    /// The issuer's answer is in memory alone.
    AfterAnswer,
    /// The journal has the answer.
    AfterJournal,
    /// The result is about to be proposed.
    BeforeCommit,
    /// The result is committed; the journal still has it.
    AfterCommit,
    /// The leader is about to end a ticket.
    BeforeExpire,
    /// A ticket is ended.
    AfterExpire,
    /// The leader is about to give shards to replicas.
    BeforeAssign,
    /// Shards are given.
    AfterAssign,
    /// Something was written to the store; nothing of it is on the disk.
    BeforeSync,
    /// It is on the disk; nobody was told.
    AfterSync,
    /// Log entries are about to be applied.
    BeforeApply,
    /// A snapshot has arrived; nothing of it is written.
    BeforeInstall,
    /// A snapshot is on the disk; the old state still counts.
    BeforeSwitch,
    /// A snapshot has become the state.
    AfterInstall,
}

impl Point {
    /// The steps of a mint, in their order; their subject is the credential's key.
    pub const MINT: [Self; 7] = [
        Self::BeforeTicket,
        Self::AfterTicket,
        Self::BeforeSend,
        Self::AfterAnswer,
        Self::AfterJournal,
        Self::BeforeCommit,
        Self::AfterCommit,
    ];

    /// The leader's duties; the subject of an expiry is the credential's key.
    pub const DUTIES: [Self; 4] = [
        Self::BeforeExpire,
        Self::AfterExpire,
        Self::BeforeAssign,
        Self::AfterAssign,
    ];

    /// What happens at the disk.
    pub const STORE: [Self; 6] = [
        Self::BeforeSync,
        Self::AfterSync,
        Self::BeforeApply,
        Self::BeforeInstall,
        Self::BeforeSwitch,
        Self::AfterInstall,
    ];

    /// Its name: that of the file that arms it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BeforeTicket => "before-ticket",
            Self::AfterTicket => "after-ticket",
            Self::BeforeSend => "before-send",
            Self::AfterAnswer => "after-answer",
            Self::AfterJournal => "after-journal",
            Self::BeforeCommit => "before-commit",
            Self::AfterCommit => "after-commit",
            Self::BeforeExpire => "before-expire",
            Self::AfterExpire => "after-expire",
            Self::BeforeAssign => "before-assign",
            Self::AfterAssign => "after-assign",
            Self::BeforeSync => "before-sync",
            Self::AfterSync => "after-sync",
            Self::BeforeApply => "before-apply",
            Self::BeforeInstall => "before-install",
            Self::BeforeSwitch => "before-switch",
            Self::AfterInstall => "after-install",
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What happens to the process at an armed point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It kills itself with SIGKILL.
    Kill,
    /// It stops itself with SIGSTOP, all threads, until somebody sends SIGCONT.
    Stop,
    /// What it tried fails; where [`check`](crate::check) is asked.
    Fail,
    /// Only this place waits, as long as its file is there; where [`hold`](crate::hold) or
    /// [`check`](crate::check) is asked.
    Hold,
}

impl Action {
    /// Its name: the first word of an armed point's file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Fail => "fail",
            Self::Hold => "hold",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Action {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let all = [Self::Kill, Self::Stop, Self::Fail, Self::Hold];
        all.into_iter().find(|a| a.name() == name).ok_or(())
    }
}
