//! Workspaces.

use evermint_proto::openshell::v1;
use tonic::{Request, Status};

use super::{Face, status};

pub(super) async fn create(
    _: &Face,
    _: Request<v1::CreateWorkspaceRequest>,
) -> Result<v1::CreateWorkspaceResponse, Status> {
    Err(status::not_yet())
}

pub(super) async fn get(
    _: &Face,
    _: Request<v1::GetWorkspaceRequest>,
) -> Result<v1::GetWorkspaceResponse, Status> {
    Err(status::not_yet())
}

pub(super) async fn list(
    _: &Face,
    _: Request<v1::ListWorkspacesRequest>,
) -> Result<v1::ListWorkspacesResponse, Status> {
    Err(status::not_yet())
}
