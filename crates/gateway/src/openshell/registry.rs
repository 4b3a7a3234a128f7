//! Sandboxes, and the providers that are attached to them.

use evermint_proto::openshell::v1;
use tonic::{Request, Status};

use super::{Face, status};

pub(super) async fn create(
    _: &Face,
    _: Request<v1::CreateSandboxRequest>,
) -> Result<v1::SandboxResponse, Status> {
    Err(status::not_yet())
}

pub(super) async fn get(
    _: &Face,
    _: Request<v1::GetSandboxRequest>,
) -> Result<v1::SandboxResponse, Status> {
    Err(status::not_yet())
}

pub(super) async fn providers(
    _: &Face,
    _: Request<v1::ListSandboxProvidersRequest>,
) -> Result<v1::ListSandboxProvidersResponse, Status> {
    Err(status::not_yet())
}

pub(super) async fn attach(
    _: &Face,
    _: Request<v1::AttachSandboxProviderRequest>,
) -> Result<v1::AttachSandboxProviderResponse, Status> {
    Err(status::not_yet())
}

pub(super) async fn detach(
    _: &Face,
    _: Request<v1::DetachSandboxProviderRequest>,
) -> Result<v1::DetachSandboxProviderResponse, Status> {
    Err(status::not_yet())
}
