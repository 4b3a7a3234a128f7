//! The one cipher: AES-256-GCM-SIV with random nonces. A nonce that repeats by chance reveals
//! only whether the two clear texts were equal, so there is no count of messages to keep.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::rand;
use zeroize::Zeroizing;

use crate::Error;

/// Bytes of a key.
pub(crate) const KEY_LEN: usize = 32;

/// A key that is ready to use. The library overwrites its memory when it is dropped.
pub(crate) struct Cipher(LessSafeKey);

/// The text does not authenticate.
pub(crate) struct Forged;

/// Fills a new array with random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| Error::NoRandomness)?;
    Ok(bytes)
}

impl Cipher {
    pub(crate) fn new(key: &[u8; KEY_LEN]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM_SIV, key).expect("the length is the algorithm's");
        Self(LessSafeKey::new(key))
    }

    /// Nonce, and cipher text followed by the tag.
    pub(crate) fn seal(&self, aad: &[u8], clear: &[u8]) -> Result<([u8; 12], Vec<u8>), Error> {
        let nonce = random::<12>()?;
        // Enough room from the beginning: a buffer that grows leaves clear text behind.
        let mut buffer = Vec::with_capacity(clear.len() + AES_256_GCM_SIV.tag_len());
        buffer.extend_from_slice(clear);
        self.0
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                &mut buffer,
            )
            .expect("values are far below the cipher's limit of 64 GiB");
        Ok((nonce, buffer))
    }

    pub(crate) fn open(
        &self,
        aad: &[u8],
        nonce: [u8; 12],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Forged> {
        let mut buffer = Zeroizing::new(sealed.to_vec());
        let clear = self
            .0
            .open_in_place(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                &mut buffer,
            )
            .map_err(|_| Forged)?
            .len();
        buffer.truncate(clear);
        Ok(buffer)
    }
}
