//! What operators say about refreshing: configure, rotate, delete.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::provider::{check_count, insert_key, names_once};
use super::{Tx, changed};
use crate::command::{Done, Kind, Outcome, Refusal};
use crate::credential::{
    Credential, Early, Health, Phase, Reason, Refresh, RefreshConfig, Settled, TicketEnd, Verdict,
};
use crate::id::{AuthorizationEpoch, CredentialId, Generation};
use crate::provider::limit;
use crate::refresh;
use crate::secret::Sealed;
use crate::time::{UnixMs, millis};

impl Tx<'_> {
    /// Starts a new authorization epoch. The value that is served stays, and so does a ticket
    /// that is out: its request may still run, and the next one must not overlap with it.
    pub(super) fn configure_refresh(
        &mut self,
        id: &CredentialId,
        config: &RefreshConfig,
        material: &BTreeMap<String, Sealed>,
        expires_at: Option<Option<UnixMs>>,
    ) -> Outcome {
        let mut provider = self.provider(id.provider)?;
        check_count(
            "material entries",
            config.material.len() + material.len(),
            limit::MATERIAL,
        )?;
        let mut credential = match self.state.credentials.get(id) {
            Some(known) => known.as_ref().clone(),
            None => {
                insert_key(&mut provider.credentials, &id.key);
                provider.touched = self.stamp.position;
                self.blank_credential(&provider, &id.key)
            }
        };
        if credential.refresh.is_some() {
            self.note_destruction();
        }
        drop_doubt(&mut credential);
        // Placeholders of the old configuration end with it.
        credential.touched = self.stamp.position;
        if let (Some(value), Some(end)) = (&mut credential.value, expires_at) {
            value.expires_at = end;
        }
        // A new configuration is proven at once, unless the operator vouches for the value that
        // is there by saying when it ends.
        let (due_at, due_reason) = match (&credential.value, expires_at) {
            (Some(_), Some(Some(end))) => {
                let left = millis(end.since(self.stamp.at));
                let after = refresh::due_after_ms(config, id, credential.generation, left);
                (self.stamp.at + Duration::from_millis(after), Reason::Due)
            }
            _ => (self.stamp.at, Reason::First),
        };
        let epoch = AuthorizationEpoch(self.stamp.position.0);
        // What sandboxes may ask for is counted across configurations.
        let refresh = credential.refresh.as_ref();
        let early_from = refresh.map_or(UnixMs(0), |r| r.early_from);
        let last_mint_at = credential.refresh.as_ref().and_then(|r| r.last_mint_at);
        credential.refresh = Some(Refresh {
            config: config.clone(),
            material: material.clone(),
            epoch,
            due_at,
            early_from,
            due_reason,
            failures: 0,
            health: Health {
                verdict: Verdict::Pending,
                cause: String::new(),
                remedy: String::new(),
                since: self.stamp.at,
            },
            last_mint_at,
            lost: None,
            learned_ends: BTreeMap::new(),
            doomed: None,
        });
        let mut distinct = BTreeSet::from([&id.key]);
        if let Some(key) = config.outputs.values().find(|key| !distinct.insert(key)) {
            return Err(Refusal::OutputOf {
                key: key.clone(),
                credential: id.key.clone(),
            });
        }
        for name in credential.names() {
            self.check_collision(&provider, name)?;
        }
        let others = self.state.credentials_of(&provider).map(Arc::as_ref);
        let others = others.filter(|c| c.id != *id);
        let names = names_once(others.chain([&credential]))?;
        check_count("credentials", names.len(), limit::CREDENTIALS)?;
        self.audit_change("configure-refresh", id);
        self.put_credential(credential);
        provider.version += 1;
        self.put_provider(provider);
        Ok(Done::Configured(epoch))
    }

    /// Makes the next mint due now. A refresh that was stopped tries once more; a doubt still
    /// waits for its time, since gambling on a spent token may lose the grant.
    pub(super) fn rotate_credential(&mut self, id: &CredentialId) -> Outcome {
        let mut credential = self.credential(id)?;
        let at = self.stamp.at;
        let refresh = credential.refresh.as_mut().ok_or(Refusal::NoRefresh)?;
        if refresh.config.strategy.is_pushed() {
            return Err(Refusal::Pushed);
        }
        refresh.due_at = at;
        refresh.due_reason = Reason::Rotate;
        if refresh.health.verdict.is_final() {
            refresh.health.verdict = Verdict::Retrying;
            refresh.health.since = at;
        }
        self.audit_change("rotate-credential", id);
        self.put_credential(credential);
        Ok(Done::Ok)
    }

    /// Makes the next mint due now, because a sandbox asks for it: once in a while, and only while
    /// the value that it speaks of is the newest.
    pub(super) fn mint_early(
        &mut self,
        id: &CredentialId,
        generation: Generation,
        early: Early,
    ) -> Outcome {
        let mut credential = self.credential(id)?;
        let now = self.stamp.at;
        if credential.may_be_early(generation, early, now).is_err() {
            return changed(false);
        }
        let value = credential.value.as_ref();
        let lifetime = value.and_then(|v| Some(v.expires_at?.since(v.issued_at)));
        let refresh = credential.refresh.as_mut().ok_or(Refusal::NoRefresh)?;
        refresh.due_at = now;
        refresh.due_reason = early.into();
        refresh.early_from = now + refresh::early_gap(lifetime);
        self.audit_change("mint-early", format_args!("{id} generation {generation}"));
        self.put_credential(credential);
        changed(true)
    }

    /// Destroys the material. The value stays until its end.
    pub(super) fn delete_refresh(&mut self, id: &CredentialId) -> Outcome {
        if !self.state.providers.contains_key(&id.provider) {
            return Err(Refusal::NotFound(Kind::Provider));
        }
        let Ok(mut credential) = self.credential(id) else {
            return changed(false);
        };
        if credential.refresh.take().is_none() {
            return changed(false);
        }
        self.note_destruction();
        drop_doubt(&mut credential);
        credential.touched = self.stamp.position;
        self.audit_change("delete-refresh", id);
        self.put_credential(credential);
        changed(true)
    }
}

/// A doubt is about the old grant; with a new configuration, or none, nobody asks any more. Its
/// request ended with its ticket.
fn drop_doubt(credential: &mut Credential) {
    if let Phase::InDoubt(doubt) = &credential.phase {
        credential.settled = Some(Settled {
            ticket: doubt.ticket.id,
            end: TicketEnd::Voided,
        });
        credential.phase = Phase::Idle;
    }
}
