//! The keys that sign sandbox tokens.

use serde::{Deserialize, Serialize};

use crate::id::{Position, SigningKeyId};
use crate::secret::Sealed;
use crate::state::State;
use crate::time::UnixMs;

/// Keys that are kept: the one that signs, and its predecessor, whose tokens are still good.
pub const SIGNING_KEYS_MAX: usize = 2;

/// An Ed25519 key pair ([RFC 8032](https://www.rfc-editor.org/rfc/rfc8032)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKey {
    /// Its name in tokens.
    pub id: SigningKeyId,
    /// The public key, 32 bytes.
    pub public: Vec<u8>,
    /// The private key, PKCS #8.
    pub private: Sealed,
    /// The entry that brought it; the newest one signs.
    pub added: Position,
    /// When that was.
    pub since: UnixMs,
}

/// The key that signs, if there is one.
pub fn newest(state: &State) -> Option<&SigningKey> {
    let keys = state.signing_keys.values();
    keys.max_by_key(|key| key.added).map(AsRef::as_ref)
}
