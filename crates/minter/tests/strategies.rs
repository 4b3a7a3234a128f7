//! What each strategy sends, byte by byte, and what it makes of the answer.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail like the tests themselves"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use evermint_core::mint::{Failure, FailureClass, MintOrder};
use evermint_core::port::Minter;
use evermint_core::secret::Secret;
use evermint_core::strategy::Strategy;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use support::{Issuer, Reply, Seen, json as reply, minter, order, refresh_order};

const TOKEN: &str = r#"{"access_token":"at-1","token_type":"Bearer","expires_in":60}"#;

async fn issuer(body: &str) -> Issuer {
    Issuer::start(Reply::Raw(reply(200, body))).await
}

fn form(seen: &Seen) -> Vec<(String, String)> {
    seen.form().into_iter().collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn client_order(url: &str, public: &[(&str, &str)]) -> MintOrder {
    let public = [&[("client_id", "id:1")][..], public].concat();
    order(
        Strategy::OAuth2ClientCredentials,
        url,
        &public,
        &[("client_secret", "s&c r=t+%")],
    )
}

#[tokio::test]
async fn client_credentials_go_into_the_body() {
    let issuer = issuer(TOKEN).await;
    let mut order = client_order(
        &issuer.url,
        &[("audience", "https://api"), ("resource", "urn:r")],
    );
    order.config.scopes = vec!["a".to_owned(), "b".to_owned()];
    let minted = minter(|_| ()).mint(order).await.unwrap();
    assert_eq!(minted.token.expose(), b"at-1");
    assert_eq!(minted.lifetime, Some(Duration::from_secs(60)));
    assert!(minted.new_material.is_empty() && minted.extra_outputs.is_empty());
    let seen = &issuer.seen()[0];
    assert_eq!(
        form(seen),
        pairs(&[
            ("audience", "https://api"),
            ("client_id", "id:1"),
            ("client_secret", "s&c r=t+%"),
            ("grant_type", "client_credentials"),
            ("resource", "urn:r"),
            ("scope", "a b"),
        ])
    );
    assert!(
        seen.head.starts_with("POST /token HTTP/1.1\r\n"),
        "{}",
        seen.head
    );
    assert_eq!(
        seen.header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    assert_eq!(seen.header("accept"), Some("application/json"));
    assert_eq!(
        seen.header("content-length"),
        Some(seen.body.len().to_string().as_str())
    );
    for absent in [
        "authorization",
        "transfer-encoding",
        "expect",
        "cookie",
        "referer",
        "accept-encoding",
    ] {
        assert_eq!(seen.header(absent), None, "{absent}");
    }
}

#[tokio::test]
async fn client_credentials_go_into_the_header_if_told_to() {
    let issuer = issuer(TOKEN).await;
    let order = client_order(&issuer.url, &[("client_auth", "client_secret_basic")]);
    minter(|_| ()).mint(order).await.unwrap();
    let seen = &issuer.seen()[0];
    assert_eq!(form(seen), pairs(&[("grant_type", "client_credentials")]));
    let basic = seen
        .header("authorization")
        .unwrap()
        .strip_prefix("Basic ")
        .unwrap();
    assert_eq!(STANDARD.decode(basic).unwrap(), b"id%3A1:s%26c+r%3Dt%2B%25");
}

#[tokio::test]
async fn a_refresh_token_that_came_anew_replaces_the_old() {
    for (answer, new) in [
        (
            r#"{"access_token":"at","refresh_token":"rt-2"}"#,
            Some("rt-2"),
        ),
        (
            r#"{"access_token":"at","refresh_token":"refresh-token-canary"}"#,
            None,
        ),
        (r#"{"access_token":"at"}"#, None),
    ] {
        let issuer = issuer(answer).await;
        let minted = minter(|_| ())
            .mint(refresh_order(&issuer.url))
            .await
            .unwrap();
        let got = minted
            .new_material
            .get("refresh_token")
            .and_then(Secret::expose_str);
        assert_eq!(got, new);
        assert_eq!(
            form(&issuer.seen()[0]),
            pairs(&[
                ("client_id", "client-1"),
                ("client_secret", "client-secret-canary"),
                ("grant_type", "refresh_token"),
                ("refresh_token", "refresh-token-canary"),
            ])
        );
    }
}

#[tokio::test]
async fn a_public_client_sends_its_id_alone() {
    let issuer = issuer(TOKEN).await;
    let mut order = refresh_order(&issuer.url);
    order.secrets.remove("client_secret");
    minter(|_| ()).mint(order).await.unwrap();
    assert_eq!(
        form(&issuer.seen()[0]),
        pairs(&[
            ("client_id", "client-1"),
            ("grant_type", "refresh_token"),
            ("refresh_token", "refresh-token-canary"),
        ])
    );
}

struct Account {
    pem: String,
    public: Vec<u8>,
}

static ACCOUNT: LazyLock<Account> = LazyLock::new(|| {
    let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&key).unwrap();
    let text = STANDARD.encode(der.as_ref());
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(|l| std::str::from_utf8(l).unwrap())
        .collect();
    let public: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
    let text = STANDARD.encode(public.as_ref());
    let public = format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n");
    Account {
        pem: format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            lines.join("\n")
        ),
        public: public.into_bytes(),
    }
});

fn key_file() -> String {
    json!({
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "kid-1",
        "private_key": ACCOUNT.pem,
        "client_email": "sa@p.iam.gserviceaccount.com",
        "token_uri": "https://evil.example/token",
        "universe_domain": "googleapis.com",
    })
    .to_string()
}

fn google_order(url: &str, public: &[(&str, &str)], secret: &[(&str, &str)]) -> MintOrder {
    let mut order = order(Strategy::GoogleServiceAccountJwt, url, public, secret);
    order.config.scopes = vec!["scope-a".to_owned(), "scope-b".to_owned()];
    order
}

/// The assertion's header and claims, its signature checked.
fn assertion(seen: &Seen, audience: &str) -> (Option<String>, BTreeMap<String, Value>) {
    let form = seen.form();
    assert_eq!(
        form["grant_type"],
        "urn:ietf:params:oauth:grant-type:jwt-bearer"
    );
    assert_eq!(form.len(), 2);
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&[audience]);
    validation.set_required_spec_claims(&["iss", "aud", "exp"]);
    let key = DecodingKey::from_rsa_pem(&ACCOUNT.public).unwrap();
    let decoded = jsonwebtoken::decode(&form["assertion"], &key, &validation).unwrap();
    (decoded.header.kid, decoded.claims)
}

#[tokio::test]
async fn a_service_account_signs_its_assertion() {
    let escaped = ACCOUNT.pem.replace('\n', "\\n");
    let fields = [
        ("client_email", "sa@p.iam.gserviceaccount.com"),
        ("private_key_id", "kid-1"),
    ];
    let file = key_file();
    for (name, public, secret) in [
        (
            "key file",
            &[][..],
            [("service_account_json", file.as_str())],
        ),
        ("fields", &fields, [("private_key", ACCOUNT.pem.as_str())]),
        (
            "escaped line breaks",
            &fields,
            [("private_key", escaped.as_str())],
        ),
    ] {
        let issuer = issuer(TOKEN).await;
        let order = google_order(&issuer.url, public, &secret);
        let minted = minter(|_| ()).mint(order).await.unwrap();
        assert_eq!(minted.token.expose(), b"at-1", "{name}");
        let (kid, claims) = assertion(&issuer.seen()[0], &issuer.url);
        assert_eq!(kid.as_deref(), Some("kid-1"), "{name}");
        assert_eq!(claims["iss"], "sa@p.iam.gserviceaccount.com");
        assert_eq!(claims["scope"], "scope-a scope-b");
        assert!(!claims.contains_key("sub") && !claims.contains_key("target_audience"));
        let (iat, exp) = (
            claims["iat"].as_u64().unwrap(),
            claims["exp"].as_u64().unwrap(),
        );
        assert_eq!(exp - iat, 3_600);
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        assert!((8..=40).contains(&(now - iat)), "dated back by ten seconds");
    }
}

#[tokio::test]
async fn a_service_account_acts_for_a_subject_and_asks_for_an_id_token() {
    let payload = URL_SAFE_NO_PAD.encode(r#"{"iat":1000,"exp":1900}"#);
    let id_token = format!("e30.{payload}.sig");
    let issuer = issuer(&json!({ "id_token": id_token }).to_string()).await;
    let mut order = google_order(
        &issuer.url,
        &[
            ("subject", "user@example.com"),
            ("target_audience", "https://run.example"),
        ],
        &[("service_account_json", &key_file())],
    );
    order.config.scopes.clear();
    let minted = minter(|_| ()).mint(order).await.unwrap();
    assert_eq!(minted.token.expose_str(), Some(id_token.as_str()));
    assert_eq!(minted.lifetime, Some(Duration::from_secs(900)));
    let (_, claims) = assertion(&issuer.seen()[0], &issuer.url);
    assert_eq!(claims["sub"], "user@example.com");
    assert_eq!(claims["target_audience"], "https://run.example");
    assert!(!claims.contains_key("scope"));
}

#[test]
fn material_is_checked_when_it_is_configured() {
    let pem = ACCOUNT.pem.as_str();
    let file = key_file();
    let broken = pem.replace("MII", "MIJ");
    type Pairs<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Strategy, Pairs<'_>, Pairs<'_>, &[&str]); 13] = [
        (
            Strategy::OAuth2ClientCredentials,
            &[("client_id", "a")],
            &[("client_secret", "s")],
            &[],
        ),
        (
            Strategy::OAuth2ClientCredentials,
            &[],
            &[("client_id", "a"), ("client_secret", "s")],
            &[],
        ),
        (
            Strategy::OAuth2ClientCredentials,
            &[("client_secret", "s")],
            &[],
            &["client_id", "client_secret"],
        ),
        (
            Strategy::OAuth2ClientCredentials,
            &[("client_id", "a"), ("client_auth", "basic"), ("tokn", "x")],
            &[("client_secret", "s\n")],
            &["tokn", "client_secret", "client_auth"],
        ),
        (
            Strategy::OAuth2RefreshToken,
            &[("client_id", "a")],
            &[("refresh_token", "r")],
            &[],
        ),
        (
            Strategy::OAuth2RefreshToken,
            &[("client_id", "a"), ("client_auth", "client_secret_post")],
            &[("refresh_token", "r")],
            &["client_auth"],
        ),
        (
            Strategy::OAuth2RefreshToken,
            &[("client_id", "a")],
            &[],
            &["refresh_token"],
        ),
        (
            Strategy::GoogleServiceAccountJwt,
            &[],
            &[("service_account_json", &file)],
            &[],
        ),
        (
            Strategy::GoogleServiceAccountJwt,
            &[("client_email", "a@b")],
            &[("private_key", pem)],
            &[],
        ),
        (
            Strategy::GoogleServiceAccountJwt,
            &[],
            &[],
            &["client_email", "private_key"],
        ),
        (
            Strategy::GoogleServiceAccountJwt,
            &[("client_email", "a@b")],
            &[("private_key", pem), ("service_account_json", &file)],
            &["client_email", "private_key"],
        ),
        (
            Strategy::GoogleServiceAccountJwt,
            &[("client_email", "a@b")],
            &[("private_key", &broken)],
            &["private_key"],
        ),
        (
            Strategy::GoogleServiceAccountJwt,
            &[],
            &[("service_account_json", "{}")],
            &["service_account_json"],
        ),
    ];
    let minter = minter(|config| config.allow_endpoints = vec!["idp.example".parse().unwrap()]);
    for (strategy, public, secret, fields) in cases {
        let mut order = order(strategy, "https://idp.example/token", public, secret);
        if strategy == Strategy::GoogleServiceAccountJwt {
            order.config.scopes = vec!["a".to_owned()];
        }
        let errors = minter.validate(&order.config, &order.secrets);
        let got: Vec<_> = errors.iter().map(|e| e.field.as_str()).collect();
        assert_eq!(got, fields, "{strategy} {public:?}: {errors:?}");
    }
}

#[tokio::test]
async fn material_that_went_bad_is_named_and_nothing_is_sent() {
    let issuer = issuer(TOKEN).await;
    for (order, name) in [
        (
            order(Strategy::OAuth2ClientCredentials, &issuer.url, &[], &[]),
            "client_id",
        ),
        (
            order(
                Strategy::OAuth2RefreshToken,
                &issuer.url,
                &[("client_id", "a")],
                &[],
            ),
            "refresh_token",
        ),
        (google_order(&issuer.url, &[], &[]), "private_key"),
        (
            google_order(&issuer.url, &[], &[("service_account_json", "{}")]),
            "service_account_json",
        ),
    ] {
        let failure = minter(|_| ()).mint(order).await.unwrap_err();
        assert_eq!(failure.class, FailureClass::ConfigRefused);
        assert!(failure.cause.contains(name), "{}", failure.cause);
    }
    assert!(issuer.seen().is_empty());
}

/// An issuer that says everything back that it was told, in an error and under every status.
fn parrot(status: u16) -> Reply {
    Reply::Echo(Arc::new(move |seen: &Seen| {
        let body = String::from_utf8_lossy(&seen.body);
        let plain: Vec<_> = seen.form().into_values().collect();
        let header = seen.header("authorization").unwrap_or("");
        let basic = STANDARD
            .decode(header.trim_start_matches("Basic "))
            .unwrap_or_default();
        let said = format!(
            "{} | {body} | {header} | {}",
            plain.join(" "),
            String::from_utf8_lossy(&basic)
        );
        // From every place of it, so that the bound on length hides nothing.
        let from = said.len() * usize::from(status % 10) / 10;
        let from = (from..).find(|at| said.is_char_boundary(*at)).unwrap();
        let error = json!({"error": "invalid_grant", "error_description": &said[from..]});
        reply(status, &error.to_string())
    }))
}

#[tokio::test]
async fn what_an_issuer_echoes_comes_out_without_secrets() {
    let file = key_file();
    let secrets = [
        "client-secret-canary",
        "refresh-token-canary",
        "s&c r=t+%",
        "s%26c",
        "id%3A1:s",
    ];
    for status in 400..410 {
        let issuer = Issuer::start(parrot(status)).await;
        let basic = [("client_auth", "client_secret_basic")];
        for order in [
            refresh_order(&issuer.url),
            client_order(&issuer.url, &[]),
            client_order(&issuer.url, &basic),
            google_order(&issuer.url, &[], &[("service_account_json", &file)]),
        ] {
            let shown = format!("{order:?}");
            let failure: Failure = minter(|_| ()).mint(order).await.unwrap_err();
            let shown = format!("{shown} {failure:?}");
            // Of the whole echo something is taken out; its last tenth may hold nothing.
            let is_whole = status == 400;
            assert!(!is_whole || shown.contains("[redacted]"), "{shown}");
            for secret in secrets {
                for form in [secret.to_owned(), STANDARD.encode(secret)] {
                    assert!(!shown.contains(&form), "{status}: {shown}");
                }
            }
            let sent = issuer.seen().pop().unwrap().form();
            if let Some(assertion) = sent.get("assertion") {
                let signature = assertion.rsplit('.').next().unwrap();
                let leaked = signature
                    .as_bytes()
                    .windows(16)
                    .any(|w| shown.contains(std::str::from_utf8(w).unwrap()));
                assert!(!leaked, "{status}: {shown}");
            }
        }
    }
}
