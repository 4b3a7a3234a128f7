//! Inference routes.

use evermint_proto::openshell::inference::v1;
use tonic::{Request, Status};

use super::{Face, status};

pub(super) async fn set(
    _: &Face,
    _: Request<v1::SetInferenceRouteRequest>,
) -> Result<v1::SetInferenceRouteResponse, Status> {
    Err(status::not_yet())
}

pub(super) async fn get(
    _: &Face,
    _: Request<v1::GetInferenceRouteRequest>,
) -> Result<v1::GetInferenceRouteResponse, Status> {
    Err(status::not_yet())
}

pub(super) async fn delete(
    _: &Face,
    _: Request<v1::DeleteInferenceRouteRequest>,
) -> Result<v1::DeleteInferenceRouteResponse, Status> {
    Err(status::not_yet())
}
