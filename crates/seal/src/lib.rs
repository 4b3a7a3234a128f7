//! Envelope encryption: what turns a [`Secret`](evermint_core::secret::Secret) into a
//! [`Sealed`](evermint_core::secret::Sealed) and back.
//!
//! A *key-encryption key* ([`Kek`]) comes from outside the cluster and never enters it. *Data
//! keys*, wrapped by it, live in the replicated state under ids; a [`Keyring`] unwraps them and
//! seals values with the newest. Everything is AES-256-GCM-SIV
//! ([RFC 8452](https://www.rfc-editor.org/rfc/rfc8452)) under random nonces, with a [`Context`]
//! as associated data: a sealed value opens only in the place that it was sealed for. [`rotation`]
//! prepares new keys of either kind.
//!
//! This crate knows nothing of where keys and values are stored, and draws randomness itself.

mod aead;
mod command;
mod context;
mod error;
mod kek;
mod keyring;
pub mod rotation;

pub use context::Context;
pub use error::Error;
pub use kek::{FileAccess, Kek};
pub use keyring::{Keyring, generate_data_key};
