//! The summary of a demonstration: what the cluster committed against what the issuer saw.

use evermint_core::credential::{Credential, Phase};
use evermint_core::id::{CredentialId, CredentialKey, Name, Workspace};
use evermint_core::state::State;
use evermint_issuer::History;

use super::demo::{ACCOUNTS, Account, Demo};
use crate::page::{Cell, Page, Tone};

/// Cluster and issuer, compared.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    rows: Vec<Row>,
    kills: u32,
}

/// The generations of all accounts before the demonstration started.
pub(super) struct Base(Vec<u64>);

impl Base {
    /// Those of `state`.
    pub(super) fn of(state: Option<&State>) -> Self {
        let generation = |account: &Account| {
            let credential = state.and_then(|s| find(s, account));
            credential.map_or(0, |c| c.generation.0)
        };
        Self(ACCOUNTS.iter().map(generation).collect())
    }
}

/// One credential.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    name: String,
    /// Mints that the cluster committed since the demonstration started.
    committed: u64,
    /// Tokens that the issuer gave out since then.
    issued: u64,
    /// Requests that were open at the same time.
    overlaps: usize,
    /// Spent refresh tokens that were shown again.
    reused: usize,
    /// Whether a mint is under way or in doubt.
    open: bool,
    verdict: &'static str,
}

impl Tally {
    /// Compares the issuer's history with `state`.
    pub(super) fn new(demo: &Demo, state: Option<&State>, base: &Base, kills: u32) -> Self {
        let history = demo.history();
        let rows = ACCOUNTS.iter().zip(&base.0).map(|(account, base)| {
            let credential = state.and_then(|s| find(s, account));
            row(&history, account, credential, *base)
        });
        Self {
            rows: rows.collect(),
            kills,
        }
    }

    /// Whether each credential has been minted once and then refreshed so often.
    pub(super) fn refreshed(&self, times: u64) -> bool {
        self.rows.iter().all(|row| row.committed > times)
    }

    /// Whether nothing is under way: what the issuer gave out is committed.
    pub(super) fn settled(&self) -> bool {
        let exact = self.kills == 0;
        let settled = |row: &Row| !row.open && (!exact || row.issued == row.committed);
        self.rows.iter().all(settled)
    }

    /// What is not as it should be; each credential has to be refreshed so often.
    pub(super) fn faults(&self, times: u64) -> Vec<String> {
        let mut faults = Vec::new();
        for row in &self.rows {
            let mut fault = |text: String| faults.push(format!("{}: {text}", row.name));
            if row.committed <= times {
                fault(format!(
                    "refreshed {} times, not {times}",
                    row.committed.saturating_sub(1)
                ));
            }
            if row.overlaps > 0 {
                fault(format!("{} requests overlapped", row.overlaps));
            }
            if row.reused > 0 {
                fault(format!(
                    "{} spent refresh tokens were shown again",
                    row.reused
                ));
            }
            if row.open || row.verdict != "fresh" {
                fault(format!("is {}", row.verdict));
            }
            // A replica that is killed between the issuer's answer and the commit of a service's
            // token loses that token, which costs nothing: another one is minted.
            let exact = self.kills == 0;
            if row.issued < row.committed || exact && row.issued > row.committed {
                fault(format!(
                    "{} generations, but {} tokens at the issuer",
                    row.committed, row.issued
                ));
            }
        }
        faults
    }

    /// Writes it for people.
    pub(super) fn render(&self, page: &mut Page) {
        let rows: Vec<Vec<Cell>> = self
            .rows
            .iter()
            .map(|row| {
                vec![
                    row.name.as_str().into(),
                    row.committed.into(),
                    row.issued.into(),
                    row.overlaps.to_string().into(),
                    row.reused.to_string().into(),
                ]
            })
            .collect();
        page.table(
            &[
                "CREDENTIAL",
                "GENERATIONS",
                "TOKENS ISSUED",
                "OVERLAPS",
                "REUSED",
            ],
            &rows,
            "",
        );
        let faults = self.faults(super::REFRESHES);
        for fault in &faults {
            page.line(Cell::new(fault.as_str(), Tone::Bad));
        }
        if faults.is_empty() {
            let kills = match self.kills {
                0 => String::new(),
                n => format!(", through {n} killed leaders"),
            };
            let told = match self.kills {
                0 => "every credential was refreshed, by exactly one mint for each generation"
                    .to_owned(),
                _ => {
                    format!("every credential was refreshed, no request overlapped another{kills}")
                }
            };
            page.line(Cell::new(told, Tone::Good));
        }
    }
}

fn find<'a>(state: &'a State, account: &Account) -> Option<&'a Credential> {
    let name = Name::new(account.provider).ok()?;
    let provider = state.provider_named(&Workspace::default_workspace(), &name)?;
    let id = CredentialId {
        provider: provider.id,
        key: CredentialKey::new(account.key).ok()?,
    };
    state.credentials.get(&id).map(AsRef::as_ref)
}

fn row(history: &History, account: &Account, credential: Option<&Credential>, base: u64) -> Row {
    let client = account.provider;
    let overlaps = history.overlaps();
    let issued = history.of(client).filter(|r| r.status == Some(200));
    Row {
        name: format!("{client}/{}", account.key),
        committed: credential.map_or(0, |c| c.generation.0.saturating_sub(base)),
        issued: issued.count() as u64,
        overlaps: overlaps.iter().filter(|o| o.of == client).count(),
        reused: history.of(client).filter(|r| r.reuse).count(),
        open: credential.is_none_or(|c| c.phase != Phase::Idle),
        verdict: credential
            .and_then(|c| c.refresh.as_ref())
            .map_or("missing", |r| r.health.verdict.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(change: impl Fn(&mut Row), kills: u32) -> Tally {
        let mut row = Row {
            name: "demo-user/USER_TOKEN".into(),
            committed: 3,
            issued: 3,
            overlaps: 0,
            reused: 0,
            open: false,
            verdict: "fresh",
        };
        change(&mut row);
        Tally {
            rows: vec![row],
            kills,
        }
    }

    #[test]
    fn every_fault_is_named() {
        assert_eq!(tally(|_| {}, 0).faults(2), Vec::<String>::new());
        for (change, named) in [
            ((|r| r.committed = 2) as fn(&mut Row), "refreshed 1 times"),
            (|r| r.overlaps = 1, "overlapped"),
            (|r| r.reused = 1, "shown again"),
            (|r| r.verdict = "in-doubt", "is in-doubt"),
            (|r| r.issued = 4, "3 generations, but 4 tokens"),
            (|r| r.issued = 2, "3 generations, but 2 tokens"),
        ] {
            let faults = tally(change, 0).faults(2).join("; ");
            assert!(faults.contains(named), "{faults}");
        }
    }

    #[test]
    fn a_killed_leader_may_cost_a_token_but_never_a_fault() {
        assert!(tally(|r| r.issued = 4, 1).faults(2).is_empty());
        assert!(!tally(|r| r.overlaps = 1, 1).faults(2).is_empty());
        assert!(!tally(|r| r.issued = 2, 1).faults(2).is_empty());
    }
}
