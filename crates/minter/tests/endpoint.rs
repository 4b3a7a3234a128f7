//! A token endpoint leads where the operator allowed, and nowhere else.

mod support;

use evermint_core::mint::FailureClass;
use evermint_minter::{Config, HttpMinter};
use support::{Deadline, Issuer, Reply, http, minter, refresh};

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
        (&listed, issuer.url.clone()),
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
