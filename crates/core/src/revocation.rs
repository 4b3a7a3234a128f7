//! Revocations: what an issuer is to be told that it shall honour no more
//! ([RFC 7009](https://www.rfc-editor.org/rfc/rfc7009)).
//!
//! Telling an issuer is an effect outside of the state machine, and needs the very material that a
//! deletion destroys. So the deletion moves it: the command that takes a refresh, or a superseded
//! value, away leaves an open revocation with what is needed to tell the issuer, and nothing of
//! that is served or minted with from then on. The owner of the credential's shard *claims* it in
//! the log before each try, and the claim counts the try; so one replica tries at a time, and dying
//! in the middle costs a try and not the bound. Whatever happens, [`TRIES_MAX`] and [`BOUND`] end
//! it: then the material is destroyed, and what stays for a while is whether the issuer was told.
//!
//! A claim ends by the cluster clock, unlike a mint ticket: to tell an issuer twice does no harm.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::credential::RefreshConfig;
use crate::id::{
    CredentialId, Generation, Name, Position, ReplicaId, SessionId, ShardId, TicketId, Workspace,
};
use crate::secret::Sealed;
use crate::time::UnixMs;

/// Most tries to tell an issuer.
pub const TRIES_MAX: u32 = 4;

/// How long after it fell due a revocation is given up.
pub const BOUND: Duration = Duration::from_secs(300);

/// Most revocations that are open at a time.
pub const OPEN_MAX: usize = 1024;

/// Most ended revocations that are remembered.
pub const ENDED_MAX: usize = 256;

/// First pause after a failed try, in milliseconds; it doubles each time.
const PAUSE_MS: u64 = 2_000;

/// Names a revocation: what it is about, and the command that asked for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RevocationId {
    /// Whose tokens.
    pub credential: CredentialId,
    /// Where the wish stands in the history.
    pub asked: Position,
}

/// One revocation, from the wish to its end, and for a while beyond.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Its identity.
    pub id: RevocationId,
    /// The workspace of the provider, which may be gone.
    pub workspace: Workspace,
    /// The provider's name.
    pub provider: Name,
    /// Decides who tells the issuer.
    pub shard: ShardId,
    /// What is revoked.
    pub target: Target,
    /// When it was asked for.
    pub asked_at: UnixMs,
    /// Where it stands.
    pub stage: Stage,
}

/// What is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// All of a deleted refresh: its grant and the token that was served.
    Grant,
    /// The value of that generation, which a newer one has replaced.
    Value(Generation),
}

/// Where a revocation stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// The issuer is to be told.
    Open(Box<Work>),
    /// Nothing is left to do, and no material.
    Ended(Ended),
}

/// What it takes to tell an issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// How the tokens were minted, and where they are revoked.
    pub config: RefreshConfig,
    /// Sealed material by name, as the refresh had it.
    pub material: BTreeMap<String, Sealed>,
    /// Sealed access tokens, oldest first.
    pub tokens: Vec<Sealed>,
    /// A mint that was under way: what it brings is revoked as well.
    pub awaits: Option<TicketId>,
    /// When the tokens end by themselves, if that makes it needless.
    pub needless_from: Option<UnixMs>,
    /// When it may be tried.
    pub due_at: UnixMs,
    /// When it is given up.
    pub until: UnixMs,
    /// Tries so far.
    pub tries: u32,
    /// The try that is under way.
    pub claim: Option<Claim>,
    /// Why the last try failed; empty if none has.
    pub cause: String,
}

/// The right to try once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Who tries.
    pub owner: ReplicaId,
    /// In which life.
    pub session: SessionId,
    /// When the try is over, whether anybody says so or not.
    pub ends_at: UnixMs,
    /// More came to revoke after it was claimed.
    pub is_outdated: bool,
}

/// The end of a revocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// When.
    pub at: UnixMs,
    /// The entry that destroyed what was left of the material.
    pub position: Position,
    /// After how many tries.
    pub tries: u32,
    /// How.
    pub end: End,
}

/// The ends of a revocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// The issuer was told, and agreed.
    Told,
    /// The issuer was not told, for this cause: the tokens may work until they end by themselves.
    NotTold(String),
    /// The token ended by itself before its time to be revoked came.
    Needless,
}

impl End {
    /// The word that status and audit show.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Told => "revoked",
            Self::NotTold(_) => "not-revoked",
            Self::Needless => "ended-by-itself",
        }
    }

    /// Why the issuer was not told; empty if it was.
    pub fn cause(&self) -> &str {
        match self {
            Self::NotTold(cause) => cause,
            Self::Told | Self::Needless => "",
        }
    }
}

impl Revocation {
    /// What is left to do, if anything is.
    pub fn work(&self) -> Option<&Work> {
        match &self.stage {
            Stage::Open(work) => Some(work),
            Stage::Ended(_) => None,
        }
    }
}

impl Work {
    /// When the next try may be claimed; the claim of one too many ends it.
    pub fn next_at(&self) -> UnixMs {
        self.claim.as_ref().map_or(self.due_at, |c| c.ends_at)
    }

    /// Whether it is given up at `now`.
    pub fn is_over(&self, now: UnixMs) -> bool {
        self.tries >= TRIES_MAX || self.until <= now
    }

    /// Why it is given up.
    pub fn why_over(&self) -> String {
        match self.cause.as_str() {
            "" => "no try came to an end in time".to_owned(),
            cause => cause.to_owned(),
        }
    }

    /// How long after a failed try the next one is due, in milliseconds.
    pub fn pause_ms(&self, retry_after_ms: Option<u64>) -> u64 {
        let doublings = self.tries.saturating_sub(1).min(TRIES_MAX);
        (PAUSE_MS << doublings).max(retry_after_ms.unwrap_or(0))
    }
}
