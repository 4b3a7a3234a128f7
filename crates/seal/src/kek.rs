//! The key-encryption key: from a file, the environment or a command, never from the cluster.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use evermint_core::secret::Secret;
use zeroize::Zeroizing;

use crate::aead::{Cipher, KEY_LEN, random};
use crate::{Error, command};

/// The longest key file that is read, in bytes.
const FILE_MAX: u64 = 4096;

/// The key that wraps data keys.
///
/// `Debug` shows its name only; the memory is overwritten when it is dropped.
#[derive(Clone)]
pub struct Kek(Zeroizing<[u8; KEY_LEN]>);

/// Who may be able to read the key's file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileAccess {
    /// The owner alone; a file that its group or others may read is refused.
    #[default]
    OwnerOnly,
    /// Anybody: where the platform mounts secrets with wider modes behind its own walls.
    Any,
}

impl Kek {
    /// A new random key.
    ///
    /// # Errors
    /// [`Error::NoRandomness`].
    pub fn generate() -> Result<Self, Error> {
        Ok(Self(Zeroizing::new(random()?)))
    }

    /// Reads the key from a file that holds it in base64, in hex, or as 32 raw bytes.
    ///
    /// # Errors
    /// [`Error::KekFile`], [`Error::KekFileOpen`] or [`Error::KekMalformed`].
    pub fn from_file(path: &Path, access: FileAccess) -> Result<Self, Error> {
        let unreadable = |source| Error::KekFile {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(unreadable)?;
        // Of the file that was opened, not of the path: it may be replaced meanwhile.
        let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
        if access == FileAccess::OwnerOnly && mode & 0o077 != 0 {
            return Err(Error::KekFileOpen {
                path: path.to_owned(),
                mode,
            });
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_MAX as usize));
        file.take(FILE_MAX)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        Self::parse(&bytes).map_err(|problem| Error::KekMalformed {
            origin: path.display().to_string(),
            problem,
        })
    }

    /// Reads the key from an environment variable that holds it in base64 or hex.
    ///
    /// # Errors
    /// [`Error::KekVariable`] or [`Error::KekMalformed`].
    pub fn from_env(variable: &str) -> Result<Self, Error> {
        let text = std::env::var_os(variable)
            .map(|text| Zeroizing::new(text.into_encoded_bytes()))
            .ok_or_else(|| Error::KekVariable(variable.to_owned()))?;
        Self::from_text(&text).map_err(|problem| Error::KekMalformed {
            origin: format!("the environment variable {variable}"),
            problem,
        })
    }

    /// Reads the key from what a command prints, in base64, in hex or as 32 raw bytes. The first
    /// of `line` is the program, the rest its arguments; no shell reads them. Blocks for at most
    /// `bound`.
    ///
    /// # Errors
    /// [`Error::KekCommand`] or [`Error::KekMalformed`].
    pub fn from_command(line: &[String], bound: Duration) -> Result<Self, Error> {
        let (program, arguments) = line.split_first().ok_or_else(|| Error::KekCommand {
            program: "(none)".to_owned(),
            problem: "is empty".to_owned(),
        })?;
        let output = command::run(program, arguments, bound);
        let output = output.map_err(|problem| Error::KekCommand {
            program: program.clone(),
            problem,
        })?;
        Self::parse(&output).map_err(|problem| Error::KekMalformed {
            origin: format!("the output of {program}"),
            problem,
        })
    }

    /// A short digest that names the key without telling anything of it: 12 hex digits.
    pub fn name(&self) -> String {
        hex::encode(&self.derive("name").as_ref()[..6])
    }

    /// The key in base64, for a file that [`from_file`](Self::from_file) reads.
    pub fn to_base64(&self) -> Secret {
        Secret::from(STANDARD.encode(*self.0))
    }

    /// The cipher that wraps data keys: under a key of its own, so that the name and any later
    /// use of the KEK are independent of it.
    pub(crate) fn wrapping(&self) -> Cipher {
        let tag = self.derive("wrap");
        let key = tag.as_ref().try_into().expect("SHA-256 gives 32 bytes");
        Cipher::new(key)
    }

    /// A value that depends on the key and the purpose, and tells nothing of either the key or
    /// the values for other purposes.
    fn derive(&self, purpose: &str) -> hmac::Tag {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &*self.0);
        hmac::sign(&key, format!("evermint/kek/1/{purpose}").as_bytes())
    }

    fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let Ok(raw) = <&[u8; KEY_LEN]>::try_from(bytes) else {
            return Self::from_text(bytes);
        };
        if raw.iter().all(|b| b.is_ascii_graphic()) {
            return Err("it is 32 printable characters, which are not 32 random bytes");
        }
        Ok(Self(Zeroizing::new(*raw)))
    }

    fn from_text(bytes: &[u8]) -> Result<Self, &'static str> {
        let text = bytes.trim_ascii();
        if text.is_empty() {
            return Err("it is empty");
        }
        let hex = Zeroizing::new(hex::decode(text).unwrap_or_default());
        let decoded = if hex.is_empty() {
            [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD]
                .iter()
                .find_map(|alphabet| alphabet.decode(text).ok())
                .map(Zeroizing::new)
                .ok_or("it is neither base64 nor hex")?
        } else {
            hex
        };
        let key = <[u8; KEY_LEN]>::try_from(decoded.as_slice())
            .map_err(|_| "it does not decode to 32 bytes")?;
        Ok(Self(Zeroizing::new(key)))
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kek({})", self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::io::Write;

    fn file(content: &[u8], mode: u32) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        file.as_file()
            .set_permissions(Permissions::from_mode(mode))
            .unwrap();
        file
    }

    fn read(content: &[u8]) -> Result<Kek, Error> {
        Kek::from_file(file(content, 0o600).path(), FileAccess::OwnerOnly)
    }

    const RAW: [u8; 32] = [0xa7; 32];

    #[test]
    fn every_encoding_gives_the_same_key() {
        let expected = read(&RAW).unwrap().name();
        for text in [
            hex::encode(RAW),
            format!("{}\n", hex::encode_upper(RAW)),
            STANDARD.encode(RAW),
            format!("  {}\r\n", STANDARD.encode(RAW)),
            URL_SAFE_NO_PAD.encode(RAW),
        ] {
            assert_eq!(read(text.as_bytes()).unwrap().name(), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_with_a_hint_and_without_its_text() {
        for (content, problem) in [
            (&b""[..], "empty"),
            (b" \n", "empty"),
            (b"correct-horse-battery-staple-012", "printable"),
            (b"not base64!", "neither"),
            (b"00112233", "32 bytes"),
            (b"c2hvcnQ=", "32 bytes"),
            (&[0x80; 33], "neither"),
        ] {
            let error = read(content).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
            assert!(error.contains("openssl rand"), "{error}");
            assert!(
                !error.contains("horse") && !error.contains("c2hv"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_unless_allowed() {
        for mode in [0o640, 0o604, 0o644, 0o660] {
            let file = file(&RAW, mode);
            let error = Kek::from_file(file.path(), FileAccess::OwnerOnly).unwrap_err();
            assert!(error.to_string().contains("chmod 600"), "{error}");
            assert!(Kek::from_file(file.path(), FileAccess::Any).is_ok());
        }
        assert!(Kek::from_file(file(&RAW, 0o400).path(), FileAccess::OwnerOnly).is_ok());
    }

    #[test]
    fn a_missing_file_or_variable_is_named() {
        let error = Kek::from_file(Path::new("/nonexistent/kek"), FileAccess::Any).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/kek"), "{error}");
        let error = Kek::from_env("EVERMINT_TEST_NO_SUCH_KEK").unwrap_err();
        assert!(error.to_string().contains("EVERMINT_TEST_NO_SUCH_KEK"));
    }

    #[test]
    fn a_command_prints_the_key_and_errors_do_not_repeat_it() {
        let kek = Kek::generate().unwrap();
        let text = kek.to_base64();
        let text = text.expose_str().unwrap();
        let run = |script: String| {
            let line = ["/bin/sh".to_owned(), "-c".to_owned(), script];
            Kek::from_command(&line, Duration::from_secs(60))
        };
        assert_eq!(run(format!("echo {text}")).unwrap().name(), kek.name());
        for script in [format!("echo {text}{text}"), format!("echo {text}; false")] {
            let error = run(script).unwrap_err().to_string();
            assert!(
                error.contains("/bin/sh") && !error.contains(text),
                "{error}"
            );
        }
        assert!(Kek::from_command(&[], Duration::from_secs(1)).is_err());
    }

    #[test]
    fn a_key_that_was_written_is_read_back() {
        let kek = Kek::generate().unwrap();
        assert_eq!(read(kek.to_base64().expose()).unwrap().name(), kek.name());
        assert_ne!(Kek::generate().unwrap().name(), kek.name());
    }

    #[test]
    fn debug_shows_the_name_alone() {
        let kek = read(&RAW).unwrap();
        assert_eq!(format!("{kek:?}"), format!("Kek({})", kek.name()));
        assert!(!hex::encode(RAW).contains(&kek.name()));
    }
}
