//! Inference routes.

use std::sync::Arc;

use super::{Tx, changed};
use crate::command::{Done, Kind, Outcome, Refusal};
use crate::id::{CredentialKey, Name, ProviderId, Workspace};
use crate::provider::{Route, limit};
use crate::record::Key;
use crate::state::WorkspaceMarks;

impl Tx<'_> {
    pub(super) fn set_route(
        &mut self,
        workspace: &Workspace,
        name: &Name,
        provider: ProviderId,
        credential: Option<&CredentialKey>,
        model: &str,
        timeout_secs: u64,
    ) -> Outcome {
        let target = self.provider(provider)?;
        if target.workspace != *workspace {
            return Err(Refusal::OtherWorkspace);
        }
        if credential.is_some_and(|key| !target.credentials.contains(key)) {
            return Err(Refusal::NotFound(Kind::Credential));
        }
        if model.len() > limit::MODEL {
            return Err(Refusal::TooMany {
                what: "bytes in the model".to_owned(),
                max: limit::MODEL,
            });
        }
        let key = (workspace.clone(), name.clone());
        let version = self.state.routes.get(&key).map_or(1, |r| r.version + 1);
        let route = Route {
            workspace: workspace.clone(),
            name: name.clone(),
            provider,
            credential: credential.cloned(),
            model: model.to_owned(),
            timeout_secs,
            version,
            touched: self.stamp.position,
        };
        self.touched
            .insert(Key::Route(workspace.clone(), name.clone()));
        self.state.routes.insert(key, Arc::new(route));
        self.audit_change("set-route", format_args!("{workspace}/{name}"));
        Ok(Done::Version(version))
    }

    pub(super) fn delete_route(&mut self, workspace: &Workspace, name: &Name) -> Outcome {
        let key = (workspace.clone(), name.clone());
        if self.state.routes.remove(&key).is_none() {
            return changed(false);
        }
        self.touched
            .insert(Key::Route(workspace.clone(), name.clone()));
        self.touched.insert(Key::Workspace(workspace.clone()));
        let marks = WorkspaceMarks {
            route_deleted: self.stamp.position,
            ..self.state.marks(workspace)
        };
        self.state
            .workspaces
            .insert(workspace.clone(), Arc::new(marks));
        self.audit_change("delete-route", format_args!("{workspace}/{name}"));
        changed(true)
    }
}
