//! What OpenShell's clients keep here: workspaces as objects, and settings of the platform.

use std::sync::Arc;

use super::provider::{check_count, check_notes};
use super::{Tx, changed};
use crate::command::{Done, Kind, Outcome, Refusal};
use crate::id::{Workspace, WorkspaceId};
use crate::platform::SettingValue;
use crate::provider::{Notes, limit};
use crate::record::Key;
use crate::state::{WorkspaceMarks, WorkspaceObject};

impl Tx<'_> {
    pub(super) fn create_workspace(
        &mut self,
        id: WorkspaceId,
        name: &Workspace,
        notes: &Notes,
    ) -> Outcome {
        if self.state.has_workspace(name) {
            return Err(Refusal::AlreadyExists(Kind::Workspace));
        }
        check_notes(notes)?;
        let marks = WorkspaceMarks {
            object: Some(WorkspaceObject {
                id,
                notes: notes.clone(),
                created_at: self.stamp.at,
            }),
            ..self.state.marks(name)
        };
        self.touched.insert(Key::Workspace(name.clone()));
        self.state.workspaces.insert(name.clone(), Arc::new(marks));
        self.audit_change("create-workspace", name);
        Ok(Done::Version(1))
    }

    pub(super) fn set_platform_setting(
        &mut self,
        key: &str,
        value: Option<&SettingValue>,
    ) -> Outcome {
        let mut platform = self.state.platform.as_ref().clone();
        let before = match value {
            Some(value) => platform.settings.insert(key.to_owned(), value.clone()),
            None => platform.settings.remove(key),
        };
        if before.as_ref() == value {
            return changed(false);
        }
        check_count("settings", platform.settings.len(), limit::NOTES)?;
        platform.revision += 1;
        self.touched.insert(Key::Platform);
        self.state.platform = Arc::new(platform);
        self.audit_change("set-platform-setting", key);
        changed(true)
    }
}
