//! A credential: its value, how it is refreshed, and where its mint stands.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{
    Attempt, AuthorizationEpoch, CredentialId, CredentialKey, Generation, Position, ReplicaId,
    SessionId, ShardEpoch, ShardId, TicketId, Workspace,
};
use crate::secret::Sealed;
use crate::strategy::{ReplayPolicy, Strategy};
use crate::time::UnixMs;

/// One key of a provider. Static without [`Refresh`], minted with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Its identity.
    pub id: CredentialId,
    /// Its provider's workspace.
    pub workspace: Workspace,
    /// Decides who owns it.
    pub shard: ShardId,
    /// What sandboxes use, if there is anything.
    pub value: Option<Value>,
    /// Committed mints so far; for a static credential, values set so far.
    pub generation: Generation,
    /// How it is minted; `None` for a static credential.
    pub refresh: Option<Refresh>,
    /// Tickets granted so far: the fencing token of the newest one. Survives reconfiguration.
    pub attempt: Attempt,
    /// Whether a mint is under way. Survives reconfiguration, so that the request of an old
    /// configuration and that of a new one never overlap.
    pub phase: Phase,
    /// How the newest settled ticket ended.
    pub settled: Option<Settled>,
    /// The newest entry that changed what a sandbox sees of it.
    pub touched: Position,
}

/// What one mint gave: all outputs of it or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// Sealed outputs by the name that sandboxes know. A token has one; an STS session three.
    pub outputs: BTreeMap<CredentialKey, Sealed>,
    /// When it was asked for: the stamp of its ticket's grant, from which its lifetime counts.
    pub issued_at: UnixMs,
    /// From when on it is not served; `None` for a static value without an end.
    pub expires_at: Option<UnixMs>,
    /// The generation that it was committed as.
    pub generation: Generation,
    /// The entry that gave it; no other value of the credential has the same.
    pub position: Position,
}

impl Value {
    /// Whether it may not be served any more.
    pub fn is_expired(&self, now: UnixMs) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }
}

/// How a credential is minted, and how that goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refresh {
    /// What the operator configured.
    pub config: RefreshConfig,
    /// Sealed secret material by name; a rotated refresh token replaces its predecessor here.
    pub material: BTreeMap<String, Sealed>,
    /// Which configuration this is. A ticket of another epoch is void.
    pub epoch: AuthorizationEpoch,
    /// When the next mint is due.
    pub due_at: UnixMs,
    /// No sandbox makes a mint due before that.
    pub early_from: UnixMs,
    /// Why it is due then.
    pub due_reason: Reason,
    /// Failures since the last success.
    pub failures: u32,
    /// What status says.
    pub health: Health,
    /// The last committed mint.
    pub last_mint_at: Option<UnixMs>,
    /// A mint of this grant whose outcome was never learned; named if the grant turns out dead.
    pub lost: Option<LostMint>,
    /// When pieces of material end, as the issuer said with the last mint.
    pub learned_ends: BTreeMap<String, LearnedEnd>,
    /// The value of that generation is to be revoked once another one has taken its place.
    pub doomed: Option<Doomed>,
}

/// The end of a piece of material, as an issuer tells it with each answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearnedEnd {
    /// When.
    pub at: UnixMs,
    /// Whether mints do not put it off: then a person has to act before it comes.
    pub is_fixed: bool,
}

/// A value that is to be revoked once another one has taken its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doomed {
    /// Which.
    pub generation: Generation,
    /// Where the wish stands in the history.
    pub asked: Position,
    /// When it was asked for.
    pub asked_at: UnixMs,
    /// How long after the new value came, in milliseconds: who holds the old one changes over.
    pub grace_ms: u64,
}

/// The part of a refresh that an operator writes and anyone may read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshConfig {
    /// How.
    pub strategy: Strategy,
    /// Where: the issuer's token endpoint.
    pub token_url: String,
    /// Where its tokens are revoked ([RFC 7009](https://www.rfc-editor.org/rfc/rfc7009)); empty if
    /// nowhere.
    pub revoke_url: String,
    /// Those of the two that a profile of the build or of the platform fixes. Others are used only
    /// where the configuration of the replicas allows them.
    pub fixed_urls: BTreeSet<String>,
    /// With which scopes.
    pub scopes: Vec<String>,
    /// Public material by name.
    pub material: BTreeMap<String, String>,
    /// Further outputs of each mint, by their name in the strategy (`session_token`), with the
    /// name that sandboxes know. They are written, served and gone together with the credential.
    pub outputs: BTreeMap<String, CredentialKey>,
    /// When pieces of material end, as far as the operator said.
    pub material_ends: BTreeMap<String, UnixMs>,
    /// What the issuer does with a token that was used before.
    pub replay: ReplayPolicy,
    /// How long before its expiry a token is replaced, in milliseconds; computed if `None`.
    pub refresh_before_ms: Option<u64>,
    /// How long a token is kept at least before it is replaced, in milliseconds: for issuers
    /// that refuse early refreshes.
    pub not_before_ms: Option<u64>,
    /// No token is trusted for longer, in milliseconds.
    pub max_lifetime_ms: Option<u64>,
}

impl RefreshConfig {
    /// A refresh with nothing said but the strategy and the token endpoint.
    pub fn new(strategy: Strategy, token_url: impl Into<String>) -> Self {
        Self {
            strategy,
            token_url: token_url.into(),
            revoke_url: String::new(),
            fixed_urls: BTreeSet::new(),
            scopes: Vec::new(),
            material: BTreeMap::new(),
            outputs: BTreeMap::new(),
            material_ends: BTreeMap::new(),
            replay: ReplayPolicy::default(),
            refresh_before_ms: None,
            not_before_ms: None,
            max_lifetime_ms: None,
        }
    }
}

/// Where the mint of a credential stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// No ticket is out.
    Idle,
    /// One replica may be talking to the issuer.
    Ticketed(Ticket),
    /// A ticket ended without an outcome.
    InDoubt(Doubt),
}

/// The replicated, exclusive right to run one mint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Chosen by the owner.
    pub id: TicketId,
    /// Its number among the credential's tickets.
    pub attempt: Attempt,
    /// Who may mint.
    pub owner: ReplicaId,
    /// In which life.
    pub session: SessionId,
    /// Under which ownership of the shard.
    pub shard_epoch: ShardEpoch,
    /// For which configuration.
    pub epoch: AuthorizationEpoch,
    /// Why.
    pub reason: Reason,
    /// When it was granted, by the leader's stamp.
    pub granted_at: UnixMs,
    /// For how long, in milliseconds on the leader's monotonic clock.
    pub ttl_ms: u64,
}

/// A mint of which nobody knows whether the issuer rotated the grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// The ticket that ended.
    pub ticket: Ticket,
    /// Since when.
    pub since: UnixMs,
    /// When the old material is tried again, if the replica has not come back by then.
    pub until: UnixMs,
}

impl Doubt {
    /// Whether its replica is waited for: the old material cannot be tried again without danger.
    pub fn waits(&self) -> bool {
        self.until > self.since
    }

    /// The mint that is in doubt.
    pub fn lost(&self) -> LostMint {
        LostMint {
            ticket: self.ticket.id,
            replica: self.ticket.owner,
            at: self.ticket.granted_at,
        }
    }
}

/// Names a mint whose answer never arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostMint {
    /// Its ticket.
    pub ticket: TicketId,
    /// The replica that ran it.
    pub replica: ReplicaId,
    /// When it was granted.
    pub at: UnixMs,
}

/// How a ticket ended; remembered for the newest one, so that a retry gets the same answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// The ticket.
    pub ticket: TicketId,
    /// Its end.
    pub end: TicketEnd,
}

/// The ends of a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TicketEnd {
    /// A value was committed.
    Committed(Generation),
    /// A failure was recorded.
    Failed,
    /// Nothing was sent.
    Abandoned,
    /// The result came after a reconfiguration and was dropped.
    Voided,
    /// A newer ticket was granted while this one was in doubt.
    Superseded,
}

/// Why a mint runs now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// There is no value yet.
    First,
    /// The value nears its end.
    Due,
    /// An earlier mint failed.
    Retry,
    /// An operator asked.
    Rotate,
    /// An earlier mint's outcome is unknown, and its time to be settled has run out.
    AfterDoubt,
    /// A sandbox says that the value is refused where it is used.
    Rejected,
    /// A sandbox wants a value that is good for longer.
    ShortLived,
}

/// Why a sandbox wants a mint before it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Early {
    /// The value is refused where it is used.
    Rejected,
    /// The value is not good for long enough.
    ShortLived,
}

impl From<Early> for Reason {
    fn from(early: Early) -> Self {
        match early {
            Early::Rejected => Self::Rejected,
            Early::ShortLived => Self::ShortLived,
        }
    }
}

/// Why a sandbox does not get a mint before it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotEarly {
    /// The value is static or pushed: only who gave it has another one.
    Static,
    /// There is a newer one than the sandbox speaks of.
    Superseded,
    /// A mint is due or under way.
    UnderWay,
    /// A person has to act first.
    Stopped,
    /// Not before that: an issuer's budget is not a sandbox's to spend.
    NotBefore(UnixMs),
}

impl Reason {
    /// The word that status and audit show.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Due => "due",
            Self::Retry => "retry",
            Self::Rotate => "rotate",
            Self::AfterDoubt => "after-doubt",
            Self::Rejected => "rejected",
            Self::ShortLived => "short-lived",
        }
    }
}

/// What status says of a refresh, with its cause and a remedy in one line each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The verdict.
    pub verdict: Verdict,
    /// Why; empty when all is well. Never a secret.
    pub cause: String,
    /// What to do; empty when nothing is to be done.
    pub remedy: String,
    /// Since when the verdict stands.
    pub since: UnixMs,
}

/// The verdicts. `Expired` is not stored: it is what any other one becomes when no value is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Configured; not minted yet.
    Pending,
    /// The last mint succeeded.
    Fresh,
    /// The last mint failed in passing; another is scheduled.
    Retrying,
    /// The issuer asked for a pause.
    Throttled,
    /// The outcome of the last mint is unknown.
    InDoubt,
    /// The issuer refuses the client or the request; retrying does not help.
    Misconfigured,
    /// The grant is gone; a person has to authorize again.
    NeedsReauthorization,
    /// No value that may be served is left.
    Expired,
}

impl Verdict {
    /// The word that status shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Fresh => "fresh",
            Self::Retrying => "retrying",
            Self::Throttled => "throttled",
            Self::InDoubt => "in-doubt",
            Self::Misconfigured => "misconfigured",
            Self::NeedsReauthorization => "needs-reauthorization",
            Self::Expired => "expired",
        }
    }

    /// Whether no mint is tried until an operator does something.
    pub fn is_final(self) -> bool {
        match self {
            Self::Misconfigured | Self::NeedsReauthorization => true,
            Self::Pending
            | Self::Fresh
            | Self::Retrying
            | Self::Throttled
            | Self::InDoubt
            | Self::Expired => false,
        }
    }
}

impl Credential {
    /// The names that sandboxes know it by, in order: its key, the further outputs of its refresh,
    /// and those of a value that an earlier configuration gave.
    pub fn names(&self) -> BTreeSet<&CredentialKey> {
        let configured = self.refresh.iter().flat_map(|r| r.config.outputs.values());
        let served = self.value.iter().flat_map(|v| v.outputs.keys());
        std::iter::once(&self.id.key)
            .chain(configured)
            .chain(served)
            .collect()
    }

    /// The ticket that is out, if one is.
    pub fn ticket(&self) -> Option<&Ticket> {
        match &self.phase {
            Phase::Ticketed(ticket) => Some(ticket),
            Phase::Idle | Phase::InDoubt(_) => None,
        }
    }

    /// When the next mint may be asked for, and why; `None` if none is to run: the credential is
    /// static, its values are pushed, a ticket is out, or a person has to act first.
    pub fn due(&self) -> Option<(UnixMs, Reason)> {
        let refresh = self.refresh.as_ref()?;
        match &self.phase {
            _ if refresh.config.strategy.is_pushed() => None,
            Phase::Ticketed(_) => None,
            Phase::InDoubt(doubt) => Some((doubt.until.max(refresh.due_at), Reason::AfterDoubt)),
            Phase::Idle if refresh.health.verdict.is_final() => None,
            Phase::Idle => Some((refresh.due_at, refresh.due_reason)),
        }
    }

    /// By when a new value is to be pushed, where values are pushed: at once if there is none, and
    /// never while there is one without an end.
    pub fn push_due(&self) -> Option<UnixMs> {
        let refresh = self.refresh.as_ref()?;
        let is_endless = self.value.as_ref().is_some_and(|v| v.expires_at.is_none());
        (refresh.config.strategy.is_pushed() && !is_endless).then_some(refresh.due_at)
    }

    /// Whether a sandbox that uses the value of `generation` may make the next mint due at `now`.
    ///
    /// # Errors
    /// [`NotEarly`].
    pub fn may_be_early(
        &self,
        generation: Generation,
        early: Early,
        now: UnixMs,
    ) -> Result<(), NotEarly> {
        let refresh = self.refresh.as_ref();
        let minted = refresh.filter(|r| !r.config.strategy.is_pushed());
        let refresh = minted.ok_or(NotEarly::Static)?;
        if generation != self.generation {
            return Err(NotEarly::Superseded);
        }
        if refresh.health.verdict.is_final() {
            return Err(NotEarly::Stopped);
        }
        if self.phase != Phase::Idle || refresh.due_at <= now || refresh.failures > 0 {
            return Err(NotEarly::UnderWay);
        }
        let Some(value) = &self.value else {
            return Err(NotEarly::UnderWay);
        };
        let floor = Duration::from_millis(refresh.config.not_before_ms.unwrap_or(0));
        // A value that is good for long is worth its time; one that is refused is worth nothing.
        let worn = match (early, value.expires_at) {
            (Early::ShortLived, Some(end)) => end.since(value.issued_at) / 2,
            (Early::ShortLived, None) => return Err(NotEarly::Superseded),
            (Early::Rejected, _) => Duration::ZERO,
        };
        let from = refresh.early_from.max(value.issued_at + floor.max(worn));
        match from <= now {
            true => Ok(()),
            false => Err(NotEarly::NotBefore(from)),
        }
    }

    /// The verdict that status shows at `now`.
    pub fn verdict(&self, now: UnixMs) -> Verdict {
        let stored = self.refresh.as_ref().map(|r| r.health.verdict);
        let expired = self.value.as_ref().is_some_and(|v| v.is_expired(now));
        match stored {
            Some(verdict) if verdict.is_final() => verdict,
            _ if expired => Verdict::Expired,
            Some(verdict) => verdict,
            None => Verdict::Fresh,
        }
    }
}
