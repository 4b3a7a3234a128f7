//! Inference routes.

use std::sync::Arc;

use evermint_core::command::{Command, Refusal};
use evermint_core::credential::Credential;
use evermint_core::id::{Name, Workspace};
use evermint_core::profile::catalog::Found;
use evermint_core::profile::route::Upstream;
use evermint_core::provider::{Provider, Route, limit};
use evermint_core::state::State;
use evermint_proto::openshell::inference::v1;
use tonic::{Request, Status};

use super::{Face, meta, providers, status, verify};

/// The routes that there can be, the one of requests that name none first.
const ROUTES: [&str; 2] = ["inference.local", "sandbox-system"];
/// The profile whose credentials are not all keys of its API: service accounts are among them.
const VERTEX: &str = "google-vertex-ai";

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
    let provider = provider.ok_or_else(|| status::no_provider(request.provider_name.trim()))?;
    let (upstream, credential) = lead(face, &face.state(), &provider, model)?;
    let validated_endpoints = match request.no_verify {
        true => Vec::new(),
        false => vec![verify::verify(face, &provider, &upstream, &credential).await?],
    };
    let decided = face
        .decide(Command::SetRoute {
            workspace: workspace.clone(),
            name: route.clone(),
            provider: provider.id,
            credential: Some(credential.id.key.clone()),
            model: model.to_owned(),
            timeout_secs: request.timeout_secs,
        })
        .await?;
    let written = decided.map_err(|refusal| match refusal {
        // It was there when this call began.
        Refusal::NotFound(_) => status::aborted(format!(
            "provider '{}' was changed while its endpoint was verified",
            provider.name
        )),
        refusal => status::refused(&refusal),
    })?;
    let shown = found(&written.state, &workspace, &route)?;
    Ok(v1::SetInferenceRouteResponse {
        provider_name: provider.name.to_string(),
        model_id: shown.model.clone(),
        version: shown.version,
        route_name: route.to_string(),
        validation_performed: !validated_endpoints.is_empty(),
        validated_endpoints,
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

/// Where a route to a provider leads, and with which credential: the first in the order of the
/// profile that has a value now, else the first of all, but where a profile's other credentials
/// are no keys of its API.
fn lead(
    face: &Face,
    state: &State,
    provider: &Provider,
    model: &str,
) -> Result<(Upstream, Arc<Credential>), Status> {
    let catalog = &face.ports.catalog;
    let found = catalog.of(state, &provider.workspace, &provider.kind);
    let profile = found.as_ref().map(Found::profile);
    let profile = profile
        .filter(|p| p.is_inference_capable())
        .ok_or_else(|| {
            status::invalid(format!(
                "provider '{}' has unsupported type '{}' for inference",
                provider.name, provider.kind
            ))
        })?;
    let now = face.ports.view.now();
    let is_live = |c: &&Arc<Credential>| c.value.as_ref().is_some_and(|v| !v.is_expired(now));
    let live: Vec<_> = state.credentials_of(provider).filter(is_live).collect();
    let keys = profile.credentials.iter().flat_map(|c| &c.env_vars);
    let first = keys.filter_map(|key| live.iter().find(|c| c.id.key == *key));
    let any = live.first().filter(|_| profile.id.as_str() != VERTEX);
    let chosen = first.chain(any).next().copied();
    let credential = chosen.ok_or_else(|| status::no_usable_credential(provider))?;
    let upstream = profile.upstream(&provider.config, model, Some(&credential.id.key));
    let upstream = upstream.map_err(|why| {
        status::invalid(format!(
            "provider '{}' cannot be used for inference: {why}",
            provider.name
        ))
    })?;
    Ok((upstream, Arc::clone(credential)))
}
