//! TLS 1.3 and nothing older, by aws-lc-rs.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use tokio::sync::watch;

use crate::{ClientConfigs, Error};

/// The protocol of gRPC.
const H2: &[u8] = b"h2";

/// Whether callers show certificates.
#[derive(Clone, Debug)]
pub enum ClientAuth {
    /// They are not asked.
    None,
    /// They may; one that is shown must be signed by one of these authorities.
    Optional(Arc<RootCertStore>),
    /// They must, signed by one of these authorities.
    Required(Arc<RootCertStore>),
}

/// The one crypto provider of the tree.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// What a server needs to take connections. Sessions are not resumed: each connection shows its
/// certificates anew.
///
/// # Errors
/// [`Error::Tls`], [`Error::Authorities`].
pub fn server_config(
    identity: Arc<CertifiedKey>,
    clients: ClientAuth,
) -> Result<ServerConfig, Error> {
    let verifier = |roots| WebPkiClientVerifier::builder_with_provider(roots, provider());
    let verifier = match clients {
        ClientAuth::None => WebPkiClientVerifier::no_client_auth(),
        ClientAuth::Optional(roots) => verifier(roots)
            .allow_unauthenticated()
            .build()
            .map_err(|e| Error::Authorities(e.to_string()))?,
        ClientAuth::Required(roots) => verifier(roots)
            .build()
            .map_err(|e| Error::Authorities(e.to_string()))?,
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    config.alpn_protocols = vec![H2.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// What a client needs to connect: who may vouch for servers, and the certificate that it shows, if
/// it has one.
///
/// # Errors
/// [`Error::Tls`].
pub fn client_config(
    servers: Arc<dyn ServerCertVerifier>,
    identity: Option<Arc<CertifiedKey>>,
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(servers);
    let mut config = match identity {
        Some(identity) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![H2.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// For a client that trusts the authorities of this PEM text alone, or without one those that the
/// system trusts, and shows a certificate if it has one.
///
/// # Errors
/// [`Error::Authorities`] if there is none.
pub fn trusting(
    pem: Option<&[u8]>,
    identity: Option<Arc<CertifiedKey>>,
) -> Result<ClientConfigs, Error> {
    let mut roots = RootCertStore::empty();
    match pem {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|e| unusable(&e))?;
                roots.add(certificate).map_err(|e| unusable(&e))?;
            }
        }
        None => roots = of_the_system(),
    }
    if roots.is_empty() {
        return Err(Error::Authorities(match pem {
            Some(_) => "holds no certificate in PEM".to_owned(),
            None => "this system has none".to_owned(),
        }));
    }
    // A channel whose sender is gone keeps its value.
    Ok(watch::channel(Arc::new(trusts(roots, identity)?)).1)
}

/// For a client that shows no certificate, of servers whose own come from where this chain does: it
/// trusts the authorities in the chain, and those that the system trusts.
///
/// # Errors
/// [`Error::Authorities`] if there is none.
pub fn trusting_alike(chain: &[CertificateDer<'static>]) -> Result<ClientConfig, Error> {
    let mut roots = of_the_system();
    for certificate in chain {
        roots.add(certificate.clone()).map_err(|e| unusable(&e))?;
    }
    trusts(roots, None)
}

/// The authorities that the system trusts.
fn of_the_system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn trusts(
    servers: RootCertStore,
    identity: Option<Arc<CertifiedKey>>,
) -> Result<ClientConfig, Error> {
    let servers = WebPkiServerVerifier::builder_with_provider(servers.into(), provider());
    client_config(servers.build().map_err(|e| unusable(&e))?, identity)
}

fn unusable(error: &dyn std::fmt::Display) -> Error {
    Error::Authorities(error.to_string())
}
