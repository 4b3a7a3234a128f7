//! Google's users and external accounts: what they put on the wire, and which of their files are
//! not taken.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail like the tests themselves"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use evermint_core::mint::{FailureClass, MintOrder};
use evermint_core::port::Minter;
use evermint_core::secret::Secret;
use evermint_core::strategy::Strategy;
use evermint_minter::HttpMinter;
use serde_json::{Value, json};
use support::{Issuer, RSA, Reply, Seen, json as reply, minter, order};

const CLOUD: &str = "https://www.googleapis.com/auth/cloud-platform";
const AUDIENCE: &str =
    "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/x";

fn user_file() -> Value {
    json!({
        "type": "authorized_user",
        "account": "",
        "client_id": "764086051850.apps.googleusercontent.com",
        "client_secret": "client-secret-canary",
        "refresh_token": "refresh-token-canary",
        "quota_project_id": "p",
        "universe_domain": "googleapis.com",
    })
}

#[tokio::test]
async fn a_user_is_renewed_by_gclouds_file_or_its_fields() {
    let file = user_file().to_string();
    for (public, secret) in [
        (&[][..], &[("authorized_user_json", file.as_str())][..]),
        (
            &[("client_id", "764086051850.apps.googleusercontent.com")],
            &[
                ("client_secret", "client-secret-canary"),
                ("refresh_token", "refresh-token-canary"),
            ],
        ),
    ] {
        let body = r#"{"access_token":"ya29.a","expires_in":3599,"scope":"openid","token_type":"Bearer","id_token":"x"}"#;
        let issuer = Issuer::start(Reply::Raw(reply(200, body))).await;
        let order = order(Strategy::GoogleAuthorizedUser, &issuer.url, public, secret);
        let minter = minter(|_| ());
        assert_eq!(minter.validate(&order.config, &order.secrets), []);
        let minted = minter.mint(order).await.unwrap();
        assert_eq!(minted.token.expose(), b"ya29.a");
        assert_eq!(minted.lifetime, Some(Duration::from_secs(3_599)));
        assert!(minted.new_material.is_empty());
        let form = issuer.seen()[0].form();
        assert_eq!(form["grant_type"], "refresh_token");
        assert_eq!(form["client_id"], "764086051850.apps.googleusercontent.com");
        assert_eq!(form["client_secret"], "client-secret-canary");
        assert_eq!(form["refresh_token"], "refresh-token-canary");
        assert_eq!(form.len(), 4);
    }
}

#[tokio::test]
async fn a_new_refresh_token_wins_over_the_files() {
    let body = r#"{"access_token":"a","refresh_token":"rt-2"}"#;
    let issuer = Issuer::start(Reply::Raw(reply(200, body))).await;
    let file = user_file().to_string();
    let mut order = order(
        Strategy::GoogleAuthorizedUser,
        &issuer.url,
        &[],
        &[("authorized_user_json", &file)],
    );
    let minter = minter(|_| ());
    let minted = minter.mint(order.clone()).await.unwrap();
    order.secrets.extend(minted.new_material);
    minter.mint(order).await.unwrap();
    assert_eq!(issuer.seen()[1].form()["refresh_token"], "rt-2");
}

/// A file that names its own endpoint, for each strategy that takes one.
fn naming(endpoint: &str) -> [(&'static str, MintOrder); 4] {
    let key_file = json!({
        "type": "service_account",
        "client_email": "robot@p.iam.gserviceaccount.com",
        "private_key": RSA.as_str(),
        "token_uri": endpoint,
    });
    let mut user = user_file();
    user["token_uri"] = json!(endpoint);
    let account = json!({"type": "external_account", "audience": AUDIENCE, "token_url": endpoint});
    let impersonating = json!({
        "type": "external_account",
        "audience": AUDIENCE,
        "service_account_impersonation_url": endpoint,
    });
    [
        (
            Strategy::GoogleServiceAccountJwt,
            "service_account_json",
            key_file,
            false,
        ),
        (
            Strategy::GoogleAuthorizedUser,
            "authorized_user_json",
            user,
            false,
        ),
        (
            Strategy::GoogleExternalAccount,
            "external_account_json",
            account,
            true,
        ),
        (
            Strategy::GoogleExternalAccount,
            "external_account_json",
            impersonating,
            true,
        ),
    ]
    .map(|(strategy, field, file, federated)| {
        let mut order = order(strategy, "", &[], &[(field, &file.to_string())]);
        if federated {
            order
                .secrets
                .insert("subject_token".to_owned(), Secret::from("s"));
        }
        order.config.scopes = vec![CLOUD.to_owned()];
        (field, order)
    })
}

#[tokio::test]
async fn an_uploaded_file_does_not_decide_where_secrets_are_sent() {
    let issuer = Issuer::start(Reply::Raw(reply(200, r#"{"access_token":"a"}"#))).await;
    let open = minter(|_| ());
    let listed = minter(|config| {
        config.allow_endpoints = ["127.0.0.1", "*.googleapis.com"]
            .map(|pattern| pattern.parse().unwrap())
            .to_vec();
    });
    for (field, order) in naming(&issuer.url) {
        let errors = open.validate(&order.config, &order.secrets);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert_eq!(errors[0].field, field);
        assert!(errors[0].problem.contains("allow_endpoints"), "{errors:?}");
        // Not even if it was configured while the endpoint was listed.
        let failure = open.mint(order.clone()).await.unwrap_err();
        assert_eq!(failure.class, FailureClass::ConfigRefused, "{failure:?}");
        assert_eq!(listed.validate(&order.config, &order.secrets), []);
    }
    assert!(issuer.seen().is_empty());
    let [(_, service_account), ..] = naming(&issuer.url);
    listed.mint(service_account).await.unwrap();
    assert_eq!(issuer.seen().len(), 1);
}

fn external(url: &str, change: impl FnOnce(&mut Value)) -> MintOrder {
    let mut file = json!({
        "type": "external_account",
        "audience": AUDIENCE,
        "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
        "token_url": "https://sts.googleapis.com/v1/token",
        "universe_domain": "googleapis.com",
    });
    change(&mut file);
    let mut order = order(
        Strategy::GoogleExternalAccount,
        url,
        &[],
        &[("external_account_json", &file.to_string())],
    );
    order.config.scopes = vec!["scope-a".to_owned(), "scope-b".to_owned()];
    order
}

fn reading(dir: &tempfile::TempDir) -> HttpMinter {
    minter(|config| config.token_file_dirs = vec![dir.path().to_owned()])
}

const FEDERATED: &str = r#"{"access_token":"federated-canary","issued_token_type":"urn:ietf:params:oauth:token-type:access_token","token_type":"Bearer","expires_in":3599}"#;

#[tokio::test]
async fn a_token_from_a_file_is_exchanged_at_googles_sts() {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in [
        ("text", "subject.jwt.canary\n"),
        ("json", r#"{"id_token":"subject.jwt.canary"}"#),
    ] {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    let named = json!({"type": "json", "subject_token_field_name": "id_token"});
    for (name, format) in [
        ("text", None),
        ("text", Some(json!({"type": "text"}))),
        ("json", Some(named)),
    ] {
        let issuer = Issuer::start(Reply::Raw(reply(200, FEDERATED))).await;
        let order = external(&issuer.url, |file| {
            file["credential_source"] = json!({"file": dir.path().join(name)});
            if let Some(format) = format {
                file["credential_source"]["format"] = format;
            }
        });
        let minter = reading(&dir);
        assert_eq!(minter.validate(&order.config, &order.secrets), []);
        let minted = minter.mint(order).await.unwrap();
        assert_eq!(minted.token.expose(), b"federated-canary");
        assert_eq!(minted.lifetime, Some(Duration::from_secs(3_599)));
        let seen = &issuer.seen()[0];
        assert_eq!(seen.header("authorization"), None);
        let expected = [
            ("audience", AUDIENCE),
            (
                "grant_type",
                "urn:ietf:params:oauth:grant-type:token-exchange",
            ),
            (
                "requested_token_type",
                "urn:ietf:params:oauth:token-type:access_token",
            ),
            ("scope", "scope-a scope-b"),
            ("subject_token", "subject.jwt.canary"),
            (
                "subject_token_type",
                "urn:ietf:params:oauth:token-type:id_token",
            ),
        ];
        let expected = expected.map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(seen.form(), expected.into());
    }
}

#[tokio::test]
async fn a_workforce_names_its_project_or_its_client() {
    for (client, header) in [
        (false, None),
        (true, Some(STANDARD.encode("id:client-secret"))),
    ] {
        let issuer = Issuer::start(Reply::Raw(reply(200, FEDERATED))).await;
        let mut order = external(&issuer.url, |file| {
            file["workforce_pool_user_project"] = json!("my-project");
            if client {
                file["client_id"] = json!("id");
                file["client_secret"] = json!("client-secret");
            }
        });
        order
            .secrets
            .insert("subject_token".to_owned(), Secret::from("s.t"));
        minter(|_| ()).mint(order).await.unwrap();
        let seen = &issuer.seen()[0];
        let expected = header.map(|pair| format!("Basic {pair}"));
        assert_eq!(seen.header("authorization"), expected.as_deref());
        let options = seen.form().get("options").cloned();
        let project = r#"{"userProject":"my-project"}"#.to_owned();
        assert_eq!(options, (!client).then_some(project));
    }
}

#[tokio::test]
async fn a_service_account_is_impersonated_with_the_federated_token() {
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(1_800);
    let body = json!({"accessToken": "impersonated", "expireTime": end.to_string()}).to_string();
    let issuer = Issuer::start(Reply::Choose(Arc::new(move |seen: &Seen| {
        let federation = seen.head.starts_with("POST /token ");
        Reply::Raw(reply(200, if federation { FEDERATED } else { &body }))
    })))
    .await;
    let base = issuer.url.trim_end_matches("/token").to_owned();
    let path = "/v1/projects/-/serviceAccounts/robot@p.iam.gserviceaccount.com:generateAccessToken";
    let mut order = external(&issuer.url, |file| {
        file["service_account_impersonation_url"] = json!(format!("{base}{path}"));
        file["service_account_impersonation"] = json!({"token_lifetime_seconds": 1_800});
    });
    order
        .secrets
        .insert("subject_token".to_owned(), Secret::from("s.t"));
    let minter = minter(|config| config.allow_endpoints = vec!["127.0.0.1".parse().unwrap()]);
    let minted = minter.mint(order).await.unwrap();
    assert_eq!(minted.token.expose(), b"impersonated");
    let life = minted.lifetime.unwrap().as_secs();
    assert!((1_740..=1_800).contains(&life), "{life}");
    let seen = issuer.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].form()["scope"], CLOUD);
    assert!(
        seen[1].head.starts_with(&format!("POST {path} HTTP/1.1")),
        "{}",
        seen[1].head
    );
    assert_eq!(
        seen[1].header("authorization"),
        Some("Bearer federated-canary")
    );
    assert_eq!(seen[1].header("content-type"), Some("application/json"));
    let asked: Value = serde_json::from_slice(&seen[1].body).unwrap();
    assert_eq!(
        asked,
        json!({"scope": ["scope-a", "scope-b"], "lifetime": "1800s"})
    );
}

#[tokio::test]
async fn a_federated_token_that_is_echoed_does_not_show_up() {
    let issuer = Issuer::start(Reply::Choose(Arc::new(|seen: &Seen| {
        if seen.head.starts_with("POST /token ") {
            return Reply::Raw(reply(200, FEDERATED));
        }
        let error =
            json!({"error": {"code": 401, "message": seen.head, "status": "UNAUTHENTICATED"}});
        Reply::Raw(reply(401, &error.to_string()))
    })))
    .await;
    let mut order = external(&issuer.url, |file| {
        let base = issuer.url.trim_end_matches("/token");
        file["service_account_impersonation_url"] = json!(format!("{base}/impersonate"));
    });
    order
        .secrets
        .insert("subject_token".to_owned(), Secret::from("s.t"));
    let minter = minter(|config| config.allow_endpoints = vec!["127.0.0.1".parse().unwrap()]);
    let failure = minter.mint(order).await.unwrap_err();
    assert!(failure.cause.contains("UNAUTHENTICATED"), "{failure:?}");
    assert!(
        failure.cause.contains("[redacted]") && !failure.cause.contains("canary"),
        "{failure:?}"
    );
}

#[test]
fn what_is_missing_or_too_much_of_an_external_account_is_named() {
    type Pairs<'a> = &'a [(&'a str, &'a str)];
    let file = json!({"type": "external_account", "audience": AUDIENCE}).to_string();
    let program = json!({
        "type": "external_account",
        "audience": AUDIENCE,
        "credential_source": {"executable": {"command": "/bin/sh -c id"}},
    })
    .to_string();
    let (whole, token) = (
        ("external_account_json", file.as_str()),
        ("subject_token", "s"),
    );
    let cases: [(Pairs<'_>, Pairs<'_>, &[&str]); 7] = [
        (&[("audience", AUDIENCE)], &[token], &[]),
        (
            &[
                ("audience", AUDIENCE),
                ("service_account_email", "a@b.iam.gserviceaccount.com"),
            ],
            &[token],
            &[],
        ),
        (&[], &[whole], &["subject_token_file"]),
        (&[("audience", AUDIENCE)], &[whole, token], &["audience"]),
        (
            &[],
            &[("external_account_json", &program), token],
            &["external_account_json"],
        ),
        (
            &[("subject_token_file", "/etc/passwd")],
            &[whole],
            &["subject_token_file"],
        ),
        (
            &[
                ("audience", AUDIENCE),
                ("service_account_email", "a@b/../../x"),
                ("impersonation_lifetime_seconds", "60"),
            ],
            &[token],
            &["impersonation_lifetime_seconds", "service_account_email"],
        ),
    ];
    let minter = minter(|_| ());
    for (public, secret, fields) in cases {
        let mut order = order(Strategy::GoogleExternalAccount, "", public, secret);
        order.config.scopes = vec![CLOUD.to_owned()];
        let errors = minter.validate(&order.config, &order.secrets);
        let mut got: Vec<_> = errors.iter().map(|e| e.field.as_str()).collect();
        got.sort_unstable();
        got.dedup();
        assert_eq!(got, fields, "{errors:?}");
    }
}
