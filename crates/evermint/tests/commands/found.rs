//! Credentials that lie on the machine already.

use crate::site::{Site, ran};

#[tokio::test(flavor = "multi_thread")]
async fn a_service_accounts_key_file_is_all_that_a_provider_needs() {
    let site = Site::start().await;
    let account = site.handle().service_account("robot@example.test").unwrap();
    let key = account
        .key_file("https://oauth2.googleapis.com")
        .to_string();
    let path = site.write("key.json", &key);
    let created = site.done(&[
        "provider",
        "create",
        "vertex",
        "--type=google-vertex-ai",
        "--config=project=p",
        "--credential-key=VERTEX_AI_TOKEN",
        "--from-service-account",
        &path,
    ]);
    assert!(created.err.contains("found VERTEX_AI_TOKEN"), "{created:?}");
    let shown = format!("{created:?}");
    assert!(!shown.contains("BEGIN PRIVATE KEY"), "{shown}");
    let status = ["provider", "refresh", "status", "vertex", "-o=json"];
    site.until(&status, |ran| ran.out.contains("\"generation\": 1"))
        .await;

    // The same file, as gcloud's application default credentials.
    let configure = [
        "provider",
        "refresh",
        "configure",
        "vertex",
        "--credential-key=VERTEX_AI_TOKEN",
        "--from-gcloud-adc",
        "--wait",
    ];
    let mut command = site.command(&configure);
    command.env("GOOGLE_APPLICATION_CREDENTIALS", &path);
    let configured = ran(&mut command, "");
    assert_eq!(configured.code, Some(0), "{configured:#?}");
    let mut nothing = site.command(&configure);
    nothing
        .env("HOME", site.path())
        .env_remove("CLOUDSDK_CONFIG");
    let nothing = ran(&mut nothing, "");
    assert_eq!(nothing.code, Some(1), "{nothing:#?}");
    assert!(
        nothing
            .err
            .contains("gcloud auth application-default login"),
        "{nothing:?}"
    );
    site.stop().await;
}
