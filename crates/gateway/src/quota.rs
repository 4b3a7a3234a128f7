//! How much a workspace may hold. Asked before a command is proposed, of the state as it is here:
//! creations that run at the same moment may go over a bound by as many as they are.

use std::sync::Arc;

use evermint_core::command::Command;
use evermint_core::id::Workspace;
use evermint_core::provider::Provider;
use evermint_core::state::State;
use tonic::Status;

use crate::bounds::Bounds;
use crate::status;

/// Whether there is room for what a command adds.
///
/// # Errors
/// `RESOURCE_EXHAUSTED`.
pub(crate) fn check(bounds: &Bounds, state: &State, command: &Command) -> Result<(), Status> {
    match command {
        Command::CreateProvider {
            workspace,
            credentials,
            ..
        } => {
            room(
                "providers",
                1,
                bounds.providers,
                state.providers.len(),
                || of(state, workspace).count(),
            )?;
            credentials_fit(bounds, state, workspace, credentials.len())
        }
        Command::UpdateProvider {
            id, credentials, ..
        } => {
            let Some(provider) = state.providers.get(id) else {
                return Ok(());
            };
            let new = credentials
                .iter()
                .filter(|(key, value)| value.is_some() && !provider.credentials.contains(key));
            credentials_fit(bounds, state, &provider.workspace, new.count())
        }
        Command::ConfigureRefresh { credential, .. } => {
            match state.providers.get(&credential.provider) {
                Some(provider) if !provider.credentials.contains(&credential.key) => {
                    credentials_fit(bounds, state, &provider.workspace, 1)
                }
                Some(_) | None => Ok(()),
            }
        }
        Command::SetRoute {
            workspace, name, ..
        } if !state
            .routes
            .contains_key(&(workspace.clone(), name.clone())) =>
        {
            room("routes", 1, bounds.routes, state.routes.len(), || {
                state.routes.keys().filter(|(w, _)| w == workspace).count()
            })
        }
        Command::CreateSandbox { workspace, .. } => room(
            "sandboxes",
            1,
            bounds.sandboxes,
            state.sandboxes.len(),
            || {
                let sandboxes = state.sandboxes.values();
                sandboxes.filter(|s| s.workspace == *workspace).count()
            },
        ),
        Command::ImportProfiles { scope, profiles } => {
            let new = profiles
                .iter()
                .filter(|p| !state.profiles.contains_key(&(scope.clone(), p.id.clone())));
            let all = state.profiles.len();
            room("profiles", new.count(), bounds.profiles, all, || {
                state.profiles.keys().filter(|(s, _)| s == scope).count()
            })
        }
        _ => Ok(()),
    }
}

fn of<'a>(state: &'a State, workspace: &'a Workspace) -> impl Iterator<Item = &'a Arc<Provider>> {
    let providers = state.providers.values();
    providers.filter(move |p| p.workspace == *workspace)
}

fn credentials_fit(
    bounds: &Bounds,
    state: &State,
    workspace: &Workspace,
    new: usize,
) -> Result<(), Status> {
    let all = state.credentials.len();
    room("credentials", new, bounds.credentials, all, || {
        of(state, workspace).map(|p| p.credentials.len()).sum()
    })
}

/// Whether `new` more fit; counts only where all workspaces together could hold too many.
fn room(
    what: &'static str,
    new: usize,
    max: usize,
    all: usize,
    count: impl FnOnce() -> usize,
) -> Result<(), Status> {
    if new == 0 || all + new <= max || count() + new <= max {
        return Ok(());
    }
    Err(status::workspace_full(what, max))
}
