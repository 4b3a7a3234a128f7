//! Providers and their static credentials.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Tx, changed, check_version};
use crate::command::{Done, Kind, Outcome, Refusal, StaticValue};
use crate::credential::{Credential, Health, Phase, Reason, Value, Verdict};
use crate::id::{
    Attempt, CredentialId, CredentialKey, Generation, Name, ProviderId, ProviderType, Workspace,
};
use crate::placement::shard_of;
use crate::provider::{Notes, Provider, limit};
use crate::record::Key;
use crate::refresh;
use crate::time::{Stamp, UnixMs, millis};

impl Tx<'_> {
    pub(super) fn create_provider(
        &mut self,
        id: ProviderId,
        (workspace, name, kind): (&Workspace, &Name, &ProviderType),
        (config, notes): (&BTreeMap<String, String>, &Notes),
        credentials: &BTreeMap<CredentialKey, StaticValue>,
    ) -> Outcome {
        if self.state.provider_named(workspace, name).is_some()
            || self.state.providers.contains_key(&id)
        {
            return Err(Refusal::AlreadyExists(Kind::Provider));
        }
        check_count("config entries", config.len(), limit::CONFIG)?;
        check_notes(notes)?;
        check_count("credentials", credentials.len(), limit::CREDENTIALS)?;
        let provider = Provider {
            id,
            workspace: workspace.clone(),
            name: name.clone(),
            kind: kind.clone(),
            config: config.clone(),
            notes: notes.clone(),
            credentials: credentials.keys().cloned().collect(),
            version: 1,
            created_at: self.stamp.at,
            touched: self.stamp.position,
        };
        for (key, value) in credentials {
            let blank = self.blank_credential(&provider, key);
            self.put_credential(with_static_value(blank, value, self.stamp));
        }
        self.put_provider(provider);
        self.audit_change("create-provider", format_args!("{workspace}/{name}"));
        Ok(Done::Version(1))
    }

    pub(super) fn update_provider(
        &mut self,
        id: ProviderId,
        expected_version: Option<u64>,
        config: &BTreeMap<String, Option<String>>,
        credentials: &BTreeMap<CredentialKey, Option<StaticValue>>,
        expires_at: &BTreeMap<CredentialKey, Option<UnixMs>>,
    ) -> Outcome {
        let mut provider = self.provider(id)?;
        check_version(Kind::Provider, provider.version, expected_version)?;
        for (key, value) in config {
            match value {
                Some(value) => provider.config.insert(key.clone(), value.clone()),
                None => provider.config.remove(key),
            };
        }
        check_count("config entries", provider.config.len(), limit::CONFIG)?;

        for key in credentials.keys().chain(expires_at.keys()) {
            self.check_not_an_output(&provider, key)?;
        }

        // First decide about everything, then write: a refusal leaves nothing half done.
        let mut put = Vec::new();
        let mut remove = Vec::new();
        for (key, value) in credentials {
            let credential_id = CredentialId {
                provider: id,
                key: key.clone(),
            };
            let known = self.state.credentials.get(&credential_id);
            if known.is_some_and(|c| is_managed(c, value.is_some())) {
                return Err(Refusal::RefreshManaged(key.clone()));
            }
            match value {
                None => {
                    // A request of a deleted refresh may still run; a new credential of the same
                    // name must not overlap with it.
                    if known.is_some_and(|c| c.ticket().is_some()) {
                        return Err(Refusal::TicketOutstanding);
                    }
                    if known.is_some() {
                        remove.push(credential_id);
                    }
                    provider.credentials.retain(|k| k != key);
                }
                Some(value) => {
                    let credential = match known {
                        Some(known) => known.as_ref().clone(),
                        None => {
                            self.check_collision(&provider, key)?;
                            insert_key(&mut provider.credentials, key);
                            self.blank_credential(&provider, key)
                        }
                    };
                    put.push(with_static_value(credential, value, self.stamp));
                }
            }
        }
        for (key, end) in expires_at {
            let credential_id = CredentialId {
                provider: id,
                key: key.clone(),
            };
            let mut credential = match put.iter().position(|c: &Credential| c.id == credential_id) {
                Some(at) => put.swap_remove(at),
                None => self.credential(&credential_id)?,
            };
            if is_managed(&credential, true) {
                return Err(Refusal::RefreshManaged(key.clone()));
            }
            if let Some(value) = &mut credential.value {
                value.expires_at = *end;
            }
            put.push(credential);
        }
        let replaced = put.iter().map(|c| &c.id.key);
        let replaced: BTreeSet<_> = replaced.chain(credentials.keys()).collect();
        let stays = self.state.credentials_of(&provider).map(Arc::as_ref);
        let stays = stays.filter(|c| !replaced.contains(&c.id.key));
        let names = names_once(stays.chain(&put))?;
        if let Some((key, credential)) = credentials.keys().find_map(|k| {
            let given = names.get(k).filter(|giver| *giver != k)?;
            Some((k.clone(), given.clone()))
        }) {
            return Err(Refusal::OutputOf { key, credential });
        }
        check_count("credentials", names.len(), limit::CREDENTIALS)?;

        let replaces = put
            .iter()
            .any(|new| self.state.credentials.contains_key(&new.id));
        if replaces || !remove.is_empty() {
            self.note_destruction();
        }
        for mut credential in put {
            credential.touched = self.stamp.position;
            self.note_push(&mut credential);
            self.put_credential(credential);
        }
        for credential_id in remove {
            self.remove_credential(&credential_id);
        }
        provider.version += 1;
        provider.touched = self.stamp.position;
        let version = provider.version;
        self.audit_change(
            "update-provider",
            format_args!("{}/{}", provider.workspace, provider.name),
        );
        self.put_provider(provider);
        Ok(Done::Version(version))
    }

    pub(super) fn delete_provider(&mut self, id: ProviderId) -> Outcome {
        let Ok(provider) = self.provider(id) else {
            return changed(false);
        };
        let sandboxes = self
            .state
            .sandboxes
            .values()
            .filter(|s| s.providers.contains(&id))
            .map(|s| format!("sandbox {}", s.name));
        let routes = self
            .state
            .routes
            .values()
            .filter(|r| r.provider == id)
            .map(|r| format!("route {}", r.name));
        let users: Vec<String> = sandboxes.chain(routes).collect();
        if !users.is_empty() {
            return Err(Refusal::InUse {
                kind: Kind::Provider,
                by: users.join(", "),
            });
        }
        self.note_destruction();
        for key in &provider.credentials {
            self.remove_credential(&CredentialId {
                provider: id,
                key: key.clone(),
            });
        }
        self.touched.insert(Key::Provider(id));
        self.state
            .provider_names
            .remove(&(provider.workspace.clone(), provider.name.clone()));
        self.state.providers.remove(&id);
        self.audit_change(
            "delete-provider",
            format_args!("{}/{}", provider.workspace, provider.name),
        );
        changed(true)
    }

    /// A credential without value or refresh.
    pub(super) fn blank_credential(&self, provider: &Provider, key: &CredentialKey) -> Credential {
        let id = CredentialId {
            provider: provider.id,
            key: key.clone(),
        };
        Credential {
            shard: shard_of(&id, self.settings().shards),
            id,
            workspace: provider.workspace.clone(),
            value: None,
            generation: Generation(0),
            refresh: None,
            attempt: Attempt(0),
            phase: Phase::Idle,
            settled: None,
            touched: self.stamp.position,
        }
    }

    /// Where values are pushed, one has come: says so, and by when the next one is to come.
    fn note_push(&self, credential: &mut Credential) {
        let at = self.stamp.at;
        let (Some(refresh), Some(value)) = (&mut credential.refresh, &credential.value) else {
            return;
        };
        let left = value.expires_at.map_or(0, |end| millis(end.since(at)));
        let generation = credential.generation;
        let after = refresh::due_after_ms(&refresh.config, &credential.id, generation, left);
        refresh.due_at = at + Duration::from_millis(after);
        refresh.due_reason = Reason::Due;
        refresh.last_mint_at = Some(value.issued_at);
        refresh.health = Health {
            verdict: Verdict::Fresh,
            cause: String::new(),
            remedy: String::new(),
            since: at,
        };
    }

    /// Refuses to set or delete by itself what a refresh gives as a further output.
    fn check_not_an_output(&self, provider: &Provider, key: &CredentialKey) -> Result<(), Refusal> {
        let is_output = self.state.credentials_of(provider).any(|c| {
            let mut refreshes = c.refresh.iter();
            refreshes.any(|r| r.config.outputs.values().any(|output| output == key))
        });
        match is_output {
            true => Err(Refusal::RefreshManaged(key.clone())),
            false => Ok(()),
        }
    }

    /// Refuses a new key that another provider of the same sandbox gives already: a sandbox's
    /// environment has one value for a name.
    pub(super) fn check_collision(
        &self,
        provider: &Provider,
        key: &CredentialKey,
    ) -> Result<(), Refusal> {
        let others = self
            .state
            .sandboxes
            .values()
            .filter(|s| s.providers.contains(&provider.id))
            .flat_map(|s| s.providers.iter())
            .filter(|id| **id != provider.id)
            .filter_map(|id| self.state.providers.get(id));
        for other in others {
            if self.state.names_of(other).any(|name| name == key) {
                return Err(Refusal::KeyCollision {
                    key: key.clone(),
                    provider: other.name.clone(),
                });
            }
        }
        Ok(())
    }
}

/// Whether only the refresh changes the credential's value: it mints it; or it would be deleted,
/// and the refresh with it.
fn is_managed(credential: &Credential, sets: bool) -> bool {
    let mut refreshes = credential.refresh.iter();
    refreshes.any(|r| !(sets && r.config.strategy.is_pushed()))
}

/// Every name that the credentials of one provider give, with the key of the one that gives it.
///
/// # Errors
/// [`Refusal::OutputOf`] if two of them give the same.
pub(super) fn names_once<'a>(
    credentials: impl Iterator<Item = &'a Credential>,
) -> Result<BTreeMap<CredentialKey, CredentialKey>, Refusal> {
    let mut names = BTreeMap::new();
    for credential in credentials {
        for name in credential.names() {
            if let Some(other) = names.insert(name.clone(), credential.id.key.clone()) {
                return Err(Refusal::OutputOf {
                    key: name.clone(),
                    credential: other,
                });
            }
        }
    }
    Ok(names)
}

/// Adds `key` in its order, once.
pub(super) fn insert_key(keys: &mut Vec<CredentialKey>, key: &CredentialKey) {
    if let Err(at) = keys.binary_search(key) {
        keys.insert(at, key.clone());
    }
}

pub(super) fn check_notes(notes: &Notes) -> Result<(), Refusal> {
    check_count("labels", notes.labels.len(), limit::NOTES)?;
    check_count("annotations", notes.annotations.len(), limit::NOTES)
}

pub(super) fn check_count(what: &str, count: usize, max: usize) -> Result<(), Refusal> {
    if count > max {
        return Err(Refusal::TooMany {
            what: what.to_owned(),
            max,
        });
    }
    Ok(())
}

fn with_static_value(mut credential: Credential, value: &StaticValue, stamp: Stamp) -> Credential {
    credential.generation = credential.generation.next();
    credential.value = Some(Value {
        outputs: BTreeMap::from([(credential.id.key.clone(), value.sealed.clone())]),
        issued_at: stamp.at,
        expires_at: value.expires_at,
        generation: credential.generation,
        position: stamp.position,
    });
    credential
}
