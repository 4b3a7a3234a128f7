//! Values that must not be printed, and the digests that stand for them in history and logs.

use std::fmt;

use aws_lc_rs::{constant_time, digest, rand};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

/// Random bytes in a token: 256 bits, twice what [RFC 6749 §10.10] asks for.
///
/// [RFC 6749 §10.10]: https://www.rfc-editor.org/rfc/rfc6749#section-10.10
const TOKEN_BYTES: usize = 32;

/// A token or client secret. `Debug` does not show it; [`Secret::expose`] is the only way out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The value itself, to be sent to a client or compared.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// A fresh opaque token with a readable prefix (`at-…`, `rt-…`).
    pub(crate) fn random(prefix: &str) -> Self {
        Self(format!("{prefix}-{}", random_text(TOKEN_BYTES)))
    }

    /// Compares in constant time.
    pub(crate) fn matches(&self, presented: &str) -> bool {
        constant_time::verify_slices_are_equal(self.0.as_bytes(), presented.as_bytes()).is_ok()
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self(value.to_owned())
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// SHA-256 of a token: what the ledger keeps in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    pub(crate) fn of(value: &str) -> Self {
        let digest = digest::digest(&digest::SHA256, value.as_bytes());
        Self(digest.as_ref().try_into().expect("SHA-256 is 32 bytes"))
    }

    /// The first 12 hex digits, as history shows them.
    pub(crate) fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

/// `bytes` random bytes in URL-safe base64.
pub(crate) fn random_text(bytes: usize) -> String {
    let mut buffer = vec![0; bytes];
    rand::fill(&mut buffer).expect("the system has randomness");
    URL_SAFE_NO_PAD.encode(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_itself_in_debug() {
        let secret = Secret::random("rt");
        assert!(!format!("{secret:?}").contains(secret.expose()));
    }

    #[test]
    fn a_digest_is_twelve_hex_digits_of_sha_256() {
        assert_eq!(Digest::of("abc").short(), "ba7816bf8f01");
    }
}
