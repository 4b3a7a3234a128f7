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

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_says_what_is_taken_from_the_machine() {
    let site = Site::start().await;
    let create = |kind: &str| {
        let kind = format!("--type={kind}");
        let mut command = site.command(&[
            "provider",
            "create",
            kind.as_str(),
            "--from-existing",
            "found",
        ]);
        command.env("HOME", site.path());
        for variable in [
            "ANTHROPIC_API_KEY",
            "VERTEX_AI_TOKEN",
            "GOOGLE_VERTEX_AI_TOKEN",
        ] {
            command.env_remove(variable);
        }
        command
    };
    let nothing = ran(&mut create("anthropic"), "");
    assert_eq!(nothing.code, Some(1), "{nothing:#?}");
    assert!(
        nothing.err.contains("looked at $ANTHROPIC_API_KEY"),
        "{nothing:?}"
    );
    let unknown = ran(&mut create("nonsense"), "");
    assert_eq!(unknown.code, Some(2), "{unknown:#?}");
    assert!(unknown.err.contains("anthropic"), "{unknown:?}");

    let found = ran(create("Anthropic").env("ANTHROPIC_API_KEY", "sk-ant-1"), "");
    assert_eq!(found.code, Some(0), "{found:#?}");
    assert!(
        found
            .err
            .contains("found ANTHROPIC_API_KEY from the environment"),
        "{found:?}"
    );
    assert!(!format!("{found:?}").contains("sk-ant-1"));
    site.done(&["provider", "delete", "found"]);

    let account = site.handle().service_account("robot@example.test").unwrap();
    let key = account
        .key_file("https://oauth2.googleapis.com")
        .to_string();
    let path = site.write("adc.json", &key);
    let mut vertex = create("vertex");
    vertex
        .env("GOOGLE_APPLICATION_CREDENTIALS", &path)
        .env("VERTEX_AI_PROJECT_ID", "my-project");
    let vertex = ran(&mut vertex, "");
    assert_eq!(vertex.code, Some(0), "{vertex:#?}");
    let status = ["provider", "refresh", "status", "found", "-o=json"];
    site.until(&status, |ran| ran.out.contains("\"generation\": 1"))
        .await;
    let shown = site.json(&["provider", "get", "found"]);
    assert_eq!(
        shown["provider"]["config"]["VERTEX_AI_PROJECT_ID"],
        "my-project"
    );
    site.stop().await;
}

const PROFILE: &str = "\
id: house
aliases: [house-api]
display_name: House
credentials:
  - name: key
    env_vars: [HOUSE_KEY]
    required: true
    refresh:
      strategy: oauth2-client-credentials
      token_url: TOKEN_URL
      scopes: [a]
      material:
        - {name: client_id, required: true}
        - {name: client_secret, required: true, secret: true}
discovery:
  credentials: [key]
";

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_of_the_clusters_own_is_as_good_as_a_built_in_one() {
    let site = Site::start().await;
    let text = PROFILE.replace("TOKEN_URL", &site.issuer.token_url());
    let path = site.write("house.yaml", &text);
    site.done(&["provider", "profile", "import", &path]);
    let mut create = site.command(&[
        "provider",
        "create",
        "home",
        "--type=house-api",
        "--from-existing",
    ]);
    create.env("HOUSE_KEY", "house-key-1");
    let created = ran(&mut create, "");
    assert_eq!(created.code, Some(0), "{created:#?}");
    assert!(created.err.contains("found HOUSE_KEY from"), "{created:?}");
    assert!(!format!("{created:?}").contains("house-key-1"));

    // Strategy, endpoint and scopes are the profile's.
    let configured = site.done(&[
        "provider",
        "refresh",
        "configure",
        "home",
        "--credential-key=HOUSE_KEY",
        "--material=client_id=crm",
        "--secret-material=client_secret=crm-secret",
        "--wait",
    ]);
    for words in [
        "minted",
        "oauth2-client-credentials",
        "scopes               a",
    ] {
        assert!(configured.out.contains(words), "{words}: {configured:?}");
    }
    site.stop().await;
}
