//! Profiles of providers.

use evermint_proto::openshell::v1;
use tonic::{Request, Status};

use super::{Face, status};

pub(super) async fn list(
    _: &Face,
    _: Request<v1::ListProviderProfilesRequest>,
) -> Result<v1::ListProviderProfilesResponse, Status> {
    Err(status::not_yet())
}

pub(super) async fn get(
    _: &Face,
    _: Request<v1::GetProviderProfileRequest>,
) -> Result<v1::ProviderProfileResponse, Status> {
    Err(status::not_yet())
}

pub(super) async fn import(
    _: &Face,
    _: Request<v1::ImportProviderProfilesRequest>,
) -> Result<v1::ImportProviderProfilesResponse, Status> {
    Err(status::not_yet())
}

pub(super) async fn update(
    _: &Face,
    _: Request<v1::UpdateProviderProfilesRequest>,
) -> Result<v1::UpdateProviderProfilesResponse, Status> {
    Err(status::not_yet())
}

pub(super) async fn lint(
    _: &Face,
    _: Request<v1::LintProviderProfilesRequest>,
) -> Result<v1::LintProviderProfilesResponse, Status> {
    Err(status::not_yet())
}

pub(super) async fn delete(
    _: &Face,
    _: Request<v1::DeleteProviderProfileRequest>,
) -> Result<v1::DeleteProviderProfileResponse, Status> {
    Err(status::not_yet())
}

/// A credential of a profile, as this face shows it.
pub(super) fn credential(
    credential: &evermint_core::profile::ProfileCredential,
) -> v1::ProviderProfileCredential {
    v1::ProviderProfileCredential {
        name: credential.name.clone(),
        ..Default::default()
    }
}
