//! The data keys of a cluster, unwrapped.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use evermint_core::keys;
use evermint_core::secret::{DataKeyId, Sealed, Secret, WrappedKey};
use evermint_core::state::State;
use zeroize::Zeroizing;

use crate::aead::{Cipher, KEY_LEN, random};
use crate::{Context, Error, Kek};

/// The associated data of a wrapped key: no sealed value has it.
const WRAP: &[u8] = b"evermint/wrap/1";

/// A new random data key, wrapped.
///
/// # Errors
/// [`Error::NoRandomness`].
pub fn generate_data_key(kek: &Kek) -> Result<WrappedKey, Error> {
    wrap(kek, &*Zeroizing::new(random::<KEY_LEN>()?))
}

fn wrap(kek: &Kek, key: &[u8]) -> Result<WrappedKey, Error> {
    let (nonce, ciphertext) = kek.wrapping().seal(WRAP, key)?;
    Ok(WrappedKey {
        kek: kek.name(),
        nonce,
        ciphertext,
    })
}

/// Seals and opens. Shared between threads; one for each process.
pub struct Keyring {
    kek: Kek,
    /// The key-encryption key before that, while it is being replaced.
    former: Option<Kek>,
    keys: RwLock<BTreeMap<DataKeyId, Arc<Cipher>>>,
}

impl Keyring {
    /// A keyring without data keys: it can do nothing before [`load`](Self::load).
    pub fn new(kek: Kek) -> Self {
        Self {
            kek,
            former: None,
            keys: RwLock::default(),
        }
    }

    /// Opens what `former` wrapped too: while the cluster goes from that one to the other.
    #[must_use]
    pub fn with_former(self, former: Kek) -> Self {
        Self {
            former: Some(former),
            ..self
        }
    }

    /// A keyring with the same key-encryption keys and no data key, for what has one of its own.
    #[must_use]
    pub fn without_data_keys(&self) -> Self {
        Self {
            kek: self.kek.clone(),
            former: self.former.clone(),
            keys: RwLock::default(),
        }
    }

    /// The name of the key-encryption key that is to wrap all data keys.
    pub fn kek_name(&self) -> String {
        self.kek.name()
    }

    /// The names of all key-encryption keys at hand, the one that is to wrap all data keys first.
    pub fn kek_names(&self) -> Vec<String> {
        self.keks().map(Kek::name).collect()
    }

    fn keks(&self) -> impl Iterator<Item = &Kek> {
        std::iter::once(&self.kek).chain(&self.former)
    }

    /// Unwraps the data keys of `state`, if there is one that is not known yet. Costs a look at the
    /// newest.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn follow(&self, state: &State) -> Result<(), Error> {
        if self.active() >= keys::newest(state).map(|(id, _)| id) {
            return Ok(());
        }
        self.load(state.data_keys.iter().map(|(id, key)| (*id, key.as_ref())))
    }

    /// Unwraps the data keys that are not known yet. To be called with all data keys of the state
    /// whenever they change; a key that is known costs a look-up.
    ///
    /// # Errors
    /// [`Error::WrongKek`] or [`Error::DamagedDataKey`] for the first key that does not open;
    /// those before it are loaded.
    pub fn load<'a>(
        &self,
        keys: impl IntoIterator<Item = (DataKeyId, &'a WrappedKey)>,
    ) -> Result<(), Error> {
        for (id, wrapped) in keys {
            if self.key(id).is_none() {
                let cipher = Arc::new(self.unwrap_key(id, wrapped)?);
                let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
                keys.entry(id).or_insert(cipher);
            }
        }
        Ok(())
    }

    /// The data key that seals: the newest. `None` before any is loaded.
    pub fn active(&self) -> Option<DataKeyId> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.last_key_value().map(|(id, _)| *id)
    }

    /// Seals `secret` for one place.
    ///
    /// # Errors
    /// [`Error::NoDataKey`] before any is loaded; [`Error::NoRandomness`].
    pub fn seal(&self, context: &Context<'_>, secret: &Secret) -> Result<Sealed, Error> {
        let id = self.active().ok_or(Error::NoDataKey)?;
        let cipher = self.key(id).ok_or(Error::NoDataKey)?;
        let (nonce, ciphertext) = cipher.seal(&context.associated_data(), secret.expose())?;
        Ok(Sealed {
            key: id,
            nonce,
            ciphertext,
        })
    }

    /// Opens what was sealed for this place.
    ///
    /// # Errors
    /// [`Error::UnknownDataKey`], or [`Error::Refused`] if it was altered or sealed for another
    /// place.
    pub fn open(&self, context: &Context<'_>, sealed: &Sealed) -> Result<Secret, Error> {
        let cipher = self
            .key(sealed.key)
            .ok_or(Error::UnknownDataKey(sealed.key))?;
        cipher
            .open(&context.associated_data(), sealed.nonce, &sealed.ciphertext)
            .map(|mut clear| Secret::new(std::mem::take(&mut *clear)))
            .map_err(|_| Error::Refused(context.to_string()))
    }

    fn key(&self, id: DataKeyId) -> Option<Arc<Cipher>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.get(&id).cloned()
    }

    /// A new data key for a new cluster.
    ///
    /// # Errors
    /// [`Error::NoRandomness`].
    pub fn first_data_key(&self) -> Result<WrappedKey, Error> {
        generate_data_key(&self.kek)
    }

    /// A new data key, wrapped by the key-encryption key of that name.
    pub(crate) fn generate_under(&self, newest: DataKeyId, kek: &str) -> Result<WrappedKey, Error> {
        generate_data_key(self.kek(newest, kek)?)
    }

    /// The same data key, wrapped by the key-encryption key that is to wrap all.
    pub(crate) fn rewrap(&self, id: DataKeyId, wrapped: &WrappedKey) -> Result<WrappedKey, Error> {
        wrap(&self.kek, &self.unwrap_bytes(id, wrapped)?)
    }

    /// The key-encryption key of that name, which `data_key` needs.
    fn kek(&self, data_key: DataKeyId, name: &str) -> Result<&Kek, Error> {
        let kek = self.keks().find(|kek| kek.name() == name);
        kek.ok_or_else(|| Error::WrongKek {
            data_key,
            expected: name.to_owned(),
            got: self.kek_names().join(" and "),
        })
    }

    fn unwrap_bytes(
        &self,
        id: DataKeyId,
        wrapped: &WrappedKey,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let kek = self.kek(id, &wrapped.kek)?;
        let opened = kek
            .wrapping()
            .open(WRAP, wrapped.nonce, &wrapped.ciphertext);
        opened.map_err(|_| Error::DamagedDataKey(id))
    }

    fn unwrap_key(&self, id: DataKeyId, wrapped: &WrappedKey) -> Result<Cipher, Error> {
        let clear = self.unwrap_bytes(id, wrapped)?;
        let key = clear.as_slice().try_into();
        Ok(Cipher::new(key.map_err(|_| Error::DamagedDataKey(id))?))
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({:?}, active {:?})", self.kek, self.active())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evermint_core::id::{CredentialId, CredentialKey, ProviderId, TicketId};

    fn credential(provider: u128) -> CredentialId {
        CredentialId {
            provider: ProviderId(provider),
            key: CredentialKey::new("TOKEN").unwrap(),
        }
    }

    fn keyring(kek: &Kek, ids: &[u32]) -> Keyring {
        let ring = Keyring::new(kek.clone());
        for id in ids {
            let wrapped = generate_data_key(kek).unwrap();
            ring.load([(DataKeyId(*id), &wrapped)]).unwrap();
        }
        ring
    }

    #[test]
    fn a_value_opens_only_in_its_own_place() {
        let ring = keyring(&Kek::generate().unwrap(), &[1]);
        let (mine, other) = (credential(1), credential(2));
        let (token, extra) = (
            CredentialKey::new("TOKEN").unwrap(),
            CredentialKey::new("EXTRA").unwrap(),
        );
        let place = Context::value(&mine, &token);
        let sealed = ring.seal(&place, &Secret::from("hunter2")).unwrap();
        assert_eq!(ring.open(&place, &sealed).unwrap().expose(), b"hunter2");
        for elsewhere in [
            Context::value(&other, &token),
            Context::value(&mine, &extra),
            Context::material(&mine, "TOKEN"),
            Context::journal(TicketId(1)),
        ] {
            let error = ring.open(&elsewhere, &sealed).unwrap_err();
            assert!(matches!(error, Error::Refused(_)), "{error}");
        }
    }

    #[test]
    fn any_flipped_bit_is_detected() {
        let ring = keyring(&Kek::generate().unwrap(), &[1]);
        let place = Context::journal(TicketId(7));
        let sealed = ring.seal(&place, &Secret::from("x")).unwrap();
        for byte in 0..sealed.ciphertext.len() {
            let mut bad = sealed.clone();
            bad.ciphertext[byte] ^= 1;
            assert!(ring.open(&place, &bad).is_err());
        }
        for byte in 0..12 {
            let mut bad = sealed.clone();
            bad.nonce[byte] ^= 0x80;
            assert!(ring.open(&place, &bad).is_err());
        }
        for len in [0, 1, 15] {
            let mut bad = sealed.clone();
            bad.ciphertext.truncate(len);
            assert!(ring.open(&place, &bad).is_err());
        }
    }

    #[test]
    fn sealing_twice_gives_different_bytes() {
        let ring = keyring(&Kek::generate().unwrap(), &[1]);
        let place = Context::journal(TicketId(7));
        let seal = || ring.seal(&place, &Secret::from("same")).unwrap();
        let (a, b) = (seal(), seal());
        assert_ne!(a.nonce, b.nonce);
        assert_ne!(a.ciphertext, b.ciphertext);
    }

    #[test]
    fn the_newest_key_seals_and_every_key_opens() {
        let kek = Kek::generate().unwrap();
        let ring = keyring(&kek, &[1]);
        let place = Context::journal(TicketId(7));
        let old = ring.seal(&place, &Secret::from("old")).unwrap();
        let next = generate_data_key(&kek).unwrap();
        ring.load([(DataKeyId(2), &next)]).unwrap();
        assert_eq!(ring.active(), Some(DataKeyId(2)));
        let new = ring.seal(&place, &Secret::from("new")).unwrap();
        assert_eq!(new.key, DataKeyId(2));
        assert_eq!(ring.open(&place, &old).unwrap().expose(), b"old");
        let relabelled = Sealed {
            key: DataKeyId(2),
            ..old
        };
        assert!(ring.open(&place, &relabelled).is_err());
    }

    #[test]
    fn the_wrong_kek_is_named() {
        let (right, wrong) = (Kek::generate().unwrap(), Kek::generate().unwrap());
        let wrapped = generate_data_key(&right).unwrap();
        let ring = Keyring::new(wrong.clone());
        let error = ring.load([(DataKeyId(1), &wrapped)]).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::WrongKek { .. }), "{text}");
        assert!(text.contains("data key 1"), "{text}");
        assert!(
            text.contains(&right.name()) && text.contains(&wrong.name()),
            "{text}"
        );
        assert_eq!(ring.active(), None);

        // Somebody who writes the right name does not make it the right key.
        let renamed = WrappedKey {
            kek: wrong.name(),
            ..wrapped
        };
        let error = ring.load([(DataKeyId(1), &renamed)]).unwrap_err();
        assert!(matches!(error, Error::DamagedDataKey(DataKeyId(1))));
    }

    #[test]
    fn loading_again_changes_nothing() {
        let kek = Kek::generate().unwrap();
        let wrapped = generate_data_key(&kek).unwrap();
        let ring = Keyring::new(kek);
        let place = Context::journal(TicketId(7));
        ring.load([(DataKeyId(1), &wrapped)]).unwrap();
        let sealed = ring.seal(&place, &Secret::from("x")).unwrap();
        ring.load([(DataKeyId(1), &wrapped)]).unwrap();
        assert!(ring.open(&place, &sealed).is_ok());
    }

    #[test]
    fn without_data_keys_nothing_is_sealed_or_opened() {
        let kek = Kek::generate().unwrap();
        let (empty, full) = (Keyring::new(kek.clone()), keyring(&kek, &[3]));
        let place = Context::journal(TicketId(7));
        let error = empty.seal(&place, &Secret::from("x")).unwrap_err();
        assert!(matches!(error, Error::NoDataKey));
        let sealed = full.seal(&place, &Secret::from("x")).unwrap();
        let error = empty.open(&place, &sealed).unwrap_err();
        assert!(matches!(error, Error::UnknownDataKey(DataKeyId(3))));
    }

    #[test]
    fn nothing_secret_is_shown() {
        let kek = Kek::generate().unwrap();
        let ring = keyring(&kek, &[1]);
        let sealed = ring
            .seal(&Context::journal(TicketId(7)), &Secret::from("hunter2"))
            .unwrap();
        let shown = format!("{ring:?} {sealed:?} {:?}", generate_data_key(&kek).unwrap());
        assert_eq!(
            shown,
            format!(
                "Keyring(Kek({0}), active Some(DataKeyId(1))) Sealed(key 1, 23 bytes) WrappedKey(kek {0})",
                kek.name()
            )
        );
    }

    #[test]
    fn threads_share_a_keyring() {
        let kek = Kek::generate().unwrap();
        let ring = keyring(&kek, &[1]);
        let more: Vec<_> = (2..10)
            .map(|id| (DataKeyId(id), generate_data_key(&kek).unwrap()))
            .collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for (id, wrapped) in &more {
                        ring.load([(*id, wrapped)]).unwrap();
                        let place = Context::journal(TicketId(u128::from(id.0)));
                        let sealed = ring.seal(&place, &Secret::from("x")).unwrap();
                        assert!(ring.open(&place, &sealed).is_ok());
                    }
                });
            }
        });
        assert_eq!(ring.active(), Some(DataKeyId(9)));
    }
}
