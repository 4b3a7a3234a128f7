//! The services of `evermint.v1`, a file for each. A call parses its request at the rim, looks at
//! the state or proposes a command, and shows what came of it.

mod audit;
mod bundles;
mod cluster;
mod configure;
mod inference;
mod keys;
mod page;
mod profiles;
mod providers;
mod refreshes;
mod sandboxes;
mod tokens;
mod trial;

use std::sync::Arc;

use crate::shared::Shared;
pub(crate) use trial::TRIALS_MAX;

/// Implements every service of `evermint.v1`.
#[derive(Clone)]
pub(crate) struct Services(pub(crate) Arc<Shared>);

impl std::ops::Deref for Services {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// Whether a command changed anything.
fn changed(done: &evermint_core::command::Done) -> bool {
    !matches!(done, evermint_core::command::Done::Changed(false))
}
