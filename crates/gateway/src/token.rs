//! Sandbox tokens: JWTs signed with Ed25519 ([RFC 8037 §3.1](https://www.rfc-editor.org/rfc/rfc8037#section-3.1)),
//! of the form that OpenShell's gateways give, on both faces.
//!
//! They are signed by a key of the replicated state, so that any replica takes what another one
//! gave. Those of an OpenShell gateway are taken beside them, if its key is configured: it gives
//! sandboxes their first token, and knows nothing of ours.
//!
//! Time is the cluster clock, on which all replicas agree. A token names its sandbox and the
//! sandbox's token epoch; a sandbox that is gone, or whose tokens were revoked since, is refused.
//! A gateway knows no epochs: its tokens are of the first one, and so end with a revocation.

use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use evermint_core::id::{SandboxId, SigningKeyId};
use evermint_core::provider::Sandbox;
use evermint_core::secret::Secret;
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
/// The token epoch of a sandbox whose tokens were never revoked.
const FIRST_EPOCH: u64 = 1;
/// How long a gateway's token is taken after its end: its clock is not ours.
const LEEWAY: Duration = Duration::from_secs(60);
/// The kind of token that a header may name. Gateways sign other kinds with the same key.
const KIND: &str = "JWT";

/// Whose tokens are taken, and in whose name ours are given.
#[derive(Clone, Debug)]
pub struct TokenRules {
    /// The gateway that tokens are of; the same on every replica, and on the gateway behind.
    pub gateway_id: String,
    /// The key of an OpenShell gateway.
    pub gateway_key: Option<GatewayKey>,
}

impl Default for TokenRules {
    fn default() -> Self {
        Self {
            gateway_id: "openshell".to_owned(),
            gateway_key: None,
        }
    }
}

impl TokenRules {
    /// Issuer and audience of tokens.
    fn authority(&self) -> String {
        format!("openshell-gateway:{}", self.gateway_id)
    }
}

/// The key by which an OpenShell gateway's tokens are known.
#[derive(Clone)]
pub struct GatewayKey {
    kid: String,
    public: DecodingKey,
}

impl GatewayKey {
    /// Takes a public key in PEM, and its name in the headers of tokens.
    ///
    /// # Errors
    /// What is wrong with the key.
    pub fn from_pem(kid: &str, public: &[u8]) -> Result<Self, String> {
        let public = DecodingKey::from_ed_pem(public)
            .map_err(|_| "must be an Ed25519 public key in PEM".to_owned())?;
        Ok(Self {
            kid: kid.to_owned(),
            public,
        })
    }
}

impl std::fmt::Debug for GatewayKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GatewayKey")
            .field("kid", &self.kid)
            .finish()
    }
}

/// What a token says. Times in seconds, as [RFC 7519 §4.1](https://www.rfc-editor.org/rfc/rfc7519#section-4.1)
/// has them.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    #[serde(skip_deserializing)]
    iss: String,
    #[serde(skip_deserializing)]
    aud: String,
    sub: String,
    #[serde(default)]
    iat: u64,
    /// 0 for a gateway's token that has no end.
    exp: u64,
    sandbox_id: String,
    /// The sandbox's token epoch; a gateway knows of none.
    epoch: Option<u64>,
}

/// Who a token is about, as its subject.
fn subject(sandbox: &str) -> String {
    format!("spiffe://openshell/sandbox/{sandbox}")
}

/// A token and its end.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) expires_at: UnixMs,
}

/// Who signed a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signer {
    /// A replica.
    Cluster,
    /// The OpenShell gateway, which takes it as well.
    Gateway,
}

/// What a good token says: whose it is, and how long it stays good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// The sandbox.
    pub sandbox: SandboxId,
    pub(crate) signer: Signer,
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

    /// When its time is over.
    pub(crate) fn until(&self) -> UnixMs {
        self.until
    }
}

/// Why a token or a certificate that was good is so no more.
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
    rules: &TokenRules,
    key: SigningKeyId,
    private: &Secret,
    sandbox: &Sandbox,
    now: UnixMs,
    lifetime: Duration,
) -> Option<Token> {
    let issued = now.0 / 1_000;
    let ends = issued + lifetime.min(LIFETIME_MAX).as_secs();
    let sandbox_id = sandbox.id.to_string();
    let claims = Claims {
        iss: rules.authority(),
        aud: rules.authority(),
        sub: subject(&sandbox_id),
        iat: issued,
        exp: ends,
        sandbox_id,
        epoch: Some(sandbox.token_epoch),
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

/// Whether `token` claims to be signed by a key of a cluster, and by none that is known.
pub(crate) fn is_of_unknown_key(state: &State, token: &[u8]) -> bool {
    if token.len() > LENGTH_MAX {
        return false;
    }
    let header = jsonwebtoken::decode_header(token).ok();
    let key = header.and_then(|header| header.kid?.parse::<SigningKeyId>().ok());
    key.is_some_and(|key| !state.signing_keys.contains_key(&key))
}

/// What `token` says, if this cluster or the configured gateway signed it. Whether it is still
/// good is for [`Pass::check`] to say.
pub(crate) fn read(state: &State, rules: &TokenRules, token: &[u8]) -> Option<Pass> {
    if token.len() > LENGTH_MAX {
        return None;
    }
    let header = jsonwebtoken::decode_header(token).ok()?;
    if header
        .typ
        .is_some_and(|kind| !kind.eq_ignore_ascii_case(KIND))
    {
        return None;
    }
    let kid = header.kid?;
    let (signer, key) = match &rules.gateway_key {
        Some(gateway) if gateway.kid == kid => (Signer::Gateway, gateway.public.clone()),
        _ => {
            let key = state.signing_keys.get(&kid.parse::<SigningKeyId>().ok()?)?;
            (Signer::Cluster, DecodingKey::from_ed_der(&key.public))
        }
    };

    let mut rules_of_form = Validation::new(Algorithm::EdDSA);
    rules_of_form.set_issuer(&[rules.authority()]);
    rules_of_form.set_audience(&[rules.authority()]);
    rules_of_form.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    // By the cluster clock, in `Pass::check`.
    rules_of_form.validate_exp = false;
    let claims = jsonwebtoken::decode::<Claims>(token, &key, &rules_of_form);
    let claims = claims.ok()?.claims;
    if claims.sub != subject(&claims.sandbox_id) {
        return None;
    }
    let end = UnixMs(claims.exp.saturating_mul(1_000));
    let (epoch, until) = match signer {
        Signer::Cluster => (claims.epoch?, end),
        Signer::Gateway if claims.exp == 0 => (FIRST_EPOCH, UnixMs(u64::MAX)),
        Signer::Gateway => (FIRST_EPOCH, end + LEEWAY),
    };
    Some(Pass {
        sandbox: claims.sandbox_id.parse().ok()?,
        signer,
        epoch,
        until,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use evermint_core::id::{Name, Position, Workspace};
    use evermint_core::secret::{DataKeyId, Sealed};
    use evermint_core::signing::SigningKey;

    use super::*;

    const NOW: UnixMs = UnixMs(1_700_000_000_500);
    const KEY: SigningKeyId = SigningKeyId(7);
    const OURS: &str = "openshell-gateway:openshell";

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
        let rules = TokenRules::default();
        let token = sign(&rules, KEY, private, sandbox, NOW, LIFETIME).unwrap();
        assert_eq!(token.expires_at, UnixMs(1_700_003_600_000));
        token.text
    }

    fn check(state: &State, now: UnixMs, token: &str, expected: Result<(), Spent>) {
        let pass = read(state, &TokenRules::default(), token.as_bytes()).expect("signed here");
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
        let claims = |aud: &str, id: &str| {
            format!(
                r#"{{"iss":"{OURS}","aud":"{aud}","sub":"spiffe://openshell/sandbox/{id}","iat":1,"exp":9999999999,"sandbox_id":"{id}","epoch":4}}"#
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
        let by_hand = signed(Algorithm::EdDSA, &claims(OURS, &me));
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
                signed(Algorithm::HS256, &claims(OURS, &me)),
            ),
            (
                "another audience",
                signed(Algorithm::EdDSA, &claims("something", &me)),
            ),
            ("another kind of token", {
                let header = Header {
                    typ: Some("extension+jwt".to_owned()),
                    kid: Some(KEY.to_string()),
                    ..Header::new(Algorithm::EdDSA)
                };
                let claims: serde_json::Value = serde_json::from_str(&claims(OURS, &me)).unwrap();
                let key = EncodingKey::from_ed_der(private.expose());
                jsonwebtoken::encode(&header, &claims, &key).unwrap()
            }),
            (
                "the subject of another sandbox",
                signed(
                    Algorithm::EdDSA,
                    &claims(OURS, &me).replacen(&me, &SandboxId(2).to_string(), 1),
                ),
            ),
            (
                "no epoch",
                signed(
                    Algorithm::EdDSA,
                    &claims(OURS, &me).replace(",\"epoch\":4", ""),
                ),
            ),
            (
                "no sandbox's id",
                signed(Algorithm::EdDSA, &claims(OURS, "root")),
            ),
            (
                "other claims under the signature",
                format!("{}.{}.{}", parts[0], part(&claims(OURS, &me)), parts[2]),
            ),
            ("too long", format!("{good}{}", "A".repeat(LENGTH_MAX))),
        ] {
            assert_eq!(
                read(&state, &TokenRules::default(), bad.as_bytes()),
                None,
                "{what}"
            );
        }
    }

    #[test]
    fn a_gateways_token_is_taken_by_its_key_with_a_minutes_leeway() {
        let (mut state, _) = world();
        let mut unrevoked = sandbox(1);
        unrevoked.token_epoch = FIRST_EPOCH;
        state.sandboxes.insert(SandboxId(1), Arc::new(unrevoked));
        let (public, private) = generate().unwrap();
        // SubjectPublicKeyInfo of Ed25519, RFC 8410 §4.
        let mut der = vec![
            0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
        ];
        der.extend(&public);
        let pem = format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            base64::engine::general_purpose::STANDARD.encode(&der)
        );
        let rules = TokenRules {
            gateway_id: "lab".to_owned(),
            gateway_key: Some(GatewayKey::from_pem("key-1", pem.as_bytes()).unwrap()),
        };
        let me = SandboxId(1).to_string();
        let token = |kid: &str, gateway: &str, exp: u64| {
            let header = Header {
                kid: Some(kid.to_owned()),
                ..Header::new(Algorithm::EdDSA)
            };
            let authority = format!("openshell-gateway:{gateway}");
            let claims = serde_json::json!({
                "iss": authority, "aud": authority, "sub": subject(&me),
                "iat": 1, "exp": exp, "sandbox_id": me,
            });
            let key = EncodingKey::from_ed_der(private.expose());
            jsonwebtoken::encode(&header, &claims, &key).unwrap()
        };
        let now = NOW.0 / 1_000;
        for (what, token, expected) in [
            ("good", token("key-1", "lab", now + 9), Some(Ok(()))),
            ("just over", token("key-1", "lab", now - 59), Some(Ok(()))),
            (
                "over",
                token("key-1", "lab", now - 60),
                Some(Err(Spent::Expired)),
            ),
            ("without an end", token("key-1", "lab", 0), Some(Ok(()))),
            ("another key's", token("key-2", "lab", now + 9), None),
            (
                "another gateway's",
                token("key-1", "openshell", now + 9),
                None,
            ),
        ] {
            let pass = read(&state, &rules, token.as_bytes());
            assert_eq!(pass.map(|pass| pass.check(&state, NOW)), expected, "{what}");
            assert!(pass.is_none_or(|pass| pass.signer == Signer::Gateway));
        }
        // Revoked here: a gateway that knows nothing of it gives no better one.
        state.sandboxes.insert(SandboxId(1), Arc::new(sandbox(1)));
        let pass = read(&state, &rules, token("key-1", "lab", 0).as_bytes()).unwrap();
        assert_eq!(pass.check(&state, NOW), Err(Spent::Revoked));
        assert!(GatewayKey::from_pem("key-1", b"no key").is_err());
    }
}
