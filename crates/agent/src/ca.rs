//! The local authority: made at the first start, trusted by what runs beside the agent, and by nobody
//! else. It lets the agent speak TLS for itself and for the endpoints whose placeholders it resolves.
//!
//! | file in the state directory | what it is |
//! | --- | --- |
//! | `ca.pem` | the authority's certificate and private key, mode 0600; written whole or not at all |
//! | `ca-cert.pem` | the certificate alone, for `NODE_EXTRA_CA_CERTS` |
//! | `ca-bundle.pem` | what the system trusts and the certificate, for `SSL_CERT_FILE` |

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::error::Error;

/// The names that the agent itself answers to; the first is how callers know it.
pub(crate) const OWN: [&str; 4] = ["inference.local", "localhost", "127.0.0.1", "::1"];

/// How long the authority is good for; a state directory does not live longer.
const AUTHORITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long a certificate for one host is good for. Some clients refuse more than 398 days.
const LEAF: Duration = Duration::from_secs(90 * 24 * 3600);
/// Certificates begin in the past, for callers whose clocks are behind.
const BEFORE: Duration = Duration::from_secs(48 * 3600);
/// A certificate is made anew when it is so old.
const LEAF_AGE: Duration = Duration::from_secs(24 * 3600);
/// Most hosts for which certificates are kept.
const HOSTS_MAX: usize = 1024;

/// The authority, and the certificates that it has issued.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    leaves: Mutex<HashMap<String, (SystemTime, Arc<CertifiedKey>)>>,
    dir: PathBuf,
}

impl Ca {
    /// The authority of a state directory, made if there is none.
    ///
    /// # Errors
    /// [`Error::State`] if the directory cannot be used, or holds something else.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let state = |what: &Path, e: &dyn std::fmt::Display| Error::State {
            path: what.to_owned(),
            problem: e.to_string(),
        };
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(dir).map_err(|e| state(dir, &e))?;
        // Programs elsewhere are told of its files.
        let dir = &fs::canonicalize(dir).map_err(|e| state(dir, &e))?;
        let both = dir.join("ca.pem");
        // Two agents that start at once use the authority of whoever is first.
        if !both.exists() {
            let pem = generate().map_err(|e| state(&both, &e))?;
            publish(&both, pem.as_bytes(), Publish::UnlessThere).map_err(|e| state(&both, &e))?;
        }
        let pem = fs::read(&both).map_err(|e| state(&both, &e))?;
        let certificate = CertificateDer::from_pem_slice(&pem).map_err(|e| state(&both, &e))?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|e| state(&both, &e))?;
        let key = KeyPair::try_from(&key).map_err(|e| state(&both, &e))?;
        let ca = Self {
            issuer: Issuer::new(authority(SystemTime::now()), key),
            certificate,
            leaves: Mutex::default(),
            dir: dir.to_owned(),
        };
        let own = to_pem(&ca.certificate);
        let system = rustls_native_certs::load_native_certs().certs;
        let bundle: String = system.iter().map(to_pem).chain([own.clone()]).collect();
        for (path, content) in [(ca.certificate_file(), own), (ca.bundle_file(), bundle)] {
            publish(&path, content.as_bytes(), Publish::Anyway).map_err(|e| state(&path, &e))?;
        }
        Ok(ca)
    }

    /// The state directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file with the certificate alone.
    pub(crate) fn certificate_file(&self) -> PathBuf {
        self.dir.join("ca-cert.pem")
    }

    /// The file with all that is to be trusted.
    pub(crate) fn bundle_file(&self) -> PathBuf {
        self.dir.join("ca-bundle.pem")
    }

    /// A certificate for a host name or address; for one of the agent's own, for all of them.
    pub(crate) fn leaf(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        let now = SystemTime::now();
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, leaf)) = leaves.get(host)
            && now.duration_since(*made).is_ok_and(|age| age < LEAF_AGE)
        {
            return Some(Arc::clone(leaf));
        }
        let leaf = Arc::new(self.issue(host, now).ok()?);
        if leaves.len() >= HOSTS_MAX {
            leaves.clear();
        }
        leaves.insert(host.to_owned(), (now, Arc::clone(&leaf)));
        Some(leaf)
    }

    fn issue(&self, host: &str, now: SystemTime) -> Result<CertifiedKey, rcgen::Error> {
        let names: Vec<String> = if is_own(host) {
            OWN.map(str::to_owned).into()
        } else {
            vec![host.to_owned()]
        };
        let mut params = CertificateParams::new(names)?;
        validity(&mut params, now, LEAF);
        params
            .distinguished_name
            .push(DnType::CommonName, "evermint agent");
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let der = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der)
            .map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
        Ok(CertifiedKey::new(
            vec![certificate.der().clone(), self.certificate.clone()],
            key,
        ))
    }
}

/// Whether the agent itself is meant.
pub(crate) fn is_own(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    OWN.iter().any(|own| own.eq_ignore_ascii_case(host))
}

/// Shows certificates for one host, whatever the caller asks for: the connection was asked to lead
/// there.
pub(crate) struct Shown {
    /// The authority.
    pub(crate) ca: Arc<crate::shared::Shared>,
    /// The host.
    pub(crate) host: String,
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name();
        let other = asked.is_some_and(|name| {
            !(name.eq_ignore_ascii_case(&self.host) || is_own(name) && is_own(&self.host))
        });
        if other {
            None
        } else {
            self.ca.ca.leaf(&self.host)
        }
    }
}

fn authority(now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    validity(&mut params, now, AUTHORITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let name = &mut params.distinguished_name;
    name.push(DnType::OrganizationName, "Evermint");
    name.push(DnType::CommonName, "Evermint agent, this sandbox only");
    params
}

fn validity(params: &mut CertificateParams, now: SystemTime, length: Duration) {
    params.not_before = (now - BEFORE).into();
    params.not_after = (now + length).into();
}

/// A new authority: certificate and key.
fn generate() -> Result<String, rcgen::Error> {
    let key = KeyPair::generate()?;
    let certificate = authority(SystemTime::now()).self_signed(&key)?;
    Ok(certificate.pem() + &key.serialize_pem())
}

fn to_pem(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(String::from_utf8_lossy)
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

/// What to do about a file that is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Publish {
    UnlessThere,
    Anyway,
}

/// Writes a file of mode 0600 whole or not at all.
pub(crate) fn publish(path: &Path, content: &[u8], how: Publish) -> std::io::Result<()> {
    let mut temporary = path.to_owned().into_os_string();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    if how == Publish::Anyway {
        return fs::rename(&temporary, path);
    }
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary)?;
    match linked {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// A host without its brackets, in lower case, as certificates and bindings have it.
pub(crate) fn host_of(authority: &http::uri::Authority) -> String {
    let host = authority.host();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => bare.trim_end_matches('.').to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_authority_is_made_once_and_nobody_else_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("state");
        let first = Ca::open(&dir).unwrap();
        let second = Ca::open(&dir).unwrap();
        assert_eq!(first.certificate, second.certificate);
        for file in ["ca.pem", "ca-cert.pem", "ca-bundle.pem"] {
            let mode = fs::metadata(dir.join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        assert_eq!(
            fs::metadata(&dir).unwrap().permissions().mode() & 0o777,
            0o700
        );
        let bundle = fs::read_to_string(first.bundle_file()).unwrap();
        let own = fs::read_to_string(first.certificate_file()).unwrap();
        assert!(bundle.ends_with(&own) && !own.contains("PRIVATE"));
        assert_eq!(
            fs::read_dir(&dir).unwrap().count(),
            3,
            "nothing is left behind"
        );
    }

    #[test]
    fn an_authority_that_is_damaged_is_said_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.pem"), "nonsense").unwrap();
        let Err(Error::State { path, .. }) = Ca::open(dir.path()) else {
            panic!("it was opened")
        };
        assert!(path.ends_with("ca.pem"));
    }

    #[test]
    fn a_certificate_is_kept_and_is_for_its_host_alone() {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::open(dir.path()).unwrap();
        let one = ca.leaf("api.example").unwrap();
        assert!(Arc::ptr_eq(&one, &ca.leaf("api.example").unwrap()));
        assert!(!Arc::ptr_eq(&one, &ca.leaf("other.example").unwrap()));
        assert!(one.cert[0].windows(11).any(|w| w == b"api.example"));
        assert!(ca.leaf("127.0.0.1").is_some());
    }

    #[test]
    fn a_host_is_written_in_one_way() {
        for (authority, host) in [
            ("API.Example:443", "api.example"),
            ("api.example.:443", "api.example"),
            ("[::1]:80", "::1"),
            ("[0:0::1]:80", "::1"),
            ("127.0.0.1:1", "127.0.0.1"),
        ] {
            assert_eq!(host_of(&authority.parse().unwrap()), host);
        }
    }
}
