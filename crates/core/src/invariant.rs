//! What must hold of every state, and of every step from one state to the next: one function
//! for each promise. The simulation runs them after each step; replicas do in debug builds.

use std::collections::BTreeSet;

use crate::bundle;
use crate::credential::{Credential, Phase, Value};
use crate::id::ProviderId;
use crate::placement::shard_of;
use crate::revocation::{ENDED_MAX, Revocation, TRIES_MAX};
use crate::state::State;

/// A promise that does not hold. Always a defect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{promise}: {what}")]
pub struct Violation {
    /// Which promise.
    pub promise: &'static str,
    /// What was found.
    pub what: String,
}

fn violated<T>(promise: &'static str, what: impl Into<String>) -> Result<T, Violation> {
    Err(Violation {
        promise,
        what: what.into(),
    })
}

/// Checks one state.
///
/// # Errors
/// The first promise that does not hold.
pub fn check(state: &State) -> Result<(), Violation> {
    references_lead_somewhere(state)?;
    indices_agree(state)?;
    names_are_given_once(state)?;
    revocations_come_to_an_end(state)?;
    for credential in state.credentials.values() {
        g1_the_ticket_is_the_newest_attempt(credential)?;
        values_are_of_their_time(state, credential)?;
    }
    Ok(())
}

/// Checks one step.
///
/// # Errors
/// The first promise that does not hold.
pub fn check_step(before: &State, after: &State) -> Result<(), Violation> {
    history_goes_forward(before, after)?;
    for (id, was) in &before.credentials {
        if let Some(is) = after.credentials.get(id) {
            g1_g3_tickets_are_fenced(was, is)?;
        }
    }
    for (id, was) in &before.revocations {
        if let Some(is) = after.revocations.get(id) {
            revocations_are_claimed(was, is)?;
        }
    }
    shard_epochs_grow(before, after)?;
    g10_the_audit_trail_is_one_chain(before, after)?;
    g6_bundles_never_grow_older(before, after)
}

fn references_lead_somewhere(state: &State) -> Result<(), Violation> {
    let promise = "references lead somewhere";
    for provider in state.providers.values() {
        if state.credentials_of(provider).count() != provider.credentials.len() {
            return violated(
                promise,
                format!("provider {} lacks a credential", provider.id),
            );
        }
    }
    for id in state.credentials.keys() {
        let listed = state
            .providers
            .get(&id.provider)
            .is_some_and(|p| p.credentials.contains(&id.key));
        if !listed {
            return violated(promise, format!("credential {id} has no provider"));
        }
    }
    for sandbox in state.sandboxes.values() {
        if let Some(id) = sandbox
            .providers
            .iter()
            .find(|id| !state.providers.contains_key(*id))
        {
            return violated(promise, format!("sandbox {} uses {id}", sandbox.id));
        }
    }
    for route in state.routes.values() {
        if !state.providers.contains_key(&route.provider) {
            return violated(promise, format!("route {} has no provider", route.name));
        }
    }
    Ok(())
}

fn indices_agree(state: &State) -> Result<(), Violation> {
    let rebuilt = State::from_records(state.records());
    match rebuilt {
        Ok(rebuilt) if rebuilt == *state => Ok(()),
        Ok(_) => violated("records are the whole state", "the indices differ"),
        Err(e) => violated("records are the whole state", e.to_string()),
    }
}

/// No revocation is tried more often than it may be, and none that has ended is kept for ever.
fn revocations_come_to_an_end(state: &State) -> Result<(), Violation> {
    let promise = "revocations come to an end";
    let mut ended = 0;
    for (id, revocation) in &state.revocations {
        match revocation.work() {
            Some(work) if work.tries > TRIES_MAX || work.until < work.due_at => {
                return violated(promise, format!("{id:?}: {} tries", work.tries));
            }
            Some(_) => {}
            None => ended += 1,
        }
    }
    match ended > ENDED_MAX {
        true => violated(promise, format!("{ended} are remembered")),
        false => Ok(()),
    }
}

/// Among the credentials of a provider, and among those of a sandbox, no name stands for two
/// values.
fn names_are_given_once(state: &State) -> Result<(), Violation> {
    let once = |providers: &[ProviderId], whose: String| {
        let mut seen = BTreeSet::new();
        let known = providers.iter().filter_map(|id| state.providers.get(id));
        for name in known.flat_map(|provider| state.names_of(provider)) {
            if !seen.insert(name) {
                return violated("names are given once", format!("{whose}: {name}"));
            }
        }
        Ok(())
    };
    for id in state.providers.keys() {
        once(&[*id], format!("provider {id}"))?;
    }
    for sandbox in state.sandboxes.values() {
        once(&sandbox.providers, format!("sandbox {}", sandbox.id))?;
    }
    Ok(())
}

/// G1: the one ticket, or the one doubt, of a credential is its newest attempt.
fn g1_the_ticket_is_the_newest_attempt(credential: &Credential) -> Result<(), Violation> {
    let ticket = match &credential.phase {
        Phase::Idle => return Ok(()),
        Phase::Ticketed(ticket) => ticket,
        Phase::InDoubt(doubt) => &doubt.ticket,
    };
    if ticket.attempt != credential.attempt {
        return violated("G1 one ticket", format!("{}: {ticket:?}", credential.id));
    }
    Ok(())
}

fn values_are_of_their_time(state: &State, credential: &Credential) -> Result<(), Violation> {
    let promise = "values are of their time";
    if credential.touched > state.meta.position {
        return violated(promise, format!("{} was touched later", credential.id));
    }
    if let Some(value) = &credential.value
        && (value.generation > credential.generation
            || !value.outputs.contains_key(&credential.id.key))
    {
        return violated(promise, format!("{} has a foreign value", credential.id));
    }
    if credential.shard != shard_of(&credential.id, state.settings().shards) {
        return violated(promise, format!("{} is in a foreign shard", credential.id));
    }
    Ok(())
}

fn history_goes_forward(before: &State, after: &State) -> Result<(), Violation> {
    let (was, is) = (&before.meta, &after.meta);
    let forward = was.position < is.position
        && was.clock <= is.clock
        && was.next_replica <= is.next_replica
        && was.placement_version <= is.placement_version;
    match forward {
        true => Ok(()),
        false => violated("history goes forward", format!("{was:?} then {is:?}")),
    }
}

/// G1 and G3: generation and attempt never decrease; a value changes only with its generation,
/// by one, and for a refreshed credential only in a step that settles the current ticket.
fn g1_g3_tickets_are_fenced(was: &Credential, is: &Credential) -> Result<(), Violation> {
    if is.attempt < was.attempt || is.attempt.0 > was.attempt.0 + 1 {
        return violated("G1 one ticket", format!("{}: attempt jumped", is.id));
    }
    if is.generation < was.generation || is.generation.0 > was.generation.0 + 1 {
        return violated("G3 fenced results", format!("{}: generation jumped", is.id));
    }
    if is.attempt > was.attempt && matches!(was.phase, Phase::Ticketed(_)) {
        return violated("G1 one ticket", format!("{}: ticket replaced", is.id));
    }
    let revoked = is.value.is_none() && is.refresh.is_none() && was.refresh.is_some();
    let same = is_same_value(was.value.as_ref(), is.value.as_ref());
    if is.generation == was.generation && !same && !revoked {
        return violated("G3 fenced results", format!("{}: value changed", is.id));
    }
    let mints = |c: &Credential| {
        let mut refreshes = c.refresh.iter();
        refreshes.any(|r| !r.config.strategy.is_pushed())
    };
    let minted = is.generation > was.generation && mints(was);
    if minted && matches!(was.phase, Phase::Idle) {
        return violated("G3 fenced results", format!("{}: no ticket", is.id));
    }
    Ok(())
}

/// A try is counted when it is claimed, one at a time; what has ended stays so.
fn revocations_are_claimed(was: &Revocation, is: &Revocation) -> Result<(), Violation> {
    let promise = "revocations are claimed";
    let holds = match (was.work(), is.work()) {
        (None, _) => was == is,
        (Some(_), None) => true,
        (Some(was), Some(is)) => match (&was.claim, &is.claim) {
            (_, None) | (Some(_), Some(_)) if is.tries == was.tries => true,
            (_, Some(_)) => is.tries == was.tries + 1,
            (_, None) => false,
        },
    };
    match holds {
        true => Ok(()),
        false => violated(promise, format!("{was:?} then {is:?}")),
    }
}

/// Whether the outputs are the same, sealed anew with a newer data key at most.
fn is_same_value(was: Option<&Value>, is: Option<&Value>) -> bool {
    match (was, is) {
        (None, None) => true,
        (Some(was), Some(is)) => {
            let mut seals = was.outputs.values().zip(is.outputs.values());
            was.outputs.keys().eq(is.outputs.keys())
                && seals.all(|(was, is)| was == is || was.key < is.key)
        }
        (None, Some(_)) | (Some(_), None) => false,
    }
}

/// All of a value but the seals, which key rotation changes: the same position is the same value.
fn described(value: &Value) -> impl PartialEq + use<> {
    let Value {
        outputs,
        issued_at,
        expires_at,
        generation,
        position,
    } = value;
    let names: Vec<_> = outputs.keys().cloned().collect();
    (names, *issued_at, *expires_at, *generation, *position)
}

/// G10: what is recorded goes on from the record before it, and what is left from the last one that
/// was dropped.
fn g10_the_audit_trail_is_one_chain(before: &State, after: &State) -> Result<(), Violation> {
    let promise = "G10 every mint is explained";
    let mut end = before.meta.audit_head;
    for record in after.audit.range(end.number + 1..).map(|(_, r)| r) {
        if record.previous != end.digest || record.number != end.number + 1 {
            return violated(promise, format!("record {} does not follow", record.number));
        }
        end = record.link();
    }
    if end != after.meta.audit_head {
        return violated(promise, format!("the trail ends at {}", end.number));
    }
    let anchor = after.meta.audit_anchor;
    let goes_on = match after.audit.get_min() {
        Some((number, oldest)) => (*number, oldest.previous) == (anchor.number + 1, anchor.digest),
        None => anchor == end,
    };
    match goes_on {
        true => Ok(()),
        false => violated(promise, format!("records after {} are gone", anchor.number)),
    }
}

fn shard_epochs_grow(before: &State, after: &State) -> Result<(), Violation> {
    for (shard, was) in &before.shards {
        let holds = after.shards.get(shard).is_some_and(|is| {
            is.epoch > was.epoch
                || (is.epoch == was.epoch && (is.replica, is.session) == (was.replica, was.session))
        });
        if !holds {
            return violated("shard epochs grow", format!("{shard:?}"));
        }
    }
    Ok(())
}

/// G6, as far as one replica's history goes: no sandbox's bundle grows older, and its inputs
/// change only together with its generation.
fn g6_bundles_never_grow_older(before: &State, after: &State) -> Result<(), Violation> {
    for id in before.sandboxes.keys() {
        let (Some(was), Some(is)) = (bundle::inputs(before, *id), bundle::inputs(after, *id))
        else {
            continue;
        };
        if is.generation < was.generation {
            return violated("G6 no time travel", format!("sandbox {id}"));
        }
        let seen = |inputs: &bundle::Inputs| {
            let attached: Vec<_> = inputs
                .attached
                .iter()
                .map(|a| {
                    let credentials: Vec<_> = a
                        .credentials
                        .iter()
                        .map(|c| {
                            let epoch = c.refresh.as_ref().map(|r| r.epoch);
                            (c.id.clone(), c.value.as_ref().map(described), epoch)
                        })
                        .collect();
                    (a.provider.config.clone(), a.profile.clone(), credentials)
                })
                .collect();
            let routes: Vec<_> = inputs
                .routes
                .iter()
                .map(|r| {
                    let value = r.credential.as_ref().and_then(|c| c.value.as_ref());
                    let value = value.map(described);
                    let config = r.provider.config.clone();
                    (r.route.clone(), config, r.profile.clone(), value)
                })
                .collect();
            (attached, routes)
        };
        if is.generation == was.generation && seen(&was) != seen(&is) {
            return violated(
                "G6 no time travel",
                format!("sandbox {id}: content changed within a generation"),
            );
        }
    }
    Ok(())
}
