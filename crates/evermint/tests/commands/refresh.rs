//! A refresh from its configuration to its end, and commands that wait.

use std::time::{Duration, Instant};

use evermint_issuer::{Fault, Mode, Release};

use crate::site::{BOUND, Site};

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_is_configured_shown_rotated_and_deleted() {
    let site = Site::start().await;
    let configured = site.crm("crm-secret\n");
    assert_eq!(configured.code, Some(0), "{configured:#?}");
    assert!(
        configured.out.starts_with("crm/CRM_TOKEN minted\n"),
        "{configured:?}"
    );
    assert!(!configured.err.contains("warning"), "{configured:?}");

    let status = site.json(&["provider", "refresh-status", "crm"]);
    let status = &status["refreshes"][0];
    assert_eq!(
        (&status["verdict"], &status["generation"]),
        (&"fresh".into(), &1.into())
    );
    let rotated = site.json(&["provider", "rotate", "crm", "--wait"]);
    assert_eq!(rotated["outcome"], "minted");
    assert_eq!(rotated["refresh"]["generation"], 2);
    let rotated = site.json(&["provider", "refresh", "rotate", "crm"]);
    assert_eq!(rotated["outcome"], "due");

    let deleted = [
        "provider",
        "refresh",
        "delete",
        "crm",
        "--credential-key=CRM_TOKEN",
    ];
    let first = site.done(&deleted).out;
    assert_eq!(first, "refresh of crm/CRM_TOKEN deleted\n");
    let second = site.done(&deleted).out;
    assert_eq!(second, "there was no refresh of crm/CRM_TOKEN\n");
    let gone = site.run(&["provider", "rotate", "crm"]);
    assert_eq!(gone.code, Some(1));
    assert!(gone.err.contains("refresh configure"), "{gone:?}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_waits_tells_the_outcome_by_its_exit_code() {
    let site = Site::start().await;
    let refused = site.crm("wrong");
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    for words in [
        "could not be minted",
        "misconfigured",
        "invalid_client",
        "try: ",
    ] {
        assert!(refused.out.contains(words), "{words}: {refused:?}");
    }

    site.done(&["provider", "delete", "crm"]);
    assert_eq!(site.crm("crm-secret").code, Some(0));
    site.handle().fault(Fault::once("crm", Mode::HoldBefore));
    let late = site.run(&["provider", "rotate", "crm", "--wait=1s", "-o=json"]);
    assert_eq!(late.code, Some(3), "{late:#?}");
    assert!(late.out.contains("\"outcome\": \"due\""), "{late:?}");
    let started = Instant::now();
    while site.handle().release("crm", Release::Answer) == 0 {
        assert!(started.elapsed() < BOUND, "the mint did not come");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let status = ["provider", "refresh", "status", "crm", "-o=json"];
    site.until(&status, |ran| ran.out.contains("\"generation\": 2"))
        .await;
    site.stop().await;
}
