//! Named places at which a test can stop a replica, and defects that a test can plant in it.
//!
//! A replica calls [`reach`] where a crash would be interesting. In every build but that of the
//! chaos tests (the feature `failpoints`) the call is an empty function, and [`planted`] is the
//! constant `false`: nothing of this is left in the program.
//!
//! In a test build, the directory named by [`DIRECTORY`] steers one process from outside, live.
//! Whoever wants it killed at a point writes a file of the point's name into it, with the
//! [`Action`] and, if only one subject is meant, its name:
//!
//! ```text
//! echo 'kill CRM_TOKEN' > DIR/before-commit
//! ```
//!
//! Before it acts, the process renames the file to `before-commit.hit`: so each arming acts once,
//! and the test sees that its fault took effect. Defects stand in [`PLANTED`] when it starts.

mod bug;
mod point;

#[cfg(feature = "failpoints")]
mod armed;
#[cfg(not(feature = "failpoints"))]
mod disarmed;

#[cfg(feature = "failpoints")]
pub use armed::{MARK, check, hold, planted, reach};
#[cfg(not(feature = "failpoints"))]
pub use disarmed::{check, hold, planted, reach};

pub use bug::Bug;
pub use point::{Action, Point};

/// The environment variable that names the directory of armed points.
pub const DIRECTORY: &str = "EVERMINT_FAILPOINTS";

/// The environment variable that names a planted defect.
pub const PLANTED: &str = "EVERMINT_PLANTED_BUG";

/// What is added to the name of an armed point's file when it has acted.
pub const HIT: &str = "hit";
