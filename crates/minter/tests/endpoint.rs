//! A token endpoint leads where the operator allowed, and nowhere else.

mod support;

use std::time::Duration;

use evermint_core::mint::FailureClass;
use evermint_minter::{Config, HttpMinter, Web};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use support::{Deadline, Issuer, Reply, http, json, minter, refresh};

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Issuer::start(Reply::Raw(http(200, "", ""))).await;
    for status in [301, 302, 303, 307, 308] {
        let location = format!(
            "Location: {}?refresh_token=refresh-token-canary\r\n",
            elsewhere.url
        );
        let issuer = Issuer::start(Reply::Raw(http(status, &location, ""))).await;
        let failure = refresh(&minter(|_| ()), &issuer.url, Deadline::after(20_000))
            .await
            .unwrap_err();
        assert_eq!(failure.class, FailureClass::ConfigRefused);
        assert!(failure.cause.contains(&elsewhere.url), "{}", failure.cause);
        assert!(!failure.cause.contains("canary"), "{}", failure.cause);
    }
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn an_endpoint_that_is_not_allowed_is_never_connected_to() {
    let issuer = Issuer::start(Reply::Raw(http(200, "", ""))).await;
    let port = issuer.url.rsplit(':').next().unwrap().to_owned();
    let strict = HttpMinter::new(&Config::default()).unwrap();
    let listed = minter(|c| c.allow_endpoints = vec!["idp.example".parse().unwrap()]);
    for (minter, url) in [
        (&strict, issuer.url.clone()),
        (&strict, issuer.url.replace("http:", "https:")),
        (&strict, format!("https://2130706433:{port}")),
        (&strict, format!("https://[::ffff:127.0.0.1]:{port}")),
        (&listed, "https://idp2.example/token".to_owned()),
        (&listed, issuer.url.replace("http://", "http://user:pw@")),
    ] {
        let failure = refresh(minter, &url, Deadline::after(20_000))
            .await
            .unwrap_err();
        assert_eq!(failure.class, FailureClass::ConfigRefused, "{url}");
        assert!(!failure.remedy.is_empty());
    }
    // The name is allowed by itself; its address is not.
    let url = format!("https://localhost:{port}");
    let failure = refresh(&strict, &url, Deadline::after(20_000))
        .await
        .unwrap_err();
    assert_eq!(failure.class, FailureClass::Unsent);
    assert!(
        failure.cause.contains("resolves to a loopback address"),
        "{}",
        failure.cause
    );
    assert!(issuer.seen().is_empty());
}

/// What an operator's shell or a service manager may have set.
const PROXIES: [&str; 6] = [
    "http_proxy",
    "HTTP_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
];

/// A proxy would resolve names itself, and connect where it likes: what is in the environment does
/// not count. The test runs itself once more, with proxies in its environment.
#[tokio::test(flavor = "multi_thread")]
async fn proxies_in_the_environment_are_not_used() {
    let answer = json(200, r#"{"access_token":"at-1","expires_in":60}"#);
    let issuer = Issuer::start(Reply::Raw(answer)).await;
    if std::env::var_os(PROXIES[0]).is_some() {
        let minted = refresh(&minter(|_| ()), &issuer.url, Deadline::after(20_000)).await;
        assert!(minted.is_ok(), "{minted:?}");
        assert_eq!(issuer.seen().len(), 1);
        return;
    }
    let proxy = Issuer::start(Reply::Raw(http(200, "", "{}"))).await;
    let url = proxy.url.trim_end_matches("/token").to_owned();
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "proxies_in_the_environment_are_not_used"]);
    again.env_remove("NO_PROXY").env_remove("no_proxy");
    for name in PROXIES {
        again.env(name, &url);
    }
    let again = tokio::task::spawn_blocking(move || again.output().unwrap());
    let again = again.await.unwrap();
    let said = String::from_utf8_lossy(&again.stdout);
    assert!(said.contains("1 passed"), "{said}");
    assert!(proxy.seen().is_empty(), "{:?}", proxy.seen());
}

#[tokio::test]
async fn an_endpoint_that_is_tried_says_its_status_and_nothing_else() {
    let body = serde_json::json!({"model": "m", "messages": ["body-canary"]});
    let mut headers = HeaderMap::new();
    let mut bearer = HeaderValue::from_static("Bearer header-canary");
    bearer.set_sensitive(true);
    headers.insert(AUTHORIZATION, bearer);
    let web = Web::new(&Config::loopback()).unwrap();
    let strict = Web::new(&Config::default()).unwrap();
    let (short, long) = (Duration::from_millis(300), Duration::from_secs(20));
    let echo = json(401, r#"{"error": "header-canary is no key"}"#);
    for (web, reply, time, expected) in [
        (&web, Reply::Raw(json(200, "{}")), long, Ok(200)),
        (&web, Reply::Raw(echo), long, Ok(401)),
        (
            &web,
            Reply::Raw(http(302, "Location: https://a.example/\r\n", "")),
            long,
            Ok(302),
        ),
        (&web, Reply::Hold, short, Err("no answer within")),
        (&web, Reply::Close, long, Err("no complete answer from")),
        (
            &strict,
            Reply::Hold,
            long,
            Err("the endpoint must be https"),
        ),
    ] {
        let endpoint = Issuer::start(reply).await;
        let tried = web.post(&endpoint.url, headers.clone(), &body, time).await;
        match (tried, expected) {
            (Ok(status), Ok(expected)) => {
                assert_eq!(status, expected);
                let seen = endpoint.seen();
                assert_eq!(seen.len(), 1);
                assert_eq!(
                    seen[0].header("authorization"),
                    Some("Bearer header-canary")
                );
                assert_eq!(seen[0].header("content-type"), Some("application/json"));
                let sent: serde_json::Value = serde_json::from_slice(&seen[0].body).unwrap();
                assert_eq!(sent, body);
            }
            (Err(why), Err(words)) => {
                assert!(why.contains(words), "{why}");
                assert!(!why.contains("canary") && !why.contains("ticket"), "{why}");
            }
            (tried, _) => panic!("{tried:?}"),
        }
    }
    let nobody = Issuer::start(Reply::Hold).await;
    let inwards = nobody.url.replace("http://127.0.0.1", "https://localhost");
    let refused = strict
        .post(&inwards, headers, &body, long)
        .await
        .unwrap_err();
    assert!(
        refused.contains("resolves to a loopback address"),
        "{refused}"
    );
    assert!(nobody.seen().is_empty());
}
