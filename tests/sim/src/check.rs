//! The promises, checked from outside the protocol.

use std::collections::BTreeSet;
use std::time::Duration;

use evermint_core::command::{Answer, Command};
use evermint_core::credential::{Credential, Phase, TicketEnd, Verdict};
use evermint_core::id::CredentialId;
use evermint_core::invariant;
use evermint_core::state::State;
use evermint_core::strategy::{ReplayPolicy, Strategy};
use evermint_core::time::UnixMs;

use crate::config::Slot;
use crate::hardware::{EPOCH, Time};
use crate::issuer::{Fate, RefreshToken, Request};
use crate::mutant::Mutant;
use crate::world::{Global, Granted, What, World};

/// How long a replica has to be well before its journal counts as within reach, in milliseconds.
const WELL: u64 = 4_000;

/// The most mints before their time in one run. An owner whose clock is ahead learns it from its
/// first ticket; one that starts anew learns it again.
const EARLY_MAX: u32 = 50;

/// How far wall clocks that are right, and what is reckoned from them, are off at most.
const CLOCK_ERROR: Duration = Duration::from_millis(250);

impl World {
    /// After every entry of the history.
    pub(crate) fn check_step(
        &mut self,
        before: &State,
        after: &State,
        command: &Command,
        answer: &Answer,
    ) {
        let mutated = self.mutant == Some(Mutant::ReassignWithoutWaiting);
        if let Err(violation) = invariant::check_step(before, after)
            && !mutated
        {
            self.broken(violation.promise, violation.what);
        }
        if after.meta.position.0.is_multiple_of(8)
            && let Err(violation) = invariant::check(after)
        {
            self.broken(violation.promise, violation.what);
        }
        self.check_early(before, after, command, answer);
        self.check_revocations(before, after, command, answer);
        let (Command::GrantTicket { credential, .. }
        | Command::CommitMint { credential, .. }
        | Command::FailMint { credential, .. }
        | Command::ExpireTicket { credential, .. }
        | Command::AbandonTicket { credential, .. }) = command
        else {
            return;
        };
        let was = before.credentials.get(credential);
        let is = after.credentials.get(credential);
        let (Some(was), Some(is)) = (was, is) else {
            return;
        };
        if is.attempt > was.attempt {
            self.check_grant(was, is);
        }
        if is.generation > was.generation {
            self.check_commit(was, is);
        }
        if was.settled != is.settled
            && let Some(settled) = &is.settled
            && settled.end == TicketEnd::Abandoned
            && self
                .issuer
                .requests
                .iter()
                .any(|r| r.ticket == settled.ticket)
        {
            let what = format!("ticket {} was abandoned, but used", settled.ticket);
            self.broken("G5", what);
        }
        match (command, &was.phase, answer.outcome.is_ok()) {
            (Command::ExpireTicket { .. }, Phase::Ticketed(_), true) => {
                self.coverage.note("tickets expired");
            }
            (Command::CommitMint { .. }, Phase::InDoubt(_), true) => {
                self.coverage.note("commits that settled a doubt");
            }
            (Command::AbandonTicket { .. }, Phase::InDoubt(_), true) => {
                self.coverage.note("abandonments that settled a doubt");
            }
            (Command::CommitMint { .. }, _, false) => {
                self.coverage.note("results refused");
            }
            (Command::GrantTicket { .. }, _, false) => {
                self.coverage.note("grants refused");
            }
            _ => {}
        }
    }

    /// G1 and the discipline of doubts: what a new ticket supersedes.
    fn check_grant(&mut self, was: &Credential, is: &Credential) {
        let Some(ticket) = is.ticket() else {
            return;
        };
        let granted = Granted {
            credential: is.id.clone(),
            at: self.now,
            stamp: ticket.granted_at,
        };
        if self.granted.insert(ticket.id, granted).is_some() {
            return self.broken("G1", format!("ticket {} was granted twice", ticket.id));
        }
        let due = was.due().map_or(ticket.granted_at, |(due, _)| due);
        if due.since(ticket.granted_at).as_millis() > 1_000 {
            self.coverage.note("tickets before their time");
            self.early += 1;
            if self.early > EARLY_MAX {
                return self.broken("I10", format!("a mint storm of {}", is.id));
            }
        }
        let Phase::InDoubt(doubt) = &was.phase else {
            return;
        };
        self.coverage.note("tickets that gamble on a doubt");
        if doubt.waits() {
            self.check_hearing(ticket.id);
        }
        let wait = self.config.settings.doubt_wait_ms;
        if u128::from(wait) > ticket.granted_at.since(doubt.since).as_millis() {
            self.hasty.insert(ticket.id);
        }
        // G5: an answer that lies with a replica that is well, as a majority is, has had every chance.
        let lost = doubt.ticket.id;
        let slot = match self.issuer.fate(lost) {
            Some(Fate::Journalled(slot) | Fate::Delivered(slot)) => *slot,
            Some(Fate::Issued) => {
                return self
                    .issuer
                    .mark(lost, Fate::Lost("its answer came too late"));
            }
            Some(Fate::Committed | Fate::Lost(_)) | None => return,
        };
        let replica = &self.replicas[slot];
        let cut = self.cuts.keys().any(|(a, b)| *a == slot || *b == slot);
        let well = replica.up && !replica.paused && !cut;
        let majority = self.majority_well_since().unwrap_or(self.now);
        let since = replica
            .well_since
            .max(self.consensus.elected_at)
            .max(majority);
        let pushed = self.pushed_at.is_some_and(|at| self.now < at + WELL);
        let rotated_strictly = is
            .refresh
            .as_ref()
            .is_some_and(|r| r.config.replay == ReplayPolicy::Strict);
        if rotated_strictly && well && !pushed && self.now > since.saturating_add(WELL) {
            let what = format!("the answer of {lost} lay with replica {slot}, and was not taken");
            return self.broken("G5", what);
        }
        self.issuer
            .mark(lost, Fate::Lost("its replica came back too late"));
    }

    /// Since when a majority runs; `None` while fewer do.
    fn majority_well_since(&self) -> Option<Time> {
        let running = self.replicas.iter().filter(|r| r.up && !r.paused);
        let mut since: Vec<Time> = running.map(|r| r.well_since).collect();
        since.sort_unstable();
        since.get(self.replicas.len() / 2).copied()
    }

    /// G3: a value is the issuer's answer for the ticket that it was committed under.
    fn check_commit(&mut self, was: &Credential, is: &Credential) {
        self.coverage.note("mints committed");
        let open = match &was.phase {
            Phase::Ticketed(ticket) => Some(ticket),
            Phase::InDoubt(doubt) => Some(&doubt.ticket),
            Phase::Idle => None,
        };
        let Some(ticket) = open.filter(|t| t.attempt == was.attempt) else {
            return self.broken("G3", format!("{}: committed without a ticket", is.id));
        };
        if is.generation != was.generation.next() {
            return self.broken("G3", format!("{}: generation jumped", is.id));
        }
        let outputs = is.value.iter().flat_map(|v| &v.outputs);
        let (names, values): (BTreeSet<_>, Vec<_>) = outputs.unzip();
        let given = self.issuer.tokens.get(&ticket.id);
        let expected = given.map(|number| format!("at-{number}").into_bytes());
        let whole = names == is.names();
        if !whole
            || values
                .iter()
                .any(|v| Some(&v.ciphertext) != expected.as_ref())
        {
            let what = format!("{}: the value is not what {} was given", is.id, ticket.id);
            return self.broken("G3", what);
        }
        let ticket = ticket.id;
        self.issuer.mark(ticket, Fate::Committed);
    }

    /// G2, where a request leaves.
    pub(crate) fn check_send(&mut self, request: &Request) {
        let ticket = request.ticket;
        if !self.granted.contains_key(&ticket) {
            return self.broken("G1", format!("a request without a ticket: {ticket}"));
        }
        let state = self.consensus.state();
        if let Some(credential) = state.credentials.get(&request.credential)
            && credential.ticket().is_none_or(|t| t.id != ticket)
        {
            return self.broken(
                "G2",
                format!("a request after the end of its ticket {ticket}"),
            );
        }
        if self.issuer.requests.iter().any(|r| r.ticket == ticket) {
            return self.broken("G2", format!("two requests under ticket {ticket}"));
        }
        let others = self.issuer.requests.iter();
        let overlap: Vec<Request> = others
            .filter(|r| r.open && r.credential == request.credential)
            .cloned()
            .collect();
        for other in overlap {
            // A process that stands still since before its deadline cannot hang up, and an issuer
            // that is slower than the margin cannot be told: nobody can close this window.
            let replica = &self.replicas[other.slot];
            let mono = replica.paused_at.mono;
            if replica.paused && mono.since(other.deadline.started.mono) < other.deadline.budget {
                self.coverage
                    .note("requests held open by a process that stands still");
            } else {
                let what = format!("{} overlaps with {ticket}", other.ticket);
                return self.broken("G2", what);
            }
        }
    }

    /// The issuer saw a spent token: only a gamble that waited in full may do that.
    pub(crate) fn check_reuse(&mut self, request: usize) {
        let Request {
            ticket,
            token,
            slot,
            open,
            ..
        } = self.issuer.requests[request].clone();
        self.coverage.note("spent tokens presented");
        let Some(token) = token else {
            return;
        };
        if !self.is_lost(token) {
            // The issuer took so long that it is over: its client hung up, or stands still.
            if !open || self.replicas[slot].paused {
                self.spoiled.insert(token.family);
                return self.coverage.note("requests that were handled too late");
            }
            let what = format!("{ticket} presented {token:?}, whose successor is known");
            self.broken("G5", what);
        } else if self.hasty.contains(&ticket) {
            if self.time_lost_since(token) > 500 {
                self.coverage
                    .note("graces misjudged by wall clocks that were set back");
            } else {
                let what = format!("{ticket} presented {token:?} without having waited");
                self.broken("G5", what);
            }
        }
    }

    /// How much time the cluster clock lost since a token was spent, in milliseconds. It goes on
    /// where it was when a replica starts; only a wall clock that is right makes up for the time
    /// between.
    fn time_lost_since(&self, spent: RefreshToken) -> u64 {
        let rotation = self.issuer.rotations.get(&successor(spent));
        let Some(granted) = rotation.and_then(|r| self.granted.get(&r.ticket)) else {
            return 0;
        };
        let clock = self.consensus.state().meta.clock;
        let counted = u64::try_from(clock.since(granted.stamp).as_millis()).unwrap_or(u64::MAX);
        (self.now - granted.at).saturating_sub(counted)
    }

    /// Whether the successor of a token is lost, and no protocol could have helped.
    fn is_lost(&self, token: RefreshToken) -> bool {
        let rotation = self.issuer.rotations.get(&successor(token));
        rotation.is_some_and(|r| matches!(r.fate, Fate::Lost(_)))
    }

    /// G7: whoever serves knows what was committed `max_staleness` ago.
    pub(crate) fn check_fresh(&mut self, slot: Slot) {
        // Clocks run slow by at most a twenty-fifth.
        let bound = self.config.max_staleness * 26 / 25 + 10;
        let old = self.now.saturating_sub(bound);
        let known = self.replicas[slot].applied;
        if self
            .consensus
            .committed_at
            .get(known)
            .is_some_and(|at| *at < old)
        {
            self.broken(
                "G7",
                format!("replica {slot} serves what was changed long ago"),
            );
        }
    }

    /// G7: whoever serves does not reckon with a time that is over, as long as most wall clocks
    /// are right.
    pub(crate) fn check_clock(&mut self, slot: Slot, staleness: Duration) {
        if 2 * self.config.walls_set >= self.replicas.len() {
            return;
        }
        let replica = &self.replicas[slot];
        let clock = replica.clock.read(replica.hardware.read(self.now).boot);
        let right = UnixMs(EPOCH + self.now);
        let bound = staleness + staleness / 100 + CLOCK_ERROR;
        if right.since(clock) > bound {
            let late = right.since(clock);
            return self.broken("G7", format!("replica {slot} reckons {late:?} late"));
        }
        if clock.since(right) > CLOCK_ERROR {
            self.coverage
                .note("bundles read by a clock that was pushed ahead");
        }
    }

    /// Hangs up what is past its deadline.
    pub(crate) fn fence_all(&mut self, slot: Slot) {
        let ids: Vec<CredentialId> = self.replicas[slot].shells.keys().cloned().collect();
        for id in ids {
            if let Some(number) = self.mint_number(slot, &id) {
                self.fence(slot, &id, number);
            }
        }
    }

    /// Once everything is healed: has everything recovered?
    pub(crate) fn finish(&mut self) {
        let Some(healed) = &self.healed else {
            return;
        };
        let s = &self.config.settings;
        let bound = 45_000
            + 2 * s.doubt_wait_ms
            + 4 * s.ticket_ttl_ms
            + 4 * s.backoff_cap_ms
            + self.config.lost_after
            + 60_000;
        let late = self.now > healed.at + bound;
        let open = self.unsettled();
        if let Some(open) = open {
            if late {
                return self.broken("liveness", open);
            }
            return self.after(1_000, What::Global(Global::Finish));
        }
        let state = self.consensus.state().clone();
        let hash = state.hash();
        for slot in 0..self.replicas.len() {
            if self.replicas[slot].state.hash() != hash {
                return self.broken("I9", format!("replica {slot} ends differently"));
            }
        }
        if let Err(violation) = invariant::check(&state) {
            return self.broken(violation.promise, violation.what);
        }
        for credential in state.credentials.values() {
            self.check_grant_at_rest(credential);
        }
        self.done();
    }

    /// What has not recovered yet.
    fn unsettled(&self) -> Option<String> {
        let healed = self.healed.as_ref()?;
        let len = self.consensus.log.len();
        if let Some(slot) = (0..self.replicas.len()).find(|s| self.replicas[*s].applied < len) {
            return Some(format!("replica {slot} has not caught up"));
        }
        if !self.scripts.is_empty() {
            return Some("an operator is not answered".to_owned());
        }
        let state = self.consensus.state();
        let mut revocations = state.revocations.values();
        if let Some(open) = revocations.find(|r| r.work().is_some()) {
            return Some(format!("a revocation is open: {open:?}"));
        }
        let unsettled = |c: &&std::sync::Arc<Credential>| {
            let Some(refresh) = &c.refresh else {
                return false;
            };
            if c.phase != Phase::Idle {
                return true;
            }
            let before = healed.newest.get(&c.id).copied().unwrap_or_default();
            let minted = c.generation.0 > 0 && c.touched > before;
            !refresh.health.verdict.is_final() && !minted
        };
        let credential = state.credentials.values().find(unsettled)?;
        Some(format!("no mint since everything is well: {credential:?}"))
    }

    /// G5: at rest, the replicated refresh token is the issuer's newest, or its loss is named.
    fn check_grant_at_rest(&mut self, credential: &Credential) {
        let Some(refresh) = &credential.refresh else {
            return;
        };
        let verdict = refresh.health.verdict;
        if refresh.config.strategy != Strategy::OAuth2RefreshToken {
            if verdict.is_final() {
                self.broken("liveness", format!("stopped without cause: {credential:?}"));
            }
            return;
        }
        let material = refresh.material.get("refresh_token");
        let Some(token) = material.and_then(|m| RefreshToken::parse(&m.ciphertext)) else {
            return self.broken("G5", "the refresh token is gone".to_owned());
        };
        if self.issuer.accepts(token) {
            if verdict.is_final() {
                self.broken("liveness", format!("stopped without cause: {credential:?}"));
            }
            return;
        }
        if self.spoiled.contains(&token.family) && verdict.is_final() {
            return;
        }
        self.coverage
            .note("grants that ended, with the lost mint named");
        if !self.is_lost(token) {
            return self.broken("G5", format!("{token:?} is not the newest: {credential:?}"));
        }
        let tickets = self.granted.iter();
        let mut tickets = tickets.filter(|(_, g)| g.credential == credential.id);
        let named = tickets.any(|(ticket, _)| {
            let lost = format!("lost before: mint {ticket}");
            refresh.health.cause.contains(&lost)
        });
        if verdict != Verdict::NeedsReauthorization || !named {
            self.broken(
                "G5",
                format!("a loss that status does not name: {credential:?}"),
            );
        }
    }
}

/// The token that is given for this one.
fn successor(token: RefreshToken) -> RefreshToken {
    RefreshToken {
        serial: token.serial + 1,
        ..token
    }
}
