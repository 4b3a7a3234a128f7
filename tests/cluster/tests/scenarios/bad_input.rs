//! Bad input, on a running cluster: it is refused with the name of the field, and nothing of it is
//! half written.

use std::process::{Command, Output};

use evermint_cluster_tests::{Cluster, Options, evermint};
use evermint_proto::v1::providers_client::ProvidersClient;
use evermint_proto::v1::{CreateProviderRequest, ListProvidersRequest, StaticCredential};
use tonic::Code;

const REFRESH: [&str; 5] = [
    "provider",
    "refresh",
    "configure",
    "known",
    "--credential-key=TOKEN",
];

/// Runs `evermint` as an operator does.
fn run(cluster: &Cluster, args: &[&str]) -> Output {
    let gateways: Vec<_> = (0..cluster.len())
        .map(|n| format!("http://127.0.0.1:{}", cluster.replica(n).api_port))
        .collect();
    Command::new(evermint())
        .args(["--gateway", &gateways.join(",")])
        .args(args)
        .output()
        .expect("evermint runs")
}

/// Checks that a command fails, and that what it says on standard error has all of `said`.
#[track_caller]
fn refused(cluster: &Cluster, args: &[&str], said: &[&str]) {
    let output = run(cluster, args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{args:?} was done: {output:?}");
    for words in said {
        assert!(
            error.contains(words),
            "{args:?} said {error:?}, not {words:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_by_its_field_and_changes_nothing() {
    let cluster = Cluster::start(Options::default()).await;
    let created = run(
        &cluster,
        &["provider", "create", "known", "--type=generic-oauth2"],
    );
    assert!(created.status.success(), "{created:?}");
    let position = cluster.caught_up().await;

    let token_url = "--token-url=http://127.0.0.1:9/token";
    for (args, said) in [
        (
            vec!["--strategy=nonsense", token_url],
            vec!["strategy", "nonsense", "oauth2-refresh-token"],
        ),
        (
            vec!["--strategy=oauth2-refresh-token", token_url],
            vec!["client_id", "refresh_token"],
        ),
        (
            vec![
                "--strategy=google-service-account-jwt",
                "--secret-material=service_account_json={\"private_key\":\"no key\"}",
            ],
            vec!["service_account_json"],
        ),
    ] {
        refused(&cluster, &[&REFRESH[..], &args].concat(), &said);
    }
    refused(
        &cluster,
        &["provider", "get", "unknown"],
        &["provider", "unknown"],
    );
    refused(
        &cluster,
        &["inference", "set", "--provider=unknown", "--model=m"],
        &["provider", "unknown"],
    );
    refused(
        &cluster,
        &["provider", "create", "od d/nämé", "--type=generic-oauth2"],
        &["name"],
    );

    let mut client = ProvidersClient::new(cluster.admin().on(0));
    let huge = StaticCredential {
        value: "x".repeat(2 << 20),
        expires_at_ms: None,
    };
    let request = CreateProviderRequest {
        name: "huge".to_owned(),
        r#type: "generic-oauth2".to_owned(),
        credentials: [("HUGE_TOKEN".to_owned(), huge)].into(),
        ..CreateProviderRequest::default()
    };
    let status = client.create_provider(request).await.expect_err("2 MiB");
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(status.message().contains("HUGE_TOKEN"), "{status:?}");

    assert_eq!(cluster.caught_up().await, position, "something was written");
    let request = ListProvidersRequest::default();
    let list = client.list_providers(request).await.expect("a list");
    let names: Vec<_> = list
        .into_inner()
        .providers
        .into_iter()
        .map(|p| p.name)
        .collect();
    assert_eq!(names, ["known"]);
}
