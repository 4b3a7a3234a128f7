//! Settings of the gateway.

use evermint_proto::openshell::sandbox::v1 as sandbox;
use evermint_proto::openshell::v1;
use tonic::{Request, Status};

use super::{Face, status};

pub(super) async fn get(
    _: &Face,
    _: Request<sandbox::GetGatewayConfigRequest>,
) -> Result<sandbox::GetGatewayConfigResponse, Status> {
    Err(status::not_yet())
}

pub(super) async fn update(
    _: &Face,
    _: Request<v1::UpdateConfigRequest>,
) -> Result<v1::UpdateConfigResponse, Status> {
    Err(status::not_yet())
}
