//! What the domain looks like on the wire. The way back is the rim's.

use evermint_core::audit::{AuditEvent, AuditRecord, Link, MintEnd};
use evermint_core::credential::{
    Credential, Doubt, LostMint, Phase, Reason, Refresh, Ticket, Verdict,
};
use evermint_core::environment::{Plain, Problem, Variable};
use evermint_core::horizon;
use evermint_core::id::{Name, ProviderId};
use evermint_core::profile::Auth;
use evermint_core::profile::binding::Binding;
use evermint_core::provider::{Provider, Route, Sandbox};
use evermint_core::revocation::{self, Revocation, Stage, Target};
use evermint_core::settings::Settings;
use evermint_core::state::State;
use evermint_core::strategy::ReplayPolicy;
use evermint_core::time::UnixMs;
use evermint_proto::v1;
use evermint_proto::v1::auth::Place;

use crate::port::Role;

pub(crate) fn verdict(verdict: Verdict) -> v1::Verdict {
    match verdict {
        Verdict::Pending => v1::Verdict::Pending,
        Verdict::Fresh => v1::Verdict::Fresh,
        Verdict::Retrying => v1::Verdict::Retrying,
        Verdict::Throttled => v1::Verdict::Throttled,
        Verdict::InDoubt => v1::Verdict::InDoubt,
        Verdict::Misconfigured => v1::Verdict::Misconfigured,
        Verdict::NeedsReauthorization => v1::Verdict::NeedsReauthorization,
        Verdict::Expired => v1::Verdict::Expired,
    }
}

fn reason(reason: Reason) -> v1::Reason {
    match reason {
        Reason::First => v1::Reason::First,
        Reason::Due => v1::Reason::Due,
        Reason::Retry => v1::Reason::Retry,
        Reason::Rotate => v1::Reason::Rotate,
        Reason::AfterDoubt => v1::Reason::AfterDoubt,
        Reason::Rejected => v1::Reason::Rejected,
        Reason::ShortLived => v1::Reason::ShortLived,
    }
}

/// A token travels as a bearer unless the profile says otherwise.
pub(crate) fn auth(auth: &Auth) -> v1::Auth {
    let header = |name: &str, prefix: &str| {
        Place::Header(v1::HeaderAuth {
            name: name.to_ascii_lowercase(),
            prefix: prefix.to_owned(),
        })
    };
    let place = match auth {
        Auth::Unspecified => header("authorization", "Bearer "),
        Auth::Bearer { header: name } if name.is_empty() => header("authorization", "Bearer "),
        Auth::Bearer { header: name } => header(name, "Bearer "),
        Auth::Header { name, prefix } => header(name, prefix),
        Auth::Basic { user } => Place::Basic(v1::BasicAuth { user: user.clone() }),
        Auth::Query { param } => Place::Query(param.clone()),
        Auth::Path { template } => Place::Path(template.clone()),
    };
    v1::Auth { place: Some(place) }
}

pub(crate) fn binding(binding: &Binding) -> v1::EndpointBinding {
    v1::EndpointBinding {
        host: binding.host.clone(),
        port: binding.port.into(),
        path: binding.path.clone(),
        body_rewrite: binding.body_rewrite,
    }
}

pub(crate) fn variable(variable: &Variable) -> v1::SecretVariable {
    v1::SecretVariable {
        key: variable.key.clone(),
        identity: variable.identity.clone(),
        handle: variable.handle.clone().unwrap_or_default(),
    }
}

pub(crate) fn plain(plain: &Plain) -> v1::PlainVariable {
    v1::PlainVariable {
        provider: plain.provider.clone(),
        key: plain.key.clone(),
        value: plain.value.clone(),
    }
}

pub(crate) fn problem(problem: &Problem) -> v1::Problem {
    v1::Problem {
        provider: problem.provider.clone(),
        key: problem.key.clone(),
        cause: problem.cause.clone(),
    }
}

pub(crate) fn role(role: Role) -> v1::Role {
    match role {
        Role::Leader => v1::Role::Leader,
        Role::Follower => v1::Role::Follower,
        Role::Candidate => v1::Role::Candidate,
        Role::Learner => v1::Role::Learner,
        Role::Down => v1::Role::Down,
    }
}

pub(crate) fn provider(state: &State, provider: &Provider, now: UnixMs) -> v1::Provider {
    v1::Provider {
        id: provider.id.to_string(),
        workspace: provider.workspace.to_string(),
        name: provider.name.to_string(),
        r#type: provider.kind.to_string(),
        config: provider.config.clone(),
        credentials: state
            .credentials_of(provider)
            .map(|c| credential(c, now))
            .collect(),
        version: provider.version,
        created_at_ms: provider.created_at.0,
    }
}

fn credential(credential: &Credential, now: UnixMs) -> v1::Credential {
    let value = credential.value.as_ref();
    v1::Credential {
        key: credential.id.key.to_string(),
        refreshed: credential.refresh.is_some(),
        live: value.is_some_and(|v| !v.is_expired(now)),
        generation: credential.generation.0,
        expires_at_ms: value.and_then(|v| v.expires_at).map(|end| end.0),
        verdict: verdict(credential.verdict(now)).into(),
        outputs: credential
            .names()
            .into_iter()
            .filter(|name| **name != credential.id.key)
            .map(ToString::to_string)
            .collect(),
    }
}

pub(crate) fn route(state: &State, route: &Route) -> v1::Route {
    v1::Route {
        workspace: route.workspace.to_string(),
        name: route.name.to_string(),
        provider: provider_name(state, route.provider),
        credential_key: route
            .credential
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        model: route.model.clone(),
        timeout_secs: route.timeout_secs,
        version: route.version,
    }
}

pub(crate) fn sandbox(state: &State, sandbox: &Sandbox) -> v1::Sandbox {
    v1::Sandbox {
        id: sandbox.id.to_string(),
        workspace: sandbox.workspace.to_string(),
        name: sandbox.name.to_string(),
        providers: sandbox
            .providers
            .iter()
            .map(|id| provider_name(state, *id))
            .collect(),
        version: sandbox.version,
        created_at_ms: sandbox.created_at.0,
    }
}

/// The name of a provider; empty if it is gone.
fn provider_name(state: &State, id: ProviderId) -> String {
    let name = |p: &Provider| Name::to_string(&p.name);
    state
        .providers
        .get(&id)
        .map(|p| name(p))
        .unwrap_or_default()
}

/// What is said, and what helps, when whoever pushes values is late.
const OVERDUE: [&str; 2] = [
    "a new value is overdue: whoever pushes the values of this credential has not",
    "evermint provider update NAME --credential KEY=@FILE --credential-expires-at KEY=TIME",
];

/// How the refresh of a credential stands; `None` if it has none.
pub(crate) fn refresh(
    state: &State,
    credential: &Credential,
    now: UnixMs,
) -> Option<v1::RefreshStatus> {
    let refresh = credential.refresh.as_ref()?;
    let config = &refresh.config;
    let value = credential.value.as_ref();
    let due = credential.due();
    let health = &refresh.health;
    let push_due = credential.push_due();
    let (cause, remedy) = match push_due.filter(|due| *due <= now) {
        Some(_) => OVERDUE.map(str::to_owned).into(),
        None if health.cause.is_empty() => horizon::announcement(&horizon::deadlines(refresh), now)
            .map(|(cause, remedy)| (cause, remedy.to_owned()))
            .unwrap_or_default(),
        None => (health.cause.clone(), health.remedy.clone()),
    };
    Some(v1::RefreshStatus {
        credential_key: credential.id.key.to_string(),
        verdict: verdict(credential.verdict(now)).into(),
        cause,
        remedy,
        since_ms: since(credential, refresh, now).0,
        strategy: config.strategy.to_string(),
        token_url: config.token_url.clone(),
        scopes: config.scopes.clone(),
        replay: Some(replay(config.replay)),
        material: material_names(refresh),
        authorization_epoch: refresh.epoch.0,
        generation: credential.generation.0,
        attempt: credential.attempt.0,
        issued_at_ms: value.map(|v| v.issued_at.0),
        expires_at_ms: value.and_then(|v| v.expires_at).map(|end| end.0),
        due_at_ms: due.map(|(at, _)| at).or(push_due).map(|at| at.0),
        due_reason: due.map_or(0, |(_, why)| reason(why).into()),
        last_mint_at_ms: refresh.last_mint_at.map(|at| at.0),
        failures: refresh.failures,
        ticket: credential.ticket().map(ticket),
        doubt: match &credential.phase {
            Phase::InDoubt(in_doubt) => Some(doubt(in_doubt)),
            Phase::Idle | Phase::Ticketed(_) => None,
        },
        owner: state.shards.get(&credential.shard).map(|a| v1::Owner {
            replica: a.replica.0,
            session: a.session.to_string(),
            shard: u32::from(credential.shard.0),
            shard_epoch: a.epoch.0,
        }),
        lost: refresh.lost.as_ref().map(lost),
        material_expires_at_ms: horizon::ends(refresh)
            .into_iter()
            .map(|(name, end)| (name, end.0))
            .collect(),
        revoke_url: config.revoke_url.clone(),
        outputs: config
            .outputs
            .iter()
            .map(|(output, key)| (output.clone(), key.to_string()))
            .collect(),
        wanted: reason(refresh.due_reason).into(),
    })
}

/// What became of a revocation so far.
pub(crate) fn revocation(revocation: &Revocation) -> v1::Revocation {
    use v1::revocation::State;
    let common = v1::Revocation {
        provider: revocation.provider.to_string(),
        credential_key: revocation.id.credential.key.to_string(),
        position: revocation.id.asked.0,
        grant: revocation.target == Target::Grant,
        asked_at_ms: revocation.asked_at.0,
        ..Default::default()
    };
    match &revocation.stage {
        Stage::Open(work) => v1::Revocation {
            state: State::Open.into(),
            tries: work.tries,
            cause: work.cause.clone(),
            due_at_ms: Some(work.next_at().0),
            ..common
        },
        Stage::Ended(ended) => v1::Revocation {
            state: match &ended.end {
                revocation::End::Told => State::Revoked,
                revocation::End::NotTold(_) => State::NotRevoked,
                revocation::End::Needless => State::EndedByItself,
            }
            .into(),
            tries: ended.tries,
            cause: ended.end.cause().to_owned(),
            ended_at_ms: Some(ended.at.0),
            ended_position: ended.position.0,
            ..common
        },
    }
}

/// Since when the shown verdict stands: a value expires without an entry that says so.
fn since(credential: &Credential, refresh: &Refresh, now: UnixMs) -> UnixMs {
    let end = credential.value.as_ref().and_then(|v| v.expires_at);
    match (credential.verdict(now), end) {
        (Verdict::Expired, Some(end)) => end,
        _ => refresh.health.since,
    }
}

fn material_names(refresh: &Refresh) -> Vec<String> {
    let public = refresh.config.material.keys();
    let mut names: Vec<String> = public.chain(refresh.material.keys()).cloned().collect();
    names.sort_unstable();
    names
}

pub(crate) fn replay(policy: ReplayPolicy) -> v1::ReplayPolicy {
    let (kind, grace_ms) = match policy {
        ReplayPolicy::Safe => (v1::replay_policy::Kind::Safe, 0),
        ReplayPolicy::Grace(ms) => (v1::replay_policy::Kind::Grace, ms),
        ReplayPolicy::Strict => (v1::replay_policy::Kind::Strict, 0),
    };
    v1::ReplayPolicy {
        kind: kind.into(),
        grace_ms,
    }
}

fn ticket(ticket: &Ticket) -> v1::Ticket {
    v1::Ticket {
        id: ticket.id.to_string(),
        attempt: ticket.attempt.0,
        replica: ticket.owner.0,
        reason: reason(ticket.reason).into(),
        granted_at_ms: ticket.granted_at.0,
        ttl_ms: ticket.ttl_ms,
    }
}

fn doubt(doubt: &Doubt) -> v1::Doubt {
    v1::Doubt {
        ticket: Some(ticket(&doubt.ticket)),
        since_ms: doubt.since.0,
        until_ms: doubt.until.0,
    }
}

fn lost(lost: &LostMint) -> v1::LostMint {
    v1::LostMint {
        ticket: lost.ticket.to_string(),
        replica: lost.replica.0,
        at_ms: lost.at.0,
    }
}

pub(crate) fn settings(settings: &Settings) -> v1::Settings {
    v1::Settings {
        shards: u32::from(settings.shards),
        ticket_ttl_ms: settings.ticket_ttl_ms,
        ticket_margin_ms: settings.ticket_margin_ms,
        doubt_wait_ms: settings.doubt_wait_ms,
        backoff_base_ms: settings.backoff_base_ms,
        backoff_cap_ms: settings.backoff_cap_ms,
        default_lifetime_ms: settings.default_lifetime_ms,
        audit_retention: settings.audit_retention,
        audit_max_age_ms: settings.audit_max_age_ms,
    }
}

pub(crate) fn audit(state: &State, record: &AuditRecord) -> v1::AuditRecord {
    use v1::audit_record::Event;
    use v1::mint_event::End;
    let event = match &record.event {
        AuditEvent::Mint {
            credential,
            ticket,
            replica,
            reason: why,
            granted_at,
            end,
        } => {
            let (end, generation, cause) = match end {
                MintEnd::Committed(generation) => (End::Committed, generation.0, String::new()),
                MintEnd::Failed(cause) => (End::Failed, 0, cause.clone()),
                MintEnd::InDoubt => (End::InDoubt, 0, String::new()),
                MintEnd::Abandoned => (End::Abandoned, 0, String::new()),
                MintEnd::Voided => (End::Voided, 0, String::new()),
            };
            Event::Mint(v1::MintEvent {
                provider_id: credential.provider.to_string(),
                provider: provider_name(state, credential.provider),
                credential_key: credential.key.to_string(),
                ticket: ticket.to_string(),
                replica: replica.0,
                reason: reason(*why).into(),
                granted_at_ms: granted_at.0,
                end: end.into(),
                generation,
                cause,
            })
        }
        AuditEvent::Revocation {
            credential,
            target,
            replica,
            tries,
            end,
        } => {
            use v1::revocation_event::End;
            Event::Revocation(v1::RevocationEvent {
                provider_id: credential.provider.to_string(),
                provider: provider_name(state, credential.provider),
                credential_key: credential.key.to_string(),
                grant: *target == Target::Grant,
                replica: replica.map_or(0, |r| r.0),
                tries: *tries,
                end: match end {
                    revocation::End::Told => End::Revoked,
                    revocation::End::NotTold(_) => End::NotRevoked,
                    revocation::End::Needless => End::EndedByItself,
                }
                .into(),
                cause: end.cause().to_owned(),
            })
        }
        AuditEvent::Change { command, object } => Event::Change(v1::ChangeEvent {
            command: command.clone(),
            object: object.clone(),
        }),
        AuditEvent::Refused(refused) => Event::Refused(v1::RefusedEvent {
            method: refused.method.clone(),
            reason: refused.reason.clone(),
            count: refused.count,
            since_ms: refused.since.0,
        }),
    };
    let fields = record.fields().into_iter();
    v1::AuditRecord {
        number: record.number,
        position: record.position.0,
        at_ms: record.at.0,
        by: record.by.as_ref().map(|by| v1::Origin {
            who: by.who.clone(),
            from: by.from.clone(),
            replica: by.replica.0,
        }),
        event: Some(event),
        fields: fields
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        previous: record.previous.0.to_vec().into(),
        digest: record.link().digest.0.to_vec().into(),
    }
}

pub(crate) fn link(link: Link) -> v1::AuditLink {
    v1::AuditLink {
        number: link.number,
        digest: link.digest.0.to_vec().into(),
    }
}
