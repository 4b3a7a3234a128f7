//! Certificates in PEM files, as cert-manager and others write them, and their changes.
//!
//! Files are compared by content: it does not matter whether they are written, replaced, or hidden
//! behind a link that is turned over. A certificate and a key that do not go together are a change
//! that is not finished yet: what was read before stays in use.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::{Error, provider};

/// How often files are looked at.
pub const RELOAD_EVERY: Duration = Duration::from_secs(2);

/// A certificate, its key, and authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate, then those up to its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities that vouch for the other side, if it is asked.
    pub ca: Option<PathBuf>,
}

/// What stood in the files at one time.
#[derive(Clone)]
pub struct Material {
    /// The certificate and its key; they go together.
    pub identity: Arc<CertifiedKey>,
    /// The authorities.
    pub roots: Option<Arc<RootCertStore>>,
    content: [u8; 32],
}

impl Files {
    /// Reads them all.
    ///
    /// # Errors
    /// [`Error`] names the file.
    pub fn read(&self) -> Result<Material, Error> {
        let (certificate, key) = (read(&self.certificate)?, read(&self.key)?);
        let ca = self.ca.as_deref().map(read).transpose()?;
        let mut content = Context::new(&SHA256);
        for part in [Some(&certificate), Some(&key), ca.as_ref()]
            .into_iter()
            .flatten()
        {
            content.update(&part.len().to_be_bytes());
            content.update(part);
        }
        let chain = certificates(&self.certificate, &certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| Error::File {
            path: self.key.clone(),
            problem: "holds no private key in PEM".to_owned(),
        })?;
        let roots = match (&self.ca, &ca) {
            (Some(path), Some(pem)) => Some(Arc::new(roots(path, pem)?)),
            _ => None,
        };
        Ok(Material {
            identity: Arc::new(CertifiedKey::from_der(chain, key, &provider())?),
            roots,
            content: content
                .finish()
                .as_ref()
                .try_into()
                .expect("SHA-256 has 32 bytes"),
        })
    }
}

/// Looks at `files` now and then, and hands what they hold to `take` when that differs from
/// `current`; until it is dropped.
pub async fn follow(files: Files, mut current: Material, mut take: impl FnMut(&Material)) {
    let mut problem = None;
    loop {
        tokio::time::sleep(RELOAD_EVERY).await;
        match files.read() {
            Ok(material) if material.content != current.content => {
                take(&material);
                current = material;
                problem = None;
                let certificate = files.certificate.display();
                tracing::info!(%certificate, "certificate files have changed; in use from now on");
            }
            Ok(_) => problem = None,
            Err(error) => {
                let error = error.to_string();
                if problem.as_ref() != Some(&error) {
                    tracing::warn!(
                        error,
                        "changed certificate files cannot be used; the old ones stay in use"
                    );
                }
                problem = Some(error);
            }
        }
    }
}

fn roots(path: &Path, pem: &[u8]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, pem)? {
        roots.add(certificate).map_err(|e| Error::File {
            path: path.to_owned(),
            problem: format!("holds what is no certificate authority: {e}"),
        })?;
    }
    Ok(roots)
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let none = || Error::File {
        path: path.to_owned(),
        problem: "holds no certificate in PEM".to_owned(),
    };
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|_| none())?;
    if all.is_empty() { Err(none()) } else { Ok(all) }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}
