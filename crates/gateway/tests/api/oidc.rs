//! Operators by an OpenID provider's tokens, good ones and confused ones.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use evermint_core::secret::Secret;
use evermint_gateway::testing::START;
use evermint_gateway::{AdminToken, Config, Oidc, REASON, Web};
use evermint_proto::v1;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::calls::{bearer, by, call, sandbox_token};
use crate::harness::{Harness, config};
use crate::idp::{ISSUER, Idp, Signer, claims, oidc};

const READ: &str = "/evermint.v1.Providers/ListProviders";
const WRITE: &str = "/evermint.v1.Sandboxes/CreateSandbox";

async fn guarded(idp: &Arc<Idp>, oidc: Oidc) -> Harness {
    let config = Config {
        admin: Some(AdminToken::new(&Secret::from("the-operator"))),
        oidc: Some(oidc),
        ..config()
    };
    Harness::with_web(config, Arc::clone(idp) as Arc<dyn Web>).await
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    match value {
        Value::Null => claims.as_object_mut().unwrap().remove(name),
        value => claims
            .as_object_mut()
            .unwrap()
            .insert(name.to_owned(), value),
    };
    claims
}

fn code(answer: Result<(), Status>) -> Code {
    answer.map_or_else(|status| status.code(), |()| Code::Ok)
}

async fn read(harness: &Harness, token: &str) -> Code {
    code(call(harness, READ, Some(&bearer(token))).await)
}

#[tokio::test]
async fn a_good_token_lets_its_bearer_do_what_its_claims_mean() {
    let (ec, ed) = (Signer::new("ec"), Signer::edwards("ed"));
    let idp = Idp::new(&[&ec, &ed]);
    let harness = guarded(&idp, oidc()).await;
    for signer in [&ec, &ed] {
        for (role, reads, writes) in [
            ("ops", Code::Ok, Code::InvalidArgument),
            ("dev", Code::Ok, Code::InvalidArgument),
            ("staff", Code::Ok, Code::PermissionDenied),
            // In another workspace than the one that the call is about.
            ("b", Code::PermissionDenied, Code::PermissionDenied),
            ("nothing", Code::PermissionDenied, Code::PermissionDenied),
        ] {
            let token = signer.sign(&claims(role));
            assert_eq!(read(&harness, &token).await, reads, "{role}");
            let wrote = call(&harness, WRITE, Some(&bearer(&token))).await;
            assert_eq!(code(wrote), writes, "{role}");
        }
    }
    // The other ways work beside it.
    assert_eq!(read(&harness, "the-operator").await, Code::Ok);
    let token = sandbox_token(&harness, "the-operator", "box").await;
    let own = call(
        &harness,
        "/evermint.v1.Bundles/GetBundle",
        Some(&bearer(&token)),
    )
    .await;
    assert_eq!(code(own), Code::Ok);
}

#[tokio::test]
async fn a_confused_token_opens_nothing() {
    let (ours, other) = (Signer::new("ours"), Signer::new("ours"));
    let edwards = Signer::edwards("ours");
    let unknown = Signer::new("unknown");
    let idp = Idp::new(&[&ours]);
    let harness = guarded(&idp, oidc()).await;
    let good = claims("ops");
    assert_eq!(read(&harness, &ours.sign(&good)).await, Code::Ok);

    let now = START.0 / 1_000;
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = |header: Value| format!("{}.{}.", part(header), part(good.clone()));
    let hmac = |kid: &str, secret: &[u8]| {
        let header = Header {
            kid: Some(kid.to_owned()),
            ..Header::new(Algorithm::HS256)
        };
        jsonwebtoken::encode(&header, &good, &EncodingKey::from_secret(secret)).unwrap()
    };
    let public = ours.jwk.to_string();
    let no_kid = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &good, &ours.key).unwrap();
    let signature = ours.sign(&good).rsplit_once('.').unwrap().1.to_owned();
    let sandbox = sandbox_token(&harness, "the-operator", "box").await;
    for (what, token) in [
        (
            "no signature",
            unsigned(json!({"alg": "none", "kid": "ours"})),
        ),
        (
            "alg none with a signature",
            unsigned(json!({"alg": "none", "kid": "ours"})) + &signature,
        ),
        (
            "no signature under a good algorithm",
            unsigned(json!({"alg": "ES256", "kid": "ours"})),
        ),
        (
            "the public key as an HMAC secret",
            hmac("ours", public.as_bytes()),
        ),
        (
            "a symmetric key of the set",
            hmac("shared", b"secret-secret-secret-secret"),
        ),
        ("another key of that name", other.sign(&good)),
        ("another algorithm under that name", edwards.sign(&good)),
        ("a key that nobody knows", unknown.sign(&good)),
        ("no key's name", no_kid),
        (
            "another audience",
            ours.sign(&with(good.clone(), "aud", json!("account"))),
        ),
        (
            "no audience",
            ours.sign(&with(good.clone(), "aud", Value::Null)),
        ),
        (
            "another issuer",
            ours.sign(&with(good.clone(), "iss", json!("https://evil.example"))),
        ),
        (
            "an issuer that begins like ours",
            ours.sign(&with(good.clone(), "iss", json!(format!("{ISSUER}/x")))),
        ),
        (
            "several issuers",
            ours.sign(&with(good.clone(), "iss", json!([ISSUER, "x"]))),
        ),
        (
            "no issuer",
            ours.sign(&with(good.clone(), "iss", Value::Null)),
        ),
        (
            "no subject",
            ours.sign(&with(good.clone(), "sub", Value::Null)),
        ),
        (
            "expired",
            ours.sign(&with(good.clone(), "exp", json!(now - 31))),
        ),
        ("no end", ours.sign(&with(good.clone(), "exp", Value::Null))),
        (
            "an end that is no time",
            ours.sign(&with(good.clone(), "exp", json!("never"))),
        ),
        (
            "not good yet",
            ours.sign(&with(good.clone(), "nbf", json!(now + 60))),
        ),
        (
            "a beginning that is no time",
            ours.sign(&with(good.clone(), "nbf", json!("now"))),
        ),
        ("other claims under the signature", {
            let token = ours.sign(&claims("staff"));
            let parts: Vec<&str> = token.split('.').collect();
            format!("{}.{}.{}", parts[0], part(good.clone()), parts[2])
        }),
        (
            "far too long",
            format!("{}{}", ours.sign(&good), "A".repeat(8_000)),
        ),
        ("no JWT", "hunter2".to_owned()),
    ] {
        assert_eq!(
            read(&harness, &token).await,
            Code::Unauthenticated,
            "{what}"
        );
    }
    // A sandbox's token is good, and no operator's.
    assert_eq!(read(&harness, &sandbox).await, Code::PermissionDenied);
    // A sandbox's rights are not to be had by an operator's token.
    let renew = "/evermint.v1.SandboxTokens/RenewSandboxToken";
    let renewed = call(&harness, renew, Some(&bearer(&ours.sign(&good)))).await;
    assert_eq!(code(renewed), Code::PermissionDenied);
}

#[tokio::test]
async fn clocks_may_differ_by_the_leeway() {
    let signer = Signer::new("k");
    let harness = guarded(&Idp::new(&[&signer]), oidc()).await;
    let now = START.0 / 1_000;
    for (name, at, expected) in [
        ("exp", now - 20, Code::Ok),
        ("exp", now - 31, Code::Unauthenticated),
        ("nbf", now + 20, Code::Ok),
        ("nbf", now + 60, Code::Unauthenticated),
    ] {
        let token = signer.sign(&with(claims("ops"), name, json!(at)));
        assert_eq!(read(&harness, &token).await, expected, "{name} {at}");
    }
    let fraction = json!(f64::from(u32::try_from(now).unwrap()) + 0.5);
    let token = signer.sign(&with(claims("ops"), "exp", fraction));
    assert_eq!(read(&harness, &token).await, Code::Ok);
}

#[tokio::test]
async fn where_scopes_count_a_token_needs_the_methods() {
    let signer = Signer::new("k");
    let scoped = Oidc {
        scopes_claim: Some("scope".to_owned()),
        ..oidc()
    };
    let harness = guarded(&Idp::new(&[&signer]), scoped).await;
    for (scope, reads, writes) in [
        (
            json!("openid provider:read"),
            Code::Ok,
            Code::PermissionDenied,
        ),
        (
            json!(["sandbox:write"]),
            Code::PermissionDenied,
            Code::InvalidArgument,
        ),
        (json!("evermint:all"), Code::Ok, Code::InvalidArgument),
        (json!("openshell:all"), Code::Ok, Code::InvalidArgument),
        (
            json!("provider:readonly"),
            Code::PermissionDenied,
            Code::PermissionDenied,
        ),
        (Value::Null, Code::PermissionDenied, Code::PermissionDenied),
    ] {
        let token = signer.sign(&with(claims("ops"), "scope", scope.clone()));
        assert_eq!(read(&harness, &token).await, reads, "{scope}");
        let wrote = call(&harness, WRITE, Some(&bearer(&token))).await;
        assert_eq!(code(wrote), writes, "{scope}");
    }
}

#[tokio::test]
async fn a_provider_that_is_down_locks_out_nobody_whose_key_is_known() {
    let (old, new) = (Signer::new("old"), Signer::new("new-key"));
    let idp = Idp::new(&[&old]);
    let harness = guarded(&idp, oidc()).await;
    assert_eq!(read(&harness, &old.sign(&claims("ops"))).await, Code::Ok);
    idp.down();
    // A key that nobody knows is asked for once, and cannot be.
    let refused = call(&harness, READ, Some(&bearer(&new.sign(&claims("ops"))))).await;
    let _ = refused.unwrap_err();
    assert_eq!(read(&harness, &old.sign(&claims("ops"))).await, Code::Ok);
}

#[tokio::test]
async fn without_any_key_a_caller_is_told_to_come_back() {
    let signer = Signer::new("k");
    let idp = Idp::new(&[&signer]);
    idp.down();
    let harness = guarded(&idp, oidc()).await;
    let refused = call(&harness, READ, Some(&bearer(&signer.sign(&claims("ops"))))).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(refused.metadata().get(REASON).unwrap(), "no-oidc-keys");
    // The admin token works all the while.
    assert_eq!(read(&harness, "the-operator").await, Code::Ok);
}

#[tokio::test]
async fn unknown_keys_do_not_make_a_replica_ask_again_and_again() {
    let known = Signer::new("known");
    let idp = Idp::new(&[&known]);
    let harness = guarded(&idp, oidc()).await;
    assert_eq!(read(&harness, &known.sign(&claims("ops"))).await, Code::Ok);
    let before = idp.asked();
    for _ in 0..20 {
        let token = Signer::new("forged").sign(&claims("ops"));
        assert_eq!(read(&harness, &token).await, Code::Unauthenticated);
    }
    // Two pages for one look at most.
    assert!(idp.asked() <= before + 2, "{} after {before}", idp.asked());
}

#[tokio::test]
async fn the_subject_of_an_operator_may_create_what_its_role_allows() {
    let signer = Signer::new("k");
    let harness = guarded(&Idp::new(&[&signer]), oidc()).await;
    let create = |workspace: &str| v1::CreateSandboxRequest {
        workspace: workspace.to_owned(),
        name: "box".to_owned(),
        ..Default::default()
    };
    for (role, workspace, expected) in [
        ("dev", "", Code::Ok),
        ("dev", "other", Code::PermissionDenied),
        ("b", "other", Code::Ok),
        ("b", "default", Code::PermissionDenied),
        ("ops", "anywhere", Code::Ok),
        ("staff", "default", Code::PermissionDenied),
    ] {
        let request = by(&signer.sign(&claims(role)), create(workspace));
        let created = harness.sandboxes().create_sandbox(request).await;
        assert_eq!(code(created.map(drop)), expected, "{role} in {workspace}");
    }
}
