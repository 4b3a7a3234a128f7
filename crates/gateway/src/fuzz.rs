//! Whatever comes as a token, as the keys of a provider, or as a certificate.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use evermint_core::id::{Name, Position, SandboxId, SigningKeyId, Workspace};
use evermint_core::provider::Sandbox;
use evermint_core::secret::{DataKeyId, Sealed};
use evermint_core::signing::SigningKey;
use evermint_core::state::State;
use evermint_core::time::UnixMs;
use evermint_fuzz::Corpus;

use crate::caller::Operator;
use crate::certificate;
use crate::jwks::Keys;
use crate::oidc::{Oidc, Verifier};
use crate::port::{Post, Web};
use crate::token::{LIFETIME, TokenRules, generate, read, sign};

#[test]
fn fuzz_a_token_says_what_was_signed_or_nothing() {
    let now = UnixMs(1_700_000_000_000);
    let (public, private) = generate().unwrap();
    let key = SigningKey {
        id: SigningKeyId(7),
        public,
        private: Sealed {
            key: DataKeyId(1),
            nonce: [0; 12],
            ciphertext: vec![],
        },
        added: Position(1),
        since: now,
    };
    let mut state = State::default();
    state.signing_keys.insert(key.id, Arc::new(key));
    let rules = TokenRules::default();
    let tokens = [1, 2].map(|id| {
        let sandbox = Sandbox {
            id: SandboxId(id),
            workspace: Workspace::default_workspace(),
            name: Name::new(format!("s{id}")).unwrap(),
            providers: vec![],
            token_epoch: 4,
            version: 1,
            created_at: now,
            touched: Position(1),
        };
        let token = sign(&rules, SigningKeyId(7), &private, &sandbox, now, LIFETIME);
        token.unwrap().text
    });
    let signed = tokens
        .clone()
        .map(|token| read(&state, &rules, token.as_bytes()));
    assert!(signed.iter().all(Option::is_some));
    Corpus::new(tokens).fuzz(|bytes| {
        let pass = read(&state, &rules, bytes);
        assert!(pass.is_none() || signed.contains(&pass), "{pass:?}");
    });
}

const ISSUER: &str = "https://idp.example";

fn corpus(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(name)
}

/// A provider with this key set, and these words about itself.
struct Provider {
    about: Vec<u8>,
    keys: Vec<u8>,
}

#[async_trait]
impl Web for Provider {
    async fn get(&self, url: &str) -> Result<Vec<u8>, String> {
        match url.ends_with("/openid-configuration") {
            true => Ok(self.about.clone()),
            false => Ok(self.keys.clone()),
        }
    }

    async fn post(&self, _: Post) -> Result<u16, String> {
        Err("a provider is asked for pages alone".to_owned())
    }
}

fn about() -> Vec<u8> {
    std::fs::read(corpus("jwks/discovery.json")).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().build().unwrap()
}

#[test]
fn fuzz_an_operators_token_says_what_was_signed_or_nothing() {
    let keys = std::fs::read(corpus("jwks/one-of-each.json")).unwrap();
    let web = Arc::new(Provider {
        about: about(),
        keys,
    });
    let oidc = Oidc {
        issuer: ISSUER.to_owned(),
        audience: "evermint".to_owned(),
        roles_claim: "realm_access.roles".to_owned(),
        roles: ["ops=admin", "dev=editor@default"]
            .map(|rule| rule.parse().unwrap())
            .to_vec(),
        scopes_claim: Some("scope".to_owned()),
        leeway: Duration::from_secs(30),
        keys_ttl: Duration::from_secs(3_600),
    };
    let verifier = Verifier::new(oidc, web);
    let runtime = runtime();
    let operator = |bytes: &[u8]| -> Option<Operator> {
        let now = UnixMs(1_800_000_000_000);
        runtime.block_on(verifier.operator(bytes, now)).ok()
    };
    let good = ["ed25519", "es256", "rs256"].map(|name| {
        let token = std::fs::read(corpus(&format!("oidc/{name}.jwt"))).unwrap();
        operator(&token).unwrap_or_else(|| panic!("{name} is good"))
    });
    Corpus::with_files::<Vec<u8>>(corpus("oidc"), []).fuzz(|bytes| {
        let operator = operator(bytes);
        assert!(
            operator.as_ref().is_none_or(|o| good.contains(o)),
            "{operator:?}"
        );
    });
}

#[test]
fn fuzz_a_key_set_gives_public_keys_or_none() {
    let runtime = runtime();
    let find = |web: Provider, kid: &str| {
        let keys = Keys::new(Arc::new(web), ISSUER.to_owned(), Duration::from_secs(60));
        runtime.block_on(keys.find(kid)).ok()
    };
    let given = |keys: &[u8]| Provider {
        about: about(),
        keys: keys.to_vec(),
    };
    let all = std::fs::read(corpus("jwks/one-of-each.json")).unwrap();
    for kid in ["ed", "ec", "rsa"] {
        assert!(find(given(&all), kid).is_some(), "{kid}");
    }
    Corpus::with_files::<Vec<u8>>(corpus("jwks"), []).fuzz(|bytes| {
        for kid in ["ed", "shared"] {
            if let Some(key) = find(given(bytes), kid) {
                use jsonwebtoken::Algorithm::{HS256, HS384, HS512};
                assert!([HS256, HS384, HS512].iter().all(|hmac| !key.is_for(*hmac)));
            }
        }
        // Whatever it says of itself: it is this provider, or nobody is asked for keys.
        let web = Provider {
            about: bytes.to_vec(),
            keys: all.clone(),
        };
        if find(web, "ed").is_some() {
            let about: serde_json::Value = serde_json::from_slice(bytes).unwrap();
            assert_eq!(about["issuer"], ISSUER);
        }
    });
}

#[test]
fn fuzz_a_certificate_names_its_bearer_or_nobody() {
    let rules = ["cn:alice=admin", "uri:spiffe://example.org/ci/*=reader@*"];
    let rules = rules.map(|rule| rule.parse().unwrap());
    let seeds = ["alice", "spiffe://example.org/ci/1"].map(|name| {
        let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params
            .subject_alt_names
            .push(rcgen::SanType::URI(name.try_into().unwrap()));
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    });
    let names = |der: &[u8]| certificate::operator(der, &rules);
    assert!(seeds.iter().all(|der| names(der).is_some()));
    Corpus::new(seeds).fuzz(|bytes| {
        if let Some(operator) = names(bytes) {
            let (kind, _) = operator
                .subject
                .split_once(':')
                .expect("a kind before the name");
            assert!(
                ["uri", "dns", "email", "cn", "ou", "o"].contains(&kind),
                "{kind}"
            );
        }
    });
}
