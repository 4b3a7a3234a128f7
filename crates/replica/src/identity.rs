//! Who this data directory is: a small text file beside the store.

use std::fmt;
use std::io;
use std::path::Path;

use evermint_core::id::{InstallationId, ReplicaId};
use uuid::Uuid;

use crate::durable::{Damage, write_file};
use crate::error::Error;

/// The id of a cluster: the installation that founded it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClusterId(pub(crate) u128);

/// Who this data directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Drawn at random when the directory was first used: a wiped disk is another replica.
    pub(crate) installation: InstallationId,
    /// Its place, once it has one.
    pub(crate) member: Option<Member>,
}

/// A place in a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) cluster: ClusterId,
    pub(crate) replica: ReplicaId,
}

impl Identity {
    /// A new identity, with no place yet.
    pub(crate) fn new() -> Self {
        Self {
            installation: InstallationId(Uuid::new_v4().as_u128()),
            member: None,
        }
    }

    /// Reads the file; `None` if there is none.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, Error> {
        match std::fs::read_to_string(path) {
            Ok(text) => parse(&text)
                .map(Some)
                .ok_or_else(|| Damage::new("identity", "cannot be read").into()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                Err(Damage::new("identity", "is not text").into())
            }
            Err(e) => Err(Error::io(format!("read {}", path.display()))(e)),
        }
    }

    /// Writes the file, durably.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        Ok(write_file(path, self.to_string().as_bytes())?)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# Written by evermint. Another directory must not have the same."
        )?;
        writeln!(f, "installation = {}", self.installation)?;
        if let Some(member) = self.member {
            writeln!(f, "cluster = {}", InstallationId(member.cluster.0))?;
            writeln!(f, "replica = {}", member.replica)?;
        }
        Ok(())
    }
}

fn parse(text: &str) -> Option<Identity> {
    let value = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once('='));
        let (_, value) = lines.find(|(key, _)| key.trim() == name)?;
        Some(value.trim())
    };
    let installation = value("installation")?.parse().ok()?;
    let member = match (value("cluster"), value("replica")) {
        (None, None) => None,
        (cluster, replica) => Some(Member {
            cluster: ClusterId(cluster?.parse::<InstallationId>().ok()?.0),
            replica: ReplicaId(replica?.parse().ok()?),
        }),
    };
    Some(Identity {
        installation,
        member,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        assert_eq!(Identity::read(&path).unwrap(), None);
        let mut identity = Identity::new();
        for member in [
            None,
            Some(Member {
                cluster: ClusterId(7),
                replica: ReplicaId(3),
            }),
        ] {
            identity.member = member;
            identity.write(&path).unwrap();
            assert_eq!(Identity::read(&path).unwrap(), Some(identity));
        }
    }

    #[test]
    fn an_identity_with_half_a_place_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        let text = Identity::new().to_string();
        std::fs::write(&path, format!("{text}replica = 3\n")).unwrap();
        assert!(matches!(Identity::read(&path), Err(Error::Damaged(d)) if d.record == "identity"));
    }
}
