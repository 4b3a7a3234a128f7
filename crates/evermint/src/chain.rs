//! The audit trail as a chain that can be checked without the cluster: one JSON object a line, with
//! the fields of a record, the digest of the record before it, and its own.

use std::collections::BTreeMap;

use evermint_core::audit::{Digest, digest};
use evermint_proto::v1;
use serde::{Deserialize, Serialize};

/// An exported record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Everything that the record says, as text.
    #[serde(flatten)]
    pub fields: BTreeMap<String, String>,
    /// The digest of the record before it, in hex.
    pub previous: String,
    /// Its own, in hex.
    pub digest: String,
}

impl From<v1::AuditRecord> for Line {
    fn from(record: v1::AuditRecord) -> Self {
        Self {
            fields: record.fields.into_iter().collect(),
            previous: hex::encode(&record.previous),
            digest: hex::encode(&record.digest),
        }
    }
}

/// Records that follow each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Chain {
    /// How many.
    pub records: u64,
    /// The number of the first one; 0 of none.
    pub first: u64,
    /// The digest of the record before the first one, in hex.
    pub anchor: String,
    /// The number of the last one; 0 of none.
    pub last: u64,
    /// The digest of the last one, in hex.
    pub head: String,
}

impl Chain {
    /// Adds the next record.
    ///
    /// # Errors
    /// What is wrong with it: it was changed, or one before it is not there.
    pub fn add(&mut self, line: &Line) -> Result<(), String> {
        let number = line.fields.get("number").map(|n| n.parse::<u64>());
        let Some(Ok(number)) = number else {
            return Err("a record has no number".to_owned());
        };
        let before = parse(&line.previous).ok_or_else(|| no_digest(number))?;
        let own = parse(&line.digest).ok_or_else(|| no_digest(number))?;
        if digest(&before, &line.fields) != own {
            return Err(format!("record {number} was changed"));
        }
        if self.records == 0 {
            self.first = number;
            self.anchor.clone_from(&line.previous);
        } else if Some(number) != self.last.checked_add(1) {
            return Err(format!("record {number} comes after {}", self.last));
        } else if line.previous != self.head {
            return Err(format!(
                "record {} is not the one that was there",
                self.last
            ));
        }
        self.records += 1;
        self.last = number;
        self.head.clone_from(&line.digest);
        Ok(())
    }
}

fn no_digest(number: u64) -> String {
    format!("record {number} has no digest")
}

fn parse(text: &str) -> Option<Digest> {
    let bytes = hex::decode(text).ok()?;
    Some(Digest(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use evermint_core::audit::{AuditEvent, AuditRecord, Origin};
    use evermint_core::id::{Position, ReplicaId};
    use evermint_core::time::UnixMs;
    use evermint_fuzz::Corpus;

    use super::*;

    fn trail(from: u64, count: u64) -> Vec<Line> {
        let mut previous = Digest::default();
        let mut lines = Vec::new();
        for number in 1..from + count {
            let record = AuditRecord {
                number,
                position: Position(number * 2),
                at: UnixMs(5),
                by: Some(Origin {
                    who: "admin-token:admin".to_owned(),
                    from: "::1".to_owned(),
                    replica: ReplicaId(1),
                }),
                event: AuditEvent::Change {
                    command: "create-provider".to_owned(),
                    object: format!("default/p{number}"),
                },
                previous,
            };
            let own = record.link().digest;
            let fields = record.fields().into_iter();
            lines.push(Line {
                fields: fields.map(|(n, v)| (n.to_owned(), v)).collect(),
                previous: previous.to_string(),
                digest: own.to_string(),
            });
            previous = own;
        }
        lines.split_off(usize::try_from(from - 1).unwrap())
    }

    fn check(lines: &[Line]) -> Result<Chain, String> {
        let mut chain = Chain::default();
        for line in lines {
            // As a file has it.
            let text = serde_json::to_string(line).unwrap();
            let read: Line = serde_json::from_str(&text).unwrap();
            assert_eq!(read, *line);
            chain.add(&read)?;
        }
        Ok(chain)
    }

    #[test]
    fn a_trail_is_whole_from_wherever_it_begins() {
        for from in [1, 4] {
            let lines = trail(from, 5);
            let chain = check(&lines).unwrap();
            assert_eq!(
                (chain.first, chain.last, chain.records),
                (from, from + 4, 5)
            );
            assert_eq!(chain.head, lines[4].digest);
            assert_eq!(chain.anchor, lines[0].previous);
        }
    }

    #[test]
    fn fuzz_a_record_is_taken_as_it_was_written_or_refused() {
        let lines = trail(1, 4);
        let text = lines
            .iter()
            .map(|l| serde_json::to_string(l).unwrap() + "\n");
        Corpus::new([text.collect::<String>()]).fuzz(|bytes| {
            let mut chain = Chain::default();
            for text in String::from_utf8_lossy(bytes).lines() {
                let Ok(line) = serde_json::from_str::<Line>(text) else {
                    continue;
                };
                if chain.add(&line).is_ok() {
                    let last = usize::try_from(chain.last).unwrap();
                    assert_eq!(line.fields, lines[last - 1].fields);
                }
            }
        });
    }

    #[test]
    fn whatever_is_done_to_a_trail_is_noticed() {
        type Tamper = fn(&mut Vec<Line>);
        let cases: [(&str, Tamper, &str); 6] = [
            (
                "a field is changed",
                |lines| {
                    lines[2].fields.insert("who".to_owned(), "x".to_owned());
                },
                "record 3 was changed",
            ),
            (
                "a field is taken out",
                |lines| {
                    lines[2].fields.remove("from");
                },
                "record 3 was changed",
            ),
            (
                "a record is taken out",
                |lines| {
                    lines.remove(2);
                },
                "record 4 comes after 2",
            ),
            (
                "two are exchanged",
                |lines| lines.swap(1, 2),
                "record 3 comes after 1",
            ),
            (
                "a record is put in twice",
                |lines| lines.insert(2, lines[1].clone()),
                "record 2 comes after 2",
            ),
            (
                "a record is made up, digest and all",
                |lines| {
                    let line = &mut lines[2];
                    line.fields.insert("who".to_owned(), "x".to_owned());
                    let before = parse(&line.previous).unwrap();
                    line.digest = digest(&before, &line.fields).to_string();
                },
                "record 3 is not the one that was there",
            ),
        ];
        for (what, tamper, told) in cases {
            let mut lines = trail(1, 5);
            tamper(&mut lines);
            assert_eq!(check(&lines).unwrap_err(), told, "{what}");
        }
    }
}
