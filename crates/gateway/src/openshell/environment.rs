//! The environment that sandboxes poll.

use evermint_proto::openshell::v1;
use tonic::{Request, Status};

use super::{Face, status};

pub(super) async fn get(
    _: &Face,
    _: Request<v1::GetSandboxProviderEnvironmentRequest>,
) -> Result<v1::GetSandboxProviderEnvironmentResponse, Status> {
    Err(status::not_yet())
}
