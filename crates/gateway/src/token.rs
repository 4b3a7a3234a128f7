//! Sandbox tokens: JWTs signed with Ed25519 ([RFC 8037 §3.1](https://www.rfc-editor.org/rfc/rfc8037#section-3.1))
//! by a key of the replicated state, so that any replica takes what another one gave.
//!
//! Time is the cluster clock, on which all replicas agree. A token names its sandbox and the
//! sandbox's token epoch; a sandbox that is gone, or whose tokens were revoked since, is refused.

use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use evermint_core::id::{SandboxId, SigningKeyId};
use evermint_core::provider::Sandbox;
use evermint_core::secret::Secret;
use evermint_core::signing::SigningKey;
use evermint_core::state::State;
use evermint_core::time::UnixMs;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
/// How long a token is good unless said otherwise.
pub(crate) const LIFETIME: Duration = Duration::from_secs(3_600);
/// The longest life of a token.
pub(crate) const LIFETIME_MAX: Duration = Duration::from_secs(24 * 3_600);
/// The longest token that is looked at, in bytes.
const LENGTH_MAX: usize = 4_096;
/// Who gives the tokens.
const ISSUER: &str = "evermint";
/// For what they are: no other kind of token has this audience.
const AUDIENCE: &str = "evermint-sandbox";

/// What a token says. Times in seconds, as [RFC 7519 §4.1](https://www.rfc-editor.org/rfc/rfc7519#section-4.1)
/// has them.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    /// The sandbox's id.
    sub: String,
    iat: u64,
    exp: u64,
    /// The sandbox's token epoch.
    epoch: u64,
}

/// A token and its end.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) expires_at: UnixMs,
}

/// What a good token says: whose it is, and how long it stays good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// The sandbox.
    pub sandbox: SandboxId,
    epoch: u64,
    until: UnixMs,
}

impl Pass {
    /// Whether it is still good. A stream asks again and again.
    ///
    /// # Errors
    /// [`Spent`] says why not.
    pub(crate) fn check(&self, state: &State, now: UnixMs) -> Result<(), Spent> {
        if now >= self.until {
            return Err(Spent::Expired);
        }
        match state.sandboxes.get(&self.sandbox).map(|s| s.token_epoch) {
            Some(epoch) if epoch == self.epoch => Ok(()),
            Some(epoch) if epoch > self.epoch => Err(Spent::Revoked),
            Some(_) | None => Err(Spent::Unknown),
        }
    }
}

/// Why a token that was signed here is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Spent {
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// An operator revoked it.
    #[error("the token was revoked")]
    Revoked,
    /// This replica knows no such sandbox: it is gone, or not here yet.
    #[error("the token's sandbox is gone")]
    Unknown,
}

/// A new key pair: the public key, and the private one as PKCS #8.
pub(crate) fn generate() -> Option<(Vec<u8>, Secret)> {
    let pair = Ed25519KeyPair::generate().ok()?;
    let private = pair.to_pkcs8v1().ok()?;
    let public = pair.public_key().as_ref().to_vec();
    Some((public, Secret::new(private.as_ref())))
}

/// Signs a token for `sandbox`; `private` is the opened private half of `key`.
pub(crate) fn sign(
    key: SigningKeyId,
    private: &Secret,
    sandbox: &Sandbox,
    now: UnixMs,
    lifetime: Duration,
) -> Option<Token> {
    let issued = now.0 / 1_000;
    let ends = issued + lifetime.min(LIFETIME_MAX).as_secs();
    let claims = Claims {
        iss: ISSUER.to_owned(),
        aud: AUDIENCE.to_owned(),
        sub: sandbox.id.to_string(),
        iat: issued,
        exp: ends,
        epoch: sandbox.token_epoch,
    };
    let header = Header {
        kid: Some(key.to_string()),
        ..Header::new(Algorithm::EdDSA)
    };
    let signer = EncodingKey::from_ed_der(private.expose());
    let text = jsonwebtoken::encode(&header, &claims, &signer).ok()?;
    Some(Token {
        text,
        expires_at: UnixMs(ends * 1_000),
    })
}

/// Whether `token` may be a sandbox's, by its looks.
pub(crate) fn looks_like_one(token: &[u8]) -> bool {
    token.iter().filter(|byte| **byte == b'.').count() == 2
}

/// What `token` says, if this cluster signed it. Whether it is still good is for
/// [`Pass::check`] to say.
pub(crate) fn read(state: &State, token: &[u8]) -> Option<Pass> {
    if token.len() > LENGTH_MAX {
        return None;
    }
    let header = jsonwebtoken::decode_header(token).ok()?;
    let key: SigningKeyId = header.kid?.parse().ok()?;
    let key: &SigningKey = state.signing_keys.get(&key)?;

    let mut rules = Validation::new(Algorithm::EdDSA);
    rules.set_issuer(&[ISSUER]);
    rules.set_audience(&[AUDIENCE]);
    rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    // By the cluster clock, in `Pass::check`.
    rules.validate_exp = false;
    let known = DecodingKey::from_ed_der(&key.public);
    let claims = jsonwebtoken::decode::<Claims>(token, &known, &rules);
    let claims = claims.ok()?.claims;
    Some(Pass {
        sandbox: claims.sub.parse().ok()?,
        epoch: claims.epoch,
        until: UnixMs(claims.exp.saturating_mul(1_000)),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use evermint_core::id::{Name, Position, Workspace};
    use evermint_core::secret::{DataKeyId, Sealed};

    use super::*;

    const NOW: UnixMs = UnixMs(1_700_000_000_500);
    const KEY: SigningKeyId = SigningKeyId(7);

    fn sandbox(id: u128) -> Sandbox {
        Sandbox {
            id: SandboxId(id),
            workspace: Workspace::default_workspace(),
            name: Name::new(format!("s{id}")).unwrap(),
            providers: vec![],
            token_epoch: 4,
            version: 1,
            created_at: NOW,
            touched: Position(1),
        }
    }

    /// A state with one sandbox and one key, and the key's private half.
    fn world() -> (State, Secret) {
        let (public, private) = generate().unwrap();
        let key = SigningKey {
            id: KEY,
            public,
            private: Sealed {
                key: DataKeyId(1),
                nonce: [0; 12],
                ciphertext: vec![],
            },
            added: Position(1),
            since: NOW,
        };
        let mut state = State::default();
        state.signing_keys.insert(KEY, Arc::new(key));
        state.sandboxes.insert(SandboxId(1), Arc::new(sandbox(1)));
        (state, private)
    }

    fn token(private: &Secret, sandbox: &Sandbox) -> String {
        let token = sign(KEY, private, sandbox, NOW, LIFETIME).unwrap();
        assert_eq!(token.expires_at, UnixMs(1_700_003_600_000));
        token.text
    }

    fn check(state: &State, now: UnixMs, token: &str, expected: Result<(), Spent>) {
        let pass = read(state, token.as_bytes()).expect("signed here");
        assert_eq!(pass.sandbox, SandboxId(1));
        assert_eq!(pass.check(state, now), expected);
    }

    #[test]
    fn a_token_is_good_until_its_end_while_its_sandbox_is_there_and_it_is_not_revoked() {
        let (mut state, private) = world();
        let text = token(&private, &sandbox(1));
        let last = UnixMs(1_700_003_599_999);
        check(&state, NOW, &text, Ok(()));
        check(&state, last, &text, Ok(()));
        let over = last + Duration::from_millis(1);
        check(&state, over, &text, Err(Spent::Expired));

        let mut revoked = sandbox(1);
        revoked.token_epoch += 1;
        state.sandboxes.insert(SandboxId(1), Arc::new(revoked));
        check(&state, NOW, &text, Err(Spent::Revoked));
        // A replica that is behind does not know the newest epoch, or the sandbox, yet.
        let mut older = sandbox(1);
        older.token_epoch -= 1;
        state.sandboxes.insert(SandboxId(1), Arc::new(older));
        check(&state, NOW, &text, Err(Spent::Unknown));
        state.sandboxes.remove(&SandboxId(1));
        check(&state, NOW, &text, Err(Spent::Unknown));
    }

    #[test]
    fn what_this_cluster_did_not_sign_is_no_token() {
        let (state, private) = world();
        let (_, foreign) = generate().unwrap();
        let good = token(&private, &sandbox(1));
        let parts: Vec<&str> = good.split('.').collect();
        let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
        let claims = |aud: &str, sub: &str| {
            format!(
                r#"{{"iss":"evermint","aud":"{aud}","sub":"{sub}","iat":1,"exp":9999999999,"epoch":4}}"#
            )
        };
        let signed = |alg: Algorithm, claims: &str| {
            let header = Header {
                kid: Some(KEY.to_string()),
                ..Header::new(alg)
            };
            let claims: serde_json::Value = serde_json::from_str(claims).unwrap();
            let key = match alg {
                Algorithm::HS256 => EncodingKey::from_secret(&state.signing_keys[&KEY].public),
                _ => EncodingKey::from_ed_der(private.expose()),
            };
            jsonwebtoken::encode(&header, &claims, &key).unwrap()
        };
        let me = SandboxId(1).to_string();
        let by_hand = signed(Algorithm::EdDSA, &claims(AUDIENCE, &me));
        check(&state, NOW, &by_hand, Ok(()));
        for (what, bad) in [
            ("nothing", String::new()),
            ("no JWT", "hunter2".to_owned()),
            ("another key", token(&foreign, &sandbox(1))),
            (
                "no signature",
                format!("{}.{}.", part(r#"{"alg":"none"}"#), parts[1]),
            ),
            (
                "alg none with our kid",
                format!(
                    "{}.{}.{}",
                    part(&format!(r#"{{"alg":"none","kid":"{KEY}"}}"#)),
                    parts[1],
                    parts[2]
                ),
            ),
            (
                "the public key as an HMAC secret",
                signed(Algorithm::HS256, &claims(AUDIENCE, &me)),
            ),
            (
                "another audience",
                signed(Algorithm::EdDSA, &claims("something", &me)),
            ),
            (
                "no sandbox's id",
                signed(Algorithm::EdDSA, &claims(AUDIENCE, "root")),
            ),
            (
                "other claims under the signature",
                format!("{}.{}.{}", parts[0], part(&claims(AUDIENCE, &me)), parts[2]),
            ),
            ("too long", format!("{good}{}", "A".repeat(LENGTH_MAX))),
        ] {
            assert_eq!(read(&state, bad.as_bytes()), None, "{what}");
        }
    }
}
