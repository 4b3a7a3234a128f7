//! The inference bundle that sandboxes poll.

use evermint_proto::openshell::inference::v1;
use tonic::{Request, Status};

use super::{Face, status};

pub(super) async fn get(
    _: &Face,
    _: Request<v1::GetInferenceBundleRequest>,
) -> Result<v1::GetInferenceBundleResponse, Status> {
    Err(status::not_yet())
}
