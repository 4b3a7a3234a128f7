//! The configuration that sandboxes poll, and what they report of it.

use evermint_proto::openshell::sandbox::v1 as sandbox;
use evermint_proto::openshell::v1;
use tonic::{Request, Status};

use super::{Face, status};

pub(super) async fn get(
    _: &Face,
    _: Request<sandbox::GetSandboxConfigRequest>,
) -> Result<sandbox::GetSandboxConfigResponse, Status> {
    Err(status::not_yet())
}

pub(super) async fn report(
    _: &Face,
    _: Request<v1::ReportPolicyStatusRequest>,
) -> Result<v1::ReportPolicyStatusResponse, Status> {
    Err(status::not_yet())
}
