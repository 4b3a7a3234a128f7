//! `provider test`.

use evermint_issuer::Client;

use crate::site::Site;

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_lifetime_and_scopes_and_keeps_nothing() {
    let site = Site::start().await;
    assert_eq!(site.crm("crm-secret").code, Some(0));
    let before = site.json(&["provider", "refresh", "status", "crm"]);
    let tried = site.done(&["provider", "test", "crm"]).out;
    for words in [
        "crm/CRM_TOKEN (oauth2-client-credentials), tried on replica 1",
        "passed   material",
        "passed   endpoint",
        "passed   mint",
        "good for 60 min",
        "scopes: a\n",
    ] {
        assert!(tried.contains(words), "{words}: {tried}");
    }
    assert_eq!(site.handle().history().records().count(), 2);
    let after = site.json(&["provider", "refresh", "status", "crm"]);
    let attempts = |status: &serde_json::Value| status["refreshes"][0]["attempt"].clone();
    assert_eq!(attempts(&before), attempts(&after));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_that_fails_says_what_to_do_and_a_refresh_token_is_not_sent() {
    let site = Site::start().await;
    assert_eq!(site.crm("wrong").code, Some(1));
    let tried = site.run(&["provider", "test", "crm", "--credential-key=CRM_TOKEN"]);
    assert_eq!(tried.code, Some(1), "{tried:#?}");
    assert!(tried.out.contains("failed   mint"), "{tried:?}");
    assert!(tried.out.contains("try: "), "{tried:?}");
    assert!(!format!("{tried:?}").contains("wrong"), "{tried:?}");

    let seeded = site.handle().seed(Client::new("user"));
    let token = site.write("rt", seeded.refresh_token.expose());
    site.done(&["provider", "create", "user", "--type=generic-oauth2"]);
    site.done(&[
        "provider",
        "refresh",
        "configure",
        "user",
        "--credential-key=USER_TOKEN",
        "--strategy=oauth2-refresh-token",
        "--material=client_id=user",
        &format!("--secret-material=refresh_token=@{token}"),
        &format!("--token-url={}", site.issuer.token_url()),
        "--wait",
    ]);
    let tried = site.done(&["provider", "test", "user"]).out;
    assert!(tried.contains("skipped  mint"), "{tried}");
    assert!(tried.contains("never sends it"), "{tried}");
    let presentations = site.handle().history().presentations();
    assert!(presentations.values().all(|times| *times == 1));

    let nothing = site.run(&["provider", "test", "nowhere"]);
    assert_eq!(nothing.code, Some(1));
    assert!(
        nothing.err.contains("provider nowhere not found"),
        "{nothing:?}"
    );
    site.stop().await;
}
