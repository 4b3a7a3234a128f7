//! Revocation requests on the wire, and what their answers mean; and a client with two secrets.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail like the tests themselves"
)]

mod support;

use std::sync::Arc;

use evermint_core::credential::RefreshConfig;
use evermint_core::mint::{Failure, FailureClass, MintOrder, RevokeOrder};
use evermint_core::port::Minter;
use evermint_core::secret::Secret;
use evermint_core::strategy::Strategy;
use support::{Issuer, Reply, Seen, http, json, minter, order, refresh_order};

/// The order to revoke what an order to mint gave.
fn revoking(order: &MintOrder, url: &str, tokens: &[&str], with_grant: bool) -> RevokeOrder {
    RevokeOrder {
        credential: order.credential.clone(),
        config: RefreshConfig {
            revoke_url: url.to_owned(),
            ..order.config.clone()
        },
        secrets: order.secrets.clone(),
        tokens: tokens.iter().map(|token| Secret::from(*token)).collect(),
        with_grant,
        fence: Arc::clone(&order.fence),
    }
}

async fn told(
    answer: Vec<u8>,
    make: impl Fn(&str) -> RevokeOrder,
) -> (Result<(), Failure>, Vec<Seen>) {
    let issuer = Issuer::start(Reply::Raw(answer)).await;
    let told = minter(|_| ()).revoke(make(&issuer.url)).await;
    (told, issuer.seen())
}

#[tokio::test]
async fn the_grant_is_revoked_before_its_token_by_a_client_that_proves_itself() {
    let token_url = "http://127.0.0.1:1/token";
    let (done, seen) = told(http(200, "", ""), |url| {
        revoking(&refresh_order(token_url), url, &["at-1"], true)
    })
    .await;
    done.unwrap();
    let forms: Vec<_> = seen.iter().map(Seen::form).collect();
    assert_eq!(forms.len(), 2);
    for (form, token, hint) in [
        (&forms[0], "refresh-token-canary", "refresh_token"),
        (&forms[1], "at-1", "access_token"),
    ] {
        assert_eq!(
            (form["token"].as_str(), form["token_type_hint"].as_str()),
            (token, hint)
        );
        assert_eq!(form["client_id"], "client-1");
        assert_eq!(form["client_secret"], "client-secret-canary");
        assert_eq!(form.len(), 4, "{form:?}");
    }
}

#[tokio::test]
async fn a_superseded_token_goes_alone() {
    let client = |url: &str| {
        let material = [("client_id", "app"), ("client_auth", "client_secret_basic")];
        let order = order(
            Strategy::OAuth2ClientCredentials,
            "http://127.0.0.1:1/token",
            &material,
            &[("client_secret", "s")],
        );
        revoking(&order, url, &["at-1"], false)
    };
    let (done, seen) = told(http(200, "", ""), client).await;
    done.unwrap();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("authorization"), Some("Basic YXBwOnM="));
    assert_eq!(seen[0].form().len(), 2);
}

#[tokio::test]
async fn google_and_github_are_told_in_their_own_ways() {
    let user = order(
        Strategy::GoogleAuthorizedUser,
        "",
        &[("client_id", "c")],
        &[("client_secret", "s"), ("refresh_token", "1//rt")],
    );
    let (done, seen) = told(http(200, "", "{}"), |url| revoking(&user, url, &[], true)).await;
    done.unwrap();
    assert_eq!(seen[0].form()["token"], "1//rt");
    assert!(!seen[0].form().contains_key("client_secret"));

    let app = order(
        Strategy::GitHubAppInstallation,
        "",
        &[("app_id", "1"), ("installation_id", "2")],
        &[("private_key", "unused")],
    );
    let (done, seen) = told(http(204, "", ""), |url| {
        revoking(&app, url, &["ghs_1"], true)
    })
    .await;
    done.unwrap();
    assert!(seen[0].head.starts_with("DELETE "), "{:?}", seen[0]);
    assert_eq!(seen[0].header("authorization"), Some("Bearer ghs_1"));
}

#[tokio::test]
async fn every_answer_says_whether_the_token_is_worth_nothing() {
    use FailureClass::*;
    for (answer, expected) in [
        (http(200, "", ""), None),
        (json(400, r#"{"error":"invalid_token"}"#), None),
        (
            json(400, r#"{"error":"unsupported_token_type"}"#),
            Some(ConfigRefused),
        ),
        (
            json(401, r#"{"error":"invalid_client"}"#),
            Some(ConfigRefused),
        ),
        (http(503, "Retry-After: 7\r\n", ""), Some(Transient)),
        (http(429, "", ""), Some(Throttled)),
        (http(404, "", ""), Some(UnknownRefusal)),
        (
            http(302, "Location: http://127.0.0.1:1/x\r\n", ""),
            Some(ConfigRefused),
        ),
        (b"HTTP/1.1 2".to_vec(), Some(Unclear)),
    ] {
        let text = String::from_utf8_lossy(&answer).into_owned();
        let order = refresh_order("http://127.0.0.1:1/token");
        let (done, _) = told(answer, |url| revoking(&order, url, &["at-canary"], false)).await;
        assert_eq!(done.as_ref().err().map(|f| f.class), expected, "{text}");
        let shown = format!("{done:?}");
        assert!(!shown.contains("canary"), "{shown}");
        if text.contains("Retry-After") {
            assert_eq!(done.unwrap_err().retry_after_ms, Some(7_000));
        }
    }
}

#[tokio::test]
async fn an_issuer_that_echoes_what_it_was_sent_gives_no_secret_away() {
    let echo = |seen: &Seen| {
        let sent = String::from_utf8_lossy(&seen.body).replace(['"', '\\'], "");
        json(
            400,
            &format!(r#"{{"error":"invalid_request","error_description":"{sent}"}}"#),
        )
    };
    let issuer = Issuer::start(Reply::Echo(Arc::new(echo))).await;
    let order = refresh_order(&issuer.url);
    let order = revoking(&order, &issuer.url, &["access-token-canary"], true);
    let failure = minter(|_| ()).revoke(order).await.unwrap_err();
    assert!(failure.cause.contains("invalid_request"), "{failure:?}");
    assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
}

#[tokio::test]
async fn the_rules_of_outgoing_requests_hold_for_the_revocation_endpoint() {
    let minter = minter(|config| config.allow_loopback = false);
    for url in [
        "http://127.0.0.1:9/revoke",
        "https://169.254.169.254/revoke",
        "ftp://x/y",
        // Nobody allowed it.
        "https://elsewhere.example/revoke",
    ] {
        let order = refresh_order("https://idp.example/token");
        let config = RefreshConfig {
            revoke_url: url.to_owned(),
            ..order.config.clone()
        };
        let problems = minter.validate(&config, &order.secrets);
        assert!(
            problems.iter().any(|p| p.field == "revoke_url"),
            "{url}: {problems:?}"
        );
        let refused = minter.revoke(revoking(&order, url, &["at"], false)).await;
        let class = refused.unwrap_err().class;
        assert!(
            matches!(class, FailureClass::ConfigRefused | FailureClass::Unsent),
            "{url}"
        );
    }
    let sa = order(Strategy::GoogleServiceAccountJwt, "", &[], &[]);
    let config = RefreshConfig {
        revoke_url: "https://oauth2.googleapis.com/revoke".to_owned(),
        ..sa.config.clone()
    };
    let problems = minter.validate(&config, &sa.secrets);
    let problem = problems.iter().find(|p| p.field == "revoke_url").unwrap();
    assert!(problem.problem.contains("cannot be revoked"), "{problem:?}");
}

/// An issuer that takes one secret, however it is shown.
async fn taking(secret: &'static str) -> Issuer {
    let token = r#"{"access_token":"at","refresh_token":"rt-2","expires_in":60}"#;
    Issuer::start(Reply::Choose(Arc::new(move |seen| {
        let basic = match secret {
            "old" => "Basic Y2xpZW50LTE6b2xk",
            _ => "Basic Y2xpZW50LTE6bmV3",
        };
        let posted = seen
            .form()
            .get("client_secret")
            .is_some_and(|s| s == secret);
        match posted || seen.header("authorization") == Some(basic) {
            true => Reply::Raw(json(200, token)),
            false => Reply::Raw(json(401, r#"{"error":"invalid_client"}"#)),
        }
    })))
    .await
}

#[tokio::test]
async fn of_two_secrets_the_other_one_is_shown_once_and_remembered() {
    for auth in ["client_secret_post", "client_secret_basic"] {
        for (good, in_use, requests, remembered) in [
            ("old", None, 1, None),
            ("new", None, 2, Some("client_secret_next")),
            ("new", Some("client_secret_next"), 1, None),
            ("old", Some("client_secret_next"), 2, Some("client_secret")),
        ] {
            let issuer = taking(good).await;
            let mut order = refresh_order(&issuer.url);
            order
                .config
                .material
                .insert("client_auth".to_owned(), auth.to_owned());
            let secrets = [("client_secret", "old"), ("client_secret_next", "new")];
            let in_use = in_use.map(|name| ("client_secret_in_use", name));
            for (name, value) in secrets.into_iter().chain(in_use) {
                order.secrets.insert(name.to_owned(), Secret::from(value));
            }
            let minted = minter(|_| ()).mint(order).await.unwrap();
            assert_eq!(issuer.seen().len(), requests, "{auth} {good} {in_use:?}");
            let kept = minted.new_material.get("client_secret_in_use");
            assert_eq!(kept.map(Secret::expose), remembered.map(str::as_bytes));
            assert_eq!(minted.new_material["refresh_token"].expose(), b"rt-2");
        }
    }
}

#[tokio::test]
async fn two_bad_secrets_are_shown_once_each_and_other_refusals_once() {
    for (status, body, requests, class) in [
        (
            401,
            r#"{"error":"invalid_client"}"#,
            2,
            FailureClass::ConfigRefused,
        ),
        (
            400,
            r#"{"error":"invalid_grant"}"#,
            1,
            FailureClass::GrantRefused,
        ),
        (503, "", 1, FailureClass::Transient),
    ] {
        let issuer = Issuer::start(Reply::Raw(json(status, body))).await;
        let mut order = refresh_order(&issuer.url);
        let next = Secret::from("next");
        order.secrets.insert("client_secret_next".to_owned(), next);
        let failure = minter(|_| ()).mint(order).await.unwrap_err();
        assert_eq!(
            (issuer.seen().len(), failure.class),
            (requests, class),
            "{body}"
        );
    }
}

#[tokio::test]
async fn an_answer_tells_how_long_the_refresh_token_lasts() {
    for (field, seconds) in [
        (r#""refresh_token_expires_in":86400"#, Some(86_400)),
        (r#""refresh_token_expires_in":"86400""#, Some(86_400)),
        (r#""refresh_expires_in":1800"#, Some(1_800)),
        (r#""refresh_expires_in":0"#, None),
        (r#""refresh_token_expires_in":null"#, None),
        (r#""x":1"#, None),
    ] {
        let body = format!(r#"{{"access_token":"at","expires_in":60,{field}}}"#);
        let issuer = Issuer::start(Reply::Raw(json(200, &body))).await;
        let minted = minter(|_| ())
            .mint(refresh_order(&issuer.url))
            .await
            .unwrap();
        let told = minted.material_lifetimes.get("refresh_token");
        assert_eq!(told.map(std::time::Duration::as_secs), seconds, "{field}");
    }
}
