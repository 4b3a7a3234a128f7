//! Revocation at the issuer: a deletion or a rotation leaves the work, owners claim and settle it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Tx;
use super::mint::Given;
use crate::audit::AuditEvent;
use crate::command::{Done, Kind, Outcome, Refusal};
use crate::credential::{Credential, Doomed, Phase, Refresh, Value};
use crate::id::{Attempt, CredentialId, ProviderId, ReplicaId, SessionId, ShardEpoch, TicketId};
use crate::mint::{Failure, FailureClass};
use crate::record::Key;
use crate::revocation::{
    BOUND, Claim, ENDED_MAX, End, Ended, OPEN_MAX, Revocation, RevocationId, Stage, Target, Work,
};

impl Tx<'_> {
    pub(super) fn revoke_provider(&mut self, id: ProviderId) -> Outcome {
        let Ok(provider) = self.provider(id) else {
            return super::changed(false);
        };
        let credentials = self.state.credentials_of(&provider).map(Arc::as_ref);
        let opened: Vec<_> = credentials.filter_map(|c| self.of_grant(c)).collect();
        let Some(first) = provider.credentials.first() else {
            return self.delete_provider(id);
        };
        if opened.is_empty() {
            return Err(Refusal::NotRevocable(first.clone()));
        }
        self.check_room(opened.len())?;
        let done = self.delete_provider(id)?;
        for revocation in opened {
            self.put_revocation(revocation);
        }
        Ok(done)
    }

    pub(super) fn revoke_refresh(&mut self, id: &CredentialId) -> Outcome {
        let known = self.state.credentials.get(id);
        let Some(credential) = known.filter(|c| c.refresh.is_some()).cloned() else {
            return self.delete_refresh(id);
        };
        let revocation = self
            .of_grant(&credential)
            .ok_or_else(|| Refusal::NotRevocable(id.key.clone()))?;
        self.check_room(1)?;
        let is_minted = minted_value(&credential).is_some();
        let done = self.delete_refresh(id)?;
        // What is revoked is not served, whatever the issuer makes of it.
        let mut credential = self.credential(id)?;
        credential.value.take_if(|_| is_minted);
        self.put_credential(credential);
        self.put_revocation(revocation);
        Ok(done)
    }

    /// Makes the next mint due now, and dooms the value that it replaces.
    pub(super) fn revoke_value(&mut self, id: &CredentialId, grace_ms: u64) -> Outcome {
        let credential = self.credential(id)?;
        let refresh = credential.refresh.as_ref().ok_or(Refusal::NoRefresh)?;
        if refresh.config.revoke_url.is_empty() {
            return Err(Refusal::NotRevocable(id.key.clone()));
        }
        if refresh.config.strategy.has_lasting_grant() {
            return Err(Refusal::GrantAtStake(id.key.clone()));
        }
        self.check_room(1)?;
        let done = self.rotate_credential(id)?;
        let mut credential = self.credential(id)?;
        let generation = credential.generation;
        let minted = minted_value(&credential).is_some();
        if let Some(refresh) = credential.refresh.as_mut().filter(|_| minted) {
            refresh.doomed = Some(Doomed {
                generation,
                asked: self.stamp.position,
                asked_at: self.stamp.at,
                grace_ms,
            });
            self.put_credential(credential);
        }
        Ok(done)
    }

    /// `refresh` has given another value than `old`: revokes the old one after its grace, if that
    /// was wished for.
    pub(super) fn revoke_superseded(
        &mut self,
        credential: &Credential,
        refresh: &mut Refresh,
        old: Option<Value>,
    ) {
        let Some(doomed) = refresh.doomed.take() else {
            return;
        };
        let old = old.filter(|v| v.generation == doomed.generation);
        let token = old.as_ref().and_then(|v| v.outputs.get(&credential.id.key));
        let (Some(old), Some(token)) = (&old, token) else {
            return;
        };
        let after = self.stamp.at + Duration::from_millis(doomed.grace_ms);
        let due_at = old.expires_at.map_or(after, |end| end.min(after));
        let work = Work {
            config: refresh.config.clone(),
            material: refresh.material.clone(),
            tokens: vec![token.clone()],
            awaits: None,
            needless_from: old.expires_at,
            due_at,
            until: due_at + BOUND,
            tries: 0,
            claim: None,
            cause: String::new(),
        };
        let id = RevocationId {
            credential: credential.id.clone(),
            asked: doomed.asked,
        };
        if let Some(revocation) = self.open(id, credential, Target::Value(old.generation), work) {
            self.put_revocation(Revocation {
                asked_at: doomed.asked_at,
                ..revocation
            });
        }
    }

    pub(super) fn claim_revocation(
        &mut self,
        id: &RevocationId,
        owner: ReplicaId,
        session: SessionId,
        shard_epoch: ShardEpoch,
        expected_tries: u32,
    ) -> Outcome {
        let (mut revocation, mut work) = self.open_revocation(id)?;
        let owns = self
            .state
            .shards
            .get(&revocation.shard)
            .is_some_and(|a| (a.replica, a.session, a.epoch) == (owner, session, shard_epoch));
        if !owns {
            return Err(Refusal::NotOwner);
        }
        let now = self.stamp.at;
        if work.tries != expected_tries || now < work.next_at() {
            return Err(Refusal::RevocationNotDue);
        }
        if work.needless_from.is_some_and(|end| end <= now) {
            return self.end_revocation(revocation, &work, End::Needless);
        }
        if work.is_over(now) {
            let cause = work.why_over();
            return self.end_revocation(revocation, &work, End::NotTold(cause));
        }
        work.tries += 1;
        work.claim = Some(Claim {
            owner,
            session,
            ends_at: now + Duration::from_millis(self.settings().ticket_ttl_ms),
            is_outdated: false,
        });
        let attempt = Attempt(work.tries.into());
        revocation.stage = Stage::Open(work);
        self.put_revocation(revocation);
        Ok(Done::Granted { attempt })
    }

    pub(super) fn settle_revocation(
        &mut self,
        id: &RevocationId,
        tries: u32,
        failure: Option<&Failure>,
    ) -> Outcome {
        let (mut revocation, mut work) = self.open_revocation(id)?;
        if work.tries != tries {
            return Err(Refusal::RevocationNotDue);
        }
        let Some(claim) = &work.claim else {
            return Ok(Done::Settled);
        };
        let now = self.stamp.at;
        let Some(failure) = failure else {
            if !claim.is_outdated {
                return self.end_revocation(revocation, &work, End::Told);
            }
            work.claim = None;
            work.due_at = now;
            revocation.stage = Stage::Open(work);
            self.put_revocation(revocation);
            return Ok(Done::Settled);
        };
        let pause = Duration::from_millis(work.pause_ms(failure.retry_after_ms));
        work.cause.clone_from(&failure.cause);
        work.due_at = now + pause;
        if is_final(failure.class) || work.is_over(work.due_at) {
            return self.end_revocation(revocation, &work, End::NotTold(failure.cause.clone()));
        }
        work.claim = None;
        revocation.stage = Stage::Open(work);
        self.put_revocation(revocation);
        Ok(Done::Settled)
    }

    /// A mint that an open revocation waits for has come to its end: what it brought, if anything,
    /// is to be revoked as well. Whether there is such a revocation.
    pub(super) fn revoke_late(
        &mut self,
        credential: &CredentialId,
        ticket: TicketId,
        brought: Option<&Given<'_>>,
    ) -> bool {
        let awaiting = |r: &&Arc<Revocation>| r.work().is_some_and(|w| w.awaits == Some(ticket));
        let known = self
            .state
            .revocations_of(credential)
            .find(awaiting)
            .cloned();
        let Some(mut revocation) = known.map(|r| r.as_ref().clone()) else {
            return false;
        };
        if let Stage::Open(work) = &mut revocation.stage {
            work.awaits = None;
            if let Some(given) = brought {
                work.tokens
                    .extend(given.outputs.get(&credential.key).cloned());
                let new = given.new_material.iter();
                work.material
                    .extend(new.map(|(n, s)| (n.clone(), s.clone())));
                if let Some(claim) = &mut work.claim {
                    claim.is_outdated = true;
                }
            }
            work.due_at = work.due_at.min(self.stamp.at);
        }
        self.put_revocation(revocation);
        true
    }

    /// The revocation of a credential's grant; `None` if its issuer cannot be told.
    fn of_grant(&self, credential: &Credential) -> Option<Revocation> {
        let refresh = credential.refresh.as_ref()?;
        if refresh.config.revoke_url.is_empty() {
            return None;
        }
        let now = self.stamp.at;
        let token = minted_value(credential).filter(|v| !v.is_expired(now));
        let token = token.and_then(|v| v.outputs.get(&credential.id.key));
        let (awaits, due_at) = match &credential.phase {
            Phase::Idle => (None, now),
            // Its request may run; what it brings comes within the ticket.
            Phase::Ticketed(ticket) => {
                let ttl = Duration::from_millis(ticket.ttl_ms);
                (Some(ticket.id), now + ttl)
            }
            Phase::InDoubt(doubt) => (Some(doubt.ticket.id), now),
        };
        let work = Work {
            config: refresh.config.clone(),
            material: refresh.material.clone(),
            tokens: token.cloned().into_iter().collect(),
            awaits,
            needless_from: None,
            due_at,
            until: due_at + BOUND,
            tries: 0,
            claim: None,
            cause: String::new(),
        };
        let id = RevocationId {
            credential: credential.id.clone(),
            asked: self.stamp.position,
        };
        self.open(id, credential, Target::Grant, work)
    }

    fn open(
        &self,
        id: RevocationId,
        credential: &Credential,
        target: Target,
        work: Work,
    ) -> Option<Revocation> {
        let provider = self.state.providers.get(&credential.id.provider)?;
        Some(Revocation {
            id,
            workspace: credential.workspace.clone(),
            provider: provider.name.clone(),
            shard: credential.shard,
            target,
            asked_at: self.stamp.at,
            stage: Stage::Open(Box::new(work)),
        })
    }

    pub(super) fn open_revocation(
        &self,
        id: &RevocationId,
    ) -> Result<(Revocation, Box<Work>), Refusal> {
        let known = self.state.revocations.get(id);
        let revocation = known.ok_or(Refusal::NotFound(Kind::Revocation))?;
        match &revocation.stage {
            Stage::Open(work) => Ok((revocation.as_ref().clone(), work.clone())),
            Stage::Ended(_) => Err(Refusal::RevocationNotDue),
        }
    }

    /// Destroys what is left of the material, and remembers how it ended.
    fn end_revocation(&mut self, mut revocation: Revocation, work: &Work, end: End) -> Outcome {
        self.note_destruction();
        self.audit(AuditEvent::Revocation {
            credential: revocation.id.credential.clone(),
            target: revocation.target,
            replica: work.claim.as_ref().map(|claim| claim.owner),
            tries: work.tries,
            end: end.clone(),
        });
        revocation.stage = Stage::Ended(Ended {
            at: self.stamp.at,
            position: self.stamp.position,
            tries: work.tries,
            end,
        });
        self.put_revocation(revocation);
        self.forget_ended();
        Ok(Done::Settled)
    }

    fn forget_ended(&mut self) {
        let ended = self
            .state
            .revocations
            .iter()
            .filter_map(|(id, r)| match &r.stage {
                Stage::Ended(ended) => Some((ended.position, id.clone())),
                Stage::Open(_) => None,
            });
        let ended: BTreeMap<_, _> = ended.collect();
        let surplus = ended.len().saturating_sub(ENDED_MAX);
        for id in ended.into_values().take(surplus) {
            self.state.revocations.remove(&id);
            self.touched.insert(Key::Revocation(id));
        }
    }

    fn check_room(&self, more: usize) -> Result<(), Refusal> {
        let open = self.state.revocations.values();
        let open = open.filter(|r| r.work().is_some()).count();
        super::provider::check_count("open revocations", open + more, OPEN_MAX)
    }

    pub(super) fn put_revocation(&mut self, revocation: Revocation) {
        let id = revocation.id.clone();
        self.touched.insert(Key::Revocation(id.clone()));
        self.state.revocations.insert(id, Arc::new(revocation));
    }
}

/// The value, if the refresh that stands now minted it: another one is not its issuer's to see.
fn minted_value(credential: &Credential) -> Option<&Value> {
    let refresh = credential.refresh.as_ref()?;
    let value = credential.value.as_ref();
    value.filter(|v| v.position.0 > refresh.epoch.0)
}

/// Whether another try would be refused as this one was.
fn is_final(class: FailureClass) -> bool {
    match class {
        FailureClass::UnknownRefusal | FailureClass::GrantRefused | FailureClass::ConfigRefused => {
            true
        }
        FailureClass::Unsent
        | FailureClass::Transient
        | FailureClass::Throttled
        | FailureClass::Unclear => false,
    }
}
