//! Assertions: short-lived JWTs that are signed here, as grants
//! ([RFC 7523 §2.1](https://www.rfc-editor.org/rfc/rfc7523#section-2.1)) and as a client's proof of
//! who it is ([RFC 7523 §2.2](https://www.rfc-editor.org/rfc/rfc7523#section-2.2)).

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{KeyPair as _, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use evermint_core::mint::Failure;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::material::bad_material;

/// Assertions are dated back, for issuers whose clock is behind.
const BACKDATE: Duration = Duration::from_secs(10);

/// The names of the algorithms that material may ask for.
pub(crate) const ALGORITHMS: &[&str] = &[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA",
];

/// Signs assertions.
pub(crate) struct Signer {
    key: EncodingKey,
    header: Header,
}

impl Signer {
    /// A signer with the key in `pem`, under the algorithm that goes with the key.
    ///
    /// # Errors
    /// What is wrong with the key, to follow its name.
    pub(crate) fn new(pem: &str) -> Result<Self, String> {
        let pem = unescaped(pem);
        if !pem.contains("-----BEGIN") {
            return Err("is not in PEM: it has no line -----BEGIN PRIVATE KEY-----".to_owned());
        }
        type Read = fn(&[u8]) -> jsonwebtoken::errors::Result<EncodingKey>;
        let kinds: [(Algorithm, Read); 4] = [
            (Algorithm::RS256, EncodingKey::from_rsa_pem),
            (Algorithm::ES256, EncodingKey::from_ec_pem),
            (Algorithm::ES384, EncodingKey::from_ec_pem),
            (Algorithm::EdDSA, EncodingKey::from_ed_pem),
        ];
        for (algorithm, read) in kinds {
            // Some damage shows only when a key signs.
            let Ok(key) = read(pem.trim().as_bytes()) else {
                continue;
            };
            let header = Header::new(algorithm);
            if jsonwebtoken::encode(&header, &(), &key).is_ok() {
                return Ok(Self { key, header });
            }
        }
        Err("is no private key in PEM that can sign: RSA of at least 2048 bits, EC (P-256, P-384, in PKCS #8) or Ed25519".to_owned())
    }

    /// The same, for an RSA key only.
    ///
    /// # Errors
    /// What is wrong with the key, to follow its name.
    pub(crate) fn rsa(pem: &str) -> Result<Self, String> {
        let signer = Self::new(pem)?;
        if signer.header.alg != Algorithm::RS256 {
            return Err("is no RSA private key".to_owned());
        }
        Ok(signer)
    }

    /// The same under this algorithm, one of [`ALGORITHMS`].
    ///
    /// # Errors
    /// That the key cannot sign so.
    pub(crate) fn algorithm(mut self, name: &str) -> Result<Self, String> {
        let unfit = || format!("{name} does not go with this key");
        self.header.alg = name.parse().map_err(|_| unfit())?;
        jsonwebtoken::encode(&self.header, &(), &self.key).map_err(|_| unfit())?;
        Ok(self)
    }

    /// The same under this key id.
    pub(crate) fn key_id(mut self, id: Option<&str>) -> Self {
        self.header.kid = id.map(str::to_owned);
        self
    }

    /// The same, proved by a certificate: PS256, and the certificate's SHA-256 digest in the header
    /// ([RFC 7515 §4.1.8](https://www.rfc-editor.org/rfc/rfc7515#section-4.1.8)), as
    /// [Microsoft Entra](https://learn.microsoft.com/entra/identity-platform/certificate-credentials)
    /// wants it.
    ///
    /// # Errors
    /// What is wrong with the certificate, to follow its name.
    pub(crate) fn certificate(mut self, certificate: &str, key: &str) -> Result<Self, String> {
        let certificate = certificate_of(certificate)?;
        let public = public_key(key).ok_or("needs an RSA private key")?;
        // A certificate holds its public key in the same encoding.
        let holds = |part: &[u8]| certificate.windows(part.len()).any(|w| w == part);
        if !holds(&public) {
            return Err("is not the certificate of the private key".to_owned());
        }
        let thumbprint = digest(&SHA256, &certificate);
        self.header.alg = Algorithm::PS256;
        self.header.x5t_s256 = Some(URL_SAFE_NO_PAD.encode(thumbprint));
        Ok(self)
    }

    /// Signs these claims; `field` is the material that the key is from.
    ///
    /// # Errors
    /// That it does not sign.
    pub(crate) fn sign(
        &self,
        claims: &Claims<'_>,
        field: &str,
    ) -> Result<Zeroizing<String>, Failure> {
        jsonwebtoken::encode(&self.header, claims, &self.key)
            .map(Zeroizing::new)
            .map_err(|_| bad_material(field, "does not sign"))
    }
}

/// What went through a shell or an environment file often has its line breaks spelled out.
fn unescaped(pem: &str) -> Zeroizing<String> {
    Zeroizing::new(pem.replace("\\n", "\n"))
}

/// The first certificate in `pem`, in DER.
///
/// # Errors
/// That there is none, to follow its name.
pub(crate) fn certificate_of(pem: &str) -> Result<CertificateDer<'static>, String> {
    CertificateDer::from_pem_slice(unescaped(pem).as_bytes())
        .map_err(|_| "holds no certificate in PEM that can be read".to_owned())
}

/// The public half of an RSA key, as certificates hold it.
fn public_key(pem: &str) -> Option<Vec<u8>> {
    let key = PrivateKeyDer::from_pem_slice(unescaped(pem).as_bytes()).ok()?;
    let pair = match &key {
        PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).ok()?,
        PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()).ok()?,
        _ => return None,
    };
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().ok()?;
    Some(public.as_ref().to_vec())
}

/// What an assertion says.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Claims<'a> {
    pub(crate) iss: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sub: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) aud: &'a str,
    pub(crate) iat: u64,
    pub(crate) exp: u64,
    pub(crate) jti: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target_audience: Option<&'a str>,
    #[serde(flatten)]
    pub(crate) more: Map<String, Value>,
}

impl Claims<'_> {
    /// Claims that are good for `life` from `now` on, dated back a little, and never used before.
    pub(crate) fn dated(now: SystemTime, life: Duration) -> Self {
        let since_epoch = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let iat = since_epoch.saturating_sub(BACKDATE).as_secs();
        Self {
            iat,
            exp: iat + life.as_secs(),
            jti: Uuid::new_v4().to_string(),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(algorithm: &'static rcgen::SignatureAlgorithm) -> String {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        key.serialize_pem()
    }

    #[test]
    fn a_key_signs_under_the_algorithms_that_go_with_it() {
        for (kind, default, other, unfit) in [
            (&rcgen::PKCS_RSA_SHA256, Algorithm::RS256, "PS512", "ES256"),
            (
                &rcgen::PKCS_ECDSA_P256_SHA256,
                Algorithm::ES256,
                "ES256",
                "RS256",
            ),
            (
                &rcgen::PKCS_ECDSA_P384_SHA384,
                Algorithm::ES384,
                "ES384",
                "ES256",
            ),
            (&rcgen::PKCS_ED25519, Algorithm::EdDSA, "EdDSA", "PS256"),
        ] {
            let pem = pem(kind);
            let signer = Signer::new(&pem.replace('\n', "\\n")).unwrap();
            assert_eq!(signer.header.alg, default);
            assert!(signer.algorithm(other).is_ok());
            let problem = Signer::new(&pem).unwrap().algorithm(unfit).err().unwrap();
            assert!(problem.contains(unfit), "{problem}");
            assert_eq!(Signer::rsa(&pem).is_ok(), default == Algorithm::RS256);
        }
        for name in ALGORITHMS {
            assert!(name.parse::<Algorithm>().is_ok(), "{name}");
        }
    }

    #[test]
    fn a_key_that_cannot_sign_is_refused_without_showing_it() {
        for (pem, why) in [
            ("hunter2", "not in PEM"),
            (
                "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----",
                "no private key",
            ),
            (
                "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----",
                "no private key",
            ),
            ("-----BEGIN PRIVATE KEY-----", "no private key"),
        ] {
            let problem = Signer::new(pem).err().unwrap();
            assert!(
                problem.contains(why) && !problem.contains("hunter2"),
                "{problem}"
            );
        }
    }

    #[test]
    fn a_certificate_goes_with_its_own_key_alone() {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["app".to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let (mine, other) = (key.serialize_pem(), pem(&rcgen::PKCS_RSA_SHA256));
        let with =
            |key: &str, certificate: &str| Signer::new(key).unwrap().certificate(certificate, key);
        let signer = with(&mine, &certificate.pem()).unwrap();
        assert_eq!(signer.header.alg, Algorithm::PS256);
        let expected = URL_SAFE_NO_PAD.encode(digest(&SHA256, certificate.der()));
        assert_eq!(signer.header.x5t_s256, Some(expected));
        let ec = pem(&rcgen::PKCS_ECDSA_P256_SHA256);
        for (key, certificate, why) in [
            (other.as_str(), certificate.pem(), "not the certificate"),
            (&mine, mine.clone(), "no certificate"),
            (&ec, certificate.pem(), "RSA"),
        ] {
            let problem = with(key, &certificate).err().unwrap();
            assert!(problem.contains(why), "{problem}");
        }
    }
}
