//! Defects that are built in on purpose, one at a time: a simulation that does not find them
//! would prove nothing.

/// A defect in what surrounds the protocol's machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The owner never looks at its deadline.
    SkipDeadline,
    /// The leader measures tickets by its wall clock.
    ExpireByWallClock,
    /// A result is accepted under whatever ticket is current.
    AcceptReplacedTicket,
    /// A new owner of a shard need not wait for the tickets of the old one.
    ReassignWithoutWaiting,
    /// A replica that restarts does not read its journal.
    ForgetJournal,
    /// A ticket is granted whatever the attempt that it was asked for as.
    NoAttemptCheck,
    /// The request is sent without a word in the journal.
    SendUnannounced,
    /// The answer is proposed without a word in the journal.
    CommitUnjournalled,
    /// A replica answers readers who have seen more than it has.
    IgnoreMinGeneration,
    /// A replica measures its staleness by a clock that stands still while it is suspended.
    StalenessByMonotonicClock,
    /// The log does not remember that a sandbox was given an early mint.
    ForgetEarly,
    /// The leader stamps by its own wall clock.
    StampByOwnWall,
    /// A mint in doubt is tried again as soon as a majority is back.
    GambleAtOnce,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::SkipDeadline,
        Self::ExpireByWallClock,
        Self::AcceptReplacedTicket,
        Self::ReassignWithoutWaiting,
        Self::ForgetJournal,
        Self::NoAttemptCheck,
        Self::SendUnannounced,
        Self::CommitUnjournalled,
        Self::IgnoreMinGeneration,
        Self::StalenessByMonotonicClock,
        Self::ForgetEarly,
        Self::StampByOwnWall,
        Self::GambleAtOnce,
    ];

    /// The promise that it breaks.
    pub fn breaks(self) -> &'static str {
        match self {
            Self::NoAttemptCheck => "G1",
            Self::SkipDeadline | Self::ExpireByWallClock | Self::ReassignWithoutWaiting => "G2",
            Self::AcceptReplacedTicket => "G3",
            Self::ForgetJournal
            | Self::SendUnannounced
            | Self::CommitUnjournalled
            | Self::GambleAtOnce => "G5",
            Self::IgnoreMinGeneration => "G6",
            Self::StalenessByMonotonicClock | Self::StampByOwnWall => "G7",
            Self::ForgetEarly => "I10",
        }
    }
}
