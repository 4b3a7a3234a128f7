//! The cluster as one replica sees it.

use std::path::PathBuf;

use evermint_proto::v1;
use serde::Serialize;

use super::{text_cell, word};
use crate::out::{At, Render};
use crate::page::{Cell, Page, Tone, absolute, span};

/// A wall clock that is further off than this is worth a word, in milliseconds.
const CLOCK_OFF_MS: u64 = 1_000;

/// The answer of `cluster status`.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Status {
    pub gateway: String,
    pub replica: u64,
    pub session: String,
    pub version: String,
    pub role: String,
    pub term: u64,
    pub leader: Option<u64>,
    pub replicas: Vec<Replica>,
    pub position: u64,
    pub last_log_index: u64,
    pub applied_index: u64,
    pub snapshot_index: u64,
    pub staleness_ms: Option<u64>,
    pub server_time: At,
    pub placement_version: u64,
    pub unowned_shards: u32,
    pub settings: Option<Settings>,
    pub counts: Counts,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_hash: Option<String>,
}

/// A member.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Replica {
    pub id: u64,
    pub api_address: String,
    pub peer_address: String,
    pub voter: bool,
    pub shards: u32,
    pub lag: Option<u64>,
    pub last_heard_ms: Option<u64>,
    /// Nothing of the history up to there is left in its log.
    pub erased_position: Option<u64>,
    /// By how much its wall clock is ahead of the cluster clock.
    pub clock_ahead_ms: Option<i64>,
    pub session: String,
    pub joined_at: At,
}

/// Settings on which all replicas agree.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Settings {
    pub shards: u32,
    pub ticket_ttl_ms: u64,
    pub ticket_margin_ms: u64,
    pub doubt_wait_ms: u64,
    pub backoff_base_ms: u64,
    pub backoff_cap_ms: u64,
    pub default_lifetime_ms: u64,
    pub audit_retention: u32,
    pub audit_max_age_ms: u64,
}

/// Objects in the state.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Counts {
    pub providers: u64,
    pub credentials: u64,
    pub tickets: u64,
    pub routes: u64,
    pub sandboxes: u64,
}

impl Status {
    /// What the replica behind `gateway` answered.
    pub fn new(gateway: &str, s: v1::GetClusterStatusResponse) -> Self {
        let counts = s.counts.unwrap_or_default();
        Self {
            gateway: gateway.to_owned(),
            role: word(s.role().as_str_name(), "ROLE_"),
            replica: s.replica,
            session: s.session,
            version: s.version,
            term: s.term,
            leader: s.leader,
            replicas: s.replicas.into_iter().map(Replica::from).collect(),
            position: s.position,
            last_log_index: s.last_log_index,
            applied_index: s.applied_index,
            snapshot_index: s.snapshot_index,
            staleness_ms: s.staleness_ms,
            server_time: At(s.server_time_ms),
            placement_version: s.placement_version,
            unowned_shards: s.unowned_shards,
            settings: s.settings.map(Settings::from),
            counts: Counts {
                providers: counts.providers,
                credentials: counts.credentials,
                tickets: counts.tickets,
                routes: counts.routes,
                sandboxes: counts.sandboxes,
            },
            state_hash: Some(s.state_hash).filter(|hash| !hash.is_empty()),
        }
    }

    fn role_of(&self, replica: &Replica) -> Cell {
        if self.leader == Some(replica.id) {
            Cell::new("leader", Tone::Good)
        } else if replica.voter {
            "follower".into()
        } else {
            Cell::new("learner", Tone::Warn)
        }
    }
}

impl From<v1::Replica> for Replica {
    fn from(r: v1::Replica) -> Self {
        Self {
            id: r.id,
            api_address: r.api_address,
            peer_address: r.peer_address,
            voter: r.voter,
            shards: r.shards,
            lag: r.lag,
            last_heard_ms: r.last_heard_ms,
            erased_position: r.erased_position,
            clock_ahead_ms: r.clock_ahead_ms,
            session: r.session,
            joined_at: At(r.joined_at_ms),
        }
    }
}

impl From<v1::Settings> for Settings {
    fn from(s: v1::Settings) -> Self {
        Self {
            shards: s.shards,
            ticket_ttl_ms: s.ticket_ttl_ms,
            ticket_margin_ms: s.ticket_margin_ms,
            doubt_wait_ms: s.doubt_wait_ms,
            backoff_base_ms: s.backoff_base_ms,
            backoff_cap_ms: s.backoff_cap_ms,
            default_lifetime_ms: s.default_lifetime_ms,
            audit_retention: s.audit_retention,
            audit_max_age_ms: s.audit_max_age_ms,
        }
    }
}

impl Render for Status {
    fn render(&self, page: &mut Page) {
        page.set_now(self.server_time.0);
        let leader = match self.leader {
            Some(id) => Cell::from(format!("replica {id}, term {}", self.term)),
            None => Cell::new("none known", Tone::Bad),
        };
        let fresh = match self.staleness_ms {
            Some(ms) => Cell::from(span(ms)),
            None => Cell::new("never caught up", Tone::Bad),
        };
        let c = &self.counts;
        page.fields(&[
            (
                "answered by",
                format!(
                    "replica {} ({}), evermint {}",
                    self.replica, self.role, self.version
                )
                .into(),
            ),
            ("leader", leader),
            ("staleness", fresh),
            ("position", self.position.into()),
            (
                "log",
                format!(
                    "applied {} of {}, snapshot at {}",
                    self.applied_index, self.last_log_index, self.snapshot_index
                )
                .into(),
            ),
            (
                "objects",
                format!(
                    "providers {}, credentials {} ({} minting), routes {}, sandboxes {}",
                    c.providers, c.credentials, c.tickets, c.routes, c.sandboxes
                )
                .into(),
            ),
        ]);
        if let Some(hash) = &self.state_hash {
            page.fields(&[("state hash", hash.as_str().into())]);
        }
        if self.unowned_shards > 0 {
            let told = format!(
                "shards without an owner, of which nothing is minted: {}",
                self.unowned_shards
            );
            page.line(Cell::new(told, Tone::Warn));
        }
        for replica in &self.replicas {
            let ahead = replica.clock_ahead_ms.unwrap_or(0);
            if ahead.unsigned_abs() > CLOCK_OFF_MS {
                let way = if ahead > 0 { "ahead of" } else { "behind" };
                let (id, off) = (replica.id, span(ahead.unsigned_abs()));
                let told = format!("the wall clock of replica {id} is {off} {way} the cluster's");
                page.line(Cell::new(told, Tone::Warn));
            }
        }
        page.line("");
        let rows: Vec<Vec<Cell>> = self
            .replicas
            .iter()
            .map(|r| {
                let number = |n: Option<u64>| n.map_or_else(Cell::none, Cell::from);
                vec![
                    r.id.into(),
                    self.role_of(r),
                    u64::from(r.shards).into(),
                    number(r.lag),
                    r.last_heard_ms
                        .map_or_else(Cell::none, |ms| format!("{} ago", span(ms)).into()),
                    text_cell(&r.api_address),
                    text_cell(&r.peer_address),
                ]
            })
            .collect();
        page.table(
            &["REPLICA", "ROLE", "SHARDS", "LAG", "HEARD", "API", "PEER"],
            &rows,
            "no members yet: the cluster is not bootstrapped (`evermint serve --init`)",
        );
    }
}

/// The answer of `cluster remove`.
#[derive(Debug, Serialize)]
pub struct Removal {
    /// Which replica.
    pub replica: u64,
    /// False if there was no such member.
    pub removed: bool,
}

impl Render for Removal {
    fn render(&self, page: &mut Page) {
        let id = self.replica;
        page.line(match self.removed {
            true => Cell::from(format!(
                "replica {id} removed; its id and its data directory are spent"
            )),
            false => Cell::new(format!("there was no replica {id}"), Tone::Dim),
        });
    }
}

/// The answer of `cluster join-token`. It has no `Debug`: it holds the token.
#[derive(Serialize)]
pub struct JoinToken {
    /// The token, unless it went into a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// The file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// When it ends.
    pub expires_at: At,
}

impl JoinToken {
    /// What the gateway answered.
    pub fn new(answer: v1::CreateJoinTokenResponse) -> Self {
        Self {
            token: Some(answer.token),
            file: None,
            expires_at: At(answer.expires_at_ms),
        }
    }

    /// Takes the token out, so that it is not shown.
    pub fn take(&mut self) -> String {
        self.token.take().unwrap_or_default()
    }
}

impl Render for JoinToken {
    /// The token alone, so that a script can take it; or where it is.
    fn render(&self, page: &mut Page) {
        match (&self.token, &self.file) {
            (Some(token), _) => page.line(token.as_str()),
            (None, Some(file)) => page.line(format!(
                "a token for one new replica, good until {}, is in {}",
                absolute(self.expires_at.0),
                file.display()
            )),
            (None, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, shown};
    use super::*;

    #[test]
    fn the_cluster_is_told_with_its_members() {
        let replica = |id: u64, lag| v1::Replica {
            id,
            peer_address: format!("10.0.0.{id}:7444"),
            api_address: format!("https://10.0.0.{id}:7443"),
            voter: id != 3,
            shards: 85,
            lag: Some(lag),
            last_heard_ms: Some(120),
            clock_ahead_ms: (id == 3).then_some(-7_200_000),
            ..Default::default()
        };
        let status = v1::GetClusterStatusResponse {
            replica: 1,
            role: v1::Role::Leader as i32,
            term: 4,
            leader: Some(1),
            replicas: vec![replica(1, 0), replica(2, 0), replica(3, 7)],
            position: 210,
            last_log_index: 42,
            applied_index: 42,
            staleness_ms: Some(3),
            server_time_ms: NOW,
            unowned_shards: 1,
            version: "0.1.0".into(),
            ..Default::default()
        };
        assert_eq!(
            shown(&Status::new("http://127.0.0.1:7443", status)),
            "answered by  replica 1 (leader), evermint 0.1.0\n\
             leader       replica 1, term 4\n\
             staleness    3 ms\n\
             position     210\n\
             log          applied 42 of 42, snapshot at 0\n\
             objects      providers 0, credentials 0 (0 minting), routes 0, sandboxes 0\n\
             shards without an owner, of which nothing is minted: 1\n\
             the wall clock of replica 3 is 2 h behind the cluster's\n\
             \n\
             REPLICA  ROLE      SHARDS  LAG  HEARD       API                    PEER\n\
             1        leader    85      0    120 ms ago  https://10.0.0.1:7443  10.0.0.1:7444\n\
             2        follower  85      0    120 ms ago  https://10.0.0.2:7443  10.0.0.2:7444\n\
             3        learner   85      7    120 ms ago  https://10.0.0.3:7443  10.0.0.3:7444\n"
        );
    }
}
