//! What goes into a mint and what comes out of it, in the clear: never stored, never proposed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::credential::RefreshConfig;
use crate::id::{CredentialId, TicketId};
use crate::secret::Secret;

/// Everything a strategy needs for one mint.
#[derive(Clone)]
pub struct MintOrder {
    /// For whom.
    pub credential: CredentialId,
    /// Under which ticket.
    pub ticket: TicketId,
    /// How, where and with which public material.
    pub config: RefreshConfig,
    /// Secret material by name.
    pub secrets: BTreeMap<String, Secret>,
    /// The end of the ticket, as the owner counts it.
    pub fence: Arc<dyn Fence>,
}

impl std::fmt::Debug for MintOrder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MintOrder")
            .field("credential", &self.credential)
            .field("ticket", &self.ticket)
            .field("strategy", &self.config.strategy)
            .finish_non_exhaustive()
    }
}

/// The end of a ticket, asked in every poll of a request and once more before its bytes are
/// written (DESIGN §3).
pub trait Fence: Send + Sync {
    /// Whether the time is up on *any* clock of this process. Once true, always true.
    fn passed(&self) -> bool;
    /// Time left on the monotonic clock; zero once passed.
    fn remaining(&self) -> Duration;
}

/// A mint that succeeded.
#[derive(Clone, Debug)]
pub struct Minted {
    /// The token. Further outputs of the same mint stand in `extra_outputs`.
    pub token: Secret,
    /// Further outputs by their name in the profile (an STS session's secret key and token).
    pub extra_outputs: BTreeMap<String, Secret>,
    /// Lifetime from before the request was sent; `None` if neither the answer nor the token
    /// tells.
    pub lifetime: Option<Duration>,
    /// New material by name: a rotated refresh token.
    pub new_material: BTreeMap<String, Secret>,
    /// How long pieces of material last, new or not, from before the request was sent, if the
    /// issuer says: a refresh token.
    pub material_lifetimes: BTreeMap<String, Duration>,
    /// The scopes that the issuer granted, if it says; those asked for otherwise
    /// ([RFC 6749 §5.1](https://www.rfc-editor.org/rfc/rfc6749#section-5.1)).
    pub scopes: Option<Vec<String>>,
}

/// Everything that it takes to have tokens revoked.
#[derive(Clone)]
pub struct RevokeOrder {
    /// Of which credential.
    pub credential: CredentialId,
    /// How they were minted, and where they are revoked.
    pub config: RefreshConfig,
    /// Secret material by name.
    pub secrets: BTreeMap<String, Secret>,
    /// Access tokens.
    pub tokens: Vec<Secret>,
    /// Whether the grant behind them goes too.
    pub with_grant: bool,
    /// The end of the try, as the owner counts it.
    pub fence: Arc<dyn Fence>,
}

impl std::fmt::Debug for RevokeOrder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RevokeOrder")
            .field("credential", &self.credential)
            .field("strategy", &self.config.strategy)
            .field("with_grant", &self.with_grant)
            .finish_non_exhaustive()
    }
}

/// What a dry run of a refresh showed. Nothing of it is kept.
#[derive(Clone, Debug)]
pub struct Probed {
    /// Whether the token endpoint answers: in which words, or why not; `None` for a strategy that
    /// has no endpoint of its own.
    pub endpoint: Option<Result<String, Failure>>,
    /// The mint that was thrown away; `None` if none was run: the strategy consumes its material,
    /// or the endpoint cannot be reached.
    pub mint: Option<Result<Minted, Failure>>,
}

/// A mint that did not succeed: what is safe to store and show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What to do next.
    pub class: FailureClass,
    /// Why, in one line; the issuer's words cleaned of secrets and bounded in length.
    pub cause: String,
    /// What a person can do, in one line; empty if nothing.
    pub remedy: String,
    /// The issuer's `Retry-After`, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

/// What the caller does next about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureClass {
    /// Not one byte of the request was written: the material is unspent. Retry.
    Unsent,
    /// The issuer answered that it could not, now. Retry.
    Transient,
    /// The issuer asks for a pause. Retry later.
    Throttled,
    /// The request was sent and no usable answer came: the material may be spent.
    Unclear,
    /// A refusal that no standard names: retried slowly, final after
    /// [`UNKNOWN_REFUSALS_MAX`] repeats.
    UnknownRefusal,
    /// The grant is refused: a person has to authorize again.
    GrantRefused,
    /// The client, its key or the request is refused: a person has to correct the configuration.
    ConfigRefused,
}

/// How often an unknown refusal is retried before it counts as final.
pub const UNKNOWN_REFUSALS_MAX: u32 = 5;

/// The longest cause or remedy that is stored, in bytes.
pub const FAILURE_TEXT_MAX: usize = 500;
