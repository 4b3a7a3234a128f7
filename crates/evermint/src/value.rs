//! What operators write after a flag: keys with values in the clear or by reference, points in time.

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

/// The longest value that is read from a file or from standard input, in bytes. The gateway's own
/// limit for a value is smaller, and its answer explains itself better.
const VALUE_MAX: u64 = 1 << 20;

/// Earlier points in time, in milliseconds since 1970, are taken for seconds: March 1973.
const MOMENT_MIN: u64 = 100_000_000_000;

/// Where a value comes from.
#[derive(Clone, PartialEq, Eq)]
enum Source {
    Literal(String),
    File(PathBuf),
    Stdin,
    Env(String),
}

/// A key with a value, as it stands after a flag: `KEY=@FILE`, `KEY=-` (standard input),
/// `KEY=env:NAME`, or `KEY=VALUE`, which `ps` and the shell's history show. A bare `KEY` reads the
/// variable of that name; `KEY=@@VALUE` is the value `@VALUE`.
///
/// `Debug` shows the key alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Given {
    /// What stands before the first `=`.
    pub key: String,
    source: Source,
}

impl Given {
    /// The value of the environment variable `variable` under `key`.
    pub fn from_env(key: impl Into<String>, variable: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            source: Source::Env(variable.into()),
        }
    }

    fn read(&self, stdin: &mut dyn Read) -> Result<String> {
        let (text, origin) = match &self.source {
            Source::Literal(value) => return Ok(value.clone()),
            Source::Env(name) => {
                let value = std::env::var(name).map_err(|_| {
                    usage(format!(
                        "{}: the environment variable {name} is not set, or is no text",
                        self.key
                    ))
                })?;
                (value, format!("the environment variable {name}"))
            }
            Source::File(path) => {
                let file = std::fs::File::open(path)
                    .with_context(|| format!("{}: cannot read {}", self.key, path.display()))?;
                let origin = path.display().to_string();
                (self.take(file, &origin)?, origin)
            }
            Source::Stdin => {
                if std::io::stdin().is_terminal() {
                    note(&format!("{}: end it with Enter and Ctrl-D", self.key));
                }
                let origin = "standard input".to_owned();
                (self.take(stdin, &origin)?, origin)
            }
        };
        if text.is_empty() {
            return Err(usage(format!("{}: {origin} is empty", self.key)));
        }
        Ok(text)
    }

    /// Everything in `from`, as far as it may go, without the line break at its end: editors and
    /// `echo` add one that is not part of the value.
    fn take(&self, from: impl Read, origin: &str) -> Result<String> {
        let mut bytes = Vec::new();
        from.take(VALUE_MAX + 1)
            .read_to_end(&mut bytes)
            .with_context(|| format!("{}: cannot read {origin}", self.key))?;
        if bytes.len() as u64 > VALUE_MAX {
            bail!("{}: {origin} holds more than {VALUE_MAX} bytes", self.key);
        }
        let text = String::from_utf8(bytes)
            .map_err(|_| anyhow!("{}: {origin} holds no UTF-8 text", self.key))?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
    }
}

impl FromStr for Given {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (key, value) = match text.split_once('=') {
            // The text is not repeated: it may be a secret that stands in the wrong place.
            Some(("", _)) => bail!("expected KEY=VALUE, KEY=@FILE, KEY=env:NAME or KEY=-"),
            Some(pair) => pair,
            None => return Ok(Self::from_env(text, text)),
        };
        let source = if value == "-" {
            Source::Stdin
        } else if value.starts_with("@@") {
            Source::Literal(value[1..].to_owned())
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

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=…", self.key)
    }
}

/// Reads the values that one command was given, and remembers which secrets stand on its line.
#[derive(Debug, Default)]
pub struct Reader {
    stdin: Option<String>,
    exposed: Vec<String>,
}

impl Reader {
    /// Reads values that are no secrets, in order.
    ///
    /// # Errors
    /// A usage error for a key that is given twice, for a second value from standard input, and
    /// for a source that is empty; a failure for a file that cannot be read.
    pub fn plain(&mut self, given: &[Given]) -> Result<BTreeMap<String, String>> {
        self.check_stdin(given)?;
        let read = given
            .iter()
            .map(|given| Ok((given.key.clone(), given.read(&mut std::io::stdin().lock())?)));
        unique(read.collect::<Result<Vec<_>>>()?)
    }

    /// Reads secrets, in order.
    ///
    /// # Errors
    /// As [`plain`](Self::plain).
    pub fn secret(&mut self, given: &[Given]) -> Result<BTreeMap<String, String>> {
        self.note_exposed(given, |_| true);
        self.plain(given)
    }

    /// Remembers those that stand on the command line in the clear and are secret.
    pub fn note_exposed(&mut self, given: &[Given], is_secret: impl Fn(&str) -> bool) {
        let exposed = given
            .iter()
            .filter(|given| matches!(given.source, Source::Literal(_)) && is_secret(&given.key));
        self.exposed.extend(exposed.map(|given| given.key.clone()));
    }

    /// Tells, once, which secrets others could see.
    pub fn warn(&self) {
        if let Some(key) = self.exposed.first() {
            note(&format!(
                "warning: {} on the command line, where ps and the shell's history show it; give {key}=@FILE, {key}=- or {key}=env:NAME",
                self.exposed.join(", ")
            ));
        }
    }

    /// Standard input can be read once: a second wish is refused before the first is met.
    fn check_stdin(&mut self, given: &[Given]) -> Result<()> {
        for given in given.iter().filter(|g| g.source == Source::Stdin) {
            if let Some(first) = self.stdin.replace(given.key.clone()) {
                return Err(usage(format!(
                    "{first} and {} both read standard input: give one as KEY=@FILE or KEY=env:NAME",
                    given.key
                )));
            }
        }
        Ok(())
    }
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
        if let Ok(ms) = text.parse::<u64>() {
            return (ms >= MOMENT_MIN).then_some(Self(ms));
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
                "expected a time as 2026-07-16T00:00:00Z, as milliseconds (not seconds) since 1970, or as +1h from now"
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
        let (key, value) = text
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| anyhow!("expected KEY=TIME or KEY=never"))?;
        let at_ms = match value {
            "never" => 0,
            value => value.parse::<Moment>()?.as_millis(),
        };
        Ok(Self {
            key: key.to_owned(),
            at_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(text: &str, stdin: &str) -> Result<(String, String)> {
        let pair: Given = text.parse()?;
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
            ("a=@@plain", "@plain"),
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
            ("a=-", "standard input is empty"),
            ("a=@/dev/null", "/dev/null is empty"),
            ("a=@/dev/zero", "more than 1048576 bytes"),
            ("a=@/proc/self", "/proc/self"),
            ("=x", "KEY=@FILE"),
        ] {
            let error = format!("{:#}", read(text, "").unwrap_err());
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let pair: Given = "refresh_token=hunter2".parse().unwrap();
        assert_eq!(format!("{pair:?}"), "refresh_token=…");
    }

    #[test]
    fn a_key_given_twice_and_standard_input_read_twice_are_refused() {
        for (pairs, named) in [
            (["a=1", "a=2"], "a is given twice"),
            (["a=-", "b=-"], "a and b both read standard input"),
        ] {
            let pairs = pairs.map(|p| p.parse::<Given>().unwrap());
            let error = Reader::default().secret(&pairs);
            let error = error.unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn secrets_on_the_line_are_remembered_by_their_keys() {
        let pairs = ["a=plain", "b=env:CARGO_PKG_NAME"].map(|p| p.parse::<Given>().unwrap());
        let mut reader = Reader::default();
        reader.secret(&pairs).unwrap();
        assert_eq!(reader.exposed, ["a"]);
        assert!(!format!("{reader:?} {pairs:?}").contains("plain"));
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
        assert_eq!(Moment::parse("1784160000", 0), None, "seconds");
        assert_eq!("A=never".parse::<End>().unwrap().at_ms, 0);
    }
}
