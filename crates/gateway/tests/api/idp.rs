//! An OpenID provider, as a replica finds it on the web.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use evermint_gateway::testing::START;
use evermint_gateway::{Oidc, Post, Web};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

pub(crate) const ISSUER: &str = "https://idp.example/realms/prod";
pub(crate) const AUDIENCE: &str = "evermint";

/// A key of the provider: its name, what signs with it, and what it shows.
pub(crate) struct Signer {
    kid: &'static str,
    algorithm: Algorithm,
    pub(crate) key: EncodingKey,
    pub(crate) jwk: Value,
}

impl Signer {
    pub(crate) fn new(kid: &'static str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        Self::of(
            kid,
            Algorithm::ES256,
            EncodingKey::from_ec_der(pair.serialized_der()),
        )
    }

    pub(crate) fn edwards(kid: &'static str) -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        Self {
            kid,
            algorithm: Algorithm::EdDSA,
            key: EncodingKey::from_ed_der(pair.to_pkcs8v1().unwrap().as_ref()),
            jwk: json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": kid, "x": x}),
        }
    }

    fn of(kid: &'static str, algorithm: Algorithm, key: EncodingKey) -> Self {
        let mut jwk = Jwk::from_encoding_key(&key, algorithm).unwrap();
        jwk.common.key_id = Some(kid.to_owned());
        Self {
            kid,
            algorithm,
            key,
            jwk: json!(jwk),
        }
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        let header = Header {
            kid: Some(self.kid.to_owned()),
            ..Header::new(self.algorithm)
        };
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }
}

/// The provider, as the replica finds it on the web.
#[derive(Default)]
pub(crate) struct Idp {
    pages: Mutex<BTreeMap<String, Value>>,
    asked: AtomicUsize,
}

impl Idp {
    pub(crate) fn new(keys: &[&Signer]) -> Arc<Self> {
        let idp = Arc::new(Self::default());
        idp.put(
            "/.well-known/openid-configuration",
            json!({
                "issuer": ISSUER,
                "jwks_uri": format!("{ISSUER}/keys"),
            }),
        );
        idp.publish(keys);
        idp
    }

    pub(crate) fn publish(&self, keys: &[&Signer]) {
        let mut keys: Vec<Value> = keys.iter().map(|k| k.jwk.clone()).collect();
        // What a replica does not know is no reason not to take the others.
        keys.push(json!({"kty": "NEW", "kid": "new", "use": "sig"}));
        keys.push(
            json!({"kty": "oct", "kid": "shared", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"}),
        );
        self.put("/keys", json!({"keys": keys}));
    }

    fn put(&self, path: &str, page: Value) {
        self.pages
            .lock()
            .unwrap()
            .insert(format!("{ISSUER}{path}"), page);
    }

    pub(crate) fn down(&self) {
        self.pages.lock().unwrap().clear();
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Web for Idp {
    async fn get(&self, url: &str) -> Result<Vec<u8>, String> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let page = self.pages.lock().unwrap().get(url).cloned();
        page.map(|page| page.to_string().into_bytes())
            .ok_or_else(|| "down".to_owned())
    }

    async fn post(&self, _: Post) -> Result<u16, String> {
        Err("an OpenID provider is asked for pages alone".to_owned())
    }
}

pub(crate) fn oidc() -> Oidc {
    let roles = [
        "ops=admin",
        "dev=editor@default",
        "staff=reader@*",
        "b=editor@other",
    ];
    Oidc {
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        roles_claim: "realm_access.roles".to_owned(),
        roles: roles.iter().map(|rule| rule.parse().unwrap()).collect(),
        scopes_claim: None,
        leeway: Duration::from_secs(30),
        keys_ttl: Duration::from_secs(3_600),
    }
}

/// What a good token says. The cluster's clock stands at [`START`].
pub(crate) fn claims(role: &str) -> Value {
    let now = START.0 / 1_000;
    json!({
        "iss": ISSUER,
        "aud": ["account", AUDIENCE],
        "sub": "alice",
        "iat": now,
        "exp": now + 300,
        "realm_access": {"roles": [role, "offline_access"]},
    })
}
