//! Defects that are built in on purpose: checks that do not find them would prove nothing.

/// A defect in a whole replica. The simulation has its own, of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A write is acknowledged before it is on the disk.
    AckBeforeFlush,
    /// A ticket counts for nothing once its owner is being replaced.
    NoTicketCheck,
    /// A replica answers readers who have seen more than it has.
    NoFence,
    /// A value is served past its end.
    NoExpiry,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::AckBeforeFlush,
        Self::NoTicketCheck,
        Self::NoFence,
        Self::NoExpiry,
    ];

    /// Its name, as it stands in [`PLANTED`](crate::PLANTED).
    pub const fn name(self) -> &'static str {
        match self {
            Self::AckBeforeFlush => "ack-before-flush",
            Self::NoTicketCheck => "no-ticket-check",
            Self::NoFence => "no-fence",
            Self::NoExpiry => "no-expiry",
        }
    }
}
