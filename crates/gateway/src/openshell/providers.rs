//! Providers.

use std::collections::BTreeMap;
use std::sync::Arc;

use evermint_core::command::Command;
use evermint_core::id::{Name, Workspace};
use evermint_core::provider::Provider;
use evermint_core::state::State;
use evermint_proto::openshell::datamodel::v1 as datamodel;
use evermint_proto::openshell::v1;
use tonic::{Request, Status};

use super::meta::millis;
use super::{Face, meta, status};

/// What stands in the place of every secret.
const REDACTED: &str = "REDACTED";

pub(super) async fn create(
    _: &Face,
    _: Request<v1::CreateProviderRequest>,
) -> Result<v1::ProviderResponse, Status> {
    Err(status::not_yet())
}

pub(super) async fn get(
    face: &Face,
    request: Request<v1::GetProviderRequest>,
) -> Result<v1::ProviderResponse, Status> {
    let request = request.into_inner();
    let workspace = meta::workspace(&request.workspace)?;
    let name = meta::wanted("name", &request.name)?;
    let state = face.state();
    let provider = name.and_then(|name| state.provider_named(&workspace, &name));
    let provider = provider.ok_or_else(not_found)?;
    Ok(v1::ProviderResponse {
        provider: Some(shown(&state, provider)),
    })
}

pub(super) async fn list(
    face: &Face,
    request: Request<v1::ListProvidersRequest>,
) -> Result<v1::ListProvidersResponse, Status> {
    let request = request.into_inner();
    if request.all_workspaces && !request.workspace.is_empty() {
        return Err(status::invalid(
            "workspace must be empty when all_workspaces is set",
        ));
    }
    let workspace = meta::workspace(&request.workspace)?;
    let state = face.state();
    let mut all: Vec<_> = state
        .providers
        .values()
        .filter(|p| request.all_workspaces || p.workspace == workspace)
        .collect();
    all.sort_by(|a, b| (a.created_at, &a.name).cmp(&(b.created_at, &b.name)));
    let page = meta::page(all, request.limit, request.offset);
    Ok(v1::ListProvidersResponse {
        providers: page.map(|p| shown(&state, p)).collect(),
    })
}

pub(super) async fn update(
    _: &Face,
    _: Request<v1::UpdateProviderRequest>,
) -> Result<v1::ProviderResponse, Status> {
    Err(status::not_yet())
}

pub(super) async fn delete(
    face: &Face,
    request: Request<v1::DeleteProviderRequest>,
) -> Result<v1::DeleteProviderResponse, Status> {
    let request = request.into_inner();
    let workspace = meta::workspace(&request.workspace)?;
    let name = meta::wanted("name", &request.name)?;
    let Some(provider) = find(face, &workspace, name.as_ref()).await? else {
        return Ok(v1::DeleteProviderResponse { deleted: false });
    };
    let written = face
        .propose(Command::DeleteProvider { id: provider.id })
        .await?;
    Ok(v1::DeleteProviderResponse {
        deleted: meta::changed(&written.done),
    })
}

/// The provider that a request is about, if it is there.
///
/// # Errors
/// When no leader answers, whom a replica asks before it says that there is none.
pub(super) async fn find(
    face: &Face,
    workspace: &Workspace,
    name: Option<&Name>,
) -> Result<Option<Arc<Provider>>, Status> {
    let Some(name) = name else {
        return Ok(None);
    };
    face.find(|state| state.provider_named(workspace, name).cloned())
        .await
}

pub(super) fn not_found() -> Status {
    status::not_found("provider not found")
}

/// The provider as its clients see it: the names of its credentials, and no value.
pub(super) fn shown(state: &State, provider: &Provider) -> datamodel::Provider {
    let mut credentials = BTreeMap::new();
    let mut ends = BTreeMap::new();
    for credential in state.credentials_of(provider) {
        let Some(value) = &credential.value else {
            continue;
        };
        for key in value.outputs.keys() {
            credentials.insert(key.to_string(), REDACTED.to_owned());
            if let Some(end) = value.expires_at {
                ends.insert(key.to_string(), millis(end));
            }
        }
    }
    datamodel::Provider {
        metadata: Some(datamodel::ObjectMeta {
            id: provider.id.to_string(),
            name: provider.name.to_string(),
            created_at_ms: millis(provider.created_at),
            resource_version: provider.version,
            workspace: provider.workspace.to_string(),
            ..Default::default()
        }),
        r#type: provider.kind.to_string(),
        credentials,
        config: provider.config.clone(),
        credential_expires_at_ms: ends,
        profile_workspace: String::new(),
        credential_handles: BTreeMap::new(),
    }
}
