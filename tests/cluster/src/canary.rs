//! Looks for planted secrets in whatever a process left on disk or says.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// A text shorter than this turns up by chance.
const NEEDLE_MIN: usize = 12;

/// Secrets to look for, each in the clear, percent-encoded, backwards, in hex, and in base64 at
/// every alignment.
#[derive(Default)]
pub struct Canary {
    needles: Vec<Needle>,
}

struct Needle {
    bytes: Vec<u8>,
    what: String,
}

impl Canary {
    /// Looks for `secret` from now on; `name` says which one it is.
    pub fn plant(&mut self, name: &str, secret: impl AsRef<[u8]>) {
        let secret = secret.as_ref();
        let mut add = |form: &str, bytes: Vec<u8>| {
            assert!(bytes.len() >= NEEDLE_MIN, "{name} is too short to look for");
            let what = format!("{name} ({form})");
            self.needles.push(Needle { bytes, what });
        };
        add("percent-encoded", percent_encoded(secret));
        add("backwards", secret.iter().rev().copied().collect());
        let hex = hex::encode(secret);
        add("clear", secret.to_vec());
        add("HEX", hex.to_uppercase().into());
        add("hex", hex.into());
        for shift in 0..3 {
            add("base64", at_alignment(&STANDARD_NO_PAD, secret, shift));
            add("base64url", at_alignment(&URL_SAFE_NO_PAD, secret, shift));
        }
    }

    /// Every finding in the files under `dir`: which secret in which file.
    ///
    /// # Panics
    /// When a file cannot be read: then nothing would be proven.
    pub fn search(&self, dir: &Path) -> Vec<String> {
        let by_start = self.by_start();
        let mut found = Vec::new();
        let mut dirs = vec![dir.to_owned()];
        while let Some(dir) = dirs.pop() {
            let entries = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
            for entry in entries.flatten() {
                let path = entry.path();
                if path.is_dir() {
                    dirs.push(path);
                    continue;
                }
                let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                let what = self.find(&by_start, &bytes);
                found.extend(what.map(|what| format!("{what} in {}", path.display())));
            }
        }
        found
    }

    /// Every finding in `bytes`.
    pub fn find_in(&self, bytes: &[u8]) -> Vec<String> {
        let found = self.find(&self.by_start(), bytes);
        found.map(str::to_owned).collect()
    }

    /// The needles by their first two bytes, so that one pass over a file looks for all of them.
    fn by_start(&self) -> BTreeMap<[u8; 2], Vec<&Needle>> {
        let mut by_start: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for needle in &self.needles {
            let start = [needle.bytes[0], needle.bytes[1]];
            by_start.entry(start).or_default().push(needle);
        }
        by_start
    }

    fn find<'a>(
        &self,
        by_start: &BTreeMap<[u8; 2], Vec<&'a Needle>>,
        hay: &[u8],
    ) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut starts = vec![false; 1 << 16];
        for start in by_start.keys() {
            starts[usize::from(u16::from_be_bytes(*start))] = true;
        }
        let mut found = Vec::new();
        for (at, pair) in hay.windows(2).enumerate() {
            let start = [pair[0], pair[1]];
            if starts[usize::from(u16::from_be_bytes(start))] {
                let here = by_start[&start]
                    .iter()
                    .filter(|needle| hay[at..].starts_with(&needle.bytes));
                found.extend(here.map(|needle| needle.what.as_str()));
            }
        }
        found.sort_unstable();
        found.dedup();
        found.into_iter()
    }
}

/// As it stands in the body of a token request.
fn percent_encoded(secret: &[u8]) -> Vec<u8> {
    let encode = |byte: &u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => vec![*byte],
        byte => format!("%{byte:02X}").into_bytes(),
    };
    secret.iter().flat_map(encode).collect()
}

/// The characters that stand for `secret` alone when `shift` other bytes come before it in a group
/// of three, and anything after it.
fn at_alignment(engine: &impl Engine, secret: &[u8], shift: usize) -> Vec<u8> {
    let mut bytes = vec![0; shift];
    bytes.extend_from_slice(secret);
    let text = engine.encode(&bytes).into_bytes();
    // Each character tells 6 bits; those that tell a bit of a neighbour are left out.
    let first = (shift * 8).div_ceil(6);
    let last = bytes.len() * 8 / 6;
    text[first..last].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;

    const SECRET: &str = "canary-7f3a?~long-enough";

    fn found(content: &[u8]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("deep")).unwrap();
        fs::write(dir.path().join("deep/file"), content).unwrap();
        let mut canary = Canary::default();
        canary.plant("token", SECRET);
        canary.search(dir.path())
    }

    #[test]
    fn a_planted_secret_is_found_in_every_form() {
        for (form, content) in [
            ("clear", format!("x{SECRET}y").into_bytes()),
            ("hex", hex::encode(format!("x{SECRET}y")).into_bytes()),
            (
                "percent-encoded",
                b"x=canary-7f3a%3F~long-enough&y".to_vec(),
            ),
            ("backwards", b"hguone-gnol~?a3f7-yranac".to_vec()),
            ("HEX", hex::encode(SECRET).to_uppercase().into_bytes()),
            ("base64", STANDARD.encode(SECRET).into_bytes()),
            (
                "base64",
                STANDARD.encode(format!("a{SECRET}b")).into_bytes(),
            ),
            (
                "base64",
                STANDARD.encode(format!("ab{SECRET}")).into_bytes(),
            ),
            (
                "base64url",
                URL_SAFE_NO_PAD
                    .encode(format!("{{\"t\":\"{SECRET}\"}}"))
                    .into_bytes(),
            ),
        ] {
            let found = found(&content);
            let form = format!("({form})");
            assert!(found.iter().any(|f| f.contains(&form)), "{form}: {found:?}");
        }
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        assert!(found(b"canary-7f3a?~long-enoug").is_empty());
    }
}
