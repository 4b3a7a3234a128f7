//! Refusals are told with field and remedy.

use crate::site::Site;

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_field_has_a_line_of_its_own() {
    let site = Site::start().await;
    site.done(&["provider", "create", "crm", "--type=generic-oauth2"]);
    let refused = site.run(&[
        "provider",
        "refresh",
        "configure",
        "crm",
        "--credential-key=9",
        "--strategy=oauth2-client-credentials",
        "--token-url=ftp://nowhere",
        "--material=client_idd=x",
    ]);
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    let line = |start: &str| {
        refused
            .err
            .lines()
            .any(|l| l.trim_start().starts_with(start))
    };
    for start in [
        "credential_key contains '9'",
        "token_url ",
        "material[\"client_idd\"] ",
        "material[\"client_id\"] is missing",
        "try: correct what is named",
    ] {
        assert!(line(start), "{start}: {}", refused.err);
    }
    assert!(refused.err.starts_with("error: "), "{}", refused.err);
    site.stop().await;
}
