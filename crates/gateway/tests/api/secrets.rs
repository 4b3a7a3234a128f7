//! G9: secrets go in sealed and come out in bundles, and nowhere else.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evermint_core::mint::{Failure, FailureClass};
use evermint_proto::v1;
use tracing_subscriber::fmt::MakeWriter;

use crate::harness::{Harness, client_credentials, credentials, strings};

const CANARY: &str = "canary-5b1e";

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn a_secret_is_seen_in_bundles_alone() {
    let log = Log::default();
    // For all threads: the server may run on any. The frames that h2 shows are not ours.
    tracing_subscriber::fmt()
        .with_env_filter("trace,h2=off,hyper=off,tower=off,tonic=debug")
        .with_ansi(false)
        .with_writer(log.clone())
        .init();

    let harness = Harness::start().await;
    let mut seen = Vec::new();
    macro_rules! say {
        ($call:expr) => {{
            let answer = $call.await;
            seen.push(format!("{answer:?} {:?}", answer.as_ref().err()));
            answer
        }};
    }
    let secret = |n: u32| format!("{CANARY}-{n}");
    let mut providers = harness.providers();
    let create = v1::CreateProviderRequest {
        name: "cloud".to_owned(),
        r#type: "generic".to_owned(),
        credentials: credentials(&[("A", &secret(1))]),
        ..Default::default()
    };
    say!(providers.create_provider(create.clone())).unwrap();
    // What is refused is not repeated either.
    say!(providers.create_provider(create)).unwrap_err();
    say!(providers.create_provider(v1::CreateProviderRequest {
        name: "bad".to_owned(),
        credentials: credentials(&[("A", &format!("{CANARY}\0")), ("B", &CANARY.repeat(1000))]),
        ..Default::default()
    }))
    .unwrap_err();
    say!(providers.update_provider(v1::UpdateProviderRequest {
        name: "cloud".to_owned(),
        credentials: credentials(&[("B", &secret(2))]),
        ..Default::default()
    }))
    .unwrap();
    let mut refreshes = harness.refreshes();
    let material = strings(&[("client_id", "me"), ("client_secret", &secret(3))]);
    say!(refreshes.configure_refresh(v1::ConfigureRefreshRequest {
        material: material.clone(),
        secret_material: strings(&[("client_secret", &secret(4))]),
        ..client_credentials("cloud", "TOKEN")
    }))
    .unwrap_err();
    say!(refreshes.configure_refresh(v1::ConfigureRefreshRequest {
        material,
        secret_material: strings(&[("extra", &secret(5))]),
        ..client_credentials("cloud", "TOKEN")
    }))
    .unwrap();
    let token = harness.credential("cloud", "TOKEN");
    harness
        .cluster
        .mint(&token, &secret(6), Duration::from_secs(60));
    harness.cluster.fail(
        &token,
        Failure {
            class: FailureClass::Transient,
            cause: "the issuer answered 503".to_owned(),
            remedy: String::new(),
            retry_after_ms: None,
        },
    );
    say!(refreshes.get_refresh_status(v1::GetRefreshStatusRequest {
        provider: "cloud".to_owned(),
        ..Default::default()
    }))
    .unwrap();
    say!(providers.list_providers(v1::ListProvidersRequest::default())).unwrap();
    say!(harness.audit().list_audit(v1::ListAuditRequest::default())).unwrap();
    say!(
        harness
            .cluster()
            .get_cluster_status(v1::GetClusterStatusRequest::default())
    )
    .unwrap();
    say!(
        harness
            .sandboxes()
            .create_sandbox(v1::CreateSandboxRequest {
                name: "box".to_owned(),
                providers: vec!["cloud".to_owned()],
                ..Default::default()
            })
    )
    .unwrap();
    let get = v1::GetBundleRequest {
        sandbox: "box".to_owned(),
        ..Default::default()
    };
    let bundle = say!(harness.bundles().get_bundle(get)).unwrap();

    // It is where it belongs: the test is not blind.
    let served: Vec<String> = bundle
        .into_inner()
        .bundle
        .unwrap()
        .credentials
        .into_iter()
        .filter_map(|c| c.token)
        .flat_map(|token| token.values.into_values())
        .collect();
    assert_eq!(served, [secret(1), secret(2), secret(6)]);

    // And nowhere else: not in an answer, not in what is replicated, not in the log.
    for answer in &seen {
        assert!(!answer.contains(CANARY), "{answer}");
    }
    let replicated = format!(
        "{:?} {:?}",
        harness.cluster.log(),
        harness.cluster.committed()
    );
    assert!(!replicated.contains(CANARY));
    for (key, record) in harness.cluster.committed().records() {
        let found = record
            .windows(CANARY.len())
            .any(|part| part == CANARY.as_bytes());
        assert!(!found, "{key:?}");
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("/evermint.v1.Providers/CreateProvider"));
    assert!(!log.contains(CANARY));
}
