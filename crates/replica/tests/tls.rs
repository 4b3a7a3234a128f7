//! Mutual TLS between replicas.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::path::Path;
use std::time::Duration;

use evermint_proto::replica::v1::HelloRequest;
use evermint_proto::replica::v1::replica_client::ReplicaClient;
use evermint_replica::{Config, Node, Tls};
use support::*;

fn tls(name: &str) -> Tls {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
    Tls {
        certificate: dir.join(format!("{name}.pem")),
        key: dir.join(format!("{name}.key")),
        ca: dir.join("ca.pem"),
        server_name: Some("replica".to_owned()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_with_certificates_of_one_authority_form_a_cluster_and_others_are_kept_out() {
    let (home, other) = (Home::new(), Home::new());
    let first = start(Config {
        bootstrap: Some(bootstrap()),
        tls: Some(tls("replica")),
        ..home.config()
    })
    .await;
    let joins = |name: Option<&str>, home: &Home| Config {
        peers: vec![first.peer_address().to_owned()],
        tls: name.map(tls),
        ..home.config()
    };
    let second = start(joins(Some("replica"), &other)).await;
    all_vote([&first, &second]).await;
    write(&second, 1).await;

    for name in [Some("stranger"), None] {
        let stranger = Home::new();
        let joining = Node::start(joins(name, &stranger));
        let waited = tokio::time::timeout(Duration::from_secs(2), joining).await;
        assert!(waited.is_err(), "{name:?} got in");
    }
    let plain = format!("http://{}", first.peer_address());
    let refused = match ReplicaClient::connect(plain).await {
        Ok(mut client) => client.hello(HelloRequest {}).await.is_err(),
        Err(_) => true,
    };
    assert!(refused, "clear text got in");
}

#[tokio::test]
async fn a_missing_certificate_is_named() {
    let home = Home::new();
    let config = Config {
        tls: Some(tls("nowhere")),
        ..home.config()
    };
    let error = Node::start(config).await.err().unwrap().to_string();
    assert!(error.contains("nowhere.pem"), "{error}");
}
