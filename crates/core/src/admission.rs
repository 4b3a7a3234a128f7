//! The cluster's own certificate authority, and the tokens by which replicas join.
//!
//! A cluster without an authority leaves certificates to others, and whoever can reach a member
//! with one of them joins.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::id::{InstallationId, ReplicaId};
use crate::secret::{Sealed, Secret};
use crate::time::UnixMs;

/// Most tokens that are remembered, used ones until their end included.
pub const JOIN_TOKENS_MAX: usize = 64;

/// The longest time for which a token is good.
pub const JOIN_TOKEN_LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// Signs the certificates of all replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// Its own certificate, DER.
    pub certificate: Vec<u8>,
    /// Its private key, PKCS #8.
    pub key: Sealed,
    /// When it was made.
    pub since: UnixMs,
}

/// A token by its SHA-256. The token itself is 32 random bytes and stands nowhere in the cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JoinTokenId(pub [u8; 32]);

impl fmt::Display for JoinTokenId {
    /// Enough of it to tell tokens apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6]
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for JoinTokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinTokenId({self})")
    }
}

/// Lets one replica join, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// Until when, on the cluster clock.
    pub expires_at: UnixMs,
    /// By whom it was used. The same newcomer may use it again until its end: the answer may have
    /// been lost.
    pub used: Option<Admission>,
}

/// A newcomer that was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// Its data directory.
    pub installation: InstallationId,
    /// SHA-256 of its public key: what it got a certificate for.
    pub key: [u8; 32],
    /// The id that it got.
    pub replica: ReplicaId,
}

/// Why a token does not let a replica in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum BadJoinToken {
    /// This cluster did not make it, or forgot it after its end.
    #[error("is not known")]
    Unknown,
    /// Its time is over.
    #[error("has expired")]
    Expired,
    /// Another replica has joined with it.
    #[error("was used already")]
    Used,
}

/// A join token as an operator passes it on: it also says by which authority the newcomer knows
/// the cluster.
#[derive(Clone, Debug)]
pub struct JoinTicket {
    /// SHA-256 of the authority's certificate.
    pub authority: [u8; 32],
    /// The token itself.
    pub token: Secret,
}

/// What a join token begins with, so that people and scanners know it.
const PREFIX: &str = "evermint-join-1";

/// A text that is no join token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no join token: `evermint cluster join-token` prints one, and all of it is needed")]
pub struct NoJoinTicket;

impl JoinTicket {
    /// The text of a ticket: a secret.
    pub fn expose(&self) -> String {
        let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
        let (authority, token) = (hex(&self.authority), hex(self.token.expose()));
        format!("{PREFIX}.{authority}.{token}")
    }

    /// Reads the text of a ticket.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, NoJoinTicket> {
        let parts: Vec<&str> = text.trim().split('.').collect();
        let [PREFIX, authority, token] = parts[..] else {
            return Err(NoJoinTicket);
        };
        Ok(Self {
            authority: digits(authority).ok_or(NoJoinTicket)?,
            token: Secret::new(digits(token).ok_or(NoJoinTicket)?),
        })
    }

    /// The name under which the cluster knows the token.
    pub fn id(&self) -> JoinTokenId {
        JoinTokenId(sha256(self.token.expose()))
    }
}

/// SHA-256 ([FIPS 180-4](https://csrc.nist.gov/pubs/fips/180-4/upd1/final)).
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// 64 hexadecimal digits.
fn digits(text: &str) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in out.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_read_back_as_it_was_written_and_shows_no_secret() {
        let ticket = JoinTicket {
            authority: [0xa1; 32],
            token: Secret::new([0xb2; 32]),
        };
        let text = format!("{}\n", ticket.expose());
        let read = JoinTicket::parse(&text).unwrap();
        assert_eq!((read.authority, read.id()), ([0xa1; 32], ticket.id()));
        assert_eq!(read.token.expose(), [0xb2; 32]);
        assert!(!format!("{read:?} {:?}", read.id()).contains("b2b2"));
        for bad in [
            "",
            "evermint-join-1",
            &text[..text.len() - 3],
            &text.replace("join-1", "join-2"),
            &text.replace("a1", "g1"),
            &text.replace("b2", "é"),
        ] {
            assert!(JoinTicket::parse(bad).is_err(), "{bad}");
        }
    }
}
