//! The gateway itself: health, what it is, and who calls.

use evermint_proto::openshell::v1;
use tonic::{Request, Status};

use super::Face;
use crate::caller::{Caller, Way};

pub(super) async fn health(
    face: &Face,
    _: Request<v1::HealthRequest>,
) -> Result<v1::HealthResponse, Status> {
    Ok(v1::HealthResponse {
        status: fitness(face).into(),
        version: face.limits.version.to_owned(),
    })
}

pub(super) async fn info(
    face: &Face,
    _: Request<v1::GetGatewayInfoRequest>,
) -> Result<v1::GetGatewayInfoResponse, Status> {
    let version = face.limits.version;
    Ok(v1::GetGatewayInfoResponse {
        status: fitness(face).into(),
        gateway_version: version.to_owned(),
        // Its clients expect one; this one runs no sandboxes.
        compute_drivers: vec![v1::ComputeDriverInfo {
            name: "evermint".to_owned(),
            capabilities: Some(v1::ComputeDriverCapabilities {
                driver_name: "evermint".to_owned(),
                driver_version: version.to_owned(),
            }),
        }],
    })
}

pub(super) async fn current_user(
    _: &Face,
    request: Request<v1::GetCurrentUserRequest>,
) -> Result<v1::GetCurrentUserResponse, Status> {
    let user = match request.extensions().get::<Caller>() {
        Some(Caller::Operator(operator)) => v1::GetCurrentUserResponse {
            subject: operator.subject.clone(),
            display_name: String::new(),
            roles: operator.roles.names(),
            scopes: operator.scopes.iter().flatten().cloned().collect(),
            identity_provider: match operator.way {
                Way::AdminToken => "local_dev",
                Way::Oidc => "oidc",
                Way::Certificate => "mtls",
            }
            .to_owned(),
        },
        Some(Caller::Anyone | Caller::Sandbox(_)) | None => v1::GetCurrentUserResponse {
            subject: "local".to_owned(),
            roles: crate::access::Roles::admin().names(),
            identity_provider: "local_dev".to_owned(),
            ..Default::default()
        },
    };
    Ok(user)
}

/// Whether this replica can serve what others store: one that is out of touch with the cluster for
/// too long cannot.
fn fitness(face: &Face) -> v1::ServiceStatus {
    match face.fit() {
        Ok(_) => v1::ServiceStatus::Healthy,
        Err(_) => v1::ServiceStatus::Unhealthy,
    }
}
