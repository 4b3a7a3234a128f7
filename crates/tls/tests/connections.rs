//! Who can connect, and with which certificate, as files change.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use evermint_tls::{ClientAuth, Files, Material, follow, incoming, server_config, trusting};
use futures::StreamExt as _;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tonic::transport::server::TcpIncoming;

const BOUND: Duration = Duration::from_secs(30);

/// A certificate for localhost, and its key.
fn pair() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn write(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join(name), text).unwrap();
}

/// A server by the files of a directory; gives its port.
async fn serve(dir: &Path) -> u16 {
    let files = Files {
        certificate: dir.join("crt"),
        key: dir.join("key"),
        ca: None,
    };
    let config = |material: &Material| {
        let config = server_config(Arc::clone(&material.identity), ClientAuth::None);
        Arc::new(config.unwrap())
    };
    let material = files.read().unwrap();
    let (tell, configs) = watch::channel(config(&material));
    tokio::spawn(follow(files, material, move |material| {
        tell.send_replace(config(material));
    }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut connections = pin!(incoming(
            TcpIncoming::from(listener),
            configs,
            evermint_tls::HANDSHAKE
        ));
        let mut held = Vec::new();
        while let Some(connection) = connections.next().await {
            held.push(connection);
        }
    });
    port
}

/// Connects as a client that trusts `pem` and speaks one version.
async fn connect(
    port: u16,
    pem: &str,
    version: &'static SupportedProtocolVersion,
) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    let certificate = rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes());
    roots.add(certificate.unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(evermint_tls::provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let connected = connector.connect(name, stream).await;
    connected.map(|_| ()).map_err(|e| e.to_string())
}

/// Waits until a client that trusts `pem` gets in.
async fn until_trusted(port: u16, pem: &str) {
    let trying = async {
        while connect(port, pem, &TLS13).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(BOUND, trying).await.expect("in time");
}

#[tokio::test]
async fn nothing_older_than_tls_1_3_is_spoken() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = pair();
    write(dir.path(), "crt", &certificate);
    write(dir.path(), "key", &key);
    let port = serve(dir.path()).await;
    connect(port, &certificate, &TLS13).await.unwrap();
    let refused = connect(port, &certificate, &TLS12).await.unwrap_err();
    assert!(refused.contains("ProtocolVersion"), "{refused}");
}

#[tokio::test]
async fn files_that_change_are_used_once_they_go_together() {
    let dir = tempfile::tempdir().unwrap();
    let (old, next, last) = (pair(), pair(), pair());
    write(dir.path(), "crt", &old.0);
    write(dir.path(), "key", &old.1);
    let port = serve(dir.path()).await;
    until_trusted(port, &old.0).await;
    write(dir.path(), "crt", &next.0);
    write(dir.path(), "key", &next.1);
    until_trusted(port, &next.0).await;
    assert!(connect(port, &old.0, &TLS13).await.is_err());
    // Half a change; whoever looks at it keeps what was there.
    write(dir.path(), "key", &last.1);
    let files = Files {
        certificate: dir.path().join("crt"),
        key: dir.path().join("key"),
        ca: None,
    };
    assert!(files.read().is_err());
    connect(port, &next.0, &TLS13).await.unwrap();
    write(dir.path(), "crt", &last.0);
    until_trusted(port, &last.0).await;
}

#[tokio::test]
async fn who_says_nothing_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = pair();
    write(dir.path(), "crt", &certificate);
    write(dir.path(), "key", &key);
    let port = serve(dir.path()).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    }
    let connected = tokio::time::timeout(BOUND / 10, connect(port, &certificate, &TLS13));
    connected.await.expect("at once").unwrap();
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = pair();
    write(dir.path(), "crt", &certificate);
    write(dir.path(), "key", &key);
    write(dir.path(), "text", "not in PEM");
    write(dir.path(), "other", &pair().1);
    for (crt, key, ca, told) in [
        ("none", "key", None, "none"),
        ("text", "key", None, "holds no certificate in PEM"),
        ("crt", "text", None, "holds no private key in PEM"),
        ("crt", "other", None, "cannot be used"),
        ("crt", "key", Some("text"), "holds no certificate in PEM"),
    ] {
        let files = Files {
            certificate: dir.path().join(crt),
            key: dir.path().join(key),
            ca: ca.map(|name| dir.path().join(name)),
        };
        let error = files.read().err().expect(told).to_string();
        assert!(error.contains(told), "{error}");
    }
    assert!(trusting(Some(b"not in PEM"), None).is_err());
}
