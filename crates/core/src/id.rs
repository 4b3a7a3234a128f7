//! Names and identities, parsed once at the rim: a value of these types cannot be wrong.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing in it.
    #[error("must not be empty")]
    Empty,
    /// Longer than allowed.
    #[error("is {got} bytes long; at most {max} are allowed")]
    TooLong {
        /// Bytes given.
        got: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A character that the kind of name does not allow.
    #[error("contains {found:?}; allowed are {allowed}")]
    Character {
        /// The first offending character.
        found: char,
        /// What is allowed, in words.
        allowed: &'static str,
    },
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, max $max:expr, first $first:expr, rest $rest:expr, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The longest name of this kind, in bytes.
            pub const MAX_LEN: usize = $max;

            /// Parses a name.
            ///
            /// # Errors
            /// [`NameError`] says which rule `text` breaks.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text: String = text.into();
                if text.is_empty() {
                    return Err(NameError::Empty);
                }
                if text.len() > $max {
                    return Err(NameError::TooLong { got: text.len(), max: $max });
                }
                let first: fn(char) -> bool = $first;
                let rest: fn(char) -> bool = $rest;
                let bad = text
                    .chars()
                    .enumerate()
                    .find(|(i, c)| if *i == 0 { !first(*c) } else { !rest(*c) });
                match bad {
                    Some((_, found)) => Err(NameError::Character { found, allowed: $allowed }),
                    None => Ok(Self(text)),
                }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }
    };
}

fn label(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.'
}

name!(
    /// A provider, route or sandbox name, unique in its kind and workspace.
    Name, max 253, first |c| c.is_ascii_alphanumeric(), rest label,
    "ASCII letters and digits, then also '-', '_' and '.'"
);
name!(
    /// A workspace: the scope of names. `default` when a request names none.
    Workspace, max 63, first |c| c.is_ascii_alphanumeric(), rest label,
    "ASCII letters and digits, then also '-', '_' and '.'"
);
name!(
    /// One key of a provider, as sandboxes know it: an environment variable name.
    CredentialKey, max 256, first |c| c.is_ascii_alphabetic() || c == '_',
    rest |c| c.is_ascii_alphanumeric() || c == '_',
    "ASCII letters, digits and '_', not starting with a digit"
);
name!(
    /// The type of a provider: the slug of its profile.
    ProviderType, max 64, first |c| c.is_ascii_alphanumeric(), rest label,
    "ASCII letters and digits, then also '-', '_' and '.'"
);
name!(
    /// A profile: the slug that providers name as their type.
    ProfileId, max 64, first |c| c.is_ascii_lowercase() || c.is_ascii_digit(),
    rest |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-',
    "lower-case ASCII letters and digits, then also '-'"
);

impl Name {
    /// No name comes before it: where a range of names begins.
    pub fn least() -> Self {
        Self("0".to_owned())
    }
}

impl Workspace {
    /// The workspace of requests that name none.
    pub fn default_workspace() -> Self {
        Self("default".to_owned())
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $type(pub u128);

        impl fmt::Display for $type {
            /// The hyphenated form of [RFC 9562 §4](https://www.rfc-editor.org/rfc/rfc9562#section-4).
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let x = self.0;
                write!(
                    f,
                    "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
                    x >> 96,
                    (x >> 80) & 0xffff,
                    (x >> 64) & 0xffff,
                    (x >> 48) & 0xffff,
                    x & 0xffff_ffff_ffff
                )
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($type))
            }
        }

        impl FromStr for $type {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let digits: String = text.chars().filter(|c| *c != '-').collect();
                if digits.len() != 32 {
                    return Err(IdError);
                }
                u128::from_str_radix(&digits, 16).map(Self).map_err(|_| IdError)
            }
        }
    };
}

/// A text that is no UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a UUID")]
pub struct IdError;

uuid_id!(
    /// A provider, from its creation to its deletion; a name that is used again is another provider.
    ProviderId
);
uuid_id!(
    /// A sandbox, from its creation to its deletion.
    SandboxId
);
uuid_id!(
    /// A workspace that was created as an object of its own.
    WorkspaceId
);
uuid_id!(
    /// One process start of a replica. A restarted replica never believes it still owns what its
    /// former life owned.
    SessionId
);
uuid_id!(
    /// One mint ticket, chosen by the owner that asks for it.
    TicketId
);
uuid_id!(
    /// One proposal, chosen by the proposer: proposing it again gives the same outcome.
    RequestId
);
uuid_id!(
    /// One data directory. A wiped disk is another installation, and so another replica.
    InstallationId
);

uuid_id!(
    /// One key that signs sandbox tokens.
    SigningKeyId
);

/// A Raft member. Allocated from the log and never used twice.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ReplicaId(pub u64);

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One of a fixed number of groups of credentials, owned as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardId(pub u16);

/// Grows with every change of a shard's owner.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ShardEpoch(pub u64);

/// Counts the committed mints of a credential; 0 before the first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Generation(pub u64);

impl Generation {
    /// The generation after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts the tickets that a credential ever had; the fencing token of the newest one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Attempt(pub u64);

impl Attempt {
    /// The attempt after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Changes when an operator reconfigures a refresh: the position of the entry that did.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct AuthorizationEpoch(pub u64);

/// The number of a command in the replicated history. Every replica numbers alike, and a
/// replica at position 7 has applied exactly the commands 1 to 7.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A credential: one key of one provider.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CredentialId {
    /// The provider.
    pub provider: ProviderId,
    /// The key.
    pub key: CredentialKey,
}

impl fmt::Display for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.provider, self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_at_the_rim() {
        for (text, good) in [
            ("vertex", true),
            ("a.b-c_9", true),
            ("", false),
            ("-a", false),
            ("a b", false),
            ("a/b", false),
            ("ü", false),
            ("a\n", false),
        ] {
            assert_eq!(Name::new(text).is_ok(), good, "{text:?}");
        }
        assert!(Name::new("a".repeat(254)).is_err());
        assert!(CredentialKey::new("VERTEX_AI_TOKEN").is_ok());
        assert!(CredentialKey::new("9A").is_err());
    }

    #[test]
    fn an_id_is_read_back_as_it_was_written() {
        let id = ProviderId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
        assert_eq!(id.to_string(), "01234567-89ab-cdef-0011-223344556677");
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}
