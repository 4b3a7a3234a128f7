//! The mint protocol (DESIGN §3): a ticket is granted, and settled by exactly one of commit,
//! failure, expiry and abandonment.
//!
//! ```text
//!            grant                 commit, fail, abandon
//!    Idle ───────────▶ Ticketed ───────────────────────────▶ Idle
//!     ▲                   │ expire; fail when the answer was lost
//!     │ commit (late),    ▼
//!     └── abandon ───── InDoubt ── grant, once its time has come ──▶ Ticketed
//! ```
//!
//! Every command is keyed by the ticket, so that it may arrive twice, late or in any order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Tx;
use crate::audit::{AuditEvent, MintEnd};
use crate::command::{Done, Outcome, Refusal};
use crate::credential::{
    Credential, Doubt, Health, LostMint, Phase, Reason, Refresh, Settled, Ticket, TicketEnd, Value,
    Verdict,
};
use crate::horizon;
use crate::id::{
    Attempt, AuthorizationEpoch, CredentialId, CredentialKey, Generation, ReplicaId, SessionId,
    ShardEpoch, TicketId,
};
use crate::mint::{Failure, FailureClass, UNKNOWN_REFUSALS_MAX};
use crate::refresh::{self, Served};
use crate::secret::Sealed;
use crate::settings::Settings;
use crate::strategy::ReplayPolicy;
use crate::time::{UnixMs, millis};

/// What an owner claims when it asks for a ticket.
pub(super) struct Claim {
    pub(super) ticket: TicketId,
    pub(super) owner: ReplicaId,
    pub(super) session: SessionId,
    pub(super) shard_epoch: ShardEpoch,
    pub(super) epoch: AuthorizationEpoch,
    pub(super) generation: Generation,
    pub(super) attempt: Attempt,
    pub(super) reason: Reason,
}

/// What a mint gave.
pub(super) struct Given<'a> {
    pub(super) outputs: &'a BTreeMap<CredentialKey, Sealed>,
    pub(super) lifetime_ms: Option<u64>,
    pub(super) new_material: &'a BTreeMap<String, Sealed>,
    pub(super) material_lifetimes_ms: &'a BTreeMap<String, u64>,
}

impl Tx<'_> {
    pub(super) fn grant_ticket(&mut self, id: &CredentialId, claim: &Claim) -> Outcome {
        let mut credential = self.credential(id)?;
        if let Some(ticket) = credential.ticket()
            && ticket.id == claim.ticket
        {
            return Ok(Done::Granted {
                attempt: ticket.attempt,
            });
        }
        let settings = self.settings();
        let granted_at = self.stamp.at;
        let owns = self.state.shards.get(&credential.shard).is_some_and(|a| {
            (a.replica, a.session, a.epoch) == (claim.owner, claim.session, claim.shard_epoch)
        });
        // The window of a grace may have closed since the doubt began.
        let wait_until = match (&credential.phase, &credential.refresh) {
            (Phase::InDoubt(doubt), Some(refresh)) => {
                let (ticket, since) = (&doubt.ticket, doubt.since);
                doubt_until(&settings, &credential, refresh, ticket, since, granted_at)
            }
            _ => granted_at,
        };
        let refresh = credential.refresh.as_mut().ok_or(Refusal::NoRefresh)?;
        if refresh.config.strategy.is_pushed() {
            return Err(Refusal::Pushed);
        }
        if !owns {
            return Err(Refusal::NotOwner);
        }
        if refresh.epoch != claim.epoch {
            return Err(Refusal::EpochMismatch);
        }
        if (credential.generation, credential.attempt) != (claim.generation, claim.attempt) {
            return Err(Refusal::Stale {
                generation: credential.generation,
                attempt: credential.attempt,
            });
        }
        match &credential.phase {
            Phase::Ticketed(_) => return Err(Refusal::TicketOutstanding),
            Phase::InDoubt(_) if granted_at < wait_until => {
                return Err(Refusal::InDoubt { until: wait_until });
            }
            Phase::InDoubt(doubt) => {
                credential.settled = Some(Settled {
                    ticket: doubt.ticket.id,
                    end: TicketEnd::Superseded,
                });
            }
            Phase::Idle => {}
        }
        if refresh.health.verdict.is_final() {
            return Err(Refusal::Stopped);
        }
        // A wish to rotate is met by this ticket; one that comes while it is out stands.
        refresh.due_reason = Reason::Retry;
        credential.attempt = credential.attempt.next();
        credential.phase = Phase::Ticketed(Ticket {
            id: claim.ticket,
            attempt: credential.attempt,
            owner: claim.owner,
            session: claim.session,
            shard_epoch: claim.shard_epoch,
            epoch: claim.epoch,
            reason: claim.reason,
            granted_at,
            ttl_ms: settings.ticket_ttl_ms,
        });
        let attempt = credential.attempt;
        self.put_credential(credential);
        Ok(Done::Granted { attempt })
    }

    pub(super) fn commit_mint(
        &mut self,
        id: &CredentialId,
        ticket: TicketId,
        given: &Given<'_>,
    ) -> Outcome {
        if self.revoke_late(id, ticket, Some(given)) && !self.state.credentials.contains_key(id) {
            return Err(Refusal::Voided);
        }
        let mut credential = self.credential(id)?;
        if let Some(answer) = settled_before(&credential, ticket) {
            return answer;
        }
        let (ticket, Some(mut refresh)) = self.claim_result(&mut credential, ticket)? else {
            return Err(Refusal::Voided);
        };
        let declared = refresh.config.outputs.values().chain([&id.key]);
        if !given.outputs.keys().eq(declared.collect::<BTreeSet<_>>()) {
            return Err(Refusal::WrongOutputs);
        }
        let settings = self.settings();
        let lifetime = refresh::lifetime_ms(&settings, &refresh.config, given.lifetime_ms);
        let generation = credential.generation.next();
        credential.generation = generation;
        let old = credential.value.replace(Value {
            outputs: given.outputs.clone(),
            issued_at: ticket.granted_at,
            expires_at: Some(ticket.granted_at + Duration::from_millis(lifetime)),
            generation,
            position: self.stamp.position,
        });
        credential.touched = self.stamp.position;
        credential.phase = Phase::Idle;
        credential.settled = Some(Settled {
            ticket: ticket.id,
            end: TicketEnd::Committed(generation),
        });
        let renewed = given.new_material;
        for (name, sealed) in renewed {
            refresh.material.insert(name.clone(), sealed.clone());
        }
        let mint = horizon::Mint {
            at: ticket.granted_at,
            before: refresh.last_mint_at,
        };
        let ends = given.material_lifetimes_ms;
        horizon::learn(&mut refresh.learned_ends, mint, ends, |name| {
            renewed.contains_key(name)
        });
        self.revoke_superseded(&credential, &mut refresh, old);
        if refresh.due_reason != Reason::Rotate {
            // A refresh token that ends before its access token has to be used before.
            let ends = refresh.learned_ends.values();
            let ends = ends.map(|end| millis(end.at.since(ticket.granted_at)));
            let least = ends.min().unwrap_or(lifetime).min(lifetime);
            let after = refresh::due_after_ms(&refresh.config, id, generation, least);
            refresh.due_at = ticket.granted_at + Duration::from_millis(after);
            refresh.due_reason = Reason::Due;
        }
        refresh.failures = 0;
        refresh.lost = None;
        refresh.last_mint_at = Some(self.stamp.at);
        refresh.health = self.health(Verdict::Fresh, String::new(), String::new());
        credential.refresh = Some(refresh);
        self.put_credential(credential);
        self.audit_mint(id, &ticket, MintEnd::Committed(generation));
        Ok(Done::Committed(generation))
    }

    pub(super) fn fail_mint(
        &mut self,
        id: &CredentialId,
        ticket: TicketId,
        failure: &Failure,
    ) -> Outcome {
        self.revoke_late(id, ticket, None);
        let mut credential = self.credential(id)?;
        if let Some(answer) = settled_before(&credential, ticket) {
            return answer.map(|_| Done::Settled);
        }
        let consumes = |r: &Refresh| r.config.strategy.consumes_material();
        let answer_lost = failure.class == FailureClass::Unclear;
        if answer_lost && matches!(credential.phase, Phase::InDoubt(_)) {
            return match is_of_phase(&credential, ticket) {
                true => Ok(Done::Settled),
                false => Err(Refusal::TicketNotCurrent),
            };
        }
        let (ticket, Some(mut refresh)) = self.claim_result(&mut credential, ticket)? else {
            return Err(Refusal::Voided);
        };
        if answer_lost && consumes(&refresh) {
            self.enter_doubt(credential, refresh, ticket, &failure.cause);
            return Ok(Done::Settled);
        }
        forget_loss(&mut refresh, &ticket);
        refresh.failures = refresh.failures.saturating_add(1);
        let settings = self.settings();
        refresh.due_at = self.retry_at(&settings, &credential, &refresh, failure);
        if refresh.due_reason != Reason::Rotate {
            refresh.due_reason = Reason::Retry;
        }
        refresh.health = self.diagnose(&refresh, failure);
        credential.phase = Phase::Idle;
        credential.settled = Some(Settled {
            ticket: ticket.id,
            end: TicketEnd::Failed,
        });
        credential.refresh = Some(refresh);
        self.put_credential(credential);
        self.audit_mint(id, &ticket, MintEnd::Failed(failure.cause.clone()));
        Ok(Done::Settled)
    }

    pub(super) fn expire_ticket(&mut self, id: &CredentialId, ticket: TicketId) -> Outcome {
        let mut credential = self.credential(id)?;
        if settled_before(&credential, ticket).is_some() {
            return Ok(Done::Settled);
        }
        match &credential.phase {
            Phase::InDoubt(doubt) if doubt.ticket.id == ticket => return Ok(Done::Settled),
            Phase::Idle | Phase::InDoubt(_) => return Err(Refusal::TicketNotCurrent),
            Phase::Ticketed(_) => {}
        }
        if let (ticket, Some(mut refresh)) = self.claim_result(&mut credential, ticket)? {
            refresh.failures = refresh.failures.saturating_add(1);
            let cause = "the mint did not end within its ticket";
            self.enter_doubt(credential, refresh, ticket, cause);
        }
        Ok(Done::Settled)
    }

    pub(super) fn abandon_ticket(&mut self, id: &CredentialId, ticket: TicketId) -> Outcome {
        self.revoke_late(id, ticket, None);
        let mut credential = self.credential(id)?;
        if let Some(answer) = settled_before(&credential, ticket) {
            return answer.map(|_| Done::Settled);
        }
        let (ticket, Some(mut refresh)) = self.claim_result(&mut credential, ticket)? else {
            return Err(Refusal::Voided);
        };
        forget_loss(&mut refresh, &ticket);
        if matches!(credential.phase, Phase::InDoubt(_)) {
            refresh.due_at = self.stamp.at;
            let cause = "an earlier mint was abandoned before anything was sent";
            refresh.health = self.health(Verdict::Retrying, cause.to_owned(), String::new());
        }
        credential.phase = Phase::Idle;
        credential.settled = Some(Settled {
            ticket: ticket.id,
            end: TicketEnd::Abandoned,
        });
        credential.refresh = Some(refresh);
        self.put_credential(credential);
        self.audit_mint(id, &ticket, MintEnd::Abandoned);
        Ok(Done::Settled)
    }

    /// The ticket under which a result comes, and the refresh that it belongs to. The result of
    /// another configuration, or of none, settles its ticket here as voided, and gives no refresh.
    fn claim_result(
        &mut self,
        credential: &mut Credential,
        id: TicketId,
    ) -> Result<(Ticket, Option<Refresh>), Refusal> {
        let ticket = match &credential.phase {
            Phase::Ticketed(ticket) if ticket.id == id => ticket.clone(),
            Phase::InDoubt(doubt) if doubt.ticket.id == id => doubt.ticket.clone(),
            Phase::Idle | Phase::Ticketed(_) | Phase::InDoubt(_) => {
                return Err(Refusal::TicketNotCurrent);
            }
        };
        match credential.refresh.take() {
            Some(refresh) if refresh.epoch == ticket.epoch => Ok((ticket, Some(refresh))),
            other => {
                credential.refresh = other;
                credential.phase = Phase::Idle;
                credential.settled = Some(Settled {
                    ticket: ticket.id,
                    end: TicketEnd::Voided,
                });
                self.put_credential(credential.clone());
                self.audit_mint(&credential.id.clone(), &ticket, MintEnd::Voided);
                Ok((ticket, None))
            }
        }
    }

    /// Nobody knows what became of the mint. How long its replica is waited for depends on what
    /// the issuer does with a token that was used before.
    fn enter_doubt(
        &mut self,
        mut credential: Credential,
        mut refresh: Refresh,
        ticket: Ticket,
        cause: &str,
    ) {
        let settings = self.settings();
        let now = self.stamp.at;
        let until = doubt_until(&settings, &credential, &refresh, &ticket, now, now);
        let doubt = Doubt {
            ticket,
            since: now,
            until,
        };
        let waits = doubt.waits();
        // What is tried while in doubt presents the same material: the first one is the loss.
        if refresh.config.strategy.consumes_material() {
            refresh.lost.get_or_insert(doubt.lost());
        }
        if refresh.due_reason != Reason::Rotate {
            refresh.due_reason = Reason::AfterDoubt;
        }
        refresh.due_at = match waits {
            true => until,
            false => {
                let attempt = credential.attempt.0;
                let failures = refresh.failures.max(1);
                let served = served(&credential);
                let id = &credential.id;
                refresh::retry_at(&settings, id, attempt, failures, now, served, 0)
            }
        };
        refresh.health = match waits {
            true => self.health(
                Verdict::InDoubt,
                format!("{cause}; {}", named(&doubt.lost())),
                format!(
                    "bring replica {} back with its disk; else the old token is tried once at the \
                     end of the wait",
                    doubt.ticket.owner
                ),
            ),
            false => self.health(Verdict::Retrying, cause.to_owned(), String::new()),
        };
        let id = credential.id.clone();
        let ticket = doubt.ticket.clone();
        credential.phase = Phase::InDoubt(doubt);
        credential.refresh = Some(refresh);
        self.put_credential(credential);
        self.audit_mint(&id, &ticket, MintEnd::InDoubt);
    }

    fn retry_at(
        &self,
        settings: &Settings,
        credential: &Credential,
        refresh: &Refresh,
        failure: &Failure,
    ) -> UnixMs {
        let slow = match failure.class {
            FailureClass::UnknownRefusal => (settings.backoff_base_ms
                * refresh::UNKNOWN_REFUSAL_BASES)
                .min(settings.backoff_cap_ms),
            FailureClass::Unsent
            | FailureClass::Transient
            | FailureClass::Throttled
            | FailureClass::Unclear
            | FailureClass::GrantRefused
            | FailureClass::ConfigRefused => 0,
        };
        refresh::retry_at(
            settings,
            &credential.id,
            credential.attempt.0,
            refresh.failures,
            self.stamp.at,
            served(credential),
            failure.retry_after_ms.unwrap_or(0).max(slow),
        )
    }

    fn diagnose(&self, refresh: &Refresh, failure: &Failure) -> Health {
        let cause = failure.cause.clone();
        let remedy = failure.remedy.clone();
        match failure.class {
            FailureClass::Unsent | FailureClass::Transient | FailureClass::Unclear => {
                self.health(Verdict::Retrying, cause, remedy)
            }
            FailureClass::Throttled => self.health(Verdict::Throttled, cause, remedy),
            FailureClass::UnknownRefusal if refresh.failures < UNKNOWN_REFUSALS_MAX => {
                self.health(Verdict::Retrying, cause, remedy)
            }
            FailureClass::UnknownRefusal | FailureClass::ConfigRefused => {
                self.health(Verdict::Misconfigured, cause, remedy)
            }
            FailureClass::GrantRefused => {
                let cause = match &refresh.lost {
                    Some(lost) => format!("{cause}; lost before: {}", named(lost)),
                    None => cause,
                };
                self.health(Verdict::NeedsReauthorization, cause, remedy)
            }
        }
    }

    fn health(&self, verdict: Verdict, cause: String, remedy: String) -> Health {
        Health {
            verdict,
            cause,
            remedy,
            since: self.stamp.at,
        }
    }

    fn audit_mint(&mut self, credential: &CredentialId, ticket: &Ticket, end: MintEnd) {
        self.audit(AuditEvent::Mint {
            credential: credential.clone(),
            ticket: ticket.id,
            replica: ticket.owner,
            reason: ticket.reason,
            granted_at: ticket.granted_at,
            end,
        });
    }
}

/// The answer for a ticket that was settled before: the same as the first time.
fn settled_before(credential: &Credential, ticket: TicketId) -> Option<Outcome> {
    let settled = credential.settled.as_ref().filter(|s| s.ticket == ticket)?;
    Some(match settled.end {
        TicketEnd::Committed(generation) => Ok(Done::Committed(generation)),
        TicketEnd::Failed | TicketEnd::Abandoned => Ok(Done::Settled),
        TicketEnd::Voided => Err(Refusal::Voided),
        TicketEnd::Superseded => Err(Refusal::TicketNotCurrent),
    })
}

fn is_of_phase(credential: &Credential, ticket: TicketId) -> bool {
    match &credential.phase {
        Phase::Ticketed(t) => t.id == ticket,
        Phase::InDoubt(d) => d.ticket.id == ticket,
        Phase::Idle => false,
    }
}

/// The mint that was taken for lost has come to an end after all.
fn forget_loss(refresh: &mut Refresh, ticket: &Ticket) {
    refresh.lost.take_if(|lost| lost.ticket == ticket.id);
}

/// Until when the material that `ticket` may have spent is not tried again, asked at `at`; the
/// doubt exists `since` then. A grace counts from the first mint that may have spent it, and helps
/// only if it lasts until the next ticket has ended: that is how late the request may leave.
fn doubt_until(
    settings: &Settings,
    credential: &Credential,
    refresh: &Refresh,
    ticket: &Ticket,
    since: UnixMs,
    at: UnixMs,
) -> UnixMs {
    let spent_at = refresh.lost.as_ref().map_or(ticket.granted_at, |l| l.at);
    let latest = at + Duration::from_millis(settings.ticket_ttl_ms);
    let waits = refresh.config.strategy.consumes_material()
        && match refresh.config.replay {
            ReplayPolicy::Safe => false,
            ReplayPolicy::Grace(ms) => latest > spent_at + Duration::from_millis(ms),
            ReplayPolicy::Strict => true,
        };
    if !waits {
        return since;
    }
    let patience = since + Duration::from_millis(settings.doubt_wait_ms);
    served(credential).map_or(patience, |s| s.mandatory_from().max(patience))
}

fn served(credential: &Credential) -> Option<Served> {
    let value = credential.value.as_ref()?;
    Some(Served {
        issued_at: value.issued_at,
        expires_at: value.expires_at?,
    })
}

fn named(lost: &LostMint) -> String {
    format!("mint {} by replica {}", lost.ticket, lost.replica)
}
