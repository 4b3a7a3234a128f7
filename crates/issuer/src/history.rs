//! What happened: one record for each token request, and the checks over them.
//!
//! A request lives from the moment its head arrived to the moment its answer was given to the
//! connection, the connection was closed, or its client went away, whichever came first. All moments
//! are of one monotonic clock; an end is recorded before the last byte of the answer leaves, so a
//! client that sends its next request on receiving an answer never overlaps itself.
//!
//! Records read and write the JSON of `GET /admin/history`, which the fixture of the real provider
//! speaks too: a test out of process parses either into a [`History`] and runs the same checks.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

/// Records kept; the oldest are forgotten first.
const RECORDS_MAX: usize = 200_000;

/// Requests by client, grant type and result: `requests`, `ok`, an OAuth error, `injected`, `reuse_detected`.
pub type Counts = BTreeMap<String, BTreeMap<String, BTreeMap<String, u64>>>;

/// One token request. Tokens appear only as the first 12 hex digits of their SHA-256.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Counts the requests, from 1.
    pub seq: u64,
    /// The client that it claims to be from.
    pub client: Option<String>,
    /// Its `grant_type`.
    pub grant: Option<String>,
    /// The family of the refresh token presented, or of the tokens minted.
    pub grant_id: Option<String>,
    /// The refresh token presented.
    pub presented: Option<String>,
    /// The generation of the refresh token presented.
    pub presented_generation: Option<u64>,
    /// Which showing of that token this is, from 1.
    #[serde(rename = "use")]
    pub showing: Option<u64>,
    /// The refresh token issued.
    pub issued: Option<String>,
    /// The access token issued.
    pub access: Option<String>,
    /// The generation minted.
    pub generation: Option<u64>,
    /// The HTTP status of the answer, sent or not.
    pub status: Option<u16>,
    /// The OAuth error of the answer.
    pub error: Option<String>,
    /// Why it was refused.
    pub detail: Option<String>,
    /// A spent refresh token was shown where that is not allowed.
    pub reuse: bool,
    /// The fault that was injected.
    pub fault: Option<String>,
    /// When its head arrived, in milliseconds since the issuer started (monotonic).
    pub arrived_ms: f64,
    /// The same in Unix milliseconds.
    pub arrived_unix_ms: u64,
    /// When it was served: after this the refresh token is spent. Milliseconds since start.
    pub served_ms: Option<f64>,
    /// When it ended, in milliseconds since the issuer started; `None` while it is open.
    pub ended_ms: Option<f64>,
    /// The same in Unix milliseconds.
    pub ended_unix_ms: Option<u64>,
    /// How it ended.
    pub end: Option<End>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The whole answer was given to the connection.
    Answered,
    /// The issuer closed the connection before the answer was complete.
    Dropped,
    /// The client went away before the answer was complete.
    ClientGone,
}

/// Two requests that were open at the same time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overlap {
    /// The client or family that both belong to.
    pub of: String,
    /// `seq` of the request that arrived first.
    pub first: u64,
    /// `seq` of the request that arrived while the first was open.
    pub second: u64,
}

/// The records, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History(VecDeque<Record>);

impl History {
    /// All records, in the order in which requests were read.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.0.iter()
    }

    /// The records of one client.
    pub fn of<'a>(&'a self, client: &'a str) -> impl DoubleEndedIterator<Item = &'a Record> {
        self.records()
            .filter(move |record| record.client.as_deref() == Some(client))
    }

    /// Requests of one *client* that were open at the same time. Right where each credential has a
    /// client of its own; otherwise see [`History::overlaps_in_families`].
    pub fn overlaps(&self) -> Vec<Overlap> {
        self.overlaps_by(|record| record.client.as_deref())
    }

    /// Requests of one *family* that were open at the same time. Requests that belong to no family
    /// (nothing was minted, no known refresh token was shown) are left out.
    pub fn overlaps_in_families(&self) -> Vec<Overlap> {
        self.overlaps_by(|record| record.grant_id.as_deref())
    }

    /// How often each refresh token was shown, by its digest.
    pub fn presentations(&self) -> BTreeMap<String, u64> {
        let mut shown = BTreeMap::new();
        for token in self.records().filter_map(|record| record.presented.clone()) {
            *shown.entry(token).or_default() += 1;
        }
        shown
    }

    /// How often a spent refresh token was shown where that is not allowed.
    pub fn reuse_detected(&self) -> usize {
        self.records().filter(|record| record.reuse).count()
    }

    /// Requests by client, grant type and result.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::new();
        for record in self.records() {
            let named = |name: &Option<String>| name.clone().unwrap_or_else(|| "?".to_owned());
            let row = counts
                .entry(named(&record.client))
                .or_default()
                .entry(named(&record.grant))
                .or_default();
            let mut count = |what: &str| *row.entry(what.to_owned()).or_default() += 1;
            count("requests");
            match (&record.error, record.status) {
                (Some(error), _) => count(error),
                (None, Some(200)) => count("ok"),
                (None, Some(status)) => count(&format!("http_{status}")),
                (None, None) => {}
            }
            if record.fault.is_some() {
                count("injected");
            }
            if record.reuse {
                count("reuse_detected");
            }
        }
        counts
    }

    fn overlaps_by<'a>(&'a self, key: impl Fn(&'a Record) -> Option<&'a str>) -> Vec<Overlap> {
        let mut groups: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
        for record in self.records() {
            if let Some(of) = key(record) {
                groups.entry(of).or_default().push(record);
            }
        }
        let mut overlaps = Vec::new();
        for (of, mut group) in groups {
            group.sort_by(|a, b| {
                a.arrived_ms
                    .total_cmp(&b.arrived_ms)
                    .then(a.seq.cmp(&b.seq))
            });
            let mut open: Vec<&Record> = Vec::new();
            for second in group {
                open.retain(|first| first.ended_ms.is_none_or(|end| end > second.arrived_ms));
                let pairs = open.iter().map(|first| (first.seq, second.seq));
                overlaps.extend(pairs.map(|(first, second)| Overlap {
                    of: of.to_owned(),
                    first,
                    second,
                }));
                open.push(second);
            }
        }
        overlaps
    }

    /// Opens a record and numbers it.
    pub(crate) fn push(&mut self, seq: u64, record: Record) {
        if self.0.len() == RECORDS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Record { seq, ..record });
    }

    /// The record of `seq`, unless it was forgotten.
    pub(crate) fn record(&mut self, seq: u64) -> Option<&mut Record> {
        let first = self.0.front()?.seq;
        self.0
            .get_mut(usize::try_from(seq.checked_sub(first)?).ok()?)
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

impl FromIterator<Record> for History {
    fn from_iter<I: IntoIterator<Item = Record>>(records: I) -> Self {
        Self(records.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records of `(client, arrived, ended)`, numbered from 1.
    fn history(rows: &[(&str, f64, Option<f64>)]) -> History {
        let record =
            |(seq, &(client, arrived_ms, ended_ms)): (usize, &(&str, f64, Option<f64>))| Record {
                seq: seq as u64 + 1,
                client: Some(client.to_owned()),
                arrived_ms,
                ended_ms,
                ..Record::default()
            };
        rows.iter().enumerate().map(record).collect()
    }

    #[test]
    fn overlaps_are_found_and_neighbours_are_not() {
        #[track_caller]
        fn check(rows: &[(&str, f64, Option<f64>)], expected: &[(u64, u64)]) {
            let overlaps = history(rows).overlaps();
            let pairs: Vec<_> = overlaps
                .iter()
                .map(|overlap| (overlap.first, overlap.second))
                .collect();
            assert_eq!(pairs, expected, "{rows:?}");
        }
        check(&[("a", 0.0, Some(1.0)), ("a", 1.0, Some(2.0))], &[]);
        check(&[("a", 0.0, Some(1.5)), ("a", 1.0, Some(2.0))], &[(1, 2)]);
        check(&[("a", 0.0, Some(1.5)), ("b", 1.0, Some(2.0))], &[]);
        check(
            &[("a", 0.0, None), ("a", 1.0, Some(2.0)), ("a", 3.0, None)],
            &[(1, 2), (1, 3)],
        );
        check(
            &[
                ("a", 0.0, Some(9.0)),
                ("a", 1.0, Some(2.0)),
                ("a", 3.0, Some(4.0)),
            ],
            &[(1, 2), (1, 3)],
        );
        check(&[("a", 5.0, Some(6.0)), ("a", 0.0, Some(5.5))], &[(2, 1)]);
        check(&[("a", 1.0, Some(2.0)), ("a", 1.0, Some(2.0))], &[(1, 2)]);
    }

    #[test]
    fn history_survives_json() {
        let mut history = history(&[("a", 0.25, Some(1.5)), ("b", 2.0, None)]);
        history.record(2).unwrap().end = Some(End::ClientGone);
        let json = serde_json::to_string(&history).unwrap();
        assert!(json.contains(r#""end":"client_gone""#));
        assert_eq!(serde_json::from_str::<History>(&json).unwrap(), history);
    }

    #[test]
    fn the_history_of_the_real_providers_fixture_is_read_too() {
        let json = r#"[{"seq":36,"client":"rt-005","grant":"refresh_token","grant_id":"lS8p","presented":"1e3d53a4b4e0",
            "presented_generation":0,"use":1,"issued":"b2f1c5a0e3d4","access":"0a1b2c3d4e5f","generation":1,"status":200,
            "error":null,"detail":null,"reuse":false,"fault":"hold_after","arrived_ms":3893.414,
            "arrived_unix_ms":1790000000000,"served_ms":3895.1,"ended_ms":3899.75,"ended_unix_ms":1790000000006,
            "end":"client_gone"}]"#;
        let mut history: History = serde_json::from_str(json).unwrap();
        let record = history.record(36).unwrap();
        assert_eq!(
            (record.showing, record.end),
            (Some(1), Some(End::ClientGone))
        );
        assert_eq!(
            (record.presented_generation, record.generation),
            (Some(0), Some(1))
        );
    }

    #[test]
    fn the_oldest_records_are_forgotten_first() {
        let mut history = History::default();
        for seq in 1..=RECORDS_MAX as u64 + 1 {
            history.push(seq, Record::default());
        }
        assert_eq!(history.0.len(), RECORDS_MAX);
        assert!(history.record(1).is_none());
        assert_eq!(history.record(2).unwrap().seq, 2);
    }
}
