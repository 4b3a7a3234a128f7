//! The audit trail.

use evermint_proto::v1;
use serde::Serialize;

use super::{reason, word};
use crate::chain::Chain;
use crate::out::{At, Render};
use crate::page::{Cell, Page, Tone, absolute};

/// The answer of `audit`.
#[derive(Debug, Serialize)]
pub struct Trail {
    /// Oldest first.
    pub records: Vec<Record>,
    /// How far the replica that answered has applied the history.
    pub position: u64,
    /// Whether more records match than were given.
    pub more: bool,
    /// Whether those given are the newest; else more come after them.
    #[serde(skip)]
    pub newest: bool,
}

/// One line of the trail.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Record {
    pub number: u64,
    pub position: u64,
    pub at: At,
    pub by: Option<Origin>,
    #[serde(flatten)]
    pub event: Event,
}

/// Who asked for it.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Origin {
    pub who: String,
    pub from: String,
    pub replica: u64,
}

/// What happened.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub enum Event {
    Mint {
        provider: String,
        provider_id: String,
        credential_key: String,
        ticket: String,
        replica: u64,
        reason: String,
        granted_at: At,
        end: String,
        generation: Option<u64>,
        cause: String,
    },
    Change {
        command: String,
        object: String,
    },
    Revocation {
        provider: String,
        provider_id: String,
        credential_key: String,
        grant: bool,
        replica: u64,
        tries: u32,
        end: String,
        cause: String,
    },
    Refused {
        method: String,
        #[serde(rename = "refusal")]
        reason: String,
        count: u64,
        since: At,
    },
    Unknown,
}

impl Trail {
    /// What the gateway answered.
    pub fn new(answer: v1::ListAuditResponse, newest: bool) -> Self {
        Self {
            records: answer.records.into_iter().map(Record::from).collect(),
            position: answer.position,
            more: answer.more,
            newest,
        }
    }
}

impl From<v1::AuditRecord> for Record {
    fn from(record: v1::AuditRecord) -> Self {
        use v1::audit_record::Event as Given;
        let event = match record.event {
            Some(Given::Mint(m)) => Event::Mint {
                end: word(m.end().as_str_name(), "END_"),
                provider: m.provider,
                provider_id: m.provider_id,
                credential_key: m.credential_key,
                ticket: m.ticket,
                replica: m.replica,
                reason: reason(m.reason),
                granted_at: At(m.granted_at_ms),
                generation: (m.generation > 0).then_some(m.generation),
                cause: m.cause,
            },
            Some(Given::Revocation(r)) => Event::Revocation {
                end: word(r.end().as_str_name(), "END_"),
                provider: r.provider,
                provider_id: r.provider_id,
                credential_key: r.credential_key,
                grant: r.grant,
                replica: r.replica,
                tries: r.tries,
                cause: r.cause,
            },
            Some(Given::Change(c)) => Event::Change {
                command: c.command,
                object: c.object,
            },
            Some(Given::Refused(r)) => Event::Refused {
                method: r.method,
                reason: r.reason,
                count: r.count,
                since: At(r.since_ms),
            },
            None => Event::Unknown,
        };
        Self {
            number: record.number,
            position: record.position,
            at: At(record.at_ms),
            by: record.by.map(|by| Origin {
                who: by.who,
                from: by.from,
                replica: by.replica,
            }),
            event,
        }
    }
}

impl Record {
    fn row(&self) -> Vec<Cell> {
        let (what, object, end) = match &self.event {
            Event::Mint {
                provider,
                provider_id,
                credential_key,
                replica,
                reason,
                end,
                generation,
                cause,
                ..
            } => {
                let provider = if provider.is_empty() {
                    provider_id
                } else {
                    provider
                };
                let tone = match end.as_str() {
                    "committed" => Tone::Good,
                    "failed" | "in-doubt" => Tone::Warn,
                    _ => Tone::Plain,
                };
                let told = match generation {
                    Some(generation) => format!("{end} generation {generation}"),
                    None if cause.is_empty() => end.clone(),
                    None => format!("{end}: {cause}"),
                };
                (
                    format!("mint ({reason}) on {replica}"),
                    format!("{provider}/{credential_key}"),
                    Cell::new(told, tone),
                )
            }
            Event::Revocation {
                provider,
                provider_id,
                credential_key,
                grant,
                end,
                cause,
                ..
            } => {
                let provider = if provider.is_empty() {
                    provider_id
                } else {
                    provider
                };
                let what = if *grant { "grant" } else { "value" };
                let (tone, told) = match cause.as_str() {
                    "" => (Tone::Good, end.clone()),
                    cause => (Tone::Warn, format!("{end}: {cause}")),
                };
                (
                    format!("revocation ({what})"),
                    format!("{provider}/{credential_key}"),
                    Cell::new(told, tone),
                )
            }
            Event::Change { command, object } => (command.clone(), object.clone(), Cell::none()),
            Event::Refused {
                method,
                reason,
                count,
                ..
            } => {
                let told = match count {
                    1 => reason.clone(),
                    count => format!("{reason}, {count} times"),
                };
                let end = Cell::new(told, Tone::Warn);
                ("refused".to_owned(), method.clone(), end)
            }
            Event::Unknown => ("?".to_owned(), String::new(), Cell::none()),
        };
        vec![
            self.position.into(),
            absolute(self.at.0).into(),
            match &self.by {
                Some(by) if by.from.is_empty() => by.who.as_str().into(),
                Some(by) => format!("{} from {}", by.who, by.from).into(),
                None => Cell::none(),
            },
            what.into(),
            object.into(),
            end,
        ]
    }
}

impl Render for Trail {
    fn render(&self, page: &mut Page) {
        let rows: Vec<Vec<Cell>> = self.records.iter().map(Record::row).collect();
        page.table(
            &["POSITION", "AT", "WHO", "WHAT", "OBJECT", "END"],
            &rows,
            "no audit records match",
        );
        if self.more {
            let last = self.records.last().map_or(0, |r| r.position);
            let told = match self.newest {
                true => "older ones match: raise --limit, or begin with --since 0".to_owned(),
                false => format!("more match: continue with --since {last}, or raise --limit"),
            };
            page.line(Cell::new(told, Tone::Dim));
        }
    }
}

/// For `audit --follow`.
impl Render for Record {
    fn render(&self, page: &mut Page) {
        page.cells(&self.row());
    }
}

/// The answer of `audit verify`.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Verified(pub Chain);

impl Render for Verified {
    fn render(&self, page: &mut Page) {
        let chain = &self.0;
        if chain.records == 0 {
            return page.line(Cell::new("there are no records", Tone::Dim));
        }
        let told = format!(
            "{} records, {} to {}, are as they were written",
            chain.records, chain.first, chain.last
        );
        page.line(Cell::new(told, Tone::Good));
        page.line(format!("digest of the last one: {}", chain.head));
        page.line(format!("digest before the first one: {}", chain.anchor));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, shown};
    use super::*;

    #[test]
    fn mints_and_changes_are_told() {
        use v1::audit_record::Event as Given;
        let mint = v1::MintEvent {
            provider: "idp".into(),
            credential_key: "TOKEN".into(),
            replica: 2,
            reason: v1::Reason::Due as i32,
            end: v1::mint_event::End::Committed as i32,
            generation: 7,
            ..Default::default()
        };
        let failed = v1::MintEvent {
            end: v1::mint_event::End::Failed as i32,
            generation: 0,
            cause: "the issuer answered 503".into(),
            ..mint.clone()
        };
        let change = v1::ChangeEvent {
            command: "create-provider".into(),
            object: "default/idp".into(),
        };
        let record = |position, event| v1::AuditRecord {
            position,
            at_ms: NOW,
            event: Some(event),
            ..Default::default()
        };
        let answer = v1::ListAuditResponse {
            records: vec![
                record(3, Given::Change(change)),
                record(9, Given::Mint(mint)),
                record(12, Given::Mint(failed)),
            ],
            position: 12,
            more: true,
            ..Default::default()
        };
        let trail = Trail::new(answer, false);
        let text = shown(&trail);
        assert!(text.contains("create-provider"), "{text}");
        assert!(text.contains("mint (due) on 2"), "{text}");
        assert!(text.ends_with("--since 12, or raise --limit\n"), "{text}");
        let json = serde_json::to_value(&trail).unwrap();
        assert_eq!(json["records"][1]["event"], "mint");
        assert_eq!(json["records"][1]["generation"], 7);
        assert_eq!(json["records"][2]["cause"], "the issuer answered 503");
        assert_eq!(json["records"][0]["command"], "create-provider");
    }
}
