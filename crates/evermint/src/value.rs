//! What operators write after a flag: `KEY=VALUE` pairs, secrets by reference, points in time.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail};
use jiff::Timestamp;

use crate::duration::Time;
use crate::exit::usage;
use crate::out::note;

/// The longest secret that is read from a file or from standard input, in bytes. The gateway's
/// own limit for a value is smaller, and its answer explains itself better.
const SECRET_MAX: u64 = 1 << 20;

/// A `KEY=VALUE` pair whose value is no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// What stands before the first `=`.
    pub key: String,
    /// What stands after it.
    pub value: String,
}

impl FromStr for Pair {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self {
                key: key.to_owned(),
                value: value.to_owned(),
            }),
            // The text is not repeated: it may be a secret that stands in the wrong place.
            _ => Err(anyhow!("expected KEY=VALUE")),
        }
    }
}

/// Where the value of a secret comes from.
#[derive(Clone, PartialEq, Eq)]
enum Source {
    Literal(String),
    File(PathBuf),
    Stdin,
    Env(String),
}

/// A key with a secret value: `KEY=@FILE`, `KEY=-` (standard input), `KEY=env:NAME`, or
/// `KEY=VALUE`, which the shell's history keeps. A bare `KEY` reads the variable of that name.
///
/// `Debug` shows the key alone.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretPair {
    /// What stands before the first `=`.
    pub key: String,
    source: Source,
}

impl SecretPair {
    /// The value of the environment variable `variable` under `key`.
    pub fn from_env(key: impl Into<String>, variable: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            source: Source::Env(variable.into()),
        }
    }

    fn read(&self, stdin: &mut dyn Read) -> Result<String> {
        let (bytes, origin) = match &self.source {
            Source::Literal(value) => return Ok(value.clone()),
            Source::Env(name) => {
                return std::env::var(name).map_err(|_| {
                    usage(format!(
                        "{}: the environment variable {name} is not set, or is no text",
                        self.key
                    ))
                });
            }
            Source::File(path) => {
                let mut bytes = Vec::new();
                std::fs::File::open(path)
                    .and_then(|file| file.take(SECRET_MAX + 1).read_to_end(&mut bytes))
                    .with_context(|| format!("{}: cannot read {}", self.key, path.display()))?;
                (bytes, path.display().to_string())
            }
            Source::Stdin => {
                if std::io::stdin().is_terminal() {
                    note(&format!("{}: end it with Enter and Ctrl-D", self.key));
                }
                let mut bytes = Vec::new();
                stdin
                    .take(SECRET_MAX + 1)
                    .read_to_end(&mut bytes)
                    .with_context(|| format!("{}: cannot read standard input", self.key))?;
                (bytes, "standard input".to_owned())
            }
        };
        if bytes.len() as u64 > SECRET_MAX {
            bail!("{}: {origin} holds more than {SECRET_MAX} bytes", self.key);
        }
        let text = String::from_utf8(bytes)
            .map_err(|_| anyhow!("{}: {origin} holds no UTF-8 text", self.key))?;
        // Editors and `echo` end a file with a line break that is not part of the secret.
        let text = text.strip_suffix('\n').unwrap_or(&text);
        Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
    }
}

impl FromStr for SecretPair {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (key, value) = match text.split_once('=') {
            Some(("", _)) => bail!("expected KEY=VALUE, KEY=@FILE, KEY=env:NAME or KEY=-"),
            Some(pair) => pair,
            None => return Ok(Self::from_env(text, text)),
        };
        let source = if value == "-" {
            Source::Stdin
        } else if let Some(path) = value.strip_prefix('@') {
            Source::File(path.into())
        } else if let Some(name) = value.strip_prefix("env:") {
            Source::Env(name.to_owned())
        } else {
            Source::Literal(value.to_owned())
        };
        Ok(Self {
            key: key.to_owned(),
            source,
        })
    }
}

impl fmt::Debug for SecretPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=…", self.key)
    }
}

/// Reads every secret, in order.
///
/// # Errors
/// A usage error for a key that is given twice, or for more than one that reads standard input;
/// a failure for a file that cannot be read.
pub fn read_secrets(pairs: &[SecretPair]) -> Result<BTreeMap<String, String>> {
    let from_stdin = pairs.iter().filter(|p| p.source == Source::Stdin).count();
    if from_stdin > 1 {
        return Err(usage(
            "only one value can be read from standard input: give the others as KEY=@FILE or KEY=env:NAME",
        ));
    }
    let mut stdin = std::io::stdin().lock();
    let read = pairs.iter().map(|pair| {
        let value = pair.read(&mut stdin)?;
        Ok((pair.key.clone(), value))
    });
    unique(read.collect::<Result<Vec<_>>>()?)
}

/// Collects pairs into a map.
///
/// # Errors
/// A usage error for a key that is given twice.
pub fn unique<V>(pairs: impl IntoIterator<Item = (String, V)>) -> Result<BTreeMap<String, V>> {
    let mut map = BTreeMap::new();
    for (key, value) in pairs {
        if map.contains_key(&key) {
            return Err(usage(format!("{key} is given twice")));
        }
        map.insert(key, value);
    }
    Ok(map)
}

/// A point in time: RFC 3339 (`2026-07-16T00:00:00Z`), milliseconds since 1970, or `+1h` from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(u64);

impl Moment {
    /// Milliseconds since 1970.
    pub fn as_millis(self) -> u64 {
        self.0
    }

    fn parse(text: &str, now_ms: u64) -> Option<Self> {
        if let Some(time) = text.strip_prefix('+') {
            let time: Time = time.parse().ok()?;
            return Some(Self(now_ms + time.as_millis()));
        }
        if let Ok(ms) = text.parse() {
            return Some(Self(ms));
        }
        let at: Timestamp = text.parse().ok()?;
        u64::try_from(at.as_millisecond()).ok().map(Self)
    }
}

impl FromStr for Moment {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text, crate::page::wall_ms()).ok_or_else(|| {
            anyhow!(
                "expected a time as 2026-07-16T00:00:00Z, as milliseconds since 1970, or as +1h from now"
            )
        })
    }
}

/// A key with a point in time: `KEY=TIME`; `KEY=never` takes an end away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Of which credential.
    pub key: String,
    /// When, in milliseconds since 1970; 0 for never.
    pub at_ms: u64,
}

impl FromStr for End {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let Pair { key, value } = text.parse()?;
        let at_ms = match value.as_str() {
            "never" => 0,
            value => value.parse::<Moment>()?.as_millis(),
        };
        Ok(Self { key, at_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(text: &str, stdin: &str) -> Result<(String, String)> {
        let pair: SecretPair = text.parse()?;
        let value = pair.read(&mut stdin.as_bytes())?;
        Ok((pair.key, value))
    }

    #[test]
    fn a_secret_is_read_from_where_it_is_said_to_be() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"from a file\n").unwrap();
        let from_file = format!("a=@{}", file.path().display());
        for (text, value) in [
            ("a=plain", "plain"),
            ("a=with=equals", "with=equals"),
            ("a=", ""),
            ("a=-", "from stdin"),
            ("a=env:CARGO_PKG_NAME", "evermint"),
            (&from_file, "from a file"),
        ] {
            let (key, got) = read(text, "from stdin\r\n").unwrap();
            assert_eq!((key.as_str(), got.as_str()), ("a", value), "{text}");
        }
        assert_eq!(read("CARGO_PKG_NAME", "").unwrap().1, "evermint");
    }

    #[test]
    fn a_source_that_is_not_there_is_named() {
        for (text, named) in [
            ("a=@/nonexistent/x", "/nonexistent/x"),
            ("a=env:EVERMINT_TEST_NOT_SET", "EVERMINT_TEST_NOT_SET"),
            ("=x", "KEY=@FILE"),
        ] {
            let error = format!("{:#}", read(text, "").unwrap_err());
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let pair: SecretPair = "refresh_token=hunter2".parse().unwrap();
        assert_eq!(format!("{pair:?}"), "refresh_token=…");
    }

    #[test]
    fn a_key_given_twice_is_refused() {
        let pairs = ["a=1", "a=2"].map(|p| p.parse::<SecretPair>().unwrap());
        let error = read_secrets(&pairs).unwrap_err().to_string();
        assert!(error.contains("twice"), "{error}");
        let pairs = ["a=-", "b=-"].map(|p| p.parse::<SecretPair>().unwrap());
        let error = read_secrets(&pairs).unwrap_err().to_string();
        assert!(error.contains("standard input"), "{error}");
    }

    #[test]
    fn points_in_time_are_read_in_three_forms() {
        for (text, at) in [
            ("2026-07-16T00:00:00Z", 1_784_160_000_000),
            ("1784160000000", 1_784_160_000_000),
            ("+1h", 3_601_000),
        ] {
            assert_eq!(Moment::parse(text, 1_000), Some(Moment(at)), "{text}");
        }
        assert_eq!(Moment::parse("tomorrow", 0), None);
        assert_eq!("A=never".parse::<End>().unwrap().at_ms, 0);
    }
}
