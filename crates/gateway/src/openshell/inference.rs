//! Inference routes.

use evermint_core::command::Command;
use evermint_core::id::{Name, Workspace};
use evermint_core::profile::catalog::Found;
use evermint_core::provider::{Provider, Route, limit};
use evermint_core::state::State;
use evermint_proto::openshell::inference::v1;
use tonic::{Request, Status};

use super::{Face, meta, providers, status};

/// The routes that there can be, the one of requests that name none first.
const ROUTES: [&str; 2] = ["inference.local", "sandbox-system"];

pub(super) async fn set(
    face: &Face,
    request: Request<v1::SetInferenceRouteRequest>,
) -> Result<v1::SetInferenceRouteResponse, Status> {
    let request = request.into_inner();
    let name: Option<Name> = meta::wanted("provider_name", request.provider_name.trim())?;
    let model = request.model_id.trim();
    if model.is_empty() {
        return Err(status::invalid("model_id is required"));
    }
    if model.len() > limit::MODEL {
        return Err(status::invalid(format!(
            "model_id exceeds maximum length ({} > {})",
            model.len(),
            limit::MODEL
        )));
    }
    let route = route(&request.route_name)?;
    let workspace = face.workspace(&request.workspace).await?;
    let provider = providers::find(face, &workspace, name.as_ref()).await?;
    let provider = provider.ok_or_else(|| {
        status::precondition(format!(
            "provider '{}' not found in workspace '{workspace}'",
            request.provider_name.trim()
        ))
    })?;
    check_usable(face, &face.state(), &provider)?;
    let written = face
        .commit(Command::SetRoute {
            workspace: workspace.clone(),
            name: route.clone(),
            provider: provider.id,
            credential: None,
            model: model.to_owned(),
            timeout_secs: request.timeout_secs,
        })
        .await?;
    let shown = found(&written.state, &workspace, &route)?;
    Ok(v1::SetInferenceRouteResponse {
        provider_name: provider.name.to_string(),
        model_id: shown.model.clone(),
        version: shown.version,
        route_name: route.to_string(),
        validation_performed: false,
        validated_endpoints: Vec::new(),
        timeout_secs: shown.timeout_secs,
        workspace: workspace.to_string(),
    })
}

pub(super) async fn get(
    face: &Face,
    request: Request<v1::GetInferenceRouteRequest>,
) -> Result<v1::GetInferenceRouteResponse, Status> {
    let request = request.into_inner();
    let name = route(&request.route_name)?;
    let workspace = face.workspace(&request.workspace).await?;
    let key = (workspace.clone(), name.clone());
    face.find(|state| state.routes.get(&key).cloned()).await?;
    let state = face.state();
    let route = found(&state, &workspace, &name)?;
    let provider = state.providers.get(&route.provider);
    Ok(v1::GetInferenceRouteResponse {
        provider_name: provider.map(|p| p.name.to_string()).unwrap_or_default(),
        model_id: route.model.clone(),
        version: route.version,
        route_name: name.to_string(),
        timeout_secs: route.timeout_secs,
        workspace: workspace.to_string(),
    })
}

pub(super) async fn delete(
    face: &Face,
    request: Request<v1::DeleteInferenceRouteRequest>,
) -> Result<v1::DeleteInferenceRouteResponse, Status> {
    let request = request.into_inner();
    let name = route(&request.route_name)?;
    let workspace = face.workspace(&request.workspace).await?;
    let written = face
        .commit(Command::DeleteRoute { workspace, name })
        .await?;
    Ok(v1::DeleteInferenceRouteResponse {
        deleted: meta::changed(&written.done),
    })
}

/// The route that a request names; an empty name stands for the first one.
fn route(text: &str) -> Result<Name, Status> {
    let wanted = match text.trim() {
        "" => ROUTES[0],
        text => text,
    };
    let known = ROUTES.into_iter().find(|route| *route == wanted);
    let known = known.ok_or_else(|| {
        status::invalid(format!("route_name must be one of {}", ROUTES.join(", ")))
    })?;
    meta::parse("route_name", known)
}

fn found<'s>(state: &'s State, workspace: &Workspace, name: &Name) -> Result<&'s Route, Status> {
    let route = state.routes.get(&(workspace.clone(), name.clone()));
    let route = route.ok_or_else(|| {
        status::not_found(format!(
            "inference route '{name}' is not configured in workspace '{workspace}'"
        ))
    })?;
    Ok(route.as_ref())
}

/// Whether a route may lead to a provider: its type speaks an inference API, and it has a value
/// now.
fn check_usable(face: &Face, state: &State, provider: &Provider) -> Result<(), Status> {
    let catalog = &face.ports.catalog;
    let found = catalog.of(state, &provider.workspace, &provider.kind);
    if !found
        .as_ref()
        .map(Found::profile)
        .is_some_and(|p| p.is_inference_capable())
    {
        return Err(status::invalid(format!(
            "provider '{}' has unsupported type '{}' for inference",
            provider.name, provider.kind
        )));
    }
    let now = face.ports.view.now();
    let live = state
        .credentials_of(provider)
        .any(|c| c.value.as_ref().is_some_and(|v| !v.is_expired(now)));
    match live {
        true => Ok(()),
        false => Err(status::invalid(format!(
            "provider '{}' has no usable credential",
            provider.name
        ))),
    }
}
