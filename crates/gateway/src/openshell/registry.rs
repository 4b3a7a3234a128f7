//! Sandboxes, and the providers that are attached to them.
//!
//! Evermint runs no sandboxes: it knows of them, so that providers can be attached and credentials
//! delivered. With a gateway behind this one, that one runs them and owns what they are: it is
//! asked first, never told of providers, which it does not have, and gives a sandbox its id. What
//! is attached, and the version that guards it, is Evermint's. A sandbox that was created past
//! Evermint becomes known when a provider is first attached to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use evermint_core::command::{Command, Kind, Refusal};
use evermint_core::id::{CredentialKey, Name, ProviderId, SandboxId, Workspace};
use evermint_core::provider::{Provider, Sandbox, limit};
use evermint_core::state::State;
use evermint_proto::openshell::datamodel::v1::ObjectMeta;
use evermint_proto::openshell::v1;
use evermint_proto::openshell::v1::open_shell_client::OpenShellClient;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use uuid::Uuid;

use super::meta::{self, millis};
use super::{Face, providers, status};

/// The longest name of a sandbox: it becomes part of host names.
const NAME_MAX: usize = 19;

pub(super) async fn create(
    face: &Face,
    request: Request<v1::CreateSandboxRequest>,
) -> Result<v1::SandboxResponse, Status> {
    let message = request.get_ref();
    let workspace = face.workspace(&message.workspace).await?;
    let Some(spec) = &message.spec else {
        return Err(status::invalid("spec is required"));
    };
    if !message.name.is_empty() && !is_label(&message.name) {
        return Err(status::invalid(format!(
            "name must be a DNS label of at most {NAME_MAX} characters"
        )));
    }
    let attached = attachable(face, &workspace, &spec.providers).await?;

    let spec = spec.clone();
    let (id, name, mut sandbox) = match face.behind() {
        Some(behind) => run_behind(behind, request).await?,
        None => here(message),
    };
    let known = register(face, id, workspace, name, attached).await?;
    let mut shown_spec = sandbox.spec.take().unwrap_or(spec);
    shown_spec.providers = Vec::new();
    sandbox.spec = Some(shown_spec);
    let state = face.state();
    Ok(v1::SandboxResponse {
        sandbox: Some(overlaid(sandbox, &state, &known)),
    })
}

pub(super) async fn get(
    face: &Face,
    request: Request<v1::GetSandboxRequest>,
) -> Result<v1::SandboxResponse, Status> {
    let message = request.get_ref();
    let workspace = face.workspace(&message.workspace).await?;
    let name = meta::wanted("name", &message.name)?;
    let known = match &name {
        Some(name) => look(face, &workspace, name).await?,
        None => None,
    };
    let state = face.state();
    let behind = match face.behind() {
        Some(behind) => Some(ask(behind, request.metadata(), message.clone()).await),
        None => None,
    };
    let sandbox = match (behind, known) {
        (Some(Ok(theirs)), Some(known)) => overlaid(theirs, &state, &known),
        (Some(Ok(theirs)), None) => theirs,
        // It is Evermint's alone, or the gateway that runs it is away: what is known here stands.
        (Some(Err(_)) | None, Some(known)) => overlaid(bare(), &state, &known),
        (Some(Err(status)), None) => return Err(status),
        (None, None) => return Err(not_found()),
    };
    Ok(v1::SandboxResponse {
        sandbox: Some(sandbox),
    })
}

/// The gateway that runs it deletes it first. Should this end half-way, the call made again finds
/// it gone there and forgets it here.
pub(super) async fn delete(
    face: &Face,
    request: Request<v1::DeleteSandboxRequest>,
) -> Result<v1::DeleteSandboxResponse, Status> {
    let message = request.get_ref();
    let workspace = face.workspace(&message.workspace).await?;
    let name = meta::wanted("name", &message.name)?;
    let behind = match face.behind() {
        Some(behind) => {
            let mut behind = OpenShellClient::new(behind);
            match behind.delete_sandbox(request).await {
                Ok(answer) => Ok(answer.into_inner()),
                Err(status) if status.code() == Code::NotFound => Err(status),
                Err(status) => return Err(status),
            }
        }
        None => Err(not_found()),
    };
    let known = match &name {
        Some(name) => look(face, &workspace, name).await?,
        None => None,
    };
    let Some(known) = known else {
        return behind;
    };
    face.commit(Command::DeleteSandbox { id: known.id }).await?;
    Ok(v1::DeleteSandboxResponse { deleted: true })
}

pub(super) async fn providers(
    face: &Face,
    request: Request<v1::ListSandboxProvidersRequest>,
) -> Result<v1::ListSandboxProvidersResponse, Status> {
    let message = request.get_ref();
    let workspace = face.workspace(&message.workspace).await?;
    let name = meta::wanted("sandbox_name", &message.sandbox_name)?;
    let known = match &name {
        Some(name) => look(face, &workspace, name).await?,
        None => None,
    };
    let Some(known) = known else {
        return match face.behind() {
            Some(behind) => {
                let mut behind = OpenShellClient::new(behind);
                let theirs = behind.list_sandbox_providers(request).await?;
                Ok(theirs.into_inner())
            }
            None => Err(not_found()),
        };
    };
    let state = face.state();
    let attached = attached(&state, &known);
    Ok(v1::ListSandboxProvidersResponse {
        providers: attached.map(|p| providers::shown(&state, p)).collect(),
    })
}

pub(super) async fn attach(
    face: &Face,
    request: Request<v1::AttachSandboxProviderRequest>,
) -> Result<v1::AttachSandboxProviderResponse, Status> {
    let message = request.get_ref();
    let change = Change {
        workspace: face.workspace(&message.workspace).await?,
        sandbox: &message.sandbox_name,
        provider: &message.provider_name,
        expected_version: message.expected_resource_version,
    };
    let command = |sandbox, provider, expected_version| Command::AttachProvider {
        sandbox,
        provider,
        expected_version,
    };
    let (sandbox, attached) = change.make(face, request.metadata(), command).await?;
    Ok(v1::AttachSandboxProviderResponse { sandbox, attached })
}

pub(super) async fn detach(
    face: &Face,
    request: Request<v1::DetachSandboxProviderRequest>,
) -> Result<v1::DetachSandboxProviderResponse, Status> {
    let message = request.get_ref();
    let change = Change {
        workspace: face.workspace(&message.workspace).await?,
        sandbox: &message.sandbox_name,
        provider: &message.provider_name,
        expected_version: message.expected_resource_version,
    };
    let command = |sandbox, provider, expected_version| Command::DetachProvider {
        sandbox,
        provider,
        expected_version,
    };
    let (sandbox, detached) = change.make(face, request.metadata(), command).await?;
    Ok(v1::DetachSandboxProviderResponse { sandbox, detached })
}

/// What is to be attached or detached.
struct Change<'a> {
    workspace: Workspace,
    sandbox: &'a str,
    provider: &'a str,
    expected_version: u64,
}

impl Change<'_> {
    /// Makes it: the sandbox afterwards, and whether anything changed.
    async fn make(
        self,
        face: &Face,
        caller: &MetadataMap,
        command: impl FnOnce(SandboxId, ProviderId, Option<u64>) -> Command,
    ) -> Result<(Option<v1::Sandbox>, bool), Status> {
        let sandbox = meta::wanted("sandbox_name", self.sandbox)?;
        let provider = meta::wanted("provider_name", self.provider)?;
        let sandbox = sandbox.ok_or_else(not_found)?;
        let mut expected = (self.expected_version != 0).then_some(self.expected_version);
        let known = match look(face, &self.workspace, &sandbox).await? {
            Some(known) => known,
            None => {
                let theirs = self.adopt(face, caller, sandbox, expected).await?;
                // The version that the caller has seen was the other gateway's.
                expected = None;
                theirs
            }
        };
        let provider = providers::find(face, &self.workspace, provider.as_ref()).await?;
        let provider = provider.ok_or_else(|| status::no_provider(self.provider))?;
        let written = face
            .commit(command(known.id, provider.id, expected))
            .await?;
        let state = &written.state;
        let now = state.sandboxes.get(&known.id);
        let shown = now.map(|now| overlaid(bare(), state, now));
        Ok((shown, meta::changed(&written.done)))
    }

    /// Makes a sandbox known that was created at the gateway behind this one.
    async fn adopt(
        &self,
        face: &Face,
        caller: &MetadataMap,
        name: Name,
        expected: Option<u64>,
    ) -> Result<Arc<Sandbox>, Status> {
        let behind = face.behind().ok_or_else(not_found)?;
        let wanted = v1::GetSandboxRequest {
            name: name.to_string(),
            workspace: self.workspace.to_string(),
        };
        let theirs = ask(behind, caller, wanted).await?;
        let meta = theirs.metadata.unwrap_or_default();
        let current = meta.resource_version;
        if expected.is_some_and(|expected| expected != current) {
            let refusal = Refusal::VersionMismatch {
                kind: Kind::Sandbox,
                current,
            };
            return Err(status::refused(&refusal));
        }
        let id = meta.id.parse().map_err(|_| unreadable())?;
        register(face, id, self.workspace.clone(), name, Vec::new()).await
    }
}

/// Makes a sandbox known, and whatever bore its name before unknown: a name has one bearer at the
/// gateway that runs them.
async fn register(
    face: &Face,
    id: SandboxId,
    workspace: Workspace,
    name: Name,
    providers: Vec<ProviderId>,
) -> Result<Arc<Sandbox>, Status> {
    let known = look(face, &workspace, &name).await?;
    if let Some(known) = known {
        if known.id == id {
            return Ok(known);
        }
        if face.behind().is_none() {
            let taken = Refusal::AlreadyExists(Kind::Sandbox);
            return Err(status::refused(&taken));
        }
        face.commit(Command::DeleteSandbox { id: known.id }).await?;
    }
    let create = Command::CreateSandbox {
        id,
        workspace,
        name,
        providers,
    };
    let written = face.commit(create).await?;
    let sandbox = written.state.sandboxes.get(&id).cloned();
    sandbox.ok_or_else(not_found)
}

/// The providers of a new sandbox, in order.
async fn attachable(
    face: &Face,
    workspace: &Workspace,
    names: &[String],
) -> Result<Vec<ProviderId>, Status> {
    if names.len() > limit::ATTACHED {
        return Err(status::invalid(format!(
            "spec.providers must have at most {} entries",
            limit::ATTACHED
        )));
    }
    let mut found: Vec<Arc<Provider>> = Vec::with_capacity(names.len());
    for name in names {
        let parsed = Name::new(name.as_str()).ok();
        let provider = providers::find(face, workspace, parsed.as_ref()).await?;
        found.push(provider.ok_or_else(|| status::no_provider(name))?);
    }
    // Found out before anything is created.
    let state = face.state();
    let mut given: BTreeMap<&CredentialKey, &Provider> = BTreeMap::new();
    for provider in &found {
        for key in state.names_of(provider) {
            if let Some(other) = given.insert(key, provider)
                && other.id != provider.id
            {
                return Err(status::refused(&Refusal::KeyCollision {
                    key: key.clone(),
                    provider: other.name.clone(),
                }));
            }
        }
    }
    Ok(found.iter().map(|provider| provider.id).collect())
}

/// A sandbox that no gateway runs.
fn here(message: &v1::CreateSandboxRequest) -> (SandboxId, Name, v1::Sandbox) {
    let id = Uuid::new_v4();
    let generated = || format!("sandbox-{:08x}", id.as_u128() >> 96);
    let name = Some(message.name.clone()).filter(|name| !name.is_empty());
    let name = Name::new(name.unwrap_or_else(generated)).expect("a label is a name");
    let sandbox = v1::Sandbox {
        metadata: Some(ObjectMeta {
            labels: message.labels.clone(),
            annotations: message.annotations.clone(),
            ..ObjectMeta::default()
        }),
        ..bare()
    };
    (SandboxId(id.as_u128()), name, sandbox)
}

/// Lets the gateway behind this one create the sandbox, without the providers, of which it knows
/// nothing.
async fn run_behind(
    behind: Channel,
    mut request: Request<v1::CreateSandboxRequest>,
) -> Result<(SandboxId, Name, v1::Sandbox), Status> {
    if let Some(spec) = &mut request.get_mut().spec {
        spec.providers.clear();
    }
    let created = OpenShellClient::new(behind).create_sandbox(request).await?;
    let sandbox = created.into_inner().sandbox.ok_or_else(unreadable)?;
    let meta = sandbox.metadata.as_ref().ok_or_else(unreadable)?;
    let id = meta.id.parse().map_err(|_| unreadable())?;
    let name = Name::new(meta.name.as_str()).map_err(|_| unreadable())?;
    Ok((id, name, sandbox))
}

/// Asks the gateway behind this one for a sandbox, as the caller.
async fn ask(
    behind: Channel,
    caller: &MetadataMap,
    wanted: v1::GetSandboxRequest,
) -> Result<v1::Sandbox, Status> {
    let request = Request::from_parts(caller.clone(), tonic::Extensions::new(), wanted);
    let got = OpenShellClient::new(behind).get_sandbox(request).await;
    match got {
        Ok(got) => got.into_inner().sandbox.ok_or_else(unreadable),
        Err(status) if status.code() == Code::NotFound => Err(not_found()),
        Err(status) => Err(status),
    }
}

/// A sandbox that is known here.
async fn look(
    face: &Face,
    workspace: &Workspace,
    name: &Name,
) -> Result<Option<Arc<Sandbox>>, Status> {
    face.find(|state| state.sandbox_named(workspace, name).cloned())
        .await
}

fn attached<'a>(state: &'a State, sandbox: &'a Sandbox) -> impl Iterator<Item = &'a Arc<Provider>> {
    let providers = sandbox.providers.iter();
    providers.filter_map(|id| state.providers.get(id))
}

/// A sandbox of which nothing is known but what Evermint adds.
fn bare() -> v1::Sandbox {
    v1::Sandbox {
        metadata: None,
        spec: None,
        status: Some(v1::SandboxStatus {
            phase: v1::SandboxPhase::Unknown.into(),
            ..v1::SandboxStatus::default()
        }),
    }
}

/// A sandbox as whoever runs it shows it, with what is Evermint's.
fn overlaid(mut shown: v1::Sandbox, state: &State, known: &Sandbox) -> v1::Sandbox {
    let meta = shown.metadata.get_or_insert_default();
    meta.id = known.id.to_string();
    meta.name = known.name.to_string();
    meta.workspace = known.workspace.to_string();
    meta.resource_version = known.version;
    if meta.created_at_ms == 0 {
        meta.created_at_ms = millis(known.created_at);
    }
    let spec = shown.spec.get_or_insert_default();
    spec.providers = attached(state, known).map(|p| p.name.to_string()).collect();
    let status = shown.status.get_or_insert_default();
    if status.sandbox_name.is_empty() {
        status.sandbox_name = known.name.to_string();
    }
    shown
}

fn is_label(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    name.len() <= NAME_MAX
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

fn not_found() -> Status {
    status::not_found("sandbox not found")
}

fn unreadable() -> Status {
    crate::status::upstream_unreadable()
}
