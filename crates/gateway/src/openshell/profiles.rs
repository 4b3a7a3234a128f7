//! Profiles of providers. The words of OpenShell's messages are those of the profile format, so
//! that a profile that comes as a message is read, linted and refused by the rules of those that
//! come as texts.

use std::collections::BTreeSet;

use evermint_core::command::Command;
use evermint_core::id::ProfileId;
use evermint_core::profile::catalog::Found;
use evermint_core::profile::{Profile, Scope, limit};
use evermint_profiles::Severity;
use evermint_proto::openshell::v1;
use tonic::{Request, Status};

use super::{Face, meta, profile_text, status};

pub(super) async fn list(
    face: &Face,
    request: Request<v1::ListProviderProfilesRequest>,
) -> Result<v1::ListProviderProfilesResponse, Status> {
    let request = request.into_inner();
    let scope = scope(face, &request.workspace).await?;
    let workspace = match &scope {
        Scope::Platform => None,
        Scope::Workspace(workspace) => Some(workspace),
    };
    let all = face.ports.catalog.list(&face.state(), workspace);
    let page = meta::page(all, request.limit, request.offset);
    Ok(v1::ListProviderProfilesResponse {
        profiles: page.map(|found| profile_text::shown(&found)).collect(),
    })
}

pub(super) async fn get(
    face: &Face,
    request: Request<v1::GetProviderProfileRequest>,
) -> Result<v1::ProviderProfileResponse, Status> {
    let request = request.into_inner();
    let id = id(&request.id)?;
    let scope = scope(face, &request.workspace).await?;
    let found = lookup(face, &scope, &id).await?;
    let found = found.ok_or_else(not_found)?;
    Ok(v1::ProviderProfileResponse {
        profile: Some(profile_text::shown(&found)),
    })
}

pub(super) async fn import(
    face: &Face,
    request: Request<v1::ImportProviderProfilesRequest>,
) -> Result<v1::ImportProviderProfilesResponse, Status> {
    let request = request.into_inner();
    let scope = scope(face, &request.workspace).await?;
    let judged = judge(face, &scope, &request.profiles, true);
    let Some(profiles) = judged.profiles else {
        return Ok(v1::ImportProviderProfilesResponse {
            diagnostics: judged.diagnostics,
            ..Default::default()
        });
    };
    let ids: Vec<ProfileId> = profiles.iter().map(|p| p.id.clone()).collect();
    let written = face
        .commit(Command::ImportProfiles {
            scope: scope.clone(),
            profiles,
        })
        .await?;
    let imported = ids.into_iter().filter_map(|id| {
        let custom = written.state.profiles.get(&(scope.clone(), id))?;
        Some(profile_text::shown(&Found::Custom(custom.clone())))
    });
    Ok(v1::ImportProviderProfilesResponse {
        diagnostics: judged.diagnostics,
        profiles: imported.collect(),
        imported: true,
    })
}

pub(super) async fn update(
    face: &Face,
    request: Request<v1::UpdateProviderProfilesRequest>,
) -> Result<v1::UpdateProviderProfilesResponse, Status> {
    let request = request.into_inner();
    let item = request
        .profile
        .ok_or_else(|| status::invalid("profile is required"))?;
    let scope = scope(face, &request.workspace).await?;
    let source = item.source.clone();
    let held = item.profile.as_ref();
    let payload = held.map_or(0, |p| p.resource_version);
    let payload_id = held.map(|p| p.id.clone()).unwrap_or_default();
    let mut judged = judge(face, &scope, std::slice::from_ref(&item), false);
    let mut refuse = |field: &str, message: &str| {
        judged.profiles = None;
        judged.diagnostics.push(v1::ProviderProfileDiagnostic {
            source: source.clone(),
            profile_id: payload_id.clone(),
            field: field.to_owned(),
            message: message.to_owned(),
            severity: Severity::Error.as_str().to_owned(),
        });
    };
    let expected = match request.expected_resource_version {
        0 => payload,
        version => version,
    };
    if expected == 0 {
        refuse("resource_version", "must be the version that is replaced");
    }
    if !request.id.is_empty() && request.id != payload_id {
        refuse("id", "is not the id of the profile that is updated");
    }
    let Some(profile) = judged.profiles.and_then(|mut all| all.pop()) else {
        return Ok(v1::UpdateProviderProfilesResponse {
            diagnostics: judged.diagnostics,
            ..Default::default()
        });
    };
    let id = profile.id.clone();
    let written = face
        .commit(Command::UpdateProfile {
            scope: scope.clone(),
            profile,
            expected_version: Some(expected),
        })
        .await?;
    let custom = written.state.profiles.get(&(scope, id)).cloned();
    Ok(v1::UpdateProviderProfilesResponse {
        diagnostics: judged.diagnostics,
        profile: custom.map(|custom| profile_text::shown(&Found::Custom(custom))),
        updated: true,
    })
}

pub(super) async fn lint(
    face: &Face,
    request: Request<v1::LintProviderProfilesRequest>,
) -> Result<v1::LintProviderProfilesResponse, Status> {
    let request = request.into_inner();
    let scope = scope(face, &request.workspace).await?;
    let judged = judge(face, &scope, &request.profiles, false);
    Ok(v1::LintProviderProfilesResponse {
        valid: judged.profiles.is_some(),
        diagnostics: judged.diagnostics,
    })
}

pub(super) async fn delete(
    face: &Face,
    request: Request<v1::DeleteProviderProfileRequest>,
) -> Result<v1::DeleteProviderProfileResponse, Status> {
    let request = request.into_inner();
    let id = id(&request.id)?;
    let scope = scope(face, &request.workspace).await?;
    let delete = Command::DeleteProfile {
        scope: scope.clone(),
        id: id.clone(),
    };
    let written = face.commit(delete).await?;
    if !meta::changed(&written.done) {
        return Err(match face.ports.catalog.builtin_named(&id) {
            Some(_) => status::precondition(format!(
                "provider profile '{id}' is built in and cannot be deleted"
            )),
            None => not_found(),
        });
    }
    Ok(v1::DeleteProviderProfileResponse { deleted: true })
}

fn not_found() -> Status {
    status::not_found("provider profile not found")
}

/// Whose profiles a request is about; without a workspace the platform's.
async fn scope(face: &Face, workspace: &str) -> Result<Scope, Status> {
    match workspace {
        "" => {
            face.settle().await;
            Ok(Scope::Platform)
        }
        text => face.workspace(text).await.map(Scope::Workspace),
    }
}

fn id(text: &str) -> Result<ProfileId, Status> {
    if text.trim().is_empty() {
        return Err(status::invalid("id is required"));
    }
    let is_kebab = |text: &str| !text.starts_with('-') && !text.ends_with('-');
    let id = ProfileId::new(text).ok().filter(|id| is_kebab(id.as_str()));
    id.ok_or_else(|| {
        status::invalid("id must be lowercase kebab-case: letters and digits with '-' between them")
    })
}

/// The profile that counts in a scope.
async fn lookup(face: &Face, scope: &Scope, id: &ProfileId) -> Result<Option<Found>, Status> {
    let catalog = &face.ports.catalog;
    face.find(|state| match scope {
        Scope::Workspace(workspace) => catalog.find(state, workspace, id),
        Scope::Platform => match state.profiles.get(&(Scope::Platform, id.clone())) {
            Some(custom) => Some(Found::Custom(custom.clone())),
            None => catalog.builtin_named(id).cloned().map(Found::Builtin),
        },
    })
    .await
}

/// What some items hold.
struct Judged {
    /// The profiles, if nothing but warnings was found.
    profiles: Option<Vec<Profile>>,
    diagnostics: Vec<v1::ProviderProfileDiagnostic>,
}

/// Reads items and finds what is wrong with them; for an import also that a profile is there
/// already.
fn judge(
    face: &Face,
    scope: &Scope,
    items: &[v1::ProviderProfileImportItem],
    is_import: bool,
) -> Judged {
    let state = face.state();
    let mut diagnostics: Vec<v1::ProviderProfileDiagnostic> = Vec::new();
    let mut tell = |source: &str, id: &str, field: &str, message: &str, severity: Severity| {
        let cut = |text: &str| text.chars().take(limit::TEXT).collect();
        diagnostics.push(v1::ProviderProfileDiagnostic {
            source: cut(source),
            profile_id: cut(id),
            field: field.to_owned(),
            message: message.to_owned(),
            severity: severity.as_str().to_owned(),
        });
    };
    let (mut profiles, mut ids) = (Vec::new(), BTreeSet::new());
    if items.is_empty() {
        tell("", "", "profiles", "must not be empty", Severity::Error);
    }
    if items.len() > limit::IMPORT {
        let message = format!("has more than {} entries", limit::IMPORT);
        tell("", "", "profiles", &message, Severity::Error);
    }
    for item in items.iter().take(limit::IMPORT) {
        let Some(given) = &item.profile else {
            tell(&item.source, "", "profile", "is missing", Severity::Error);
            continue;
        };
        let mut say = |field: &str, message: &str, severity: Severity| {
            tell(&item.source, &given.id, field, message, severity);
        };
        let (profile, findings) = profile_text::read(given);
        for finding in findings {
            say(&finding.field, &finding.message, finding.severity);
        }
        let Some(profile) = profile else {
            continue;
        };
        let key = (scope.clone(), profile.id.clone());
        let is_there = state.profiles.contains_key(&key);
        let is_builtin = face.ports.catalog.builtin_named(&profile.id).is_some();
        if !ids.insert(profile.id.clone()) {
            say(
                "id",
                "is the id of another profile of this request",
                Severity::Error,
            );
        } else if is_there && is_import {
            say("id", "is there already; update it instead", Severity::Error);
        } else if !is_there && is_builtin {
            let message = "will stand before the built-in profile of this id";
            say("id", message, Severity::Warning);
        }
        profiles.push(profile);
    }
    let is_sound = diagnostics
        .iter()
        .all(|d| d.severity == Severity::Warning.as_str());
    Judged {
        profiles: is_sound.then_some(profiles),
        diagnostics,
    }
}
