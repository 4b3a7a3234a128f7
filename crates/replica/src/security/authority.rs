//! The cluster's own authority: made once, and then certificates for replicas by it.

use std::time::{Duration, SystemTime};

use evermint_core::admission::sha256;
use evermint_core::id::ReplicaId;
use evermint_core::secret::Secret;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};

use super::names;
use crate::identity::ClusterId;

/// How long an authority is good for.
const AUTHORITY: Duration = Duration::from_secs(20 * 365 * 24 * 3_600);

/// Certificates begin in the past, for replicas whose clocks are behind.
const BEFORE: Duration = Duration::from_secs(3_600);

/// A new authority: its certificate, and its private key.
pub(super) fn draw() -> Result<(Vec<u8>, Secret), rcgen::Error> {
    let key = KeyPair::generate()?;
    let certificate = params(SystemTime::now(), AUTHORITY, "evermint authority");
    let mut certificate = certificate;
    certificate.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    certificate.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = certificate.self_signed(&key)?;
    Ok((certificate.der().to_vec(), Secret::new(key.serialize_der())))
}

/// A certificate, and what goes with it.
pub(super) struct Issued {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) ends: SystemTime,
}

/// The authority, ready to sign.
pub(super) struct Signer(Issuer<'static, KeyPair>);

impl Signer {
    pub(super) fn new(certificate: &[u8], key: &Secret) -> Result<Self, rcgen::Error> {
        let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(key.expose()))?;
        let certificate = CertificateDer::from(certificate);
        Issuer::from_ca_cert_der(&certificate, key).map(Self)
    }

    /// A certificate for a replica, valid as a server and as a client.
    pub(super) fn issue(
        &self,
        cluster: ClusterId,
        replica: ReplicaId,
        key: &impl PublicKeyData,
        lifetime: Duration,
    ) -> Result<Issued, rcgen::Error> {
        let name = names::text(cluster, replica);
        let now = SystemTime::now();
        let mut certificate = params(now, lifetime, &format!("evermint replica {replica}"));
        certificate.subject_alt_names = CertificateParams::new([name])?.subject_alt_names;
        certificate.use_authority_key_identifier_extension = true;
        certificate.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        certificate.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = certificate.signed_by(key, &self.0)?;
        Ok(Issued {
            certificate: certificate.der().clone(),
            ends: now + lifetime,
        })
    }
}

/// What a newcomer asks to be certified: its public key, proven to be its own by a signature. What
/// else its request says does not count.
pub(super) struct Request(CertificateSigningRequestParams);

impl Request {
    pub(super) fn read(der: &[u8]) -> Result<Self, rcgen::Error> {
        let der = CertificateSigningRequestDer::from(der);
        CertificateSigningRequestParams::from_der(&der).map(Self)
    }

    pub(super) fn key(&self) -> &impl PublicKeyData {
        &self.0.public_key
    }

    /// SHA-256 of the key.
    pub(super) fn digest(&self) -> [u8; 32] {
        sha256(&self.0.public_key.subject_public_key_info())
    }
}

/// A request of the owner of `key`.
pub(super) fn request(key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let request = CertificateParams::default().serialize_request(key)?;
    Ok(request.der().to_vec())
}

/// A certificate that nobody vouches for: for a replica that has none yet.
pub(super) fn nobodys(key: &KeyPair) -> Result<CertificateDer<'static>, rcgen::Error> {
    let certificate = params(SystemTime::now(), AUTHORITY, "evermint newcomer");
    Ok(certificate.self_signed(key)?.der().clone())
}

fn params(now: SystemTime, lifetime: Duration, name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = (now - BEFORE).into();
    params.not_after = (now + lifetime).into();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

#[cfg(test)]
mod tests {
    use evermint_fuzz::Corpus;
    use rustls::pki_types::ServerName;

    use super::*;

    /// Whatever a newcomer sends as its request, with a token that it found.
    #[test]
    fn fuzz_a_newcomer_is_certified_for_a_key_that_signed_its_request_or_refused() {
        let (certificate, key) = draw().unwrap();
        let signer = Signer::new(&certificate, &key).unwrap();
        let kinds = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519];
        let keys = kinds.map(|kind| KeyPair::generate_for(kind).unwrap());
        let own = keys
            .each_ref()
            .map(|key| sha256(&key.subject_public_key_info()));
        let (cluster, replica) = (ClusterId(7), ReplicaId(3));
        let name = |replica| ServerName::try_from(names::text(cluster, replica)).unwrap();
        let certified = |request: &Request| {
            let issued = signer
                .issue(cluster, replica, request.key(), BEFORE)
                .unwrap();
            assert!(names::is_good_for(&issued.certificate, &name(replica)));
            assert!(!names::is_good_for(
                &issued.certificate,
                &name(ReplicaId(4))
            ));
        };
        let requests = keys.each_ref().map(|key| request(key).unwrap());
        for request in &requests {
            certified(&Request::read(request).unwrap());
        }
        Corpus::new(requests).fuzz(|bytes| {
            if let Ok(request) = Request::read(bytes) {
                assert!(own.contains(&request.digest()));
                certified(&request);
            }
        });
    }
}
