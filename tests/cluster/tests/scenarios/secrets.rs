//! Planted secrets are looked for in everything that replicas leave behind, with all that they can
//! be made to log.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evermint_cluster_tests::{
    Canary, Cluster, Idp, Mints, Options, Refreshing, Sandboxes, eventually,
};
use evermint_issuer::{Authentication, Client, Fault, Mode};
use evermint_proto::v1::bundles_client::BundlesClient;
use evermint_proto::v1::keys_client::KeysClient;
use evermint_proto::v1::providers_client::ProvidersClient;
use evermint_proto::v1::{
    BundleCredential, CreateProviderRequest, GetBundleRequest, GetKeyStatusRequest,
    RotateDataKeyRequest, StaticCredential, Verdict,
};

const BOUND: Duration = Duration::from_secs(20);
const CLIENT: &str = "canary-client";
const CLIENT_SECRET: &str = "canary-client-secret-9d1f0b5e7a";
const STATIC_VALUE: &str = "canary-static-value-4c2ae81f63";

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_left_on_disk_or_in_a_log() {
    let seen = leaves_nothing(None, 5).await;
    // Between replicas names travel in the clear here, and so would a secret.
    assert!(seen, "what replicas say to each other was not seen");
}

#[tokio::test(flavor = "multi_thread")]
async fn between_replicas_with_certificates_not_even_names_are_seen() {
    let seen = leaves_nothing(Some(Duration::from_secs(3_600)), 1).await;
    assert!(!seen, "a credential's name was seen between replicas");
}

/// What is in memory does not reach a disk when a process crashes: proc_pid_limits(5).
#[track_caller]
fn dumps_no_core(pid: u32) {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("its limits");
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let words: Vec<&str> = core.expect("a limit").split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{limits}");
}

/// Lets a cluster work that says all that it can, and searches what is left of it, and what was
/// tapped between its replicas. Whether a credential's name was seen there.
async fn leaves_nothing(certificates: Option<Duration>, rounds: usize) -> bool {
    let idp = Idp::built_in(Duration::from_secs(60)).await;
    let client = Client::new(CLIENT)
        .secret(CLIENT_SECRET)
        .authentication(Authentication::Basic);
    idp.register(&client).await;
    let mut cluster = Cluster::start(Options {
        log: "trace",
        snapshot_after: 20,
        certificates,
        tapped: true,
        ..Options::default()
    })
    .await;
    let admin = cluster.admin().clone();
    let mut canary = Canary::default();
    canary.plant("client secret", CLIENT_SECRET);
    canary.plant("static value", STATIC_VALUE);
    let kek = std::fs::read_to_string(cluster.kek()).expect("the key");
    canary.plant("key-encryption key, as text", kek.trim());
    let raw = STANDARD.decode(kek.trim()).expect("base64");
    canary.plant("key-encryption key", raw);

    create_static(&cluster).await;
    let grant = idp.grant(CLIENT).await;
    canary.plant("refresh token", &grant.refresh_token);
    let credential = Refreshing::register_grant(
        &admin,
        &idp,
        grant.with_secret(CLIENT_SECRET),
        &Mints::default(),
    )
    .await;
    let providers = [credential.provider.clone(), "static".to_owned()];
    Sandboxes::register(&admin, "reader", &providers).await;

    // A few mints, one that fails in passing, a kill, an orderly end, and one that fails for good.
    let mut generation = credential.minted_after(&admin, 0).await;
    for round in 0..rounds {
        if round == 2 {
            idp.fault(Fault::once(CLIENT, Mode::status(503))).await;
        }
        if round == 3 {
            let leader = cluster.leader().await;
            cluster.kill(leader);
            cluster.start_one(leader);
        }
        if round == 1 {
            rotate_data_key(&cluster).await;
        }
        if round == 4 {
            cluster.terminate(0, BOUND);
            cluster.start_one(0);
        }
        credential.rotate(&admin).await;
        generation = credential.minted_after(&admin, generation).await;
        for token in tokens(&cluster).await {
            canary.plant("token", token);
        }
    }
    idp.revoke(&credential.grant).await;
    credential.rotate(&admin).await;
    let gone = "needs reauthorization";
    credential
        .until(&admin, gone, BOUND, |status| {
            (status.verdict() == Verdict::NeedsReauthorization).then_some(())
        })
        .await;
    cluster.caught_up().await;
    for n in 0..cluster.len() {
        dumps_no_core(cluster.pid(n));
        cluster.terminate(n, BOUND);
    }

    let mut found = canary.search(&cluster.logs());
    found.extend(canary.search(&cluster.tapped()));
    for n in 0..cluster.len() {
        found.extend(canary.search(&cluster.replica(n).data_dir));
    }
    assert!(found.is_empty(), "{found:#?}");
    // The search does find what is there, and is no secret.
    let mut control = Canary::default();
    control.plant("key", &credential.key);
    for n in 0..cluster.len() {
        assert!(!control.search(&cluster.replica(n).data_dir).is_empty());
    }
    assert!(!control.search(&cluster.logs()).is_empty());
    let files = std::fs::read_dir(cluster.tapped()).expect("a directory");
    assert!(files.count() > 2, "nothing was tapped");
    !control.search(&cluster.tapped()).is_empty()
}

/// Every secret that there is by now goes from one data key to another.
async fn rotate_data_key(cluster: &Cluster) {
    let call = async |channel| {
        let mut client = KeysClient::new(channel);
        client.rotate_data_key(RotateDataKeyRequest {}).await
    };
    cluster.admin().call("rotate the data key", call).await;
    eventually("all secrets are sealed anew", BOUND, async || {
        let call = async |channel| {
            let mut client = KeysClient::new(channel);
            let request = GetKeyStatusRequest { consistent: true };
            client.get_key_status(request).await
        };
        match cluster
            .admin()
            .call("key status", call)
            .await
            .secrets_to_reseal
        {
            0 => Ok(()),
            left => Err(left.to_string()),
        }
    })
    .await;
}

async fn create_static(cluster: &Cluster) {
    let value = StaticCredential {
        value: STATIC_VALUE.to_owned(),
        expires_at_ms: None,
    };
    let create = CreateProviderRequest {
        name: "static".to_owned(),
        r#type: "generic-oauth2".to_owned(),
        credentials: [("STATIC_TOKEN".to_owned(), value)].into(),
        ..CreateProviderRequest::default()
    };
    let call = async |channel| {
        let mut client = ProvidersClient::new(channel);
        client.create_provider(create.clone()).await
    };
    cluster.admin().call("create provider", call).await;
}

/// The live tokens that the sandbox is given.
async fn tokens(cluster: &Cluster) -> Vec<String> {
    let request = GetBundleRequest {
        sandbox: "reader".to_owned(),
        consistent: true,
        ..GetBundleRequest::default()
    };
    let call = async |channel| {
        let mut client = BundlesClient::new(channel);
        client.get_bundle(request.clone()).await
    };
    let answer = cluster.admin().call("read", call).await;
    let values = |c: BundleCredential| c.token.unwrap_or_default().values.into_values();
    let credentials = answer.bundle.unwrap_or_default().credentials;
    credentials.into_iter().flat_map(values).collect()
}
