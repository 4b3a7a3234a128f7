//! Where a sealed value belongs.

use std::fmt;

use evermint_core::id::{CredentialId, CredentialKey, InstallationId, SigningKeyId, TicketId};
use evermint_core::keys::Place;

/// The place that a value is sealed for; it opens nowhere else, so that whoever can write to the
/// store still cannot pass one object's secret off as another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context<'a> {
    /// One output of a credential's value.
    Value {
        /// The credential.
        credential: &'a CredentialId,
        /// The output's name.
        output: &'a CredentialKey,
    },
    /// One piece of a credential's secret material.
    Material {
        /// The credential.
        credential: &'a CredentialId,
        /// The material's name.
        name: &'a str,
    },
    /// The result of a mint in its replica's journal.
    Journal {
        /// The mint's ticket.
        ticket: TicketId,
    },
    /// A private key of sandbox tokens.
    SigningKey {
        /// Which.
        id: SigningKeyId,
    },
    /// The private key of the authority that signs replicas' certificates.
    Authority,
    /// The private key of a replica that has no place in a cluster yet, on its disk.
    Newcomer {
        /// Whose.
        installation: InstallationId,
    },
}

impl<'a> Context<'a> {
    /// One output of a credential's value. The value of a static credential, and the token of a
    /// mint, stand under the credential's own key.
    pub fn value(credential: &'a CredentialId, output: &'a CredentialKey) -> Self {
        Self::Value { credential, output }
    }

    /// One piece of a credential's secret material.
    pub fn material(credential: &'a CredentialId, name: &'a str) -> Self {
        Self::Material { credential, name }
    }

    /// The result of a mint in its replica's journal.
    pub fn journal(ticket: TicketId) -> Self {
        Self::Journal { ticket }
    }

    /// A private key of sandbox tokens.
    pub fn signing_key(id: SigningKeyId) -> Self {
        Self::SigningKey { id }
    }

    /// The associated data. Stored values depend on it: a change needs a new version prefix, and
    /// the old one for reading. Every part carries its length, so that no two places give the
    /// same bytes.
    pub(crate) fn associated_data(&self) -> Vec<u8> {
        match self {
            Self::Value { credential, output } => encode(&[
                b"value",
                &credential.provider.0.to_be_bytes(),
                credential.key.as_str().as_bytes(),
                output.as_str().as_bytes(),
            ]),
            Self::Material { credential, name } => encode(&[
                b"material",
                &credential.provider.0.to_be_bytes(),
                credential.key.as_str().as_bytes(),
                name.as_bytes(),
            ]),
            Self::Journal { ticket } => encode(&[b"journal", &ticket.0.to_be_bytes()]),
            Self::SigningKey { id } => encode(&[b"signing-key", &id.0.to_be_bytes()]),
            Self::Authority => encode(&[b"authority"]),
            Self::Newcomer { installation } => {
                encode(&[b"newcomer", &installation.0.to_be_bytes()])
            }
        }
    }
}

impl<'a> From<&'a Place> for Context<'a> {
    fn from(place: &'a Place) -> Self {
        match place {
            Place::Value { credential, output } => Self::value(credential, output),
            Place::Material { credential, name } => Self::material(credential, name),
            Place::SigningKey(id) => Self::signing_key(*id),
            Place::Authority => Self::Authority,
            // What is revoked was moved as it was sealed.
            Place::RevokedMaterial { revocation, name } => {
                Self::material(&revocation.credential, name)
            }
            Place::RevokedToken { revocation, .. } => {
                let credential = &revocation.credential;
                Self::value(credential, &credential.key)
            }
        }
    }
}

/// Version prefix, then every part after its length.
fn encode(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = b"evermint/seal/1".to_vec();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

impl fmt::Display for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { credential, output } => {
                write!(f, "output {output} of credential {credential}")
            }
            Self::Material { credential, name } => {
                write!(f, "material {name:?} of credential {credential}")
            }
            Self::Journal { ticket } => write!(f, "the journalled result of ticket {ticket}"),
            Self::SigningKey { id } => write!(f, "signing key {id}"),
            Self::Authority => f.write_str("the key of the certificate authority"),
            Self::Newcomer { installation } => write!(f, "the key of newcomer {installation}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evermint_core::id::ProviderId;

    fn credential(provider: u128, key: &str) -> CredentialId {
        CredentialId {
            provider: ProviderId(provider),
            key: CredentialKey::new(key).unwrap(),
        }
    }

    #[test]
    fn different_places_have_different_associated_data() {
        let (a, ab, other) = (credential(1, "A"), credential(1, "AB"), credential(2, "A"));
        let (b, c, bc) = ("B", "C", "BC");
        let keys = [b, c, bc].map(|k| CredentialKey::new(k).unwrap());
        let mut all = vec![
            Context::journal(TicketId(1)),
            Context::journal(TicketId(2)),
            Context::signing_key(SigningKeyId(1)),
            Context::Authority,
            Context::Newcomer {
                installation: InstallationId(1),
            },
            Context::material(&a, ""),
            Context::material(&a, "\0"),
        ];
        for credential in [&a, &ab, &other] {
            for key in &keys {
                all.push(Context::value(credential, key));
                all.push(Context::material(credential, key.as_str()));
            }
        }
        let bytes: std::collections::BTreeSet<_> =
            all.iter().map(Context::associated_data).collect();
        assert_eq!(bytes.len(), all.len());
    }

    #[test]
    fn associated_data_is_what_stored_values_were_sealed_with() {
        let id = credential(7, "K");
        let key = CredentialKey::new("OUT").unwrap();
        let mut expected = b"evermint/seal/1".to_vec();
        for part in [&b"value"[..], &7u128.to_be_bytes(), b"K", b"OUT"] {
            expected.extend_from_slice(&(part.len() as u64).to_be_bytes());
            expected.extend_from_slice(part);
        }
        assert_eq!(Context::value(&id, &key).associated_data(), expected);
    }
}
