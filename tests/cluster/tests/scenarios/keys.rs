//! Keys of both kinds are replaced while leaders are killed: no secret is lost, none is brought
//! back, and a replica with another key is told which one it needs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use evermint_cluster_tests::{
    Cluster, Options, Process, Sandboxes, eventually, evermint, free_port,
};
use evermint_proto::v1::bundles_client::BundlesClient;
use evermint_proto::v1::keys_client::KeysClient;
use evermint_proto::v1::providers_client::ProvidersClient;
use evermint_proto::v1::{
    CreateProviderRequest, GetBundleRequest, GetKeyStatusRequest, GetKeyStatusResponse,
    RotateDataKeyRequest, StaticCredential, UpdateProviderRequest,
};

const BOUND: Duration = Duration::from_secs(60);
const PROVIDERS: usize = 5;
const KEYS: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_both_kinds_are_replaced_while_leaders_are_killed() {
    let mut cluster = Cluster::start(Options::default()).await;
    let mut values = create(&cluster).await;

    // A new data key. The leader dies as soon as it has begun, and values change meanwhile.
    let rotated = rotate(&cluster).await;
    assert_eq!(rotated, 2);
    let leader = cluster.leader().await;
    let (name, value) = ("P3_K4".to_owned(), "newer-than-the-rotation".to_owned());
    update(&cluster, 3, &name, &value).await;
    values.insert(name, value);
    cluster.kill(leader);
    cluster.start_one(leader);
    let resealed = "all secrets rest under the new data key";
    until(&cluster, resealed, |status| {
        status.secrets_to_reseal == 0 && status.data_keys.len() == 2
    })
    .await;
    let status = key_status(&cluster).await;
    let secrets: Vec<u64> = status.data_keys.iter().map(|key| key.secrets).collect();
    assert_eq!(secrets, [0, (PROVIDERS * KEYS) as u64]);
    assert_eq!(read(&cluster).await, values);

    // A new key-encryption key, replica by replica. Nothing happens before all have it.
    let former = cluster.kek();
    let next = keygen(&former.with_file_name("kek-2"));
    for n in 0..cluster.len() {
        let status = key_status(&cluster).await;
        assert!(status.data_keys.iter().all(|key| key.kek != next.1));
        cluster.terminate(n, BOUND);
        cluster.rekey(n, &next.0, Some(&former));
        cluster.start_one(n);
        cluster.ready(BOUND).await;
    }
    let leader = cluster.leader().await;
    cluster.kill(leader);
    cluster.start_one(leader);
    let former_name = status.data_keys[0].kek.clone();
    let unneeded = "the former key-encryption key is not needed any more";
    until(&cluster, unneeded, |status| {
        let of = |name: &str| status.keks.iter().find(|kek| kek.name == name);
        of(&next.1).is_some_and(|kek| kek.data_keys == 2)
            && of(&former_name).is_none_or(|kek| kek.needed_for.is_empty())
    })
    .await;

    // Without the former one, also after a restart of all at once.
    cluster.kill_all();
    for n in 0..cluster.len() {
        cluster.rekey(n, &next.0, None);
        cluster.start_one(n);
    }
    cluster.ready(BOUND).await;
    assert_eq!(read(&cluster).await, values);

    // A replica that has the former one alone says so, and so does one that wants to join.
    cluster.terminate(0, BOUND);
    cluster.rekey(0, &former, None);
    let told = refused(
        Command::new(evermint())
            .arg("serve")
            .arg("--config")
            .arg(cluster.config(0)),
    );
    assert!(
        told.contains(&next.1) && told.contains(&former_name),
        "{told}"
    );
    let dir = tempfile::tempdir().expect("a directory");
    let peer = format!("--peers=127.0.0.1:{}", cluster.replica(1).peer_port);
    let mut newcomer = Command::new(evermint());
    newcomer
        .args(["serve", "--insecure-loopback", &peer])
        .arg(format!("--kek-command=/bin/cat {}", former.display()))
        .arg(format!("--data-dir={}", dir.path().display()))
        .arg(format!("--api-listen=127.0.0.1:{}", free_port()))
        .arg(format!("--peer-listen=127.0.0.1:{}", free_port()));
    let told = refused(&mut newcomer);
    assert!(told.contains(&format!("uses KEK {}", next.1)), "{told}");
    assert!(told.contains("--kek-former-file"), "{told}");
}

/// What a replica says that does not start.
fn refused(command: &mut Command) -> String {
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"EVERMINT_") {
            command.env_remove(name);
        }
    }
    let log = tempfile::NamedTempFile::new().expect("a file");
    let process = Process::spawn(command, log.path());
    let status = process.ended(BOUND);
    assert!(!status.success());
    std::fs::read_to_string(log.path()).expect("its log")
}

fn keygen(path: &Path) -> (PathBuf, String) {
    let made = Command::new(evermint())
        .args(["keygen", "--out"])
        .arg(path)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&made.stdout).into_owned();
    let name = said.split_whitespace().nth(1).expect("key NAME written");
    (path.to_owned(), name.to_owned())
}

/// Many values, which one sandbox reads.
async fn create(cluster: &Cluster) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let mut providers = Vec::new();
    for p in 0..PROVIDERS {
        let name = format!("p{p}");
        let credentials = (0..KEYS).map(|k| {
            let value = StaticCredential {
                value: format!("value-{p}-{k}"),
                expires_at_ms: None,
            };
            (format!("P{p}_K{k}"), value)
        });
        let create = CreateProviderRequest {
            name: name.clone(),
            r#type: "generic-oauth2".to_owned(),
            credentials: credentials.collect(),
            ..CreateProviderRequest::default()
        };
        let given = create.credentials.iter();
        values.extend(given.map(|(key, given)| (key.clone(), given.value.clone())));
        let call = async |channel| {
            let mut client = ProvidersClient::new(channel);
            client.create_provider(create.clone()).await
        };
        cluster.admin().call("create provider", call).await;
        providers.push(name);
    }
    Sandboxes::register(cluster.admin(), "reader", &providers).await;
    values
}

async fn update(cluster: &Cluster, provider: usize, key: &str, value: &str) {
    let value = StaticCredential {
        value: value.to_owned(),
        expires_at_ms: None,
    };
    let update = UpdateProviderRequest {
        name: format!("p{provider}"),
        credentials: [(key.to_owned(), value)].into(),
        ..UpdateProviderRequest::default()
    };
    let call = async |channel| {
        let mut client = ProvidersClient::new(channel);
        client.update_provider(update.clone()).await
    };
    cluster.admin().call("update provider", call).await;
}

/// Every value that the sandbox is given.
async fn read(cluster: &Cluster) -> BTreeMap<String, String> {
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
    let credentials = answer.bundle.unwrap_or_default().credentials;
    let values = credentials.into_iter();
    values
        .flat_map(|credential| credential.token.unwrap_or_default().values)
        .collect()
}

async fn rotate(cluster: &Cluster) -> u32 {
    let call = async |channel| {
        let mut client = KeysClient::new(channel);
        client.rotate_data_key(RotateDataKeyRequest {}).await
    };
    cluster.admin().call("rotate", call).await.data_key
}

async fn key_status(cluster: &Cluster) -> GetKeyStatusResponse {
    let request = GetKeyStatusRequest { consistent: true };
    let call = async |channel| {
        let mut client = KeysClient::new(channel);
        client.get_key_status(request).await
    };
    cluster.admin().call("key status", call).await
}

async fn until(cluster: &Cluster, what: &str, holds: impl Fn(&GetKeyStatusResponse) -> bool) {
    eventually(what, BOUND, async || {
        let status = key_status(cluster).await;
        match holds(&status) {
            true => Ok(()),
            false => Err(format!("{status:?}")),
        }
    })
    .await;
}
