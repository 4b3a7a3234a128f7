//! Over TLS, as in the field: certificates are checked, and the fence holds behind encryption too.

mod support;

use std::sync::Arc;

use evermint_core::mint::FailureClass;
use evermint_minter::HttpMinter;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use support::{Deadline, EndsAtWrite, Issuer, Reply, json, minter, refresh};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

const TOKEN: &str = r#"{"access_token":"at-1","expires_in":60}"#;

/// A certificate authority, and a server of it for `name`.
fn authority(name: &str) -> (String, TlsAcceptor) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let ca = params.self_signed(&key).expect("a certificate").pem();
    let issuer = rcgen::Issuer::new(params, key);

    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("they fit");
    (ca, TlsAcceptor::from(Arc::new(config)))
}

fn trusting(ca: &str) -> HttpMinter {
    minter(|c| c.ca_certificates = vec![ca.to_owned()])
}

#[tokio::test]
async fn an_issuer_of_a_trusted_authority_is_used() {
    let (ca, tls) = authority("127.0.0.1");
    let issuer = Issuer::start_tls(Reply::Raw(json(200, TOKEN)), tls).await;
    let minted = refresh(&trusting(&ca), &issuer.url, Deadline::after(20_000)).await;
    assert_eq!(minted.unwrap().token.expose(), b"at-1");
}

#[tokio::test]
async fn an_issuer_that_cannot_prove_itself_is_sent_nothing() {
    let (ca, _) = authority("127.0.0.1");
    let (_, stranger) = authority("127.0.0.1");
    let (own_ca, misnamed) = authority("other.example");
    for (ca, tls) in [(&ca, stranger), (&own_ca, misnamed)] {
        let issuer = Issuer::start_tls(Reply::Raw(json(200, TOKEN)), tls).await;
        let sent = refresh(&trusting(ca), &issuer.url, Deadline::after(20_000)).await;
        let failure = sent.unwrap_err();
        assert_eq!(failure.class, FailureClass::Unsent);
        assert!(failure.cause.contains("certificate"), "{}", failure.cause);
        let seen = issuer
            .until("closed", |seen| seen.iter().all(|s| s.closed))
            .await;
        assert!(seen.iter().all(|s| s.head.is_empty()), "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_that_ended_after_connecting_writes_nothing() {
    let (ca, tls) = authority("127.0.0.1");
    let issuer = Issuer::start_tls(Reply::Raw(json(200, TOKEN)), tls).await;
    let fence = Arc::new(EndsAtWrite::default());
    let sent = refresh(&trusting(&ca), &issuer.url, Arc::clone(&fence) as _).await;
    assert!(fence.has_passed(), "nobody asked before the writing");
    assert_eq!(sent.unwrap_err().class, FailureClass::Unsent);
    let seen = issuer
        .until("closed", |seen| seen.iter().any(|s| s.closed))
        .await;
    assert!(seen.iter().all(|s| s.head.is_empty()), "{seen:?}");
}
