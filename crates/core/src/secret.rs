//! Secrets, in the clear and sealed.
//!
//! [`Secret`] holds clear text and cannot be printed, compared in variable time by accident, or
//! serialized: it has no `Display`, no `Serialize`, and a `Debug` that shows nothing. [`Sealed`]
//! is what travels and rests; opening it takes a key that this crate does not know.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Clear text that must not be seen: a token, a refresh token, a client secret, a private key.
///
/// The memory is overwritten when the value is dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes ownership of `bytes`; the caller's copy is gone.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// The clear bytes. Every call site is a place to look at in a review.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The clear text, if it is UTF-8.
    pub fn expose_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The id of a data key. Ids are given out by the bootstrap and by key rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DataKeyId(pub u32);

/// A secret under an AEAD, with the identity of its object as associated data.
///
/// `Debug` shows the key and the length, never the bytes: cipher text does not belong in logs
/// either.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The data key that opens it.
    pub key: DataKeyId,
    /// The nonce; drawn at random for every sealing.
    pub nonce: [u8; 12],
    /// Cipher text followed by the authentication tag.
    pub ciphertext: Vec<u8>,
}

/// Names one act of sealing: a value that is sealed anew, or replaced, has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealId {
    /// The data key.
    pub key: DataKeyId,
    /// The nonce.
    pub nonce: [u8; 12],
}

impl Sealed {
    /// Which act of sealing made it.
    pub fn id(&self) -> SealId {
        SealId {
            key: self.key,
            nonce: self.nonce,
        }
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Sealed(key {}, {} bytes)",
            self.key.0,
            self.ciphertext.len()
        )
    }
}

/// A data key, wrapped by the key-encryption key that comes from outside the cluster.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedKey {
    /// A name for the key-encryption key (a short digest), so that the wrong one is recognised.
    pub kek: String,
    /// The nonce of the wrapping.
    pub nonce: [u8; 12],
    /// The wrapped key followed by the authentication tag.
    pub ciphertext: Vec<u8>,
}

impl fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrappedKey(kek {})", self.kek)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown_by_debug() {
        let secret = Secret::from("hunter2");
        assert!(!format!("{secret:?} {:?}", Some(&secret)).contains("hunter2"));
    }

    #[test]
    fn sealed_bytes_are_not_shown_by_debug() {
        let sealed = Sealed {
            key: DataKeyId(1),
            nonce: [9; 12],
            ciphertext: b"abcdef".to_vec(),
        };
        assert_eq!(format!("{sealed:?}"), "Sealed(key 1, 6 bytes)");
    }
}
