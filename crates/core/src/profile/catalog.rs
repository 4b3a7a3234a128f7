//! Finds profiles: a workspace's own stand before the platform's, and these before the built-in
//! ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{CustomProfile, Profile, Scope};
use crate::id::{ProfileId, ProviderType, Workspace};
use crate::state::State;

/// The built-in profiles of a build. Two builds may differ in them; what a refresh was configured
/// with is stored, and does not change with the build.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    builtin: BTreeMap<ProfileId, Arc<Profile>>,
    aliases: BTreeMap<ProfileId, ProfileId>,
}

/// A profile with where it comes from.
#[derive(Clone, Debug)]
pub enum Found {
    /// Part of the build.
    Builtin(Arc<Profile>),
    /// Imported.
    Custom(Arc<CustomProfile>),
}

impl Found {
    /// What it says.
    pub fn profile(&self) -> &Profile {
        match self {
            Self::Builtin(profile) => profile,
            Self::Custom(custom) => &custom.profile,
        }
    }

    /// Whether the endpoints that it fixes are for all: it is built in, or an admin imported it for
    /// the platform. Those of a workspace's own profile are as good as any that an operator names.
    pub fn speaks_for_platform(&self) -> bool {
        match self {
            Self::Builtin(_) => true,
            Self::Custom(custom) => custom.scope == Scope::Platform,
        }
    }

    /// Its version; 0 if it is built in.
    pub fn version(&self) -> u64 {
        match self {
            Self::Builtin(_) => 0,
            Self::Custom(custom) => custom.version,
        }
    }
}

impl Catalog {
    /// The catalog of these built-in profiles. Of two with one id or alias the first counts.
    pub fn new(builtin: impl IntoIterator<Item = Profile>) -> Self {
        let mut catalog = Self::default();
        for profile in builtin {
            for alias in &profile.aliases {
                catalog
                    .aliases
                    .entry(alias.clone())
                    .or_insert_with(|| profile.id.clone());
            }
            catalog
                .builtin
                .entry(profile.id.clone())
                .or_insert_with(|| Arc::new(profile));
        }
        catalog
    }

    /// The built-in profiles, by id.
    pub fn builtin(&self) -> impl Iterator<Item = &Arc<Profile>> {
        self.builtin.values()
    }

    /// A built-in profile.
    pub fn builtin_named(&self, id: &ProfileId) -> Option<&Arc<Profile>> {
        self.builtin.get(id)
    }

    /// The profile of providers of type `kind` in `workspace`; `None` if none has that id. An
    /// alias is no id: [`canonical`](Self::canonical) replaced it when the provider was created.
    pub fn of(&self, state: &State, workspace: &Workspace, kind: &ProviderType) -> Option<Found> {
        let id = ProfileId::new(kind.as_str()).ok()?;
        self.find(state, workspace, &id)
    }

    /// The profile of providers of type `kind`, whose imported profile is `custom` if there is one.
    pub fn profile_for<'a>(
        &'a self,
        kind: &ProviderType,
        custom: Option<&'a CustomProfile>,
    ) -> Option<&'a Profile> {
        match custom {
            Some(custom) => Some(&custom.profile),
            None => {
                let id = ProfileId::new(kind.as_str()).ok()?;
                self.builtin.get(&id).map(Arc::as_ref)
            }
        }
    }

    /// The profile called `id` in `workspace`.
    pub fn find(&self, state: &State, workspace: &Workspace, id: &ProfileId) -> Option<Found> {
        match state.custom_profile(workspace, id) {
            Some(custom) => Some(Found::Custom(custom.clone())),
            None => self.builtin.get(id).cloned().map(Found::Builtin),
        }
    }

    /// The type that an operator means: the id of a profile in `workspace`, whose alias may have
    /// been written, in any case. A type that no profile has stays as it is: its credentials can
    /// be given, and not be minted.
    pub fn canonical(
        &self,
        state: &State,
        workspace: &Workspace,
        written: &ProviderType,
    ) -> ProviderType {
        let lower = written.as_str().to_ascii_lowercase();
        let Ok(id) = ProfileId::new(lower) else {
            return written.clone();
        };
        if self.find(state, workspace, &id).is_some() {
            return ProviderType::from(id);
        }
        let custom = [Scope::Workspace(workspace.clone()), Scope::Platform]
            .into_iter()
            .flat_map(|scope| state.profiles_in(scope))
            .find(|custom| custom.profile.aliases.contains(&id))
            .map(|custom| custom.profile.id.clone());
        match custom.or_else(|| self.aliases.get(&id).cloned()) {
            Some(id) => ProviderType::from(id),
            None => written.clone(),
        }
    }

    /// The profiles that `workspace` can use: of each id the one that counts, with those that it
    /// stands before after it.
    pub fn list(&self, state: &State, workspace: Option<&Workspace>) -> Vec<Found> {
        let own = workspace
            .into_iter()
            .flat_map(|w| state.profiles_in(Scope::Workspace(w.clone())));
        let mut all: Vec<(ProfileId, u8, Found)> = own
            .map(|c| (c.profile.id.clone(), 0, Found::Custom(c.clone())))
            .chain(
                state
                    .profiles_in(Scope::Platform)
                    .map(|c| (c.profile.id.clone(), 1, Found::Custom(c.clone()))),
            )
            .chain(
                self.builtin
                    .values()
                    .map(|p| (p.id.clone(), 2, Found::Builtin(p.clone()))),
            )
            .collect();
        all.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        all.into_iter().map(|(_, _, found)| found).collect()
    }
}

impl From<ProfileId> for ProviderType {
    fn from(id: ProfileId) -> Self {
        Self::new(String::from(id)).expect("every profile id is a provider type")
    }
}
