//! Mutual TLS between replicas.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use evermint_proto::replica::v1::HelloRequest;
use evermint_proto::replica::v1::replica_client::ReplicaClient;
use evermint_replica::{Config, Node, Tls, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use support::*;

/// Takes any certificate: to look at it.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = evermint_tls::provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn tls(name: &str) -> Tls {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
    Tls::Files(TlsFiles {
        certificate: dir.join(format!("{name}.pem")),
        key: dir.join(format!("{name}.key")),
        ca: dir.join("ca.pem"),
        server_name: Some("replica".to_owned()),
    })
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

/// An authority for one test, and the files of one replica.
struct Site {
    issuer: Issuer<'static, KeyPair>,
    authority: String,
}

impl Site {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, authority }
    }

    /// Writes a certificate for `host` into `dir`, as cert-manager does: whole files, one by one.
    fn write(&self, dir: &Path, host: &str) -> Tls {
        self.write_under(&self.authority, dir, host)
    }

    /// The same, beside other authorities than its own.
    fn write_under(&self, authorities: &str, dir: &Path, host: &str) -> Tls {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([host.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let put = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::write(dir.join("beside"), text).unwrap();
            std::fs::rename(dir.join("beside"), &path).unwrap();
            path
        };
        Tls::Files(TlsFiles {
            // First, so that whoever shows the certificate takes these, too.
            ca: put("ca.crt", authorities),
            certificate: put("tls.crt", &certificate.pem()),
            key: put("tls.key", &key.serialize_pem()),
            server_name: None,
        })
    }
}

/// The certificate that a replica shows.
async fn shown(node: &Node) -> Vec<u8> {
    let address = node.peer_address().to_owned();
    let stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    let verifier = Arc::new(Anyone);
    let config = evermint_tls::client_config(verifier, None).unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("anyone").unwrap();
    let stream = connector.connect(name, stream).await.unwrap();
    let certificates = stream.get_ref().1.peer_certificates().unwrap();
    certificates[0].to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_name_hosts_and_are_read_again_when_they_change() {
    let site = Site::new();
    let at = |host: &str| {
        let mut home = Home::new();
        home.address.set_ip(host.parse().unwrap());
        let files = tempfile::tempdir().unwrap();
        let tls = site.write(files.path(), host);
        (home, files, Some(tls))
    };
    let (home, files, tls) = at("127.0.0.1");
    let first = start(Config {
        bootstrap: Some(bootstrap()),
        tls,
        ..home.config()
    })
    .await;
    let (other, _other_files, tls) = at("127.0.0.2");
    let joins = |tls, home: &Home| Config {
        peers: vec![first.peer_address().to_owned()],
        tls,
        ..home.config()
    };
    let second = start(joins(tls.clone(), &other)).await;
    all_vote([&first, &second]).await;
    // With the certificate of another host it does not get in.
    let (third, _third_files, _) = at("127.0.0.3");
    let error = Node::start(joins(tls, &third)).await.err().unwrap();
    assert!(
        error.to_string().contains("not that of 127.0.0.3"),
        "{error}"
    );

    let before = shown(&first).await;
    site.write(files.path(), "127.0.0.1");
    until("the new certificate is shown", || async {
        (shown(&first).await != before).then_some(())
    })
    .await;
    write(&second, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_is_replaced_by_one_that_overlaps_it_without_a_restart() {
    let (old, new) = (Site::new(), Site::new());
    let both = format!("{}{}", old.authority, new.authority);
    let files: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut homes = [Home::new(), Home::new(), Home::new(), Home::new()];
    let hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"];
    for (home, host) in homes.iter_mut().zip(hosts) {
        home.address.set_ip(host.parse().unwrap());
    }
    let first = start(Config {
        bootstrap: Some(bootstrap()),
        tls: Some(old.write(files[0].path(), hosts[0])),
        ..homes[0].config()
    })
    .await;
    let joins = |n: usize, tls| Config {
        peers: vec![first.peer_address().to_owned()],
        tls: Some(tls),
        ..homes[n].config()
    };
    let second = start(joins(1, old.write(files[1].path(), hosts[1]))).await;
    all_vote([&first, &second]).await;

    // Believed beside the old one; then the one that signs; then the only one.
    for (site, authorities) in [(&old, &both), (&new, &both), (&new, &new.authority)] {
        for (n, node) in [&first, &second].into_iter().enumerate() {
            let before = shown(node).await;
            site.write_under(authorities, files[n].path(), hosts[n]);
            until("the new certificate is shown", || async {
                (shown(node).await != before).then_some(())
            })
            .await;
        }
    }
    write(&second, 1).await;
    let third = start(joins(2, new.write(files[2].path(), hosts[2]))).await;
    all_vote([&first, &second, &third]).await;
    write(&third, 2).await;
    let late = old.write_under(&both, files[3].path(), hosts[3]);
    let refused = tokio::time::timeout(Duration::from_secs(3), Node::start(joins(3, late))).await;
    assert!(
        !matches!(refused, Ok(Ok(_))),
        "the old authority got one in"
    );
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
