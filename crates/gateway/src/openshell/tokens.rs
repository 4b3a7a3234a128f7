//! Tokens of sandboxes.

use evermint_proto::openshell::v1;
use tonic::{Request, Status};

use super::{Face, status};

pub(super) async fn issue(
    _: &Face,
    _: Request<v1::IssueSandboxTokenRequest>,
) -> Result<v1::IssueSandboxTokenResponse, Status> {
    Err(status::not_yet())
}

pub(super) async fn refresh(
    _: &Face,
    _: Request<v1::RefreshSandboxTokenRequest>,
) -> Result<v1::RefreshSandboxTokenResponse, Status> {
    Err(status::not_yet())
}
