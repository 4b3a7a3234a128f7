//! What the demonstration shows: the cluster at one moment, and what changed since another.

use std::collections::BTreeMap;

use evermint_core::audit::{AuditEvent, MintEnd};
use evermint_core::credential::Credential;
use evermint_core::id::{CredentialId, ReplicaId};
use evermint_core::port::StateView as _;
use evermint_core::state::State;

use super::cluster::Cluster;
use crate::page::{Cell, Page, Tone};
use crate::view::verdict_cell;

/// The cluster at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    now_ms: u64,
    leader: Option<ReplicaId>,
    term: u64,
    replicas: Vec<Replica>,
    credentials: BTreeMap<String, Row>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Replica {
    id: ReplicaId,
    api: String,
    up: bool,
    shards: usize,
}

/// A credential.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    verdict: &'static str,
    generation: u64,
    minted_by: Option<ReplicaId>,
    expires_at_ms: Option<u64>,
    due_at_ms: Option<u64>,
    minting_on: Option<ReplicaId>,
    owner: Option<ReplicaId>,
    cause: String,
}

impl Snapshot {
    /// Looks at the replica whose state is the newest.
    pub(super) fn take(cluster: &Cluster) -> Self {
        let Some(replica) = cluster.any() else {
            return Self::default();
        };
        let (status, state) = (replica.raft(), replica.node.state());
        let now_ms = replica.node.now().0;
        let leads = |id: ReplicaId| {
            cluster
                .seats
                .iter()
                .any(|seat| seat.id == id && seat.is_up())
        };
        let replicas = cluster.seats.iter().map(|seat| Replica {
            id: seat.id,
            api: seat.api(),
            up: seat.is_up(),
            shards: state
                .shards
                .values()
                .filter(|s| s.replica == seat.id)
                .count(),
        });
        Self {
            now_ms,
            leader: status.leader.filter(|id| leads(*id)),
            term: status.term,
            replicas: replicas.collect(),
            credentials: rows(&state, now_ms),
        }
    }

    /// What changed since `before`, a line each.
    pub(super) fn since(&self, before: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.leader != before.leader {
            lines.push(match self.leader {
                Some(id) => format!("replica {id} leads in term {}", self.term),
                None => "no replica leads".to_owned(),
            });
        }
        for (now, was) in self.replicas.iter().zip(&before.replicas) {
            if now.up && !was.up {
                lines.push(format!("replica {} is back", now.id));
            }
        }
        for (name, row) in &self.credentials {
            lines.extend(row.since(name, before.credentials.get(name), self.now_ms));
        }
        lines
    }

    /// Writes it for people.
    pub(super) fn render(&self, page: &mut Page) {
        page.set_now(self.now_ms);
        let replicas: Vec<Vec<Cell>> = self.replicas.iter().map(|r| self.replica(r)).collect();
        page.table(
            &["REPLICA", "ROLE", "SHARDS", "API"],
            &replicas,
            "no replica is there",
        );
        page.line("");
        let credentials: Vec<Vec<Cell>> = self
            .credentials
            .iter()
            .map(|(name, row)| row.cells(name, page))
            .collect();
        page.table(
            &[
                "CREDENTIAL",
                "VERDICT",
                "GEN",
                "EXPIRES",
                "NEXT MINT",
                "OWNER",
                "MINTED BY",
            ],
            &credentials,
            "no credentials",
        );
    }

    fn replica(&self, replica: &Replica) -> Vec<Cell> {
        let role = match (replica.up, self.leader == Some(replica.id)) {
            (false, _) => Cell::new("killed", Tone::Bad),
            (true, true) => Cell::new("leader", Tone::Good),
            (true, false) => "follower".into(),
        };
        vec![
            replica.id.0.into(),
            role,
            replica.shards.to_string().into(),
            replica.api.as_str().into(),
        ]
    }
}

impl Row {
    fn since(&self, name: &str, before: Option<&Self>, now_ms: u64) -> Option<String> {
        let was = before.map_or(0, |row| row.generation);
        if self.generation != was {
            let by = self
                .minted_by
                .map_or_else(String::new, |id| format!(", minted by replica {id}"));
            let end = self.expires_at_ms.unwrap_or(now_ms).saturating_sub(now_ms);
            return Some(format!(
                "{name}: generation {}{by}, good for {:.1} s",
                self.generation,
                end as f64 / 1_000.0
            ));
        }
        let verdict_changed = before.is_some_and(|row| row.verdict != self.verdict);
        if verdict_changed {
            return Some(match self.cause.as_str() {
                "" => format!("{name}: {}", self.verdict),
                cause => format!("{name}: {}: {cause}", self.verdict),
            });
        }
        let moved = before.is_some_and(|row| row.owner != self.owner);
        let owner = self.owner.filter(|_| moved)?;
        Some(format!("{name}: owned by replica {owner} now"))
    }

    fn cells(&self, name: &str, page: &Page) -> Vec<Cell> {
        let id = |id: Option<ReplicaId>| id.map_or_else(Cell::none, |id| id.0.into());
        let next = match self.minting_on {
            Some(_) => Cell::new("minting", Tone::Warn),
            None => page.when_any(self.due_at_ms),
        };
        vec![
            name.into(),
            verdict_cell(self.verdict),
            self.generation.into(),
            match self.expires_at_ms {
                Some(_) => page.end(self.expires_at_ms),
                None => Cell::none(),
            },
            next,
            id(self.owner),
            id(self.minted_by),
        ]
    }
}

fn rows(state: &State, now_ms: u64) -> BTreeMap<String, Row> {
    let now = evermint_core::time::UnixMs(now_ms);
    let row = |credential: &Credential| Row {
        verdict: credential.verdict(now).as_str(),
        generation: credential.generation.0,
        minted_by: minted_by(state, &credential.id),
        expires_at_ms: credential
            .value
            .as_ref()
            .and_then(|v| v.expires_at)
            .map(|at| at.0),
        due_at_ms: credential.due().map(|(at, _)| at.0),
        minting_on: credential.ticket().map(|ticket| ticket.owner),
        owner: state.shards.get(&credential.shard).map(|s| s.replica),
        cause: credential
            .refresh
            .as_ref()
            .map_or_else(String::new, |r| r.health.cause.clone()),
    };
    let named = state.credentials.values().filter_map(|credential| {
        let provider = state.providers.get(&credential.id.provider)?;
        let name = format!("{}/{}", provider.name, credential.id.key);
        Some((name, row(credential)))
    });
    named.collect()
}

/// Who minted the value of now.
fn minted_by(state: &State, id: &CredentialId) -> Option<ReplicaId> {
    state
        .audit
        .values()
        .rev()
        .find_map(|record| match &record.event {
            AuditEvent::Mint {
                credential,
                replica,
                end: MintEnd::Committed(_),
                ..
            } if credential == id => Some(*replica),
            AuditEvent::Mint { .. }
            | AuditEvent::Change { .. }
            | AuditEvent::Revocation { .. }
            | AuditEvent::Refused(_) => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Style;

    fn snapshot() -> Snapshot {
        let replica = |id: u64| Replica {
            id: ReplicaId(id),
            api: format!("http://127.0.0.1:{}", 7433 + 10 * id),
            up: true,
            shards: 21,
        };
        let row = Row {
            verdict: "fresh",
            generation: 3,
            minted_by: Some(ReplicaId(2)),
            expires_at_ms: Some(1_012_000),
            due_at_ms: Some(1_009_000),
            minting_on: None,
            owner: Some(ReplicaId(2)),
            cause: String::new(),
        };
        Snapshot {
            now_ms: 1_000_000,
            leader: Some(ReplicaId(1)),
            term: 1,
            replicas: [1, 2].map(replica).into(),
            credentials: [("demo-user/USER_TOKEN".to_owned(), row)].into(),
        }
    }

    #[test]
    fn the_view_fits_eighty_columns() {
        let style = Style {
            width: Some(80),
            color: false,
        };
        let mut page = Page::new(style, 0);
        snapshot().render(&mut page);
        assert_eq!(
            page.text(),
            "REPLICA  ROLE      SHARDS  API\n\
             1        leader    21      http://127.0.0.1:7443\n\
             2        follower  21      http://127.0.0.1:7453\n\
             \n\
             CREDENTIAL            VERDICT  GEN  EXPIRES  NEXT MINT  OWNER  MINTED BY\n\
             demo-user/USER_TOKEN  fresh    3    in 12 s  in 9 s     2      2\n"
        );
    }

    #[test]
    fn changes_are_told_once() {
        let before = snapshot();
        assert_eq!(before.since(&before), Vec::<String>::new());
        let mut after = snapshot();
        after.leader = Some(ReplicaId(2));
        after.term = 2;
        let row = after.credentials.get_mut("demo-user/USER_TOKEN").unwrap();
        row.generation = 4;
        assert_eq!(
            after.since(&before),
            [
                "replica 2 leads in term 2",
                "demo-user/USER_TOKEN: generation 4, minted by replica 2, good for 12.0 s"
            ]
        );
        let mut troubled = snapshot();
        let row = troubled
            .credentials
            .get_mut("demo-user/USER_TOKEN")
            .unwrap();
        row.verdict = "in-doubt";
        row.cause = "replica 2 was lost".into();
        assert_eq!(
            troubled.since(&before),
            ["demo-user/USER_TOKEN: in-doubt: replica 2 was lost"]
        );
    }
}
