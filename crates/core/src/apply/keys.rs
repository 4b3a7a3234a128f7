//! Data keys: a new one, all of them under another key-encryption key, and secrets sealed anew.
//!
//! Whoever prepares these commands opens and seals outside of the log, on what it saw a moment ago.
//! So each of them says what it saw, and changes nothing that has moved on since: it does no harm
//! twice, late, or from two leaders.

use std::sync::Arc;

use super::Tx;
use crate::command::{Done, Outcome, Refusal};
use crate::keys::{self, DATA_KEYS_MAX, Place, RESEAL_MAX, Resealed, Rewrapped};
use crate::record::Key;
use crate::revocation::{Revocation, RevocationId, Stage, Work};
use crate::secret::{DataKeyId, Sealed, WrappedKey};

impl Tx<'_> {
    /// Taken if it is the next one, and wrapped as the newest one is: so every replica that could
    /// open what was sealed before can open what is sealed from now on.
    pub(super) fn add_data_key(&mut self, id: DataKeyId, wrapped: &WrappedKey) -> Outcome {
        let (newest, under) = keys::newest(self.state).ok_or(Refusal::KeysChanged)?;
        if newest.0.checked_add(1) != Some(id.0) || wrapped.kek != under.kek {
            return Err(Refusal::KeysChanged);
        }
        if self.state.data_keys.len() >= DATA_KEYS_MAX {
            return Err(Refusal::TooMany {
                what: "data keys".to_owned(),
                max: DATA_KEYS_MAX,
            });
        }
        self.put_data_key(id, wrapped.clone());
        self.audit_change("add-data-key", format_args!("data key {}", id.0));
        Ok(Done::Ok)
    }

    /// All or none. The log is cut behind it: it has the former wrappings.
    pub(super) fn rewrap_data_keys(&mut self, joined: u64, keys: &[Rewrapped]) -> Outcome {
        let stands = |rewrapped: &Rewrapped| {
            let is = self.state.data_keys.get(&rewrapped.key);
            is.is_some_and(|is| is.nonce == rewrapped.from)
        };
        if joined != self.state.meta.next_replica || !keys.iter().all(stands) {
            return Err(Refusal::KeysChanged);
        }
        for rewrapped in keys {
            self.put_data_key(rewrapped.key, rewrapped.to.clone());
        }
        let kek = keys.last().map_or("", |rewrapped| &rewrapped.to.kek);
        self.audit_change("rewrap-data-keys", format_args!("KEK {kek}"));
        self.note_destruction();
        self.state.meta.rewrapped = self.stamp.position;
        Ok(Done::Ok)
    }

    /// One by one: what has moved on since it was opened stays as it is.
    pub(super) fn reseal(&mut self, items: &[Resealed]) -> Outcome {
        if items.len() > RESEAL_MAX {
            return Err(Refusal::TooMany {
                what: "secrets".to_owned(),
                max: RESEAL_MAX,
            });
        }
        let done = items.iter().filter(|item| self.reseal_one(item)).count();
        Ok(Done::Resealed(u32::try_from(done).unwrap_or(u32::MAX)))
    }

    fn reseal_one(&mut self, item: &Resealed) -> bool {
        let is_newer = item.to.key > item.from.key;
        if !is_newer || !self.state.data_keys.contains_key(&item.to.key) {
            return false;
        }
        let replace = |sealed: Option<&mut Sealed>| {
            let sealed = sealed.filter(|sealed| sealed.id() == item.from);
            sealed.map(|sealed| *sealed = item.to.clone()).is_some()
        };
        match &item.place {
            Place::Value { credential, output } => {
                let Ok(mut credential) = self.credential(credential) else {
                    return false;
                };
                let value = credential.value.as_mut();
                let done = replace(value.and_then(|v| v.outputs.get_mut(output)));
                if done {
                    self.put_credential(credential);
                }
                done
            }
            Place::Material { credential, name } => {
                let Ok(mut credential) = self.credential(credential) else {
                    return false;
                };
                let refresh = credential.refresh.as_mut();
                let done = replace(refresh.and_then(|r| r.material.get_mut(name)));
                if done {
                    self.put_credential(credential);
                }
                done
            }
            Place::SigningKey(id) => {
                let Some(key) = self.state.signing_keys.get(id) else {
                    return false;
                };
                let mut key = key.as_ref().clone();
                let done = replace(Some(&mut key.private));
                if done {
                    self.touched.insert(Key::SigningKey(*id));
                    self.state.signing_keys.insert(*id, Arc::new(key));
                }
                done
            }
            Place::Authority => {
                let Some(authority) = self.state.authority.as_ref() else {
                    return false;
                };
                let mut authority = authority.as_ref().clone();
                let done = replace(Some(&mut authority.key));
                if done {
                    self.touched.insert(Key::Authority);
                    self.state.authority = Some(Arc::new(authority));
                }
                done
            }
            Place::RevokedMaterial { revocation, name } => {
                self.reseal_work(revocation, |work| replace(work.material.get_mut(name)))
            }
            Place::RevokedToken { revocation, index } => {
                self.reseal_work(revocation, |work| replace(work.tokens.get_mut(*index)))
            }
        }
    }

    fn reseal_work(&mut self, id: &RevocationId, replace: impl FnOnce(&mut Work) -> bool) -> bool {
        let Ok((revocation, mut work)) = self.open_revocation(id) else {
            return false;
        };
        let done = replace(&mut work);
        if done {
            let stage = Stage::Open(work);
            self.put_revocation(Revocation {
                stage,
                ..revocation
            });
        }
        done
    }

    fn put_data_key(&mut self, id: DataKeyId, wrapped: WrappedKey) {
        self.touched.insert(Key::DataKey(id));
        self.state.data_keys.insert(id, Arc::new(wrapped));
    }
}
