//! Key rotation, as far as it opens and seals: what to propose to a state, and nothing of when.
//!
//! Everything here is prepared on a state of a moment ago. The commands say what they saw, so that
//! what has changed since stays as it is.

use evermint_core::keys::{self, Place, Resealed, Rewrapped};
use evermint_core::secret::{DataKeyId, SealId, Sealed, WrappedKey};
use evermint_core::state::State;

use crate::{Context, Error, Keyring};

/// The next data key of `state`, wrapped as the newest one is.
///
/// # Errors
/// [`Error::NoDataKey`] before the bootstrap; [`Error::WrongKek`] without the KEK in use.
pub fn next_data_key(keyring: &Keyring, state: &State) -> Result<(DataKeyId, WrappedKey), Error> {
    let (newest, under) = keys::newest(state).ok_or(Error::NoDataKey)?;
    let wrapped = keyring.generate_under(newest, &under.kek)?;
    Ok((DataKeyId(newest.0 + 1), wrapped))
}

/// The data keys of `state` that are wrapped by another key-encryption key than the one that this
/// replica wants, wrapped by that one.
///
/// # Errors
/// [`Error::WrongKek`] or [`Error::DamagedDataKey`] for the first that does not open.
pub fn rewrap(keyring: &Keyring, state: &State) -> Result<Vec<Rewrapped>, Error> {
    let others = state
        .data_keys
        .iter()
        .filter(|(_, wrapped)| wrapped.kek != keyring.kek_name());
    others
        .map(|(id, wrapped)| {
            Ok(Rewrapped {
                key: *id,
                from: wrapped.nonce,
                to: keyring.rewrap(*id, wrapped)?,
            })
        })
        .collect()
}

/// A secret that rests under an older data key.
pub struct Stale<'a> {
    place: Place,
    sealed: &'a Sealed,
}

/// The secrets of `state` that rest under an older data key than its newest.
pub fn stale(state: &State) -> impl Iterator<Item = Stale<'_>> {
    let newest = keys::newest(state).map(|(id, _)| id);
    keys::sealed(state)
        .filter(move |(_, sealed)| Some(sealed.key) < newest)
        .map(|(place, sealed)| Stale { place, sealed })
}

impl Stale<'_> {
    /// Where it stands.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Bytes of its cipher text.
    pub fn size(&self) -> usize {
        self.sealed.ciphertext.len()
    }

    /// The same secret under the newest data key that `keyring` knows.
    ///
    /// # Errors
    /// As [`Keyring::open`] and [`Keyring::seal`].
    pub fn reseal(self, keyring: &Keyring) -> Result<Resealed, Error> {
        let context = Context::from(&self.place);
        let clear = keyring.open(&context, self.sealed)?;
        let to = keyring.seal(&context, &clear)?;
        let from: SealId = self.sealed.id();
        Ok(Resealed {
            from,
            to,
            place: self.place,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use evermint_core::apply::apply;
    use evermint_core::command::{Command, Done, Proposal, StaticValue};
    use evermint_core::id::{
        CredentialId, CredentialKey, InstallationId, Name, ProviderId, ProviderType, RequestId,
        Workspace,
    };
    use evermint_core::provider::Notes;
    use evermint_core::secret::Secret;
    use evermint_core::settings::Settings;
    use evermint_core::time::UnixMs;

    use super::*;
    use crate::{Kek, generate_data_key};

    struct World {
        state: State,
        requests: u128,
    }

    impl World {
        fn new(kek: &Kek) -> Self {
            let mut world = Self {
                state: State::default(),
                requests: 0,
            };
            let bootstrap = Command::Bootstrap {
                settings: Settings::default(),
                data_key: DataKeyId(1),
                wrapped: generate_data_key(kek).unwrap(),
                installation: InstallationId(1),
                peer_address: String::new(),
                api_address: String::new(),
            };
            world.done(bootstrap);
            world
        }

        fn done(&mut self, command: Command) -> Done {
            self.requests += 1;
            let request = RequestId(self.requests);
            let proposal = Proposal {
                request,
                by: None,
                command,
            };
            let (answer, _) = apply(&mut self.state, &proposal, UnixMs(1));
            answer.outcome.unwrap()
        }

        fn rotate(&mut self, keyring: &Keyring) {
            let (id, wrapped) = next_data_key(keyring, &self.state).unwrap();
            self.done(Command::AddDataKey { id, wrapped });
            keyring.follow(&self.state).unwrap();
        }

        fn set(&mut self, keyring: &Keyring, value: &str) {
            let sealed = keyring.seal(&Context::value(&id(), &id().key), &Secret::from(value));
            let value = StaticValue {
                sealed: sealed.unwrap(),
                expires_at: None,
            };
            let credentials = BTreeMap::from([(id().key, Some(value))]);
            self.done(Command::UpdateProvider {
                id: ProviderId(1),
                expected_version: None,
                config: BTreeMap::new(),
                credentials,
                expires_at: BTreeMap::new(),
            });
        }

        fn value(&self, keyring: &Keyring) -> (DataKeyId, Secret) {
            let value = self.state.credentials[&id()].value.as_ref().unwrap();
            let sealed = &value.outputs[&id().key];
            let clear = keyring.open(&Context::value(&id(), &id().key), sealed);
            (sealed.key, clear.unwrap())
        }
    }

    fn id() -> CredentialId {
        CredentialId {
            provider: ProviderId(1),
            key: CredentialKey::new("TOKEN").unwrap(),
        }
    }

    fn create(world: &mut World) {
        world.done(Command::CreateProvider {
            id: ProviderId(1),
            workspace: Workspace::default_workspace(),
            name: Name::new("p").unwrap(),
            kind: ProviderType::new("generic").unwrap(),
            config: BTreeMap::new(),
            credentials: BTreeMap::new(),
            notes: Notes::default(),
        });
    }

    #[test]
    fn after_a_rotation_of_data_keys_every_secret_rests_under_the_new_one() {
        let kek = Kek::generate().unwrap();
        let keyring = Keyring::new(kek.clone());
        let mut world = World::new(&kek);
        keyring.follow(&world.state).unwrap();
        create(&mut world);
        world.set(&keyring, "hunter2");
        assert_eq!(stale(&world.state).count(), 0);

        world.rotate(&keyring);
        let items: Vec<_> = stale(&world.state)
            .map(|stale| stale.reseal(&keyring).unwrap())
            .collect();
        // What was prepared before the value changed does not bring the old one back.
        let late = items.clone();
        assert_eq!(world.done(Command::Reseal { items }), Done::Resealed(1));
        assert_eq!(stale(&world.state).count(), 0);
        let (under, clear) = world.value(&keyring);
        assert_eq!((under, clear.expose()), (DataKeyId(2), &b"hunter2"[..]));

        world.set(&keyring, "hunter3");
        assert_eq!(
            world.done(Command::Reseal { items: late }),
            Done::Resealed(0)
        );
        assert_eq!(world.value(&keyring).1.expose(), b"hunter3");
    }

    #[test]
    fn after_a_rotation_of_the_kek_the_new_one_opens_everything_alone() {
        let (old, new) = (Kek::generate().unwrap(), Kek::generate().unwrap());
        let before = Keyring::new(old.clone());
        let mut world = World::new(&old);
        before.follow(&world.state).unwrap();
        create(&mut world);
        world.set(&before, "hunter2");
        world.rotate(&before);

        let both = Keyring::new(new.clone()).with_former(old.clone());
        both.follow(&world.state).unwrap();
        let keys = rewrap(&both, &world.state).unwrap();
        assert_eq!(keys.len(), 2);
        let joined = world.state.meta.next_replica;
        world.done(Command::RewrapDataKeys { joined, keys });
        assert!(rewrap(&both, &world.state).unwrap().is_empty());

        let after = Keyring::new(new);
        after.follow(&world.state).unwrap();
        assert_eq!(world.value(&after).1.expose(), b"hunter2");
        let error = Keyring::new(old).follow(&world.state).unwrap_err();
        assert!(matches!(error, Error::WrongKek { .. }), "{error}");
    }
}
