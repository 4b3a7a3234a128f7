//! `evermint.v1.Profiles`.

use std::collections::BTreeSet;

use evermint_core::command::{Command, Kind};
use evermint_core::id::{ProfileId, ProviderType, Workspace};
use evermint_core::profile::catalog::Found;
use evermint_core::profile::{Profile, Scope, limit};
use evermint_profiles::{Finding, Severity, read, write};
use evermint_proto::v1;
use evermint_proto::v1::profiles_server::Profiles;
use tonic::{Request, Response, Status};

use super::{Services, changed};
use crate::rim::Rim;
use crate::status;

/// The longest text of one request, in bytes: what becomes one entry of the log.
const TEXT_MAX: usize = 1 << 20;

#[tonic::async_trait]
impl Profiles for Services {
    async fn list_profiles(
        &self,
        request: Request<v1::ListProfilesRequest>,
    ) -> Result<Response<v1::ListProfilesResponse>, Status> {
        let request = request.into_inner();
        let mut rim = Rim::default();
        let workspace = rim.workspace(&request.workspace);
        let workspace = rim.finish(|| workspace)?;
        let workspace = (!request.platform).then_some(&workspace);
        let mut before = BTreeSet::new();
        let all = self.ports.catalog.list(&self.state(), workspace);
        let profiles = all.iter().map(|found| v1::Profile {
            shadowed: !before.insert(found.profile().id.clone()),
            yaml: String::new(),
            ..shown(found)
        });
        Ok(Response::new(v1::ListProfilesResponse {
            profiles: profiles.collect(),
        }))
    }

    async fn get_profile(
        &self,
        request: Request<v1::GetProfileRequest>,
    ) -> Result<Response<v1::GetProfileResponse>, Status> {
        let request = request.into_inner();
        let mut rim = Rim::default();
        let workspace = rim.workspace(&request.workspace);
        let id = rim.parse::<ProfileId>("id", &request.id);
        let (workspace, id) = rim.finish(|| Some((workspace?, id?)))?;
        let catalog = &self.ports.catalog;
        let found = self
            .find(|state| {
                let written = ProviderType::from(id.clone());
                let meant = catalog.canonical(state, &workspace, &written);
                catalog.of(state, &workspace, &meant)
            })
            .await?
            .ok_or_else(|| status::not_found(Kind::Profile, &id))?;
        Ok(Response::new(v1::GetProfileResponse {
            profile: Some(shown(&found)),
        }))
    }

    async fn import_profiles(
        &self,
        request: Request<v1::ImportProfilesRequest>,
    ) -> Result<Response<v1::ImportProfilesResponse>, Status> {
        let request = request.into_inner();
        let scope = scope(&request.workspace, request.platform)?;
        let judged = self.judge_texts(&scope, &request.texts, true)?;
        let Some(profiles) = judged.profiles else {
            return Ok(Response::new(v1::ImportProfilesResponse {
                findings: judged.findings,
                ..Default::default()
            }));
        };
        let ids: Vec<ProfileId> = profiles.iter().map(|p| p.id.clone()).collect();
        let written = self
            .propose(Command::ImportProfiles {
                scope: scope.clone(),
                profiles,
            })
            .await?;
        let imported = ids.into_iter().filter_map(|id| {
            let custom = written.state.profiles.get(&(scope.clone(), id))?;
            Some(shown(&Found::Custom(custom.clone())))
        });
        Ok(Response::new(v1::ImportProfilesResponse {
            imported: true,
            findings: judged.findings,
            profiles: imported.collect(),
            position: written.position.0,
        }))
    }

    async fn update_profile(
        &self,
        request: Request<v1::UpdateProfileRequest>,
    ) -> Result<Response<v1::UpdateProfileResponse>, Status> {
        let request = request.into_inner();
        let scope = scope(&request.workspace, request.platform)?;
        let texts: Vec<v1::ProfileText> = request.text.into_iter().collect();
        let judged = self.judge_texts(&scope, &texts, false)?;
        let profile = match judged.profiles.map(<[Profile; 1]>::try_from) {
            None => {
                return Ok(Response::new(v1::UpdateProfileResponse {
                    findings: judged.findings,
                    ..Default::default()
                }));
            }
            Some(Ok([profile])) => profile,
            Some(Err(_)) => {
                let mut rim = Rim::default();
                rim.problem("text", "must hold one document");
                return rim.finish(|| None);
            }
        };
        let id = profile.id.clone();
        let written = self
            .propose(Command::UpdateProfile {
                scope: scope.clone(),
                profile,
                expected_version: request.expected_version,
            })
            .await?;
        let custom = written.state.profiles.get(&(scope, id)).cloned();
        Ok(Response::new(v1::UpdateProfileResponse {
            updated: true,
            findings: judged.findings,
            profile: custom.map(|custom| shown(&Found::Custom(custom))),
            position: written.position.0,
        }))
    }

    async fn delete_profile(
        &self,
        request: Request<v1::DeleteProfileRequest>,
    ) -> Result<Response<v1::DeleteProfileResponse>, Status> {
        let request = request.into_inner();
        let scope = scope(&request.workspace, request.platform)?;
        let mut rim = Rim::default();
        let id = rim.parse::<ProfileId>("id", &request.id);
        let id = rim.finish(|| id)?;
        let written = self
            .propose(Command::DeleteProfile {
                scope,
                id: id.clone(),
            })
            .await?;
        let deleted = changed(&written.done);
        if !deleted && self.ports.catalog.builtin_named(&id).is_some() {
            return Err(status::built_in(&id));
        }
        Ok(Response::new(v1::DeleteProfileResponse {
            deleted,
            position: written.position.0,
        }))
    }

    async fn lint_profiles(
        &self,
        request: Request<v1::LintProfilesRequest>,
    ) -> Result<Response<v1::LintProfilesResponse>, Status> {
        let request = request.into_inner();
        let scope = scope(&request.workspace, request.platform)?;
        let judged = self.judge_texts(&scope, &request.texts, false)?;
        Ok(Response::new(v1::LintProfilesResponse {
            valid: judged.profiles.is_some(),
            findings: judged.findings,
        }))
    }
}

/// What some texts hold.
struct Judged {
    /// The profiles, if nothing but warnings was found.
    profiles: Option<Vec<Profile>>,
    findings: Vec<v1::ProfileFinding>,
}

impl Services {
    /// Reads texts and finds what is wrong with them; for an import also that a profile is there
    /// already.
    fn judge_texts(
        &self,
        scope: &Scope,
        texts: &[v1::ProfileText],
        is_import: bool,
    ) -> Result<Judged, Status> {
        let mut rim = Rim::default();
        let bytes: usize = texts.iter().map(|text| text.yaml.len()).sum();
        if bytes > TEXT_MAX {
            rim.too_long("texts".to_owned(), bytes, TEXT_MAX);
        }
        rim.count("texts", texts.len(), limit::IMPORT);
        for (i, text) in texts.iter().enumerate() {
            if text.source.len() > limit::TEXT {
                let field = format!("texts[{i}].source");
                rim.too_long(field, text.source.len(), limit::TEXT);
            }
        }
        rim.finish(|| Some(()))?;

        let state = self.state();
        let (mut profiles, mut findings) = (Vec::new(), Vec::new());
        let (mut ids, mut is_sound) = (BTreeSet::new(), true);
        for text in texts {
            for document in read(&text.yaml) {
                let mut told = document.findings;
                let mut tell = |severity: Severity, message: &str| {
                    told.push(Finding {
                        line: Some(document.line),
                        ..Finding::new(severity, "id", message)
                    });
                };
                if let Some(profile) = &document.profile {
                    let is_there = state
                        .profiles
                        .contains_key(&(scope.clone(), profile.id.clone()));
                    if !ids.insert(profile.id.clone()) {
                        tell(Severity::Error, "is the id of another document");
                    } else if is_there && is_import {
                        tell(Severity::Error, "is there already; update it instead");
                    } else if !is_there && self.ports.catalog.builtin_named(&profile.id).is_some() {
                        tell(
                            Severity::Warning,
                            "will stand before the built-in profile of this id",
                        );
                    }
                }
                is_sound &= told.iter().all(|f| f.severity == Severity::Warning);
                profiles.extend(document.profile);
                findings.extend(told.into_iter().map(|finding| {
                    v1::ProfileFinding {
                        source: text.source.clone(),
                        line: finding
                            .line
                            .and_then(|l| u32::try_from(l).ok())
                            .unwrap_or(0),
                        profile: document.id.clone(),
                        field: finding.field,
                        message: finding.message,
                        warning: finding.severity == Severity::Warning,
                    }
                }));
            }
        }
        if is_sound && profiles.is_empty() {
            let nothing = Finding::new(Severity::Error, "", "there is no profile in it");
            findings.push(v1::ProfileFinding {
                source: texts.first().map(|t| t.source.clone()).unwrap_or_default(),
                message: nothing.message,
                ..Default::default()
            });
            is_sound = false;
        }
        Ok(Judged {
            profiles: is_sound.then_some(profiles),
            findings,
        })
    }
}

fn scope(workspace: &str, platform: bool) -> Result<Scope, Status> {
    let mut rim = Rim::default();
    let workspace: Option<Workspace> = rim.workspace(workspace);
    let workspace = rim.finish(|| workspace)?;
    Ok(match platform {
        true => Scope::Platform,
        false => Scope::Workspace(workspace),
    })
}

fn shown(found: &Found) -> v1::Profile {
    let profile = found.profile();
    let source = match found {
        Found::Builtin(_) => v1::ProfileSource::BuiltIn,
        Found::Custom(custom) => match custom.scope {
            Scope::Platform => v1::ProfileSource::Platform,
            Scope::Workspace(_) => v1::ProfileSource::Workspace,
        },
    };
    let keys = profile.credentials.iter().flat_map(|c| &c.env_vars);
    let ways = profile.credentials.iter().flat_map(|c| &c.refresh);
    let strategies: BTreeSet<_> = ways.map(|spec| spec.strategy.as_str()).collect();
    v1::Profile {
        id: profile.id.to_string(),
        source: source.into(),
        version: found.version(),
        display_name: profile.display_name.clone(),
        description: profile.description.clone(),
        category: profile.category.as_str().to_owned(),
        aliases: profile.aliases.iter().map(ToString::to_string).collect(),
        keys: keys.map(ToString::to_string).collect(),
        strategies: strategies.into_iter().map(str::to_owned).collect(),
        shadowed: false,
        yaml: write(profile),
    }
}
