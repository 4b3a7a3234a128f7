//! Fuzzing of what reads bytes from outside: seeds, changed here and there.
//!
//! Bytes out of nothing seldom get past the first check of a parser. So a target has seeds that it
//! accepts, of a [`Corpus`], and is given each as it is, then changed for some time. A panic is a
//! failure, and so is whatever the target asserts; proptest makes it small, and the message has the
//! bytes.
//!
//! * `cargo nextest run fuzz` is what CI does: two seconds for each target, of one seed.
//! * `just fuzz SECONDS` takes longer, of a seed of the time: `EVERMINT_FUZZ_SECONDS` for each
//!   target, from `EVERMINT_FUZZ_SEED`.
//!
//! Seeds in a text format stand as files in a `corpus` directory beside the test; a finding is
//! committed there too. Seeds in a stored format are made by the test, in today's format.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fs};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

/// How long each target is fuzzed, in seconds.
const SECONDS: u64 = 2;

/// The first seed of the changes.
const SEED: u64 = 20_261_123;

/// Cases between two looks at the time.
const CASES: u32 = 64;

/// The most edits of one seed.
const EDITS_MAX: usize = 8;

/// The longest input that changes make of a seed, in bytes.
const LENGTH_MAX: usize = 1 << 16;

/// What a target accepts, or once failed on.
pub struct Corpus(Vec<Vec<u8>>);

impl Corpus {
    /// These seeds.
    ///
    /// # Panics
    /// If there is none.
    pub fn new<S: Into<Vec<u8>>>(seeds: impl IntoIterator<Item = S>) -> Self {
        let seeds: Vec<Vec<u8>> = seeds.into_iter().map(Into::into).collect();
        assert!(!seeds.is_empty(), "a target needs a seed");
        Self(seeds)
    }

    /// The files of `dir`, and these seeds.
    ///
    /// # Panics
    /// If `dir` cannot be read, or there is no seed at all.
    pub fn with_files<S: Into<Vec<u8>>>(
        dir: impl AsRef<Path>,
        seeds: impl IntoIterator<Item = S>,
    ) -> Self {
        let dir = dir.as_ref();
        let read = || -> std::io::Result<Vec<Vec<u8>>> {
            let entries = fs::read_dir(dir)?;
            let mut paths: Vec<_> = entries
                .map(|entry| Ok(entry?.path()))
                .collect::<std::io::Result<_>>()?;
            paths.sort();
            paths.iter().map(fs::read).collect()
        };
        let files = read().unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        Self::new(files.into_iter().chain(seeds.into_iter().map(Into::into)))
    }

    /// Gives `target` each seed, then changed ones, for the time that is set.
    ///
    /// # Panics
    /// If `target` does; the message has the smallest input that was found.
    pub fn fuzz(&self, target: impl Fn(&[u8])) {
        for seed in &self.0 {
            target(seed);
        }
        let end = Instant::now() + Duration::from_secs(setting("EVERMINT_FUZZ_SECONDS", SECONDS));
        let mut seed = setting("EVERMINT_FUZZ_SEED", SEED);
        while Instant::now() < end {
            let config = Config {
                cases: CASES,
                failure_persistence: None,
                ..Config::default()
            };
            let mut key = [0; 32];
            key[..8].copy_from_slice(&seed.to_le_bytes());
            let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &key);
            let outcome = TestRunner::new_with_rng(config, rng).run(&change(), |change| {
                target(&self.changed(&change));
                Ok(())
            });
            match outcome {
                Ok(()) => seed += 1,
                Err(TestError::Fail(why, change)) => {
                    let input = self.changed(&change);
                    panic!(
                        "{why}, of {:?} ({input:02x?})",
                        input.escape_ascii().to_string()
                    );
                }
                Err(TestError::Abort(why)) => panic!("{why}"),
            }
        }
    }

    /// A seed, changed.
    fn changed(&self, change: &Change) -> Vec<u8> {
        let mut bytes = self.seed(change.seed).to_vec();
        for edit in &change.edits {
            edit.make(&mut bytes, self);
            bytes.truncate(LENGTH_MAX);
        }
        bytes
    }

    fn seed(&self, number: u16) -> &[u8] {
        &self.0[usize::from(number) % self.0.len()]
    }
}

/// A number out of the environment.
fn setting(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}"))
    })
}

/// What becomes of a seed. Shrinks to fewer and smaller edits.
#[derive(Clone, Debug)]
struct Change {
    seed: u16,
    edits: Vec<Edit>,
}

/// One edit. Places count from the start, round and round.
#[derive(Clone, Debug)]
enum Edit {
    /// Some bits turn.
    Turn { at: u16, bits: u8 },
    /// A few bytes go.
    Cut { at: u16, len: u8 },
    /// Everything from here goes.
    End { at: u16 },
    /// These bytes come in.
    Put { at: u16, bytes: Vec<u8> },
    /// A mark that formats are made of comes in.
    Mark { at: u16, mark: u8 },
    /// A number at an edge comes in, as a varint: a length that lies.
    Number { at: u16, bit: u8, less: bool },
    /// A part of a seed, perhaps of this one, comes in.
    Graft {
        seed: u16,
        from: u16,
        len: u8,
        at: u16,
    },
}

fn change() -> impl Strategy<Value = Change> {
    let edits = prop::collection::vec(edit(), 1..=EDITS_MAX);
    (any::<u16>(), edits).prop_map(|(seed, edits)| Change { seed, edits })
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = any::<u16>;
    let small = any::<u8>;
    prop_oneof![
        (at(), small()).prop_map(|(at, bits)| Edit::Turn { at, bits }),
        (at(), small()).prop_map(|(at, len)| Edit::Cut { at, len }),
        at().prop_map(|at| Edit::End { at }),
        (at(), prop::collection::vec(small(), 1..8))
            .prop_map(|(at, bytes)| Edit::Put { at, bytes }),
        (at(), small()).prop_map(|(at, mark)| Edit::Mark { at, mark }),
        (at(), small(), any::<bool>()).prop_map(|(at, bit, less)| Edit::Number { at, bit, less }),
        (at(), at(), small(), at()).prop_map(|(seed, from, len, at)| Edit::Graft {
            seed,
            from,
            len,
            at
        }),
    ]
}

/// Marks of the formats in use: JSON, YAML, JWT, URLs, placeholders.
const MARKS: [&str; 32] = [
    "{", "}", "[", "]", "\"", ":", ",", "\n", "\r\n", "\t", " ", "- ", "&a ", "*a", "!!", "#", "|",
    ">", ".", "=", "&", "%", "%00", "%2F", "..", "//", "null", "-1", "1e999", "\u{0}", "\u{feff}",
    "\u{202e}",
];

impl Edit {
    fn make(&self, bytes: &mut Vec<u8>, corpus: &Corpus) {
        match self {
            Self::Turn { at, bits } => {
                let at = place(*at, bytes.len().saturating_sub(1));
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= bits;
                }
            }
            Self::Cut { at, len } => drop(bytes.drain(range(*at, *len, bytes.len()))),
            Self::End { at } => bytes.truncate(place(*at, bytes.len())),
            Self::Put { at, bytes: new } => insert(bytes, *at, new),
            Self::Mark { at, mark } => {
                insert(
                    bytes,
                    *at,
                    MARKS[usize::from(*mark) % MARKS.len()].as_bytes(),
                );
            }
            Self::Number { at, bit, less } => {
                let edge = 1_u64 << (bit % 64);
                insert(bytes, *at, &varint(edge - u64::from(*less)));
            }
            Self::Graft {
                seed,
                from,
                len,
                at,
            } => {
                let other = corpus.seed(*seed);
                insert(bytes, *at, &other[range(*from, *len, other.len())]);
            }
        }
    }
}

fn place(at: u16, len: usize) -> usize {
    usize::from(at) % (len + 1)
}

fn range(at: u16, part: u8, len: usize) -> std::ops::Range<usize> {
    let start = place(at, len);
    start..len.min(start + usize::from(part))
}

fn insert(bytes: &mut Vec<u8>, at: u16, new: &[u8]) {
    let at = place(at, bytes.len());
    drop(bytes.splice(at..at, new.iter().copied()));
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(edits: Vec<Edit>) -> Vec<u8> {
        let corpus = Corpus::new(["abcdef", "XYZ"]);
        corpus.changed(&Change { seed: 2, edits })
    }

    #[test]
    fn each_edit_does_what_it_says() {
        let graft = Edit::Graft {
            seed: 1,
            from: 1,
            len: 9,
            at: 0,
        };
        for (edit, expected) in [
            (Edit::Turn { at: 1, bits: 1 }, &b"accdef"[..]),
            (Edit::Cut { at: 4, len: 200 }, b"abcd"),
            (Edit::End { at: 2 }, b"ab"),
            (
                Edit::Put {
                    at: 6,
                    bytes: b"!".to_vec(),
                },
                b"abcdef!",
            ),
            (Edit::Mark { at: 0, mark: 32 }, b"{abcdef"),
            (
                Edit::Number {
                    at: 0,
                    bit: 8,
                    less: true,
                },
                b"\xff\x01abcdef",
            ),
            (graft, b"YZabcdef"),
        ] {
            assert_eq!(change(vec![edit.clone()]), expected, "{edit:?}");
        }
    }

    #[test]
    fn no_edit_of_nothing_panics() {
        let corpus = Corpus::new([""]);
        let end = Edit::End { at: 3 };
        let turn = Edit::Turn { at: 3, bits: 1 };
        let edits = vec![end, turn, Edit::Cut { at: 1, len: 1 }];
        assert_eq!(corpus.changed(&Change { seed: 9, edits }), b"");
    }

    #[test]
    fn fuzz_finds_what_only_a_change_of_a_seed_shows() {
        let found = std::panic::catch_unwind(|| {
            Corpus::new(["{\"expires_in\":60}"]).fuzz(|bytes| {
                assert!(!bytes.ends_with(b"60}}"), "a bug");
            });
        });
        assert!(found.is_err());
    }
}
