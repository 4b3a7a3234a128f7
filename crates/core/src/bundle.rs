//! What a sandbox sees: which objects its bundle is made of, and how new they are.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::credential::Credential;
use crate::id::{CredentialId, Name, Position, ProfileId, ProviderId, SandboxId, Workspace};
use crate::profile::CustomProfile;
use crate::provider::{Provider, Route, Sandbox};
use crate::record::Key;
use crate::state::State;
use crate::time::UnixMs;

/// The objects that one sandbox's bundle is made of.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Whose bundle it is.
    pub sandbox: Arc<Sandbox>,
    /// The newest entry that touched any of the inputs. Never decreases while the sandbox lives.
    pub generation: Position,
    /// The routes of the sandbox's workspace, by name.
    pub routes: Vec<RouteInput>,
    /// The attached providers, in the order of attachment.
    pub attached: Vec<AttachedInput>,
}

/// A route with what it leads to.
#[derive(Clone, Debug)]
pub struct RouteInput {
    /// The route.
    pub route: Arc<Route>,
    /// Its provider.
    pub provider: Arc<Provider>,
    /// The provider's profile, if it was imported; else it is a built-in one, or there is none.
    pub profile: Option<Arc<CustomProfile>>,
    /// The credential that it uses: the one it names, or the provider's first.
    pub credential: Option<Arc<Credential>>,
}

/// An attached provider with its credentials.
#[derive(Clone, Debug)]
pub struct AttachedInput {
    /// The provider.
    pub provider: Arc<Provider>,
    /// Its profile, if it was imported; else it is a built-in one, or there is none.
    pub profile: Option<Arc<CustomProfile>>,
    /// Its credentials, in the order of their keys.
    pub credentials: Vec<Arc<Credential>>,
}

/// Gathers the inputs of a sandbox's bundle; `None` if there is no such sandbox.
pub fn inputs(state: &State, sandbox: SandboxId) -> Option<Inputs> {
    let sandbox = state.sandboxes.get(&sandbox)?.clone();
    let workspace = &sandbox.workspace;
    let from = (workspace.clone(), Name::least());
    let routes: Vec<RouteInput> = state
        .routes
        .range(from..)
        .take_while(|((w, _), _)| w == workspace)
        .filter_map(|(_, route)| {
            let provider = state.providers.get(&route.provider)?.clone();
            let key = route
                .credential
                .as_ref()
                .or_else(|| provider.credentials.first());
            let credential = key.and_then(|key| {
                let id = CredentialId {
                    provider: provider.id,
                    key: key.clone(),
                };
                state.credentials.get(&id).cloned()
            });
            Some(RouteInput {
                route: route.clone(),
                profile: custom_profile(state, &provider),
                provider,
                credential,
            })
        })
        .collect();
    let attached: Vec<AttachedInput> = sandbox
        .providers
        .iter()
        .filter_map(|id| state.providers.get(id))
        .map(|provider| AttachedInput {
            provider: Arc::clone(provider),
            profile: custom_profile(state, provider),
            credentials: state.credentials_of(provider).cloned().collect(),
        })
        .collect();
    let marks = state.workspaces.get(workspace).map(|m| m.route_deleted);
    let generation = std::iter::once(sandbox.touched)
        .chain(marks)
        .chain(attached.iter().flat_map(|a| {
            std::iter::once(a.provider.touched)
                .chain(a.profile.iter().map(|p| p.touched))
                .chain(a.credentials.iter().map(|c| c.touched))
        }))
        .chain(routes.iter().flat_map(|r| {
            [r.route.touched, r.provider.touched]
                .into_iter()
                .chain(r.credential.iter().map(|c| c.touched))
                .chain(r.profile.iter().map(|p| p.touched))
        }))
        .max()
        .unwrap_or_default();
    Some(Inputs {
        sandbox,
        generation,
        routes,
        attached,
    })
}

impl Inputs {
    /// The providers of the routes, then the attached ones.
    pub fn providers(&self) -> impl Iterator<Item = &Arc<Provider>> {
        let of_routes = self.routes.iter().map(|r| &r.provider);
        of_routes.chain(self.attached.iter().map(|a| &a.provider))
    }

    /// The credentials of the routes, then those of the attached providers.
    pub fn credentials(&self) -> impl Iterator<Item = &Arc<Credential>> {
        let of_routes = self.routes.iter().filter_map(|r| r.credential.as_ref());
        of_routes.chain(self.attached.iter().flat_map(|a| &a.credentials))
    }

    /// When the next of the values that are good at `now` ends.
    pub fn next_expiry(&self, now: UnixMs) -> Option<UnixMs> {
        self.credentials()
            .filter_map(|c| c.value.as_ref()?.expires_at)
            .filter(|end| *end > now)
            .min()
    }
}

fn custom_profile(state: &State, provider: &Provider) -> Option<Arc<CustomProfile>> {
    if state.profiles.is_empty() {
        return None;
    }
    let id = ProfileId::new(provider.kind.as_str()).ok()?;
    state.custom_profile(&provider.workspace, &id).cloned()
}

/// What some entries touched, as far as bundles care.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affected {
    providers: BTreeSet<ProviderId>,
    workspaces: BTreeSet<Workspace>,
    sandboxes: BTreeSet<SandboxId>,
    profiles: BTreeSet<ProfileId>,
}

impl Affected {
    /// Sorts touched keys by what they mean for bundles.
    pub fn by<'a>(touched: impl IntoIterator<Item = &'a Key>) -> Self {
        let mut affected = Self::default();
        for key in touched {
            match key {
                Key::Provider(id) => {
                    affected.providers.insert(*id);
                }
                Key::Credential(id) => {
                    affected.providers.insert(id.provider);
                }
                Key::Route(workspace, _) | Key::Workspace(workspace) => {
                    affected.workspaces.insert(workspace.clone());
                }
                Key::Sandbox(id) => {
                    affected.sandboxes.insert(*id);
                }
                Key::Profile(_, id) => {
                    affected.profiles.insert(id.clone());
                }
                Key::Meta
                | Key::DataKey(_)
                | Key::Replica(_)
                | Key::Shard(_)
                | Key::Audit(_)
                | Key::Answer(_)
                | Key::SigningKey(_)
                | Key::Platform
                | Key::Authority
                | Key::JoinToken(_)
                | Key::Revocation(_) => {}
            }
        }
        affected
    }

    /// Whether no bundle can be concerned.
    pub fn is_empty(&self) -> bool {
        self.providers.is_empty()
            && self.workspaces.is_empty()
            && self.sandboxes.is_empty()
            && self.profiles.is_empty()
    }

    fn is_profile_of(&self, provider: &Provider) -> bool {
        // Of another workspace's profile too: a bundle that is made anew for nothing is the same.
        self.profiles
            .iter()
            .any(|id| id.as_str() == provider.kind.as_str())
    }

    /// Whether the bundle that was made of `inputs` may have changed.
    pub fn concerns(&self, inputs: &Inputs) -> bool {
        self.sandboxes.contains(&inputs.sandbox.id)
            || self.workspaces.contains(&inputs.sandbox.workspace)
            || inputs
                .sandbox
                .providers
                .iter()
                .any(|id| self.providers.contains(id))
            || inputs
                .routes
                .iter()
                .any(|r| self.providers.contains(&r.provider.id))
            || inputs.providers().any(|p| self.is_profile_of(p))
    }
}

/// A client's memory of the newest bundle that it has seen: what it asks for at least, and its
/// own check of what it is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeenGeneration {
    newest: Option<Position>,
}

/// A bundle from before one that was seen already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bundle generation {given} is older than {seen}, which was seen before")]
pub struct OlderBundle {
    /// The generation that was given.
    pub given: Position,
    /// The generation that was seen.
    pub seen: Position,
}

impl SeenGeneration {
    /// The `min_generation` of the next request.
    pub fn newest(&self) -> Option<Position> {
        self.newest
    }

    /// Takes note of a bundle.
    ///
    /// # Errors
    /// [`OlderBundle`] if it must not be used.
    pub fn accept(&mut self, given: Position) -> Result<(), OlderBundle> {
        match self.newest {
            Some(seen) if given < seen => Err(OlderBundle { given, seen }),
            _ => {
                self.newest = Some(given);
                Ok(())
            }
        }
    }
}
