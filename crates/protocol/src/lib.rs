//! The protocol of Evermint as plain state machines: events and time go in, actions come out.
//!
//! Nothing here does IO, reads a clock, draws a random number or knows of tokio. The real shells
//! (actors, Raft, gateway) and the simulation in `tests/sim` drive the same code, so what the
//! simulation proves holds for what runs.
//!
//! | machine | question |
//! | --- | --- |
//! | [`owner::Owner`] | how does one credential get its next value? |
//! | [`recovery`] | what does a replica owe for tickets of its former lives? |
//! | [`leader::Leader`] | which tickets have ended, and who owns which shard? |
//! | [`reader`] | may this replica answer this read? |
//! | [`clock::ClusterClock`] | what time is it for the cluster? |
//! | [`deadline::Deadline`] | is the time of this ticket up, on any clock? |

pub mod clock;
pub mod deadline;
pub mod journal;
pub mod leader;
pub mod owner;
pub mod reader;
pub mod recovery;
pub mod revoker;
