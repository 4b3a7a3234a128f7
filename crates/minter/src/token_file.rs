//! Files in which somebody else keeps a fresh token: projected service-account tokens, and other
//! proofs of a workload's identity. They are read when a mint runs, on the replica that runs it,
//! and only below the directories that the configuration allows: material must not decide what a
//! replica reads.

use std::io::Read;
use std::path::{Path, PathBuf};

use evermint_core::mint::{Failure, FailureClass, Fence};
use evermint_core::secret::Secret;

use crate::exchange::Proof;
use crate::fence::fenced;
use crate::material::{FieldError, bad_material};
use crate::outside::Setup;

/// The longest file that is read, in bytes.
const FILE_MAX: usize = 64 * 1024;

/// Reads token files.
#[derive(Clone, Debug, Default)]
pub struct TokenFiles {
    directories: Vec<PathBuf>,
}

impl TokenFiles {
    /// Files below these directories may be read.
    pub fn new(directories: Vec<PathBuf>) -> Self {
        Self { directories }
    }

    /// Checks a path when it is configured, as far as its text tells: the file may be on other
    /// replicas than this one, or come later.
    ///
    /// # Errors
    /// What is wrong, and what is expected.
    pub fn check(&self, path: &str) -> Result<(), String> {
        let path = Path::new(path);
        let is_plain = path.is_absolute() && !path.components().any(|c| c.as_os_str() == "..");
        if is_plain && self.directories.iter().any(|dir| path.starts_with(dir)) {
            return Ok(());
        }
        Err(match self.directories.as_slice() {
            [] => "token files are not allowed: name their directories in issuers.token_file_dirs"
                .to_owned(),
            directories => {
                let names: Vec<_> = directories.iter().map(|d| d.to_string_lossy()).collect();
                format!(
                    "must lie below {} (issuers.token_file_dirs)",
                    names.join(" or ")
                )
            }
        })
    }

    /// Reads a file, without the white space around what it holds. Links are followed as long as
    /// they stay below the allowed directories.
    ///
    /// # Errors
    /// [`FailureClass::ConfigRefused`] for a path that may not be read, [`FailureClass::Unsent`]
    /// for a file that cannot be read now, naming the `field` that the path is from.
    pub async fn read(
        &self,
        fence: &dyn Fence,
        field: &'static str,
        path: &str,
    ) -> Result<Secret, Failure> {
        let (files, path) = (self.clone(), path.to_owned());
        let reading = tokio::task::spawn_blocking(move || files.read_now(field, &path));
        match fenced(fence, reading).await {
            Some(Ok(read)) => read,
            Some(Err(_)) | None => Err(unread(field, "was not read before the ticket ended")),
        }
    }

    fn read_now(&self, field: &str, path: &str) -> Result<Secret, Failure> {
        let refused = |problem: String| {
            Failure {
            class: FailureClass::ConfigRefused,
            cause: format!("material {field} {problem}"),
            remedy: "correct the path, or allow its directory in issuers.token_file_dirs on every replica".to_owned(),
            retry_after_ms: None,
        }
        };
        let unread = |problem| unread(field, problem);
        self.check(path).map_err(refused)?;
        let resolved = std::fs::canonicalize(path).map_err(|e| unread(cannot(&e)))?;
        let below =
            |dir: &PathBuf| std::fs::canonicalize(dir).is_ok_and(|d| resolved.starts_with(d));
        if !self.directories.iter().any(below) {
            let problem = "leads out of the directories in issuers.token_file_dirs";
            return Err(refused(problem.to_owned()));
        }
        // A pipe or device could keep the reader for ever.
        if !resolved.metadata().is_ok_and(|meta| meta.is_file()) {
            return Err(unread("is no regular file"));
        }
        let file = std::fs::File::open(&resolved).map_err(|e| unread(cannot(&e)))?;
        let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(FILE_MAX + 1));
        let mut limited = file.take(FILE_MAX as u64 + 1);
        limited
            .read_to_end(&mut bytes)
            .map_err(|e| unread(cannot(&e)))?;
        let content = bytes.trim_ascii();
        if content.is_empty() {
            return Err(unread("is empty"));
        }
        if bytes.len() > FILE_MAX {
            return Err(unread("is too long for a token"));
        }
        Ok(Secret::new(content))
    }
}

/// A token of somebody else: given as material, or kept in a file that material names.
pub(crate) struct Presented {
    pub(crate) token: Secret,
    pub(crate) proof: Proof,
}

impl Setup<'_> {
    /// The token in the material `value`, else in the file that the material `file` names.
    ///
    /// # Errors
    /// That there is neither, and those of [`TokenFiles::read`].
    pub(crate) async fn presented(
        &self,
        fence: &dyn Fence,
        value: &'static str,
        file: &'static str,
    ) -> Result<Presented, Failure> {
        if let Some(token) = self.material.secret(value) {
            return Ok(Presented {
                token: token.clone(),
                proof: Proof::Lasting,
            });
        }
        let path = self.material.get(file);
        let path = path.ok_or_else(|| bad_material(value, "is missing"))?;
        let token = self.outside.token_files.read(fence, file, path).await?;
        Ok(Presented {
            token,
            proof: Proof::Borrowed,
        })
    }

    /// Checks the path in the material `file`, if there is one.
    pub(crate) fn check_path(&self, file: &'static str) -> Option<FieldError> {
        let problem = self.outside.token_files.check(self.material.get(file)?);
        problem.err().map(|problem| FieldError::new(file, problem))
    }
}

/// The failure of a mint whose file cannot be used now.
pub(crate) fn unread(field: &str, problem: &str) -> Failure {
    Failure {
        class: FailureClass::Unsent,
        cause: format!("the file that material {field} names {problem}"),
        remedy: "make sure that whatever keeps this file runs beside every replica".to_owned(),
        retry_after_ms: None,
    }
}

fn cannot(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => "is not on this replica",
        std::io::ErrorKind::PermissionDenied => "may not be read by this replica",
        _ => "cannot be read",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_file_is_read_below_its_directory_alone() {
        let home = tempfile::tempdir().unwrap();
        let (allowed, other) = (home.path().join("allowed"), home.path().join("other"));
        for dir in [&allowed, &other] {
            std::fs::create_dir(dir).unwrap();
            std::fs::write(dir.join("token"), " t.o.k\n").unwrap();
        }
        std::fs::write(allowed.join("empty"), "\n").unwrap();
        std::fs::write(allowed.join("long"), "x".repeat(FILE_MAX + 1)).unwrap();
        // As Kubernetes projects tokens.
        symlink(allowed.join("token"), allowed.join("link")).unwrap();
        symlink(other.join("token"), allowed.join("out")).unwrap();
        let files = TokenFiles::new(vec![allowed.clone()]);
        let read = |path: PathBuf| files.read_now("f", path.to_str().unwrap());
        for name in ["token", "link"] {
            assert_eq!(read(allowed.join(name)).unwrap().expose(), b"t.o.k");
        }
        for (path, class, word) in [
            (other.join("token"), FailureClass::ConfigRefused, "below"),
            (
                allowed.join("out"),
                FailureClass::ConfigRefused,
                "leads out",
            ),
            (
                allowed.join("../other/token"),
                FailureClass::ConfigRefused,
                "below",
            ),
            (
                allowed.join("none"),
                FailureClass::Unsent,
                "not on this replica",
            ),
            (allowed.join("empty"), FailureClass::Unsent, "empty"),
            (allowed.join("long"), FailureClass::Unsent, "too long"),
            (allowed.clone(), FailureClass::Unsent, "no regular file"),
        ] {
            let failure = read(path).unwrap_err();
            assert_eq!(failure.class, class, "{}", failure.cause);
            assert!(failure.cause.contains(word), "{}", failure.cause);
        }
    }

    #[test]
    fn without_directories_no_file_is_read() {
        let problem = TokenFiles::default().check("/etc/passwd").unwrap_err();
        assert!(problem.contains("issuers.token_file_dirs"), "{problem}");
        let beside = TokenFiles::new(vec!["/run/tokens".into()]);
        assert!(beside.check("/run/tokens-of-others/a").is_err());
        assert!(beside.check("run/tokens/a").is_err());
        assert_eq!(beside.check("/run/tokens/a"), Ok(()));
    }
}
