//! An issuer with rotating refresh tokens, reuse detection, and bad days.

use std::collections::{BTreeMap, BTreeSet};

use evermint_core::id::{CredentialId, TicketId};
use evermint_core::revocation::RevocationId;
use evermint_core::strategy::ReplayPolicy;
use evermint_protocol::deadline::Deadline;

use crate::config::Slot;
use crate::hardware::Time;

/// A grant of a user: the chain of refresh tokens that grew from one authorization.
pub(crate) type Family = u64;

/// One refresh token: the `serial`-th of its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RefreshToken {
    /// Its family.
    pub family: Family,
    /// Its place in the chain.
    pub serial: u64,
}

impl RefreshToken {
    /// As material.
    pub(crate) fn text(self) -> String {
        format!("rt-{}-{}", self.family, self.serial)
    }

    /// From material.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (family, serial) = text.strip_prefix("rt-")?.split_once('-')?;
        Some(Self {
            family: family.parse().ok()?,
            serial: serial.parse().ok()?,
        })
    }
}

/// What became of a refresh token that was issued in exchange for its predecessor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Its answer is on the way.
    Issued,
    /// It is in the memory of a replica.
    Delivered(Slot),
    /// It is on the disk of a replica.
    Journalled(Slot),
    /// It is in the replicated state.
    Committed,
    /// It is gone, for a reason that no protocol can help.
    Lost(&'static str),
}

/// An exchange that rotated.
#[derive(Clone, Debug)]
pub(crate) struct Rotation {
    /// Under which ticket.
    pub ticket: TicketId,
    /// What became of it.
    pub fate: Fate,
}

/// One family.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    /// The newest serial.
    pub current: u64,
    /// When its predecessor was used first.
    used_at: Time,
    /// How the issuer treats old ones.
    pub replay: ReplayPolicy,
    /// Whether reuse was detected.
    pub revoked: bool,
}

/// One request, as the issuer sees it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// For which credential.
    pub credential: CredentialId,
    /// Under which ticket.
    pub ticket: TicketId,
    /// From where.
    pub slot: Slot,
    /// The end of its ticket, as its sender counts it.
    pub deadline: Deadline,
    /// What it presents, unless its client secret is enough.
    pub token: Option<RefreshToken>,
    /// Whether the connection is open.
    pub open: bool,
    /// When it was closed, if it was.
    pub closed_at: Time,
    /// Whether what it gave has been received.
    pub heard: bool,
}

/// What the issuer makes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A token; the number names it. With a refresh token, maybe a new one.
    Token(u64, Option<RefreshToken>),
    /// `invalid_grant`; `reuse` if this request made it so.
    Refused {
        /// Whether a spent token was presented.
        reuse: bool,
    },
}

/// The issuer.
#[derive(Debug, Default)]
pub(crate) struct Issuer {
    /// All families.
    pub chains: BTreeMap<Family, Chain>,
    /// All requests by number.
    pub requests: Vec<Request>,
    /// What each ticket's exchange gave: the number of the token.
    pub tokens: BTreeMap<TicketId, u64>,
    /// Every rotation, by the token that it issued.
    pub rotations: BTreeMap<RefreshToken, Rotation>,
    /// Every try to revoke that was sent.
    pub words: BTreeSet<(RevocationId, u32)>,
    /// Every try to revoke that it agreed to.
    pub told: BTreeSet<(RevocationId, u32)>,
    /// It refuses connections until then.
    pub down_until: Time,
    next: u64,
}

impl Issuer {
    /// A user authorizes: the first token of a new family.
    pub(crate) fn authorize(&mut self, replay: ReplayPolicy) -> RefreshToken {
        self.next += 1;
        let chain = Chain {
            current: 0,
            used_at: 0,
            replay,
            revoked: false,
        };
        self.chains.insert(self.next, chain);
        RefreshToken {
            family: self.next,
            serial: 0,
        }
    }

    /// Handles a request.
    pub(crate) fn exchange(&mut self, request: usize, now: Time) -> Verdict {
        let ticket = self.requests[request].ticket;
        let rotated = match self.requests[request].token {
            None => None,
            Some(token) => {
                let Some(chain) = self.chains.get_mut(&token.family) else {
                    return Verdict::Refused { reuse: false };
                };
                if chain.revoked {
                    return Verdict::Refused { reuse: false };
                }
                let newest = token.serial == chain.current;
                let in_grace = match chain.replay {
                    ReplayPolicy::Strict => false,
                    ReplayPolicy::Safe => true,
                    ReplayPolicy::Grace(ms) => {
                        token.serial + 1 == chain.current && now < chain.used_at + ms
                    }
                };
                if !newest && !in_grace {
                    chain.revoked = true;
                    return Verdict::Refused { reuse: true };
                }
                if newest {
                    chain.current += 1;
                    chain.used_at = now;
                }
                Some(RefreshToken {
                    family: token.family,
                    serial: chain.current,
                })
            }
        };
        self.next += 1;
        self.tokens.insert(ticket, self.next);
        if let Some(token) = rotated {
            self.rotations.insert(
                token,
                Rotation {
                    ticket,
                    fate: Fate::Issued,
                },
            );
        }
        Verdict::Token(self.next, rotated)
    }

    /// Whether the issuer would still take `token`, as the newest of its family.
    pub(crate) fn accepts(&self, token: RefreshToken) -> bool {
        self.chains.get(&token.family).is_some_and(|chain| {
            !chain.revoked && (token.serial == chain.current || chain.replay == ReplayPolicy::Safe)
        })
    }

    /// Marks what the mint under `ticket` rotated. What is lost may still be committed.
    pub(crate) fn mark(&mut self, ticket: TicketId, fate: Fate) {
        for rotation in self.rotations.values_mut().rev() {
            if rotation.ticket == ticket {
                let over = matches!(rotation.fate, Fate::Committed | Fate::Lost(_));
                if !over || fate == Fate::Committed {
                    rotation.fate = fate;
                }
                return;
            }
        }
    }

    /// What became of the rotation under `ticket`, if it rotated.
    pub(crate) fn fate(&self, ticket: TicketId) -> Option<&Fate> {
        let mut rotations = self.rotations.values();
        rotations.find(|r| r.ticket == ticket).map(|r| &r.fate)
    }

    /// Closes a connection. What was on its way over it is lost.
    pub(crate) fn close(&mut self, request: usize, now: Time) {
        let request = &mut self.requests[request];
        if request.open {
            request.open = false;
            request.closed_at = now;
        }
        if !request.heard {
            let ticket = request.ticket;
            if self.fate(ticket) == Some(&Fate::Issued) {
                self.mark(ticket, Fate::Lost("the answer never reached a replica"));
            }
        }
    }
}
