//! An issuer that does as it is told, and remembers who was at its door together.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use evermint_core::id::{CredentialId, TicketId};
use evermint_core::mint::{Failure, MintOrder, Minted, RevokeOrder};
use evermint_core::port::Minter;
use evermint_core::secret::Secret;

/// What the next mint does.
#[derive(Clone, Debug)]
pub enum Script {
    /// After this long, gives a token of this lifetime and rotates `refresh_token`.
    Mint {
        /// Until the answer.
        after: Duration,
        /// Of the token.
        lifetime: Duration,
    },
    /// Fails so.
    Fail(Failure),
    /// Never answers; returns when the fence has passed.
    Hang(Failure),
    /// Panics.
    Panic,
}

/// Plays its scripts in order, then repeats the last one.
#[derive(Debug)]
pub struct FakeMinter {
    seen: Mutex<Seen>,
}

/// What a try to revoke was about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Whose tokens.
    pub credential: CredentialId,
    /// The refresh token, if the grant was to go too.
    pub grant: Option<String>,
    /// The access tokens.
    pub tokens: Vec<String>,
}

#[derive(Debug)]
struct Seen {
    scripts: VecDeque<Script>,
    orders: Vec<(CredentialId, TicketId, Option<String>)>,
    refusals: VecDeque<Failure>,
    revoked: Vec<Revoked>,
    inside: BTreeMap<CredentialId, usize>,
    overlaps: usize,
}

impl FakeMinter {
    /// An issuer that plays `scripts`; at least one.
    pub fn new(scripts: impl IntoIterator<Item = Script>) -> Self {
        Self {
            seen: Mutex::new(Seen {
                scripts: scripts.into_iter().collect(),
                orders: Vec::new(),
                refusals: VecDeque::new(),
                revoked: Vec::new(),
                inside: BTreeMap::new(),
                overlaps: 0,
            }),
        }
    }

    /// Every order so far, with the refresh token that it presented.
    pub fn orders(&self) -> Vec<(CredentialId, TicketId, Option<String>)> {
        self.lock().orders.clone()
    }

    /// Lets the next revocations fail so, one after the other.
    pub fn refuse_revocations(&self, refusals: impl IntoIterator<Item = Failure>) {
        self.lock().refusals.extend(refusals);
    }

    /// Every try to revoke, those that failed included.
    pub fn revoked(&self) -> Vec<Revoked> {
        self.lock().revoked.clone()
    }

    /// How often a mint began while another one for the same credential was under way.
    pub fn overlaps(&self) -> usize {
        self.lock().overlaps
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Marks a mint as under way until it is dropped.
struct Inside<'a>(&'a FakeMinter, CredentialId);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.0.lock().inside.get_mut(&self.1) {
            *count -= 1;
        }
    }
}

/// The one output that a scripted mint never gives, whoever declares it.
pub const MISSING: &str = "missing";

#[async_trait]
impl Minter for FakeMinter {
    async fn mint(&self, order: MintOrder) -> Result<Minted, Failure> {
        let script = {
            let mut seen = self.lock();
            let presented = order.secrets.get("refresh_token");
            let presented = presented.and_then(|s| s.expose_str().map(str::to_owned));
            seen.orders
                .push((order.credential.clone(), order.ticket, presented));
            let count = seen.inside.entry(order.credential.clone()).or_default();
            *count += 1;
            if *count > 1 {
                seen.overlaps += 1;
            }
            let next = seen.scripts.front().cloned();
            if seen.scripts.len() > 1 {
                seen.scripts.pop_front();
            }
            next.expect("at least one script")
        };
        let _inside = Inside(self, order.credential.clone());
        match script {
            Script::Mint { after, lifetime } => {
                tokio::time::sleep(after).await;
                let n = self.lock().orders.len();
                Ok(Minted {
                    token: Secret::from(format!("token-{n}")),
                    extra_outputs: order
                        .config
                        .outputs
                        .keys()
                        .filter(|output| *output != MISSING)
                        .map(|output| (output.clone(), Secret::from(format!("{output}-{n}"))))
                        .collect(),
                    lifetime: Some(lifetime),
                    new_material: BTreeMap::from([(
                        "refresh_token".to_owned(),
                        Secret::from(format!("rt-{n}")),
                    )]),
                    material_lifetimes: BTreeMap::new(),
                    scopes: None,
                })
            }
            Script::Fail(failure) => Err(failure),
            Script::Hang(failure) => {
                while !order.fence.passed() {
                    tokio::time::sleep(order.fence.remaining()).await;
                }
                Err(failure)
            }
            Script::Panic => panic!("a scripted panic"),
        }
    }

    async fn revoke(&self, order: RevokeOrder) -> Result<(), Failure> {
        let text = |secret: &Secret| secret.expose_str().unwrap_or_default().to_owned();
        let grant = order.secrets.get("refresh_token");
        let mut seen = self.lock();
        seen.revoked.push(Revoked {
            grant: grant.filter(|_| order.with_grant).map(text),
            tokens: order.tokens.iter().map(text).collect(),
            credential: order.credential,
        });
        seen.refusals.pop_front().map_or(Ok(()), Err)
    }
}
