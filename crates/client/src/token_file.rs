//! A token in a file: read as a whole, replaced as a whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use evermint_core::secret::Secret;

use crate::auth::{BoxError, TokenSource};

/// A token in a file. As a [`TokenSource`] it is read before every call: something else renews it,
/// such as a sidecar. [`Builder::sandbox_token_file`](crate::Builder::sandbox_token_file) is the one
/// that the client renews.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFile(PathBuf);

impl TokenFile {
    /// The longest token, in bytes.
    pub const MAX_LEN: usize = 64 << 10;

    /// The file at `path`; white space around the token is not part of it.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The token that it holds now.
    ///
    /// # Errors
    /// If it cannot be read, or holds none.
    pub fn read(&self) -> io::Result<Secret> {
        let bytes = Secret::new(fs::read(&self.0)?);
        let text = bytes.expose_str().map(str::trim).unwrap_or_default();
        if text.is_empty() || text.len() > Self::MAX_LEN {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "holds no token"));
        }
        Ok(Secret::from(text))
    }

    /// Puts `token` in place of what it held, on disk when this returns: whoever reads it finds the
    /// one or the other, and whoever is not its owner finds nothing. The directory has to be
    /// writable.
    ///
    /// # Errors
    /// If it cannot be written; then it holds what it held.
    pub fn replace(&self, token: &Secret) -> io::Result<()> {
        let mut beside = self.0.clone().into_os_string();
        beside.push(format!(".new-{}", std::process::id()));
        let beside = PathBuf::from(beside);
        // A process that died here may have had the same number: in a container all do.
        match fs::remove_file(&beside) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let written = new(&beside)
            .and_then(|mut file| {
                file.write_all(token.expose())?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&beside, &self.0));
        if written.is_err() {
            // The reason why it could not be written is the one that counts.
            let _ = fs::remove_file(&beside);
            return written;
        }
        let dir = self.0.parent().filter(|dir| !dir.as_os_str().is_empty());
        File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
    }
}

/// A file that was not there, for its owner alone.
fn new(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

#[async_trait]
impl TokenSource for TokenFile {
    async fn token(&self) -> Result<Secret, BoxError> {
        let file = self.clone();
        let read = tokio::task::spawn_blocking(move || file.read()).await?;
        read.map_err(|error| format!("{}: {error}", self.0.display()).into())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_token_file_is_read_anew_and_must_hold_a_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let source = TokenFile::new(&path);
        assert!(source.token().await.is_err());
        for (content, token) in [
            (&b"one\n"[..], Some("one")),
            (b" two ", Some("two")),
            (b"\n", None),
            (b"\xff\xfe", None),
        ] {
            fs::write(&path, content).unwrap();
            let found = source.token().await.ok();
            assert_eq!(found.as_ref().and_then(Secret::expose_str), token);
        }
    }

    #[test]
    fn a_token_file_is_replaced_as_a_whole_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = TokenFile::new(dir.path().join("token"));
        // What a process of the same number left behind when it died is in nobody's way.
        let left = dir.path().join(format!("token.new-{}", std::process::id()));
        fs::write(&left, "half of a tok").unwrap();
        for text in ["the first one", "2nd"] {
            file.replace(&Secret::from(text)).unwrap();
            assert_eq!(fs::read_to_string(file.path()).unwrap(), text);
            let mode = fs::metadata(file.path()).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let nowhere = TokenFile::new(dir.path().join("nowhere/token"));
        assert!(nowhere.replace(&Secret::from("x")).is_err());
    }
}
