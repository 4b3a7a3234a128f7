//! Refreshes of credentials.

use evermint_proto::openshell::v1;
use tonic::{Request, Status};

use super::{Face, status as error};

pub(super) async fn status(
    _: &Face,
    _: Request<v1::GetProviderRefreshStatusRequest>,
) -> Result<v1::GetProviderRefreshStatusResponse, Status> {
    Err(error::not_yet())
}

pub(super) async fn configure(
    _: &Face,
    _: Request<v1::ConfigureProviderRefreshRequest>,
) -> Result<v1::ConfigureProviderRefreshResponse, Status> {
    Err(error::not_yet())
}

pub(super) async fn rotate(
    _: &Face,
    _: Request<v1::RotateProviderCredentialRequest>,
) -> Result<v1::RotateProviderCredentialResponse, Status> {
    Err(error::not_yet())
}

pub(super) async fn delete(
    _: &Face,
    _: Request<v1::DeleteProviderRefreshRequest>,
) -> Result<v1::DeleteProviderRefreshResponse, Status> {
    Err(error::not_yet())
}
