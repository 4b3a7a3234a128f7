//! The gateway itself: health, what it is, and who calls.

use evermint_proto::openshell::v1;
use tonic::{Request, Status};

use super::{Face, status};

pub(super) async fn health(
    _: &Face,
    _: Request<v1::HealthRequest>,
) -> Result<v1::HealthResponse, Status> {
    Err(status::not_yet())
}

pub(super) async fn current_user(
    _: &Face,
    _: Request<v1::GetCurrentUserRequest>,
) -> Result<v1::GetCurrentUserResponse, Status> {
    Err(status::not_yet())
}

pub(super) async fn info(
    _: &Face,
    _: Request<v1::GetGatewayInfoRequest>,
) -> Result<v1::GetGatewayInfoResponse, Status> {
    Err(status::not_yet())
}
