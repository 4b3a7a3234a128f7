//! Chaos: clusters of real `evermint serve` processes under seeded faults, and what was seen of
//! them from outside. `README.md` says how to run it, and what was found.
//!
//! | part | what it is |
//! | --- | --- |
//! | [`run`] | one run from begin to end: read this first |
//! | [`world`] | what everyone shares: places, network, issuers, what is known of them now |
//! | [`place`], [`net`], [`door`] | replicas as processes, the network between them, their way to an issuer |
//! | [`operator`], [`load`] | calls as operators make them, each noted with how it ended |
//! | [`sandbox`], [`unfenced`] | readers that note what they are given: Evermint's own, and OpenShell's |
//! | [`nemesis`] | faults, a file for each family |
//! | [`failpoint`], [`disk`] | the places at which a replica can be stopped; disks that lose their power |
//! | [`campaign`] | a number of faults of some kinds, and a table of them |
//! | [`check`] | what must hold of the history, one file for each promise |
//! | [`report`] | counts, failovers, timeline and verdict, as text and as a picture |
//! | [`history`] | what was seen: every call, read, issuer request and fault, one line each |

pub mod campaign;
pub mod check;
pub mod dice;
pub mod disk;
pub mod door;
pub mod failpoint;
pub mod finale;
pub mod history;
pub mod load;
pub mod nemesis;
pub mod net;
pub mod operator;
pub mod place;
pub mod report;
pub mod run;
pub mod sandbox;
pub mod settings;
pub mod spawn;
pub mod start;
pub mod tool;
pub mod unfenced;
pub mod watcher;
pub mod world;
