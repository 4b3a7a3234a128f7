//! What a replica holds before it has the cluster's state: a key of its own, and the certificate
//! that it got for it. On the disk, so that a replica that dies while it joins is the same one
//! afterwards; the key is sealed by the key-encryption key.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use evermint_core::id::InstallationId;
use evermint_core::secret::{DataKeyId, Sealed, Secret, WrappedKey};
use evermint_seal::{Context, Keyring};
use rcgen::KeyPair;
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde::{Deserialize, Serialize};

use crate::durable::{Damage, write_file};
use crate::error::Error;

/// The file, in the data directory.
const FILE: &str = "newcomer";

/// The data key of the file, which has one of its own.
const DATA_KEY: DataKeyId = DataKeyId(0);

/// A replica that has no state yet.
pub(crate) struct Newcomer {
    path: PathBuf,
    keyring: Arc<Keyring>,
    installation: InstallationId,
    pub(super) key: KeyPair,
    pub(super) admitted: Option<Admitted>,
}

/// What the cluster said to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Admitted {
    /// Its certificate, DER.
    pub(super) certificate: Vec<u8>,
    /// The authority's, DER.
    pub(super) authority: Vec<u8>,
    /// The certificate's end, Unix seconds.
    pub(super) ends: u64,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    wrapped: WrappedKey,
    key: Sealed,
    admitted: Option<Admitted>,
}

impl Newcomer {
    /// Reads the file, or draws a key; it is written before it is shown to anyone, by
    /// [`write`](Self::write).
    pub(crate) fn open(
        data_dir: &Path,
        keyring: &Arc<Keyring>,
        installation: InstallationId,
    ) -> Result<Self, Error> {
        let path = data_dir.join(FILE);
        let (key, admitted) = match std::fs::read(&path) {
            Ok(bytes) => {
                let damaged = || Damage::new(FILE, "cannot be read");
                let stored: Stored = postcard::from_bytes(&bytes).map_err(|_| damaged())?;
                let ring = keyring.without_data_keys();
                ring.load([(DATA_KEY, &stored.wrapped)]).map_err(sealing)?;
                let key = ring.open(&Context::Newcomer { installation }, &stored.key);
                let key = key.map_err(sealing)?;
                let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(key.expose()));
                (key.map_err(|_| damaged())?, stored.admitted)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let key = KeyPair::generate();
                (
                    key.map_err(|e| Error::Config(format!("no key could be drawn: {e}")))?,
                    None,
                )
            }
            Err(e) => return Err(Error::io(format!("read {}", path.display()))(e)),
        };
        Ok(Self {
            path,
            keyring: Arc::clone(keyring),
            installation,
            key,
            admitted,
        })
    }

    /// Writes the file, durably.
    pub(crate) fn write(&self) -> Result<(), Error> {
        let installation = self.installation;
        let ring = self.keyring.without_data_keys();
        let wrapped = ring.first_data_key().map_err(sealing)?;
        ring.load([(DATA_KEY, &wrapped)]).map_err(sealing)?;
        let key = Secret::new(self.key.serialize_der());
        let stored = Stored {
            key: ring
                .seal(&Context::Newcomer { installation }, &key)
                .map_err(sealing)?,
            wrapped,
            admitted: self.admitted.clone(),
        };
        let bytes = postcard::to_stdvec(&stored).expect("plain data, which postcard encodes");
        Ok(write_file(&self.path, &bytes)?)
    }

    /// Removes the file: the state on the disk holds all that is needed from now on.
    pub(crate) fn forget(&self) {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "cannot remove {}", self.path.display());
            }
            _ => {}
        }
    }
}

impl Admitted {
    pub(super) fn new(certificate: Vec<u8>, authority: Vec<u8>, lifetime: Duration) -> Self {
        let ends = SystemTime::now() + lifetime;
        let ends = ends.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            certificate,
            authority,
            ends: ends.as_secs(),
        }
    }
}

fn sealing(error: evermint_seal::Error) -> Error {
    Error::Config(error.to_string())
}
