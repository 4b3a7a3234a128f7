//! Workspaces. To Evermint a workspace is a name, and is there as soon as something is in it;
//! OpenShell's clients create it first. With a gateway behind this one, they are that one's.

use std::collections::{BTreeMap, BTreeSet};

use evermint_core::command::Command;
use evermint_core::id::{Workspace, WorkspaceId};
use evermint_core::profile::Scope;
use evermint_core::provider::Notes;
use evermint_core::state::State;
use evermint_proto::openshell::datamodel::v1 as datamodel;
use evermint_proto::openshell::v1;
use evermint_proto::openshell::v1::open_shell_client::OpenShellClient;
use tonic::{Request, Status};
use uuid::Uuid;

use super::meta::{self, millis};
use super::{Face, status};

pub(super) async fn create(
    face: &Face,
    request: Request<v1::CreateWorkspaceRequest>,
) -> Result<v1::CreateWorkspaceResponse, Status> {
    if let Some(behind) = face.behind() {
        let mut behind = OpenShellClient::new(behind);
        let answer = behind.create_workspace(request).await?;
        return Ok(answer.into_inner());
    }
    let request = request.into_inner();
    if request.name.trim().is_empty() {
        return Err(status::invalid("name is required"));
    }
    let name: Workspace = meta::parse("name", &request.name)?;
    let written = face
        .commit(Command::CreateWorkspace {
            id: WorkspaceId(Uuid::new_v4().as_u128()),
            name: name.clone(),
            notes: Notes {
                labels: request.labels,
                ..Notes::default()
            },
        })
        .await?;
    Ok(v1::CreateWorkspaceResponse {
        workspace: Some(shown(&written.state, &name)),
    })
}

pub(super) async fn get(
    face: &Face,
    request: Request<v1::GetWorkspaceRequest>,
) -> Result<v1::GetWorkspaceResponse, Status> {
    if let Some(behind) = face.behind() {
        let mut behind = OpenShellClient::new(behind);
        let answer = behind.get_workspace(request).await?;
        return Ok(answer.into_inner());
    }
    let request = request.into_inner();
    if request.name.trim().is_empty() {
        return Err(status::invalid("name is required"));
    }
    let name = face.workspace(&request.name).await?;
    Ok(v1::GetWorkspaceResponse {
        workspace: Some(shown(&face.state(), &name)),
    })
}

pub(super) async fn list(
    face: &Face,
    request: Request<v1::ListWorkspacesRequest>,
) -> Result<v1::ListWorkspacesResponse, Status> {
    if let Some(behind) = face.behind() {
        let mut behind = OpenShellClient::new(behind);
        let answer = behind.list_workspaces(request).await?;
        return Ok(answer.into_inner());
    }
    let request = request.into_inner();
    let wanted = selector(&request.label_selector)?;
    face.settle().await;
    let state = face.state();
    let mut all: Vec<_> = names(&state)
        .iter()
        .map(|name| shown(&state, name))
        .filter(|workspace| selects(&wanted, workspace))
        .collect();
    let age = |w: &datamodel::Workspace| w.metadata.as_ref().map(|m| m.created_at_ms);
    all.sort_by_key(age);
    let page = meta::page(all, request.limit, request.offset);
    Ok(v1::ListWorkspacesResponse {
        workspaces: page.collect(),
    })
}

/// Every workspace, by name.
fn names(state: &State) -> BTreeSet<Workspace> {
    let created = state.workspaces.iter();
    let created = created.filter(|(_, marks)| marks.object.is_some());
    let profiles = state.profiles.keys().filter_map(|(scope, _)| match scope {
        Scope::Workspace(name) => Some(name),
        Scope::Platform => None,
    });
    let mut names = BTreeSet::from([Workspace::default_workspace()]);
    names.extend(created.map(|(name, _)| name.clone()));
    names.extend(state.providers.values().map(|p| p.workspace.clone()));
    names.extend(state.sandboxes.values().map(|s| s.workspace.clone()));
    names.extend(profiles.cloned());
    names
}

/// A workspace that nobody created has no id but its name, and was always there.
fn shown(state: &State, name: &Workspace) -> datamodel::Workspace {
    let metadata = match state.marks(name).object {
        Some(object) => datamodel::ObjectMeta {
            id: object.id.to_string(),
            created_at_ms: millis(object.created_at),
            labels: object.notes.labels,
            annotations: object.notes.annotations,
            ..Default::default()
        },
        None => datamodel::ObjectMeta {
            id: name.to_string(),
            ..Default::default()
        },
    };
    datamodel::Workspace {
        metadata: Some(datamodel::ObjectMeta {
            name: name.to_string(),
            resource_version: 1,
            ..metadata
        }),
        status: Some(datamodel::WorkspaceStatus {
            phase: datamodel::WorkspacePhase::Active.into(),
        }),
    }
}

/// The labels that are asked for: `key=value`, `key==value` or `key` for any value, with commas
/// between them.
fn selector(text: &str) -> Result<BTreeMap<String, Option<String>>, Status> {
    let mut wanted = BTreeMap::new();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (key, value) = match part.split_once('=') {
            Some((key, value)) => (key, Some(value.trim_start_matches('=').trim().to_owned())),
            None => (part, None),
        };
        let key = key.trim();
        if key.is_empty() || key.ends_with('!') || key.contains(char::is_whitespace) {
            return Err(status::invalid(
                "label_selector must be key=value pairs with commas between them",
            ));
        }
        wanted.insert(key.to_owned(), value);
    }
    Ok(wanted)
}

fn selects(wanted: &BTreeMap<String, Option<String>>, workspace: &datamodel::Workspace) -> bool {
    let labels = workspace.metadata.as_ref().map(|m| &m.labels);
    wanted.iter().all(|(key, value)| {
        let held = labels.and_then(|labels| labels.get(key));
        held.is_some_and(|held| value.as_ref().is_none_or(|value| value == held))
    })
}
