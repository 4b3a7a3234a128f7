//! `evermint keygen`

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use evermint_seal::Kek;

use crate::exit::advised;
use crate::out;

const EXAMPLES: &str = "\
Examples:
  evermint keygen --out kek
  evermint serve --kek-file kek --init

All replicas of a cluster need the same key. Keep a copy: without it nothing in the cluster can be
opened again.";

/// Arguments of `keygen`.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// File to write it to, readable by its owner alone. A file that is there is never replaced.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Args {
    /// Makes the key.
    ///
    /// # Errors
    /// When the file is there already, or cannot be written.
    pub fn run(self) -> Result<()> {
        let kek = create(&self.out)?;
        let name = kek.name();
        out::write(&format!("key {name} written to {}\n", self.out.display()))
    }
}

/// Makes a key in a new file.
///
/// # Errors
/// When the file is there already, or cannot be written.
pub fn create(path: &Path) -> Result<Kek> {
    let kek = Kek::generate()?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => advised(
                format!("{} is there already", path.display()),
                "choose another file: a key that is lost cannot be made again",
            ),
            _ => anyhow::Error::new(error).context(format!("cannot create {}", path.display())),
        })?;
    let text = kek.to_base64();
    file.write_all(text.expose())
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(kek)
}

#[cfg(test)]
mod tests {
    use super::*;
    use evermint_seal::FileAccess;

    #[test]
    fn a_key_is_made_once_and_can_be_read_by_serve() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("kek");
        Args { out: out.clone() }.run().unwrap();
        Kek::from_file(&out, FileAccess::OwnerOnly).unwrap();
        let error = Args { out }.run().unwrap_err().to_string();
        assert!(error.contains("there already"), "{error}");
    }
}
