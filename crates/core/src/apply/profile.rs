//! Imported profiles.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::provider::check_count;
use super::{Tx, changed, check_version};
use crate::command::{Done, Kind, Outcome, Refusal};
use crate::id::ProfileId;
use crate::profile::{CustomProfile, Profile, Scope, limit};
use crate::provider::Provider;
use crate::record::Key;

impl Tx<'_> {
    pub(super) fn import_profiles(&mut self, scope: &Scope, profiles: &[Profile]) -> Outcome {
        check_count("profiles in one import", profiles.len(), limit::IMPORT)?;
        let there = self.state.profiles_in(scope.clone()).count();
        check_count("profiles", there + profiles.len(), limit::PROFILES)?;
        let mut names = BTreeSet::new();
        for profile in profiles {
            let key = (scope.clone(), profile.id.clone());
            if !names.insert(&profile.id) || self.state.profiles.contains_key(&key) {
                return Err(Refusal::AlreadyExists(Kind::Profile));
            }
        }
        for profile in profiles {
            self.put_profile(CustomProfile {
                scope: scope.clone(),
                profile: profile.clone(),
                version: 1,
                created_at: self.stamp.at,
                touched: self.stamp.position,
            });
        }
        let names: Vec<&str> = profiles.iter().map(|p| p.id.as_str()).collect();
        self.audit_change(
            "import-profiles",
            format_args!("{scope}/{}", names.join(", ")),
        );
        Ok(Done::Version(1))
    }

    pub(super) fn update_profile(
        &mut self,
        scope: &Scope,
        profile: &Profile,
        expected_version: Option<u64>,
    ) -> Outcome {
        let key = (scope.clone(), profile.id.clone());
        let known = self
            .state
            .profiles
            .get(&key)
            .ok_or(Refusal::NotFound(Kind::Profile))?;
        check_version(Kind::Profile, known.version, expected_version)?;
        let version = known.version + 1;
        let updated = CustomProfile {
            profile: profile.clone(),
            version,
            touched: self.stamp.position,
            ..known.as_ref().clone()
        };
        self.put_profile(updated);
        self.audit_change("update-profile", format_args!("{scope}/{}", profile.id));
        Ok(Done::Version(version))
    }

    pub(super) fn delete_profile(&mut self, scope: &Scope, id: &ProfileId) -> Outcome {
        let key = (scope.clone(), id.clone());
        if !self.state.profiles.contains_key(&key) {
            return changed(false);
        }
        let users: Vec<String> = self
            .state
            .providers
            .values()
            .filter(|p| self.uses(p, scope, id))
            .map(|p| format!("provider {}/{}", p.workspace, p.name))
            .collect();
        if !users.is_empty() {
            return Err(Refusal::InUse {
                kind: Kind::Profile,
                by: users.join(", "),
            });
        }
        self.touched.insert(Key::Profile(scope.clone(), id.clone()));
        self.state.profiles.remove(&key);
        self.audit_change("delete-profile", format_args!("{scope}/{id}"));
        changed(true)
    }

    /// Whether this very profile counts for the provider. So what a provider's profile says never
    /// grows older: another one counts only after one that is newer was written.
    fn uses(&self, provider: &Provider, scope: &Scope, id: &ProfileId) -> bool {
        provider.kind.as_str() == id.as_str()
            && self
                .state
                .custom_profile(&provider.workspace, id)
                .is_some_and(|custom| custom.scope == *scope)
    }

    fn put_profile(&mut self, custom: CustomProfile) {
        let (scope, id) = (custom.scope.clone(), custom.profile.id.clone());
        self.touched.insert(Key::Profile(scope.clone(), id.clone()));
        self.state.profiles.insert((scope, id), Arc::new(custom));
    }
}
