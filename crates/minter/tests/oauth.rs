//! What OAuth's clients and grants put on the wire: proofs of a client, exchanged tokens, signed
//! assertions; and which configurations of them are refused.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail like the tests themselves"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use evermint_core::mint::{FailureClass, MintOrder};
use evermint_core::port::Minter;
use evermint_core::strategy::Strategy;
use evermint_minter::{Config, HttpMinter, Material, Outside, Setup, refresher};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rcgen::KeyPair;
use serde_json::{Value, json};
use support::{Issuer, RSA, Reply, Seen, http, json as reply, minter, order};

const TOKEN: &str = r#"{"access_token":"at-1","token_type":"Bearer","expires_in":60}"#;
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

async fn issuer() -> Issuer {
    Issuer::start(Reply::Raw(reply(200, TOKEN))).await
}

fn client(url: &str, public: &[(&str, &str)], secret: &[(&str, &str)]) -> MintOrder {
    let public = [&[("client_id", "app")][..], public].concat();
    order(Strategy::OAuth2ClientCredentials, url, &public, secret)
}

/// A minter that may read files below the directory.
fn reading(dir: &tempfile::TempDir) -> HttpMinter {
    minter(|config| config.token_file_dirs = vec![dir.path().to_owned()])
}

/// Header and claims of an assertion, its signature checked with the public half of `pem`.
fn verified(token: &str, pem: &str) -> (jsonwebtoken::Header, BTreeMap<String, Value>) {
    let public = KeyPair::from_pem(pem).unwrap().public_key_pem();
    let header = jsonwebtoken::decode_header(token).unwrap();
    let key = match header.alg {
        Algorithm::ES256 | Algorithm::ES384 => DecodingKey::from_ec_pem(public.as_bytes()),
        Algorithm::EdDSA => DecodingKey::from_ed_pem(public.as_bytes()),
        _ => DecodingKey::from_rsa_pem(public.as_bytes()),
    };
    let mut validation = Validation::new(header.alg);
    validation.validate_aud = false;
    let decoded = jsonwebtoken::decode(token, &key.unwrap(), &validation).unwrap();
    (header, decoded.claims)
}

fn text<'a>(claims: &'a BTreeMap<String, Value>, name: &str) -> &'a str {
    claims[name].as_str().unwrap()
}

#[tokio::test]
async fn a_client_signs_its_assertion_anew_for_every_request() {
    let ec = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let ed = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    for (pem, more, algorithm) in [
        (RSA.clone(), None, Algorithm::RS256),
        (
            RSA.clone(),
            Some(("client_key_algorithm", "PS384")),
            Algorithm::PS384,
        ),
        (ec.serialize_pem(), None, Algorithm::ES256),
        (ed.serialize_pem(), None, Algorithm::EdDSA),
    ] {
        let issuer = issuer().await;
        let mut public = vec![
            ("client_auth", "private_key_jwt"),
            ("client_key_id", "kid-1"),
        ];
        public.extend(more);
        let order = client(&issuer.url, &public, &[("client_private_key", &pem)]);
        let minter = minter(|_| ());
        for _ in 0..2 {
            minter.mint(order.clone()).await.unwrap();
        }
        let seen = issuer.seen();
        let mut ids = Vec::new();
        for seen in &seen {
            let form = seen.form();
            assert_eq!(form["grant_type"], "client_credentials");
            assert_eq!(form["client_id"], "app");
            assert_eq!(form["client_assertion_type"], JWT_BEARER);
            assert_eq!(form.len(), 4, "never a secret and an assertion together");
            assert_eq!(seen.header("authorization"), None);
            let (header, claims) = verified(&form["client_assertion"], &pem);
            assert_eq!(header.alg, algorithm);
            assert_eq!(header.kid.as_deref(), Some("kid-1"));
            assert_eq!((text(&claims, "iss"), text(&claims, "sub")), ("app", "app"));
            assert_eq!(text(&claims, "aud"), issuer.url);
            let life = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
            assert_eq!(life, 300);
            ids.push(text(&claims, "jti").to_owned());
        }
        assert_ne!(ids[0], ids[1]);
    }
}

#[tokio::test]
async fn a_certificate_stands_in_the_header_as_entra_wants_it() {
    let key = KeyPair::from_pem(&RSA).unwrap();
    let params = rcgen::CertificateParams::new(vec!["app".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let issuer = issuer().await;
    let public = [
        ("client_certificate", certificate.pem()),
        (
            "client_assertion_audience",
            "https://login.example/v2.0".to_owned(),
        ),
    ];
    let public = public
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let order = client(&issuer.url, &public, &[("client_private_key", &RSA)]);
    minter(|_| ()).mint(order).await.unwrap();
    let form = issuer.seen()[0].form();
    let (header, claims) = verified(&form["client_assertion"], &RSA);
    assert_eq!(header.alg, Algorithm::PS256);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate.der());
    assert_eq!(header.x5t_s256, Some(URL_SAFE_NO_PAD.encode(digest)));
    assert_eq!(text(&claims, "aud"), "https://login.example/v2.0");
}

#[tokio::test]
async fn a_refresh_may_be_proved_by_a_key() {
    let issuer = issuer().await;
    let order = order(
        Strategy::OAuth2RefreshToken,
        &issuer.url,
        &[("client_id", "app")],
        &[("refresh_token", "rt-1"), ("client_private_key", &RSA)],
    );
    minter(|_| ()).mint(order).await.unwrap();
    let form = issuer.seen()[0].form();
    assert_eq!(form["refresh_token"], "rt-1");
    assert_eq!(form["client_assertion_type"], JWT_BEARER);
}

#[tokio::test]
async fn a_workload_proves_itself_by_the_token_that_its_file_holds_then() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    let issuer = issuer().await;
    let file = [("client_assertion_file", path.to_str().unwrap())];
    let order = client(&issuer.url, &file, &[]);
    let minter = reading(&dir);
    assert_eq!(minter.validate(&order.config, &order.secrets), []);
    let missing = minter.mint(order.clone()).await.unwrap_err();
    assert_eq!(missing.class, FailureClass::Unsent);
    assert!(
        missing.cause.contains("not on this replica"),
        "{}",
        missing.cause
    );
    for content in ["first.jwt.canary\n", "second.jwt.canary\n"] {
        std::fs::write(&path, content).unwrap();
        minter.mint(order.clone()).await.unwrap();
        let form = issuer.seen().pop().unwrap().form();
        assert_eq!(form["client_assertion"], content.trim());
    }
    // A replica that does not allow the directory reads nothing.
    let refused = support::minter(|_| ()).mint(order).await.unwrap_err();
    assert_eq!(refused.class, FailureClass::ConfigRefused);
    assert!(
        refused.cause.contains("issuers.token_file_dirs"),
        "{}",
        refused.cause
    );
    assert_eq!(issuer.seen().len(), 2);
}

/// The endpoints that a refresh would ask.
fn endpoints(order: &MintOrder) -> Vec<(&'static str, String)> {
    let outside = Outside::new(&Config::default()).unwrap();
    let setup = Setup {
        config: &order.config,
        material: Material::new(&order.config.material, &order.secrets),
        outside: &outside,
    };
    refresher(order.config.strategy).endpoints(&setup)
}

#[test]
fn endpoints_follow_from_the_tenant_the_cloud_or_the_issuer_itself() {
    let tenant = ("tenant_id", "contoso.example");
    for (strategy, token_url, public, expected) in [
        (
            Strategy::OAuth2ClientCredentials,
            "",
            &[tenant][..],
            (
                "tenant_id",
                "https://login.microsoftonline.com/contoso.example/oauth2/v2.0/token",
            ),
        ),
        (
            Strategy::OAuth2RefreshToken,
            "",
            &[
                tenant,
                ("authority_host", "login.partner.microsoftonline.cn"),
            ],
            (
                "tenant_id",
                "https://login.partner.microsoftonline.cn/contoso.example/oauth2/v2.0/token",
            ),
        ),
        (
            Strategy::OAuth2ClientCredentials,
            "https://idp.example/token",
            &[tenant],
            ("token_url", "https://idp.example/token"),
        ),
        (
            Strategy::GoogleServiceAccountJwt,
            "",
            &[],
            ("token_url", "https://oauth2.googleapis.com/token"),
        ),
        (
            Strategy::GoogleAuthorizedUser,
            "",
            &[],
            ("token_url", "https://oauth2.googleapis.com/token"),
        ),
        (
            Strategy::GoogleExternalAccount,
            "",
            &[("audience", "//a")],
            ("token_url", "https://sts.googleapis.com/v1/token"),
        ),
        (
            Strategy::IbmIamApikey,
            "",
            &[],
            ("token_url", "https://iam.cloud.ibm.com/identity/token"),
        ),
    ] {
        let order = order(strategy, token_url, public, &[]);
        let expected = (expected.0, expected.1.to_owned());
        assert_eq!(endpoints(&order), [expected], "{strategy}");
    }
}

#[tokio::test]
async fn a_token_is_exchanged_with_all_that_rfc_8693_names() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("actor");
    std::fs::write(&path, "actor.jwt\n").unwrap();
    let issuer = issuer().await;
    let mut order = order(
        Strategy::OAuth2TokenExchange,
        &issuer.url,
        &[
            ("client_id", "app"),
            ("client_auth", "client_secret_basic"),
            (
                "subject_token_type",
                "urn:ietf:params:oauth:token-type:access_token",
            ),
            ("actor_token_file", path.to_str().unwrap()),
            (
                "requested_token_type",
                "urn:ietf:params:oauth:token-type:id_token",
            ),
            ("audience", "https://api.example"),
            ("resource", "https://api.example/v1"),
        ],
        &[("subject_token", "subject.jwt"), ("client_secret", "s")],
    );
    order.config.scopes = vec!["a".to_owned(), "b".to_owned()];
    let minter = reading(&dir);
    assert_eq!(minter.validate(&order.config, &order.secrets), []);
    minter.mint(order).await.unwrap();
    let seen = &issuer.seen()[0];
    let basic = seen.header("authorization").unwrap();
    assert_eq!(basic, format!("Basic {}", STANDARD.encode("app:s")));
    let expected = [
        ("actor_token", "actor.jwt"),
        ("actor_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("audience", "https://api.example"),
        (
            "grant_type",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ),
        (
            "requested_token_type",
            "urn:ietf:params:oauth:token-type:id_token",
        ),
        ("resource", "https://api.example/v1"),
        ("scope", "a b"),
        ("subject_token", "subject.jwt"),
        (
            "subject_token_type",
            "urn:ietf:params:oauth:token-type:access_token",
        ),
    ];
    let expected = expected.map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(seen.form(), BTreeMap::from(expected));
}

#[tokio::test]
async fn an_assertion_is_a_grant_with_the_claims_that_material_names() {
    let issuer = issuer().await;
    let mut order = order(
        Strategy::OAuth2JwtBearer,
        &issuer.url,
        &[
            ("assertion_issuer", "integration-key"),
            ("subject", "user@example.com"),
            ("assertion_audience", "account.example"),
            ("private_key_id", "kid-1"),
            ("assertion_lifetime_seconds", "60"),
            (
                "assertion_claims",
                r#"{"scope":"signature","box_sub_type":"user"}"#,
            ),
        ],
        &[("private_key", &RSA)],
    );
    order.config.scopes = vec!["a".to_owned()];
    let minter = minter(|_| ());
    assert_eq!(minter.validate(&order.config, &order.secrets), []);
    minter.mint(order).await.unwrap();
    let form = issuer.seen()[0].form();
    assert_eq!(
        form["grant_type"],
        "urn:ietf:params:oauth:grant-type:jwt-bearer"
    );
    assert_eq!(form["scope"], "a");
    assert_eq!(form.len(), 3, "no client is asked for");
    let (header, claims) = verified(&form["assertion"], &RSA);
    assert_eq!(header.kid.as_deref(), Some("kid-1"));
    for (name, value) in [
        ("iss", "integration-key"),
        ("sub", "user@example.com"),
        ("aud", "account.example"),
        ("scope", "signature"),
        ("box_sub_type", "user"),
    ] {
        assert_eq!(text(&claims, name), value);
    }
    let life = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
    assert_eq!(life, 60);
}

#[tokio::test]
async fn an_assertion_may_come_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("assertion");
    std::fs::write(&path, "kept.by.others\n").unwrap();
    let issuer = issuer().await;
    let file = [("assertion_file", path.to_str().unwrap())];
    let order = order(Strategy::OAuth2JwtBearer, &issuer.url, &file, &[]);
    reading(&dir).mint(order).await.unwrap();
    assert_eq!(issuer.seen()[0].form()["assertion"], "kept.by.others");
}

#[tokio::test]
async fn ibms_end_of_a_token_counts_where_it_is_earlier() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap().as_secs();
    for (expires_in, expiration, expected) in [
        (json!(3_600), json!(now + 1_800), 1_800),
        (Value::Null, json!(now + 1_800), 1_800),
        (json!(600), json!(now + 1_800), 600),
        (json!(3_600), json!(now - 5), 3_600),
        (json!(3_600), json!("soon"), 3_600),
    ] {
        let body =
            json!({"access_token": "at", "expires_in": expires_in, "expiration": expiration});
        let issuer = Issuer::start(Reply::Raw(reply(200, &body.to_string()))).await;
        let order = order(
            Strategy::IbmIamApikey,
            &issuer.url,
            &[],
            &[("api_key", "k-1")],
        );
        let minted = minter(|_| ()).mint(order).await.unwrap();
        let life = minted.lifetime.unwrap().as_secs();
        assert!((expected - 60..=expected).contains(&life), "{body}: {life}");
        let form = issuer.seen()[0].form();
        assert_eq!(form["grant_type"], "urn:ibm:params:oauth:grant-type:apikey");
        assert_eq!(form["apikey"], "k-1");
        assert_eq!(form.len(), 2);
    }
}

fn http_date(at: SystemTime) -> String {
    let zoned = jiff::Timestamp::try_from(at).unwrap();
    zoned.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// An issuer whose clock is off, and which refuses assertions that are not of its time.
async fn skewed(off: i64) -> (Issuer, Arc<AtomicUsize>) {
    let refusals = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refusals);
    let issuer = Issuer::start(Reply::Echo(Arc::new(move |seen: &Seen| {
        let now = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(off);
        let date = format!("Date: {}\r\n", http_date(now.into()));
        let form = seen.form();
        let (token, error) = match form.get("assertion") {
            Some(assertion) => (assertion, "invalid_grant"),
            None => (&form["client_assertion"], "invalid_client"),
        };
        let (_, claims) = verified_at_any_time(token);
        let iat = claims["iat"].as_i64().unwrap();
        if (now.as_second() - iat).abs() > 60 {
            count.fetch_add(1, Ordering::SeqCst);
            return http(400, &date, &format!(r#"{{"error":"{error}"}}"#));
        }
        http(200, &date, TOKEN)
    })))
    .await;
    (issuer, refusals)
}

fn verified_at_any_time(token: &str) -> (jsonwebtoken::Header, BTreeMap<String, Value>) {
    let decoded = jsonwebtoken::dangerous::insecure_decode(token).unwrap();
    (decoded.header, decoded.claims)
}

#[tokio::test]
async fn an_assertion_that_is_refused_for_its_times_is_dated_by_the_issuers_clock_next() {
    for (off, words) in [(600, "600 s behind"), (-600, "600 s ahead of")] {
        let (issuer, refusals) = skewed(off).await;
        let mut google = order(
            Strategy::GoogleServiceAccountJwt,
            &issuer.url,
            &[("client_email", "a@b")],
            &[("private_key", &RSA)],
        );
        google.config.scopes = vec!["a".to_owned()];
        let key = [("client_private_key", RSA.as_str())];
        for order in [google, client(&issuer.url, &[], &key)] {
            refusals.store(0, Ordering::SeqCst);
            let minter = minter(|_| ());
            let failure = minter.mint(order.clone()).await.unwrap_err();
            assert_eq!(failure.class, FailureClass::Transient, "{failure:?}");
            let near = failure.remedy.contains(words)
                || failure.remedy.contains(&words.replace("600", "599"))
                || failure.remedy.contains(&words.replace("600", "601"));
            assert!(near && failure.remedy.contains("NTP"), "{failure:?}");
            for _ in 0..2 {
                minter.mint(order.clone()).await.unwrap();
            }
            assert_eq!(refusals.load(Ordering::SeqCst), 1);
        }
    }
}

#[tokio::test]
async fn a_clock_that_is_hours_off_is_blamed_and_not_followed() {
    let (issuer, refusals) = skewed(2 * 3_600).await;
    let key = [("client_private_key", RSA.as_str())];
    let order = client(&issuer.url, &[], &key);
    let minter = minter(|_| ());
    for _ in 0..2 {
        let failure = minter.mint(order.clone()).await.unwrap_err();
        assert!(failure.remedy.contains("NTP"), "{failure:?}");
    }
    assert_eq!(refusals.load(Ordering::SeqCst), 2);
}

#[test]
fn a_configuration_that_cannot_work_is_refused_field_by_field() {
    type Pairs<'a> = &'a [(&'a str, &'a str)];
    let rsa = RSA.as_str();
    let ec = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
        .unwrap()
        .serialize_pem();
    let id = ("client_id", "app");
    let cases: [(Strategy, Pairs<'_>, Pairs<'_>, &[&str]); 17] = [
        (
            Strategy::OAuth2ClientCredentials,
            &[id],
            &[("client_private_key", rsa)],
            &[],
        ),
        (
            Strategy::OAuth2ClientCredentials,
            &[id],
            &[],
            &["client_secret"],
        ),
        (
            Strategy::OAuth2ClientCredentials,
            &[id],
            &[("client_private_key", rsa), ("client_secret", "s")],
            &["client_secret"],
        ),
        (
            Strategy::OAuth2ClientCredentials,
            &[id, ("client_auth", "private_key_jwt")],
            &[("client_secret", "s")],
            &["client_auth"],
        ),
        (
            Strategy::OAuth2ClientCredentials,
            &[
                id,
                ("client_key_id", "k"),
                ("client_key_algorithm", "RS256"),
            ],
            &[("client_secret", "s")],
            &["client_key_id", "client_key_algorithm"],
        ),
        (
            Strategy::OAuth2ClientCredentials,
            &[id, ("client_key_algorithm", "RS256")],
            &[("client_private_key", &ec)],
            &["client_key_algorithm"],
        ),
        (
            Strategy::OAuth2ClientCredentials,
            &[id, ("client_certificate", "-----BEGIN CERTIFICATE-----")],
            &[("client_private_key", "-----BEGIN PRIVATE KEY-----")],
            &["client_private_key", "client_certificate"],
        ),
        (
            Strategy::OAuth2ClientCredentials,
            &[id, ("client_assertion_file", "/etc/shadow")],
            &[],
            &["client_assertion_file"],
        ),
        (
            Strategy::OAuth2ClientCredentials,
            &[id, ("tenant_id", "a/../b")],
            &[("client_secret", "s")],
            &["tenant_id"],
        ),
        (
            Strategy::OAuth2ClientCredentials,
            &[id, ("authority_host", "login.microsoftonline.us")],
            &[("client_secret", "s")],
            &["authority_host"],
        ),
        (Strategy::OAuth2TokenExchange, &[], &[], &["subject_token"]),
        (
            Strategy::OAuth2TokenExchange,
            &[("actor_token_type", "urn:x"), ("subject_token_type", "jwt")],
            &[("subject_token", "t"), ("client_secret", "s")],
            &["subject_token_type", "actor_token_type", "client_id"],
        ),
        (
            Strategy::OAuth2JwtBearer,
            &[],
            &[],
            &["private_key", "assertion_issuer"],
        ),
        (
            Strategy::OAuth2JwtBearer,
            &[
                ("assertion_issuer", "a"),
                ("assertion_claims", r#"{"iss":"b"}"#),
                ("assertion_lifetime_seconds", "5"),
                ("private_key_algorithm", "ES256"),
            ],
            &[("private_key", rsa)],
            &[
                "private_key_algorithm",
                "assertion_lifetime_seconds",
                "assertion_claims",
            ],
        ),
        (
            Strategy::OAuth2JwtBearer,
            &[("assertion_file", "/run/a"), ("assertion_issuer", "a")],
            &[],
            &["assertion_issuer", "assertion_file"],
        ),
        (Strategy::IbmIamApikey, &[], &[], &["api_key"]),
        (
            Strategy::IbmIamApikey,
            &[("api_key", "k")],
            &[],
            &["api_key"],
        ),
    ];
    let minter = minter(|config| config.allow_endpoints = vec!["idp.example".parse().unwrap()]);
    for (strategy, public, secret, fields) in cases {
        let order = order(strategy, "https://idp.example/token", public, secret);
        let errors = minter.validate(&order.config, &order.secrets);
        let mut got: Vec<_> = errors.iter().map(|e| e.field.as_str()).collect();
        let mut fields = fields.to_vec();
        got.sort_unstable();
        fields.sort_unstable();
        assert_eq!(got, fields, "{strategy} {public:?}: {errors:?}");
    }
}
