//! The rules: which token lives, which is spent, and what showing a spent one does.
//!
//! Pure: time comes in as an argument, tokens leave once and stay here only as digests. A *family*
//! is all that descends from one grant: the first refresh token, its successors, and their access
//! tokens ([RFC 9700 §4.14.2]). Its *generation* counts its mints.
//!
//! [RFC 9700 §4.14.2]: https://www.rfc-editor.org/rfc/rfc9700#section-4.14.2

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    client::{Client, Policy, Rotation},
    refusal::{Code, Refusal},
    secret::{Digest, Secret, random_text},
};

/// When the number of access tokens kept has doubled since, the expired ones are forgotten.
const ACCESS_TOKENS_SWEPT_FROM: usize = 4096;

/// One grant and all that descends from it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Family {
    /// The family's id.
    pub grant_id: String,
    /// The client that it was granted to.
    pub client: String,
    /// Mints so far; the first refresh token is generation 0.
    pub generation: u64,
    /// How often each generation was minted (the same shape as the real provider's fixture).
    pub mints: BTreeMap<u64, u64>,
    /// Mints from a refresh token that was already spent, which grace or replay allowed.
    pub forks: u64,
    /// How often a spent refresh token was shown where that is not allowed.
    pub reuse_detected: u64,
    /// When the family was revoked, in Unix milliseconds.
    pub revoked_at: Option<u64>,
}

impl Family {
    /// Whether the family's tokens still work.
    pub fn is_alive(&self) -> bool {
        self.revoked_at.is_none()
    }
}

/// What one mint yields.
pub(crate) struct Minted {
    pub(crate) grant_id: String,
    pub(crate) generation: u64,
    pub(crate) access: Secret,
    pub(crate) refresh: Option<Secret>,
    pub(crate) policy: Policy,
}

/// What an access token stands for while it is active.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct AccessToken {
    pub(crate) client_id: String,
    pub(crate) grant_id: String,
    pub(crate) generation: u64,
    /// On the ledger's clock.
    #[serde(skip)]
    pub(crate) expires_at: Duration,
}

struct RefreshToken {
    grant_id: String,
    generation: u64,
    expires_at: Option<Duration>,
    state: State,
    /// How often it was shown, whatever came of it.
    shown: u64,
}

#[derive(Clone, Copy)]
enum State {
    Live,
    /// Shown, or superseded by a sibling that was shown.
    Spent,
}

/// The part of a family that nobody outside needs.
#[derive(Default)]
struct Chain {
    /// The token shown last, and when: the only one that grace covers.
    shown_last: Option<(Digest, Duration)>,
    /// Issued and not yet shown.
    live: Vec<Digest>,
}

/// Clients, families and tokens.
pub(crate) struct Ledger {
    policy: Policy,
    clients: BTreeMap<String, Client>,
    families: BTreeMap<String, (Family, Chain)>,
    refresh: HashMap<Digest, RefreshToken>,
    access: HashMap<Digest, AccessToken>,
    access_sweep_at: usize,
    /// The family of each client and grant type that has no refresh token.
    standing: BTreeMap<(String, String), String>,
}

impl Ledger {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            policy,
            clients: BTreeMap::new(),
            families: BTreeMap::new(),
            refresh: HashMap::new(),
            access: HashMap::new(),
            access_sweep_at: ACCESS_TOKENS_SWEPT_FROM,
            standing: BTreeMap::new(),
        }
    }

    pub(crate) fn register(&mut self, client: Client) {
        self.clients.insert(client.id.clone(), client);
    }

    pub(crate) fn client(&self, id: &str) -> Option<&Client> {
        self.clients.get(id)
    }

    pub(crate) fn client_mut(&mut self, id: &str) -> Option<&mut Client> {
        self.clients.get_mut(id)
    }

    pub(crate) fn clients(&self) -> impl Iterator<Item = &Client> {
        self.clients.values()
    }

    pub(crate) fn families(&self) -> impl Iterator<Item = &Family> {
        self.families.values().map(|(family, _)| family)
    }

    /// The family and generation of a refresh token that was ever issued here, dead or alive.
    pub(crate) fn provenance(&self, token: Digest) -> Option<(String, u64)> {
        self.refresh
            .get(&token)
            .map(|token| (token.grant_id.clone(), token.generation))
    }

    /// Counts a showing of a refresh token that was ever issued here, and says which it is, from 1.
    pub(crate) fn show(&mut self, token: Digest) -> Option<u64> {
        let token = self.refresh.get_mut(&token)?;
        token.shown += 1;
        Some(token.shown)
    }

    /// A new family of `client` with its first refresh token, generation 0.
    pub(crate) fn seed(&mut self, now: Duration, client: &str) -> (String, Secret) {
        let grant_id = self.family(client);
        let ttl = self.policy_of(client).refresh_ttl;
        let token = Secret::random("rt");
        let (family, chain) = self
            .families
            .get_mut(&grant_id)
            .expect("the family was made above");
        family.mints.insert(0, 1);
        chain.live.push(token.digest());
        self.remember(token.digest(), &grant_id, 0, ttl.map(|ttl| now + ttl));
        (grant_id, token)
    }

    /// Spends a refresh token ([RFC 6749 §6](https://www.rfc-editor.org/rfc/rfc6749#section-6)).
    ///
    /// `unix_ms` dates a revocation; `now` is the ledger's clock.
    pub(crate) fn refresh(
        &mut self,
        now: Duration,
        unix_ms: u64,
        client: &str,
        presented: Digest,
    ) -> Result<Minted, Refusal> {
        let policy = self.policy_of(client);
        let invalid = |why| Err(Code::InvalidGrant.because(why));
        let Some(token) = self.refresh.get(&presented) else {
            return invalid("unknown refresh token");
        };
        let (family, chain) = self
            .families
            .get_mut(&token.grant_id)
            .expect("a token belongs to a family");
        if family.client != client {
            return invalid("the refresh token was issued to another client");
        }
        let spent = matches!(token.state, State::Spent);
        let grace = chain
            .shown_last
            .is_some_and(|(last, at)| last == presented && now <= at + policy.grace)
            && !policy.grace.is_zero();
        let allowed = !spent || policy.rotation == Rotation::Replayable || grace;
        if !allowed {
            family.reuse_detected += 1;
            if policy.rotation == Rotation::SingleUse {
                family.revoked_at.get_or_insert(unix_ms);
            }
            let why = "the refresh token was already used";
            return Err(Refusal {
                reuse: true,
                ..Code::InvalidGrant.because(why)
            });
        }
        if !family.is_alive() {
            return invalid("the grant was revoked");
        }
        if token.expires_at.is_some_and(|end| now >= end) {
            return invalid("the refresh token has expired");
        }
        family.forks += u64::from(spent);
        let grant_id = token.grant_id.clone();

        let refresh = match policy.rotation {
            Rotation::Off => None,
            Rotation::Replayable => Some(Secret::random("rt")),
            Rotation::SingleUse | Rotation::SingleUseNoDetection => {
                let next = Secret::random("rt");
                if !spent {
                    // The first showing ends this token and every sibling that grace had issued.
                    for sibling in std::mem::take(&mut chain.live) {
                        if let Some(token) = self.refresh.get_mut(&sibling) {
                            token.state = State::Spent;
                        }
                    }
                    chain.shown_last = Some((presented, now));
                }
                chain.live.push(next.digest());
                Some(next)
            }
        };
        // Under replay the old token lives on, but a second showing is still counted as a fork.
        if policy.rotation == Rotation::Replayable
            && let Some(token) = self.refresh.get_mut(&presented)
        {
            token.state = State::Spent;
        }
        Ok(self.mint(now, grant_id, refresh, policy))
    }

    /// A mint without a refresh token: the client's standing family for `grant_type` counts it.
    pub(crate) fn direct(&mut self, now: Duration, client: &str, grant_type: &str) -> Minted {
        let key = (client.to_owned(), grant_type.to_owned());
        let standing = self
            .standing
            .get(&key)
            .filter(|id| self.families[*id].0.is_alive())
            .cloned();
        let grant_id = standing.unwrap_or_else(|| self.family(client));
        self.standing.insert(key, grant_id.clone());
        let policy = self.policy_of(client);
        self.mint(now, grant_id, None, policy)
    }

    /// The access token, if it was issued here, has not expired, and its family lives.
    pub(crate) fn active(&self, now: Duration, token: &str) -> Option<&AccessToken> {
        self.access
            .get(&Digest::of(token))
            .filter(|token| now < token.expires_at && self.families[&token.grant_id].0.is_alive())
    }

    /// Ends a token of `client`: a refresh token with its family, an access token alone.
    pub(crate) fn end(&mut self, unix_ms: u64, client: &str, token: &str) {
        let digest = Digest::of(token);
        if let Some(known) = self.refresh.get(&digest) {
            let grant_id = known.grant_id.clone();
            if self.families[&grant_id].0.client == client {
                self.revoke(unix_ms, &grant_id);
            }
        }
        self.access
            .retain(|known, token| *known != digest || token.client_id != client);
    }

    /// Revokes a family; `false` when there is none of that id.
    pub(crate) fn revoke(&mut self, unix_ms: u64, grant_id: &str) -> bool {
        let Some((family, _)) = self.families.get_mut(grant_id) else {
            return false;
        };
        family.revoked_at.get_or_insert(unix_ms);
        true
    }

    fn policy_of(&self, client: &str) -> Policy {
        self.clients
            .get(client)
            .map_or(self.policy, |client| client.policy(&self.policy))
    }

    fn family(&mut self, client: &str) -> String {
        let grant_id = random_text(12);
        let family = Family {
            grant_id: grant_id.clone(),
            client: client.to_owned(),
            generation: 0,
            mints: BTreeMap::new(),
            forks: 0,
            reuse_detected: 0,
            revoked_at: None,
        };
        self.families
            .insert(grant_id.clone(), (family, Chain::default()));
        grant_id
    }

    fn mint(
        &mut self,
        now: Duration,
        grant_id: String,
        refresh: Option<Secret>,
        policy: Policy,
    ) -> Minted {
        let (family, _) = self
            .families
            .get_mut(&grant_id)
            .expect("the caller names a family");
        family.generation += 1;
        let generation = family.generation;
        *family.mints.entry(generation).or_default() += 1;
        let client_id = family.client.clone();
        if let Some(token) = &refresh {
            let expires_at = policy.refresh_ttl.map(|ttl| now + ttl);
            self.remember(token.digest(), &grant_id, generation, expires_at);
        }
        if self.access.len() >= self.access_sweep_at {
            self.access.retain(|_, token| now < token.expires_at);
            self.access_sweep_at = ACCESS_TOKENS_SWEPT_FROM.max(2 * self.access.len());
        }
        let access = Secret::random("at");
        let expires_at = now + policy.access_ttl;
        let entry = AccessToken {
            client_id,
            grant_id: grant_id.clone(),
            generation,
            expires_at,
        };
        self.access.insert(access.digest(), entry);
        Minted {
            grant_id,
            generation,
            access,
            refresh,
            policy,
        }
    }

    fn remember(
        &mut self,
        token: Digest,
        grant_id: &str,
        generation: u64,
        expires_at: Option<Duration>,
    ) {
        let grant_id = grant_id.to_owned();
        let entry = RefreshToken {
            grant_id,
            generation,
            expires_at,
            state: State::Live,
            shown: 0,
        };
        self.refresh.insert(token, entry);
    }
}

#[cfg(test)]
mod tests;
