//! The server around the services: authentication, TLS, health, reflection, shutdown.

use std::time::Duration;

use evermint_core::secret::Secret;
use evermint_gateway::{AdminToken, Config, Error, REASON, TlsFiles, serve};
use evermint_proto::v1;
use evermint_proto::v1::cluster_client::ClusterClient;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::harness::{Harness, config};
use crate::secure::{endpoint, tls_files};

/// Waits for something that has to happen soon.
async fn soon<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    found
        .await
        .unwrap_or_else(|_| panic!("{what} did not come"))
}

fn with_token() -> Config {
    Config {
        admin: Some(AdminToken::new(&Secret::from("hunter2"))),
        ..config()
    }
}

#[tokio::test]
async fn with_an_admin_token_every_call_needs_it() {
    let harness = Harness::with(with_token()).await;
    let call = async |authorization: Option<&str>| {
        let mut request = Request::new(v1::GetClusterStatusRequest::default());
        if let Some(value) = authorization {
            let value = value.parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        harness.cluster().get_cluster_status(request).await
    };
    assert!(call(Some("Bearer hunter2")).await.is_ok());
    for wrong in [None, Some("Bearer hunter3"), Some("hunter2")] {
        let status = call(wrong).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{wrong:?}");
        assert_eq!(status.metadata().get(REASON).unwrap(), "unauthenticated");
    }
    let watch = v1::WatchBundleRequest::default();
    let status = harness.bundles().watch_bundle(watch).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    // Probes and tools need none.
    let mut health = HealthClient::new(harness.channel.clone());
    assert!(health.check(HealthCheckRequest::default()).await.is_ok());
}

async fn health(harness: &Harness, service: &str) -> ServingStatus {
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let response = HealthClient::new(harness.channel.clone())
        .check(request)
        .await;
    response.unwrap().into_inner().status()
}

#[tokio::test]
async fn health_follows_the_fitness_of_the_replica() {
    let mut config = config();
    config.limits.max_staleness = Duration::from_millis(100);
    let harness = Harness::with(config).await;
    for service in ["", "evermint.v1.Bundles", "evermint.v1.Cluster"] {
        assert_eq!(health(&harness, service).await, ServingStatus::Serving);
    }
    harness.cluster.cut_off();
    soon("unhealthiness", async || {
        (health(&harness, "").await == ServingStatus::NotServing).then_some(())
    })
    .await;
    assert_eq!(
        health(&harness, "evermint.v1.Bundles").await,
        ServingStatus::NotServing
    );
    // What it knows of the cluster it still tells.
    assert_eq!(
        health(&harness, "evermint.v1.Cluster").await,
        ServingStatus::Serving
    );
    harness.cluster.reconnect();
    soon("health", async || {
        (health(&harness, "").await == ServingStatus::Serving).then_some(())
    })
    .await;
}

#[tokio::test]
async fn reflection_lists_every_service() {
    let harness = Harness::start().await;
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = ServerReflectionClient::new(harness.channel.clone())
        .server_reflection_info(tokio_stream::iter([request]))
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("a list of services");
    };
    let mut names: Vec<String> = list.service.into_iter().map(|s| s.name).collect();
    names.sort_unstable();
    for name in [
        "evermint.v1.Audit",
        "evermint.v1.Bundles",
        "evermint.v1.Cluster",
        "evermint.v1.Inference",
        "evermint.v1.Providers",
        "evermint.v1.Refreshes",
        "evermint.v1.Sandboxes",
        "grpc.health.v1.Health",
    ] {
        assert!(names.iter().any(|n| n == name), "{name} not in {names:?}");
    }
}

#[tokio::test]
async fn a_method_that_does_not_exist_is_unimplemented() {
    let harness = Harness::start().await;
    let mut grpc = tonic::client::Grpc::new(harness.channel.clone());
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let path = http::uri::PathAndQuery::from_static("/evermint.v1.Providers/Nothing");
    let status = grpc.unary(Request::new(()), path, codec).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert_eq!(status.metadata().get(REASON).unwrap(), "unimplemented");
}

#[tokio::test]
async fn with_a_certificate_the_server_speaks_tls_only() {
    let harness = Harness::with(Config {
        tls: Some(tls_files()),
        ..config()
    })
    .await;
    let channel = endpoint(harness.address).connect().await.unwrap();
    let request = v1::GetClusterStatusRequest::default();
    let mut client = ClusterClient::new(channel);
    assert!(client.get_cluster_status(request).await.is_ok());

    let plain = harness.cluster().get_cluster_status(request).await;
    assert!(plain.is_err());
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_named() {
    let good = tls_files();
    let missing = TlsFiles {
        key: "/nowhere/server.key".into(),
        ..good.clone()
    };
    let swapped = TlsFiles {
        certificate: good.certificate.clone(),
        key: good.certificate,
    };
    for (files, told) in [
        (missing, "cannot read /nowhere/server.key"),
        (swapped, "holds no private key in PEM"),
    ] {
        let cluster = evermint_gateway::testing::FakeCluster::new();
        let error: Error = serve(
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            cluster.ports(),
            Config {
                tls: Some(files),
                ..config()
            },
            CancellationToken::new(),
        )
        .await
        .unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
    }
}

#[tokio::test]
async fn a_shutdown_ends_watches_and_then_the_server() {
    let mut harness = Harness::start().await;
    harness.provider("cloud", "A", "1").await;
    let sandbox = v1::CreateSandboxRequest {
        name: "box".to_owned(),
        ..Default::default()
    };
    harness.sandboxes().create_sandbox(sandbox).await.unwrap();
    let watch = v1::WatchBundleRequest {
        sandbox: "box".to_owned(),
        ..Default::default()
    };
    let response = harness.bundles().watch_bundle(watch).await.unwrap();
    let mut stream = response.into_inner();
    stream.message().await.unwrap().unwrap();

    harness.shutdown.cancel();
    let status = stream.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let ended = tokio::time::timeout(Duration::from_secs(8), &mut harness.server).await;
    assert!(ended.expect("the server ends").unwrap().is_ok());
}
