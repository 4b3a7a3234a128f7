//! Providers.

use std::collections::BTreeMap;
use std::sync::Arc;

use evermint_core::command::{Command, StaticValue};
use evermint_core::id::{CredentialId, CredentialKey, Name, ProviderId, ProviderType, Workspace};
use evermint_core::profile::Profile;
use evermint_core::provider::{Notes, Provider, limit};
use evermint_core::secret::Secret;
use evermint_core::state::State;
use evermint_core::strategy::Strategy;
use evermint_core::time::UnixMs;
use evermint_proto::openshell::datamodel::v1 as datamodel;
use evermint_proto::openshell::v1;
use tonic::{Request, Status};
use uuid::Uuid;

use super::meta::{self, millis};
use super::{Face, status};

/// What stands in the place of every secret.
const REDACTED: &str = "REDACTED";

pub(super) async fn create(
    face: &Face,
    request: Request<v1::CreateProviderRequest>,
) -> Result<v1::ProviderResponse, Status> {
    let request = request.into_inner();
    let asked = request
        .provider
        .ok_or_else(|| status::invalid("provider is required"))?;
    if asked.r#type.trim().is_empty() {
        return Err(status::invalid("provider.type is required"));
    }
    check_sizes(&asked)?;
    let workspace = face.workspace(&request.workspace).await?;
    let profile_workspace = profile_workspace(&asked.profile_workspace, &workspace)?;
    let written: ProviderType = meta::parse("provider.type", &asked.r#type)?;
    let catalog = &face.ports.catalog;
    let kind = catalog.canonical(&face.state(), &workspace, &written);
    if asked.credentials.is_empty() {
        let found = catalog.of(&face.state(), &workspace, &kind);
        if !found.is_some_and(|found| needs_no_values(found.profile())) {
            return Err(status::invalid("provider.credentials must not be empty"));
        }
    }
    let metadata = asked.metadata.unwrap_or_default();
    let name = match metadata.name.as_str() {
        "" => meta::generated(&kind),
        name => meta::parse("provider.metadata.name", name)?,
    };
    let mut values = BTreeMap::new();
    for (key, value) in asked.credentials {
        let end = asked.credential_expires_at_ms.get(&key).copied();
        let key = credential_key(&key)?;
        if value.is_empty() {
            return Err(status::invalid(format!(
                "provider.credentials['{key}'] must not be empty"
            )));
        }
        values.insert(key, (secret(value)?, end.and_then(meta::time)));
    }

    let id = ProviderId(Uuid::new_v4().as_u128());
    let written = face
        .commit(Command::CreateProvider {
            id,
            workspace,
            name,
            kind,
            config: asked.config,
            notes: Notes {
                labels: metadata.labels,
                annotations: metadata.annotations,
                profile_workspace,
            },
            credentials: seal(face, id, values)?,
        })
        .await?;
    response(&written.state, id)
}

pub(super) async fn get(
    face: &Face,
    request: Request<v1::GetProviderRequest>,
) -> Result<v1::ProviderResponse, Status> {
    let request = request.into_inner();
    let name = meta::wanted("name", &request.name)?;
    let workspace = face.workspace(&request.workspace).await?;
    let provider = find(face, &workspace, name.as_ref()).await?;
    let provider = provider.ok_or_else(not_found)?;
    Ok(v1::ProviderResponse {
        provider: Some(shown(&face.state(), &provider)),
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
    let workspace = face.workspace(&request.workspace).await?;
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
    face: &Face,
    request: Request<v1::UpdateProviderRequest>,
) -> Result<v1::ProviderResponse, Status> {
    let request = request.into_inner();
    let asked = request
        .provider
        .ok_or_else(|| status::invalid("provider is required"))?;
    let metadata = asked.metadata.clone().unwrap_or_default();
    let name = meta::wanted("provider.metadata.name", &metadata.name)?;
    check_sizes(&asked)?;
    let count = request.credential_expires_at_ms.len();
    check_count("credential_expires_at_ms", count, limit::CREDENTIALS)?;
    let workspace = face.workspace(&request.workspace).await?;
    let provider = find(face, &workspace, name.as_ref()).await?;
    let provider = provider.ok_or_else(not_found)?;
    check_fixed(face, &provider, &asked)?;

    let mut credentials = BTreeMap::new();
    let mut values = BTreeMap::new();
    for (key, value) in asked.credentials {
        let key = credential_key(&key)?;
        match value.is_empty() {
            true => drop(credentials.insert(key, None)),
            false => drop(values.insert(key, (secret(value)?, None))),
        }
    }
    let mut ends = asked.credential_expires_at_ms;
    ends.extend(request.credential_expires_at_ms);
    let mut expires_at = BTreeMap::new();
    for (key, end) in ends {
        let key = credential_key(&key)?;
        if credentials.contains_key(&key) {
            continue;
        }
        expires_at.insert(key, meta::time(end));
    }
    // A new value keeps the end that the old one had, unless another is given.
    let state = face.state();
    for (key, (_, end)) in &mut values {
        let id = CredentialId {
            provider: provider.id,
            key: key.clone(),
        };
        let known = state.credentials.get(&id);
        *end = known.and_then(|c| c.value.as_ref()?.expires_at);
    }
    let sealed = seal(face, provider.id, values)?;
    credentials.extend(sealed.into_iter().map(|(key, value)| (key, Some(value))));
    let config = asked.config.into_iter().map(|(key, value)| match value {
        value if value.is_empty() => (key, None),
        value => (key, Some(value)),
    });
    let version = metadata.resource_version;
    let written = face
        .commit(Command::UpdateProvider {
            id: provider.id,
            expected_version: (version != 0).then_some(version),
            config: config.collect(),
            credentials,
            expires_at,
        })
        .await?;
    response(&written.state, provider.id)
}

pub(super) async fn delete(
    face: &Face,
    request: Request<v1::DeleteProviderRequest>,
) -> Result<v1::DeleteProviderResponse, Status> {
    let request = request.into_inner();
    let name = meta::wanted("name", &request.name)?;
    let workspace = face.workspace(&request.workspace).await?;
    let Some(provider) = find(face, &workspace, name.as_ref()).await? else {
        return Ok(v1::DeleteProviderResponse { deleted: false });
    };
    free_of_routes(face, &provider).await?;
    let delete = Command::DeleteProvider { id: provider.id };
    let written = face.commit(delete).await?;
    Ok(v1::DeleteProviderResponse {
        deleted: meta::changed(&written.done),
    })
}

/// Deletes the routes that lead to a provider about to be deleted: this face's clients know no
/// route that keeps it. An attached provider keeps its routes, as it will not be deleted.
async fn free_of_routes(face: &Face, provider: &Provider) -> Result<(), Status> {
    let state = face.state();
    let mut sandboxes = state.sandboxes.values();
    if sandboxes.any(|s| s.providers.contains(&provider.id)) {
        return Ok(());
    }
    for route in state.routes.values().filter(|r| r.provider == provider.id) {
        let delete = Command::DeleteRoute {
            workspace: route.workspace.clone(),
            name: route.name.clone(),
        };
        face.commit(delete).await?;
    }
    Ok(())
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
    let profile_workspace = provider.notes.profile_workspace.as_ref();
    datamodel::Provider {
        metadata: Some(datamodel::ObjectMeta {
            id: provider.id.to_string(),
            name: provider.name.to_string(),
            created_at_ms: millis(provider.created_at),
            labels: provider.notes.labels.clone(),
            resource_version: provider.version,
            annotations: provider.notes.annotations.clone(),
            workspace: provider.workspace.to_string(),
            deletion_timestamp_ms: 0,
        }),
        r#type: provider.kind.to_string(),
        credentials,
        config: provider.config.clone(),
        credential_expires_at_ms: ends,
        profile_workspace: profile_workspace
            .map(ToString::to_string)
            .unwrap_or_default(),
        credential_handles: BTreeMap::new(),
    }
}

fn response(state: &State, id: ProviderId) -> Result<v1::ProviderResponse, Status> {
    // Another call may have deleted it since.
    let provider = state.providers.get(&id).ok_or_else(not_found)?;
    Ok(v1::ProviderResponse {
        provider: Some(shown(state, provider)),
    })
}

/// What may not change after a provider was created.
fn check_fixed(
    face: &Face,
    provider: &Provider,
    asked: &datamodel::Provider,
) -> Result<(), Status> {
    if !asked.r#type.is_empty() {
        let same = |kind: &str| kind.eq_ignore_ascii_case(provider.kind.as_str());
        let written = ProviderType::new(asked.r#type.as_str()).ok();
        let catalog = &face.ports.catalog;
        let meant = written.map(|w| catalog.canonical(&face.state(), &provider.workspace, &w));
        if !same(&asked.r#type) && !meant.is_some_and(|meant| same(meant.as_str())) {
            return Err(status::invalid("provider.type cannot be changed"));
        }
    }
    let held = provider.notes.profile_workspace.as_ref();
    if !asked.profile_workspace.is_empty()
        && held.map(Workspace::as_str) != Some(asked.profile_workspace.as_str())
    {
        return Err(status::invalid(
            "provider.profile_workspace cannot be changed",
        ));
    }
    Ok(())
}

/// The limits of a request's parts, and what a request may not hold.
fn check_sizes(asked: &datamodel::Provider) -> Result<(), Status> {
    if !asked.credential_handles.is_empty() {
        return Err(status::invalid(
            "provider.credential_handles must not be supplied",
        ));
    }
    let metadata = asked.metadata.as_ref();
    let name = metadata.map_or(0, |m| m.name.len());
    check_bytes("provider.metadata.name", name, Name::MAX_LEN)?;
    check_bytes("provider.type", asked.r#type.len(), ProviderType::MAX_LEN)?;
    for (field, map, max) in [
        (
            "provider.credentials",
            &asked.credentials,
            limit::CREDENTIALS,
        ),
        ("provider.config", &asked.config, limit::CONFIG),
    ] {
        check_count(field, map.len(), max)?;
        for (key, value) in map {
            check_bytes(&format!("{field} key"), key.len(), limit::MAP_KEY)?;
            check_bytes(&format!("{field} value"), value.len(), limit::MAP_VALUE)?;
        }
    }
    let count = asked.credential_expires_at_ms.len();
    check_count(
        "provider.credential_expires_at_ms",
        count,
        limit::CREDENTIALS,
    )
}

fn check_bytes(field: &str, got: usize, max: usize) -> Result<(), Status> {
    match got > max {
        true => Err(status::invalid(format!(
            "{field} exceeds maximum length ({got} > {max})"
        ))),
        false => Ok(()),
    }
}

fn check_count(field: &str, got: usize, max: usize) -> Result<(), Status> {
    match got > max {
        true => Err(status::invalid(format!(
            "{field} exceeds maximum number of entries ({got} > {max})"
        ))),
        false => Ok(()),
    }
}

/// `None` for the platform's profiles.
fn profile_workspace(text: &str, workspace: &Workspace) -> Result<Option<Workspace>, Status> {
    match text {
        "" => Ok(None),
        text if text == workspace.as_str() => Ok(Some(workspace.clone())),
        _ => Err(status::invalid(
            "provider.profile_workspace must be empty or the provider's workspace",
        )),
    }
}

/// Whether every required credential of a profile comes about by itself: it is minted, it is one of
/// the outputs of a mint, or sandboxes obtain it with their own identity.
fn needs_no_values(profile: &Profile) -> bool {
    let minted = |strategy: Strategy| !strategy.is_pushed();
    let outputs = |name: &str| {
        let specs = profile.credentials.iter().flat_map(|c| &c.refresh);
        specs.flat_map(|s| s.outputs.values()).any(|n| n == name)
    };
    !profile.credentials.is_empty()
        && profile.credentials.iter().filter(|c| c.required).all(|c| {
            c.token_grant.is_some()
                || c.refresh.iter().any(|spec| minted(spec.strategy))
                || outputs(&c.name)
        })
}

fn credential_key(text: &str) -> Result<CredentialKey, Status> {
    CredentialKey::new(text).map_err(|e| status::invalid(format!("credential key '{text}' {e}")))
}

/// A value that an environment variable can hold.
fn secret(text: String) -> Result<Secret, Status> {
    let secret = Secret::from(text);
    match secret.expose().contains(&0) {
        true => Err(status::invalid("a credential value contains a NUL byte")),
        false => Ok(secret),
    }
}

type Values = BTreeMap<CredentialKey, (Secret, Option<UnixMs>)>;

fn seal(
    face: &Face,
    provider: ProviderId,
    values: Values,
) -> Result<BTreeMap<CredentialKey, StaticValue>, Status> {
    values
        .into_iter()
        .map(|(key, (secret, expires_at))| {
            let id = CredentialId {
                provider,
                key: key.clone(),
            };
            let sealed = face.seal_value(&id, &secret)?;
            Ok((key, StaticValue { sealed, expires_at }))
        })
        .collect()
}
