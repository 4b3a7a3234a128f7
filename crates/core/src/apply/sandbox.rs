//! Sandboxes and what is attached to them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::provider::check_count;
use super::{Tx, changed, check_version};
use crate::command::{Done, Kind, Outcome, Refusal};
use crate::id::{Name, ProviderId, SandboxId, SigningKeyId, Workspace};
use crate::provider::{Provider, Sandbox, limit};
use crate::record::Key;
use crate::secret::Sealed;
use crate::signing::{self, SigningKey};

impl Tx<'_> {
    pub(super) fn create_sandbox(
        &mut self,
        id: SandboxId,
        workspace: &Workspace,
        name: &Name,
        providers: &[ProviderId],
    ) -> Outcome {
        if self.state.sandbox_named(workspace, name).is_some()
            || self.state.sandboxes.contains_key(&id)
        {
            return Err(Refusal::AlreadyExists(Kind::Sandbox));
        }
        let mut sandbox = Sandbox {
            id,
            workspace: workspace.clone(),
            name: name.clone(),
            providers: Vec::new(),
            token_epoch: 1,
            version: 1,
            created_at: self.stamp.at,
            touched: self.stamp.position,
        };
        for provider in providers {
            self.check_attach(&sandbox, *provider)?;
            if !sandbox.providers.contains(provider) {
                sandbox.providers.push(*provider);
            }
        }
        self.audit_change("create-sandbox", format_args!("{workspace}/{name}"));
        self.put_sandbox(sandbox);
        Ok(Done::Version(1))
    }

    pub(super) fn delete_sandbox(&mut self, id: SandboxId) -> Outcome {
        let Some(sandbox) = self.state.sandboxes.remove(&id) else {
            return changed(false);
        };
        self.touched.insert(Key::Sandbox(id));
        self.state
            .sandbox_names
            .remove(&(sandbox.workspace.clone(), sandbox.name.clone()));
        self.audit_change(
            "delete-sandbox",
            format_args!("{}/{}", sandbox.workspace, sandbox.name),
        );
        changed(true)
    }

    /// The sandbox's bundle stays what it was; whoever reads it has to show a newer token.
    pub(super) fn revoke_sandbox_tokens(&mut self, id: SandboxId) -> Outcome {
        let sandbox = self.state.sandboxes.get(&id);
        let sandbox = sandbox.ok_or(Refusal::NotFound(Kind::Sandbox))?;
        let mut sandbox = sandbox.as_ref().clone();
        sandbox.token_epoch += 1;
        self.audit_change(
            "revoke-sandbox-tokens",
            format_args!("{}/{}", sandbox.workspace, sandbox.name),
        );
        self.put_sandbox(sandbox);
        Ok(Done::Ok)
    }

    /// The predecessor is kept, so that the tokens that it signed stay good; what is older goes.
    pub(super) fn add_signing_key(
        &mut self,
        id: SigningKeyId,
        replaces: Option<SigningKeyId>,
        public: &[u8],
        private: &Sealed,
    ) -> Outcome {
        let newest = signing::newest(self.state).map(|key| key.id);
        if newest == Some(id) {
            return Ok(Done::Ok);
        }
        if newest != replaces || self.state.signing_keys.contains_key(&id) {
            return Err(Refusal::SigningKeyReplaced);
        }
        let keys = &self.state.signing_keys;
        let old: Vec<SigningKeyId> = keys
            .keys()
            .filter(|id| Some(**id) != newest)
            .copied()
            .collect();
        for old in old {
            self.state.signing_keys.remove(&old);
            self.touched.insert(Key::SigningKey(old));
            self.note_destruction();
        }
        let key = SigningKey {
            id,
            public: public.to_vec(),
            private: private.clone(),
            added: self.stamp.position,
            since: self.stamp.at,
        };
        self.touched.insert(Key::SigningKey(id));
        self.state.signing_keys.insert(id, Arc::new(key));
        self.audit_change("add-signing-key", id);
        Ok(Done::Ok)
    }

    pub(super) fn attach_provider(
        &mut self,
        id: SandboxId,
        provider: ProviderId,
        expected_version: Option<u64>,
    ) -> Outcome {
        let mut sandbox = self.sandbox(id)?;
        check_version(Kind::Sandbox, sandbox.version, expected_version)?;
        let attached = self.check_attach(&sandbox, provider)?;
        if sandbox.providers.contains(&provider) {
            return changed(false);
        }
        sandbox.providers.push(provider);
        self.touch_sandbox(sandbox, "attach-provider", &attached);
        changed(true)
    }

    pub(super) fn detach_provider(
        &mut self,
        id: SandboxId,
        provider: ProviderId,
        expected_version: Option<u64>,
    ) -> Outcome {
        let mut sandbox = self.sandbox(id)?;
        check_version(Kind::Sandbox, sandbox.version, expected_version)?;
        let detached = self.provider(provider)?;
        if !sandbox.providers.contains(&provider) {
            return changed(false);
        }
        sandbox.providers.retain(|p| *p != provider);
        self.touch_sandbox(sandbox, "detach-provider", &detached);
        changed(true)
    }

    fn sandbox(&self, id: SandboxId) -> Result<Sandbox, Refusal> {
        self.state
            .sandboxes
            .get(&id)
            .map(|s| s.as_ref().clone())
            .ok_or(Refusal::NotFound(Kind::Sandbox))
    }

    fn touch_sandbox(&mut self, mut sandbox: Sandbox, command: &str, provider: &Provider) {
        sandbox.version += 1;
        sandbox.touched = self.stamp.position;
        self.audit_change(
            command,
            format_args!("{}/{} {}", sandbox.workspace, sandbox.name, provider.name),
        );
        self.put_sandbox(sandbox);
    }

    /// Whether `sandbox` may use the provider's credentials beside those that it has.
    fn check_attach(&self, sandbox: &Sandbox, id: ProviderId) -> Result<Provider, Refusal> {
        let provider = self.provider(id)?;
        if provider.workspace != sandbox.workspace {
            return Err(Refusal::OtherWorkspace);
        }
        let others = || sandbox.providers.iter().filter(|other| **other != id);
        check_count("attached providers", others().count() + 1, limit::ATTACHED)?;
        for other in others().filter_map(|other| self.state.providers.get(other)) {
            let given: BTreeSet<_> = self.state.names_of(other).collect();
            if let Some(key) = self.state.names_of(&provider).find(|n| given.contains(n)) {
                return Err(Refusal::KeyCollision {
                    key: key.clone(),
                    provider: other.name.clone(),
                });
            }
        }
        Ok(provider)
    }
}
