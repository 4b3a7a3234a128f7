//! The keys of an OpenID provider ([RFC 7517 §5](https://www.rfc-editor.org/rfc/rfc7517#section-5)):
//! fetched, kept, and fetched again when they are old or a token names one that is not there.
//!
//! A provider that is down locks out nobody whose key is kept: keys that cannot be fetched anew are
//! good for [`KEEP`] after they were fetched last.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::port::Web;

/// How long keys are good that cannot be fetched anew.
pub const KEEP: Duration = Duration::from_secs(24 * 3_600);
/// The least time between two fetches because of tokens that name unknown keys.
pub(crate) const PAUSE: Duration = Duration::from_secs(10);
/// Most keys of a provider that are kept.
const KEYS_MAX: usize = 100;

/// Signatures that are taken ([RFC 7518 §3.1](https://www.rfc-editor.org/rfc/rfc7518#section-3.1)):
/// by a private key alone. With an HMAC whoever knows the public key could sign.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Whether tokens may be signed like this.
pub(crate) fn is_allowed(algorithm: Algorithm) -> bool {
    ALGORITHMS.contains(&algorithm)
}

/// A public key.
pub(crate) struct Key {
    pub(crate) key: DecodingKey,
    /// The only algorithm that it is for, if it says so.
    algorithm: Option<Algorithm>,
    family: AlgorithmFamily,
}

impl Key {
    fn new(jwk: &Jwk) -> Option<Self> {
        if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
            return None;
        }
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let family = key.family();
        let algorithm = match jwk.common.key_algorithm {
            Some(algorithm) => Some(algorithm.to_string().parse().ok()?),
            None => None,
        };
        (family != AlgorithmFamily::Hmac).then_some(Self {
            key,
            algorithm,
            family,
        })
    }

    /// Whether it may have signed like this.
    pub(crate) fn is_for(&self, algorithm: Algorithm) -> bool {
        is_allowed(algorithm)
            && self.family.algorithms().contains(&algorithm)
            && self.algorithm.is_none_or(|only| only == algorithm)
    }
}

/// Why there is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoKey {
    /// The provider has none of that name.
    Unknown,
    /// The provider cannot be asked.
    Unreachable,
}

/// The keys of one provider.
pub(crate) struct Keys {
    web: Arc<dyn Web>,
    issuer: String,
    kept: RwLock<Kept>,
    /// The last attempt. One asks at a time; the others look again when it is done.
    asked: Mutex<Option<Asked>>,
    ttl: Duration,
}

#[derive(Default)]
struct Kept {
    keys: BTreeMap<String, Arc<Key>>,
    fetched: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Asked {
    at: Instant,
    answered: bool,
}

impl Keys {
    pub(crate) fn new(web: Arc<dyn Web>, issuer: String, ttl: Duration) -> Self {
        Self {
            web,
            issuer,
            kept: RwLock::default(),
            asked: Mutex::default(),
            ttl,
        }
    }

    /// The key of that name. One that is not there is asked for, but not often.
    pub(crate) async fn find(&self, kid: &str) -> Result<Arc<Key>, NoKey> {
        if let Some(key) = self.kept(kid) {
            return Ok(key);
        }
        let mut asked = self.asked.lock().await;
        if let Some(key) = self.kept(kid) {
            return Ok(key);
        }
        let last = match *asked {
            Some(last) if last.at.elapsed() < PAUSE => last,
            Some(_) | None => self.ask(&mut asked).await,
        };
        match self.kept(kid) {
            Some(key) => Ok(key),
            None if last.answered => Err(NoKey::Unknown),
            None => Err(NoKey::Unreachable),
        }
    }

    /// Keeps the keys young, so that calls need not wait for them.
    pub(crate) async fn follow(&self, stop: CancellationToken) {
        loop {
            let answered = self.ask(&mut *self.asked.lock().await).await.answered;
            let pause = if answered {
                self.ttl
            } else {
                PAUSE.min(self.ttl)
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn kept(&self, kid: &str) -> Option<Arc<Key>> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let young = kept
            .fetched
            .is_some_and(|at| at.elapsed() < KEEP.max(self.ttl));
        young.then(|| kept.keys.get(kid).cloned())?
    }

    async fn ask(&self, asked: &mut Option<Asked>) -> Asked {
        let at = Instant::now();
        let answer = self.fetch().await;
        let now = Asked {
            at,
            answered: answer.is_ok(),
        };
        *asked = Some(now);
        match answer {
            Ok(keys) => {
                tracing::debug!(keys = keys.len(), "keys of the OpenID provider");
                let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
                *kept = Kept {
                    keys,
                    fetched: Some(at),
                };
            }
            Err(problem) => {
                let issuer = &self.issuer;
                tracing::warn!(
                    issuer,
                    problem,
                    "the OpenID provider's keys were not fetched"
                );
            }
        }
        now
    }

    /// Asks where the keys are ([OpenID Connect Discovery 1.0 §4](https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderConfig)),
    /// and for them.
    async fn fetch(&self) -> Result<BTreeMap<String, Arc<Key>>, String> {
        let issuer = self.issuer.trim_end_matches('/');
        let url = format!("{issuer}/.well-known/openid-configuration");
        let discovery = self.web.get(&url).await?;
        let discovery: Discovery = serde_json::from_slice(&discovery)
            .map_err(|e| format!("{url} answered no provider configuration: {e}"))?;
        if discovery.issuer != self.issuer {
            return Err(format!("{url} is about another issuer"));
        }
        let set = self.web.get(&discovery.jwks_uri).await?;
        let set: Set = serde_json::from_slice(&set)
            .map_err(|e| format!("jwks_uri answered no key set: {e}"))?;
        let keys = set.keys.into_iter().filter_map(|jwk| {
            // Of a kind that is not known here: the others are good all the same.
            let jwk: Jwk = serde_json::from_value(jwk).ok()?;
            let kid = jwk.common.key_id.clone()?;
            Some((kid, Arc::new(Key::new(&jwk)?)))
        });
        Ok(keys.take(KEYS_MAX).collect())
    }
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}
