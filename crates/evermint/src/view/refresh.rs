//! Refreshes: how credentials are minted, and how that goes.

use std::collections::BTreeMap;

use evermint_proto::v1;
use serde::Serialize;

use super::revocation::Revocation;
use super::{reason, text_cell, verdict, verdict_cell};
use crate::out::{At, Render};
use crate::page::{Cell, Page, Tone, span};

/// How one refresh stands.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Refresh {
    pub provider: String,
    pub credential_key: String,
    pub verdict: String,
    pub cause: String,
    pub remedy: String,
    pub since: At,
    pub strategy: String,
    pub token_url: String,
    pub revoke_url: String,
    pub scopes: Vec<String>,
    pub replay_policy: String,
    pub material: Vec<String>,
    pub outputs: BTreeMap<String, String>,
    pub material_expires_at: BTreeMap<String, At>,
    pub authorization_epoch: u64,
    pub generation: u64,
    pub attempt: u64,
    pub issued_at: Option<At>,
    pub expires_at: Option<At>,
    pub due_at: Option<At>,
    pub due_reason: String,
    pub last_mint_at: Option<At>,
    pub failures: u32,
    pub ticket: Option<Ticket>,
    pub doubt: Option<Doubt>,
    pub owner: Option<Owner>,
    pub lost: Option<LostMint>,
}

/// A mint whose answer never arrived.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct LostMint {
    pub ticket: String,
    pub replica: u64,
    pub at: At,
}

/// The exclusive right to run one mint.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Ticket {
    pub id: String,
    pub attempt: u64,
    pub replica: u64,
    pub reason: String,
    pub granted_at: At,
    pub ttl_ms: u64,
}

/// A mint whose outcome nobody knows.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Doubt {
    pub ticket: Option<Ticket>,
    pub since: At,
    pub until: At,
}

/// Who mints.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Owner {
    pub replica: u64,
    pub session: String,
    pub shard: u32,
    pub shard_epoch: u64,
}

impl Refresh {
    /// A status of a credential of `provider`.
    pub fn new(provider: &str, s: v1::RefreshStatus) -> Self {
        Self {
            provider: provider.to_owned(),
            credential_key: s.credential_key,
            verdict: verdict(s.verdict),
            cause: s.cause,
            remedy: s.remedy,
            since: At(s.since_ms),
            strategy: s.strategy,
            token_url: s.token_url,
            revoke_url: s.revoke_url,
            scopes: s.scopes,
            replay_policy: replay(s.replay.unwrap_or_default()),
            material: s.material,
            outputs: s.outputs,
            material_expires_at: s
                .material_expires_at_ms
                .into_iter()
                .map(|(name, end)| (name, At(end)))
                .collect(),
            authorization_epoch: s.authorization_epoch,
            generation: s.generation,
            attempt: s.attempt,
            issued_at: s.issued_at_ms.map(At),
            expires_at: s.expires_at_ms.map(At),
            due_at: s.due_at_ms.map(At),
            due_reason: reason(s.due_reason),
            last_mint_at: s.last_mint_at_ms.map(At),
            failures: s.failures,
            ticket: s.ticket.map(Ticket::from),
            doubt: s.doubt.map(Doubt::from),
            owner: s.owner.map(Owner::from),
            lost: s.lost.map(|lost| LostMint {
                ticket: lost.ticket,
                replica: lost.replica,
                at: At(lost.at_ms),
            }),
        }
    }

    /// What happens next.
    fn next(&self, page: &Page) -> Cell {
        if let Some(ticket) = &self.ticket {
            return Cell::new(format!("minting on {}", ticket.replica), Tone::Plain);
        }
        if let Some(doubt) = &self.doubt {
            return page.when(doubt.until.0).into();
        }
        page.when_any(self.due_at.map(|at| at.0))
    }

    fn expires(&self, page: &Page) -> Cell {
        if self.issued_at.is_none() && self.expires_at.is_none() {
            return Cell::none();
        }
        page.end(self.expires_at.map(|at| at.0))
    }

    fn owner(&self) -> Cell {
        let owner = self.owner.as_ref();
        owner.map_or_else(Cell::none, |o| o.replica.into())
    }

    /// Cause and remedy, where there is anything to tell.
    fn trouble(&self, page: &mut Page) {
        if !self.cause.is_empty() {
            let told = format!("{}/{}: {}", self.provider, self.credential_key, self.cause);
            page.line(Cell::new(told, verdict_tone(&self.verdict)));
        }
        if let Some(lost) = &self.lost {
            page.line(format!(
                "  lost: the answer to ticket {} on replica {}, {}",
                lost.ticket,
                lost.replica,
                page.when(lost.at.0)
            ));
        }
        if !self.remedy.is_empty() {
            page.line(format!("  try: {}", self.remedy));
        }
    }

    fn details(&self, page: &mut Page) {
        let doubt = self.doubt.as_ref();
        let mut fields = vec![
            ("provider", Cell::from(self.provider.as_str())),
            ("credential", self.credential_key.as_str().into()),
            ("verdict", verdict_cell(&self.verdict)),
            ("since", page.when(self.since.0).into()),
            ("strategy", self.strategy.as_str().into()),
            ("token endpoint", text_cell(&self.token_url)),
            ("revocation endpoint", text_cell(&self.revoke_url)),
            ("scopes", text_cell(&self.scopes.join(" "))),
            ("replay policy", self.replay_policy.as_str().into()),
            ("material", text_cell(&self.material.join(", "))),
            ("generation", self.generation.into()),
            ("issued", page.when_any(self.issued_at.map(|at| at.0))),
            ("expires", self.expires(page)),
            ("next mint", self.next(page)),
            ("last mint", page.when_any(self.last_mint_at.map(|at| at.0))),
            ("failures", u64::from(self.failures).into()),
            ("owner", self.owner()),
        ];
        let outputs = self.outputs.iter();
        fields.extend(outputs.map(|(output, key)| ("output", format!("{output} as {key}").into())));
        for (name, end) in &self.material_expires_at {
            fields.push((
                "material ends",
                format!("{name} {}", page.when(end.0)).into(),
            ));
        }
        if let Some(doubt) = doubt {
            let ticket = doubt.ticket.as_ref();
            let who = ticket.map_or_else(Cell::none, |t| {
                format!("ticket {} on replica {}", t.id, t.replica).into()
            });
            fields.push(("in doubt", who));
        }
        page.fields(&fields);
    }
}

fn verdict_tone(verdict: &str) -> Tone {
    match verdict {
        "fresh" | "pending" => Tone::Plain,
        "retrying" | "throttled" | "in-doubt" => Tone::Warn,
        _ => Tone::Bad,
    }
}

fn replay(policy: v1::ReplayPolicy) -> String {
    use v1::replay_policy::Kind;
    match policy.kind() {
        Kind::Safe => "safe".to_owned(),
        Kind::Grace => format!("grace={}", span(policy.grace_ms).replace(' ', "")),
        Kind::Strict | Kind::Unspecified => "strict".to_owned(),
    }
}

impl From<v1::Ticket> for Ticket {
    fn from(t: v1::Ticket) -> Self {
        Self {
            reason: reason(t.reason),
            id: t.id,
            attempt: t.attempt,
            replica: t.replica,
            granted_at: At(t.granted_at_ms),
            ttl_ms: t.ttl_ms,
        }
    }
}

impl From<v1::Doubt> for Doubt {
    fn from(d: v1::Doubt) -> Self {
        Self {
            ticket: d.ticket.map(Ticket::from),
            since: At(d.since_ms),
            until: At(d.until_ms),
        }
    }
}

impl From<v1::Owner> for Owner {
    fn from(o: v1::Owner) -> Self {
        Self {
            replica: o.replica,
            session: o.session,
            shard: o.shard,
            shard_epoch: o.shard_epoch,
        }
    }
}

/// Refreshes, as `provider refresh status` shows them.
#[derive(Debug, Serialize)]
pub struct Many {
    /// By provider, then by key.
    pub refreshes: Vec<Refresh>,
    /// The cluster clock, to compare the times with.
    pub server_time: At,
    /// Time since the replica that answered knew itself caught up with a leader.
    pub staleness_ms: Option<u64>,
}

impl Render for Many {
    fn render(&self, page: &mut Page) {
        page.set_now(self.server_time.0);
        let rows: Vec<Vec<Cell>> = self
            .refreshes
            .iter()
            .map(|r| {
                vec![
                    r.provider.as_str().into(),
                    r.credential_key.as_str().into(),
                    verdict_cell(&r.verdict),
                    r.generation.into(),
                    r.expires(page),
                    r.next(page),
                    r.owner(),
                ]
            })
            .collect();
        page.table(
            &[
                "PROVIDER",
                "CREDENTIAL",
                "VERDICT",
                "GEN",
                "EXPIRES",
                "NEXT MINT",
                "OWNER",
            ],
            &rows,
            "no refreshes: `evermint provider refresh configure` puts a credential under one",
        );
        for refresh in &self.refreshes {
            refresh.trouble(page);
        }
    }
}

/// One refresh, as `configure` and `rotate` show it.
#[derive(Debug, Serialize)]
pub struct One {
    /// For people: what was done.
    #[serde(skip)]
    pub done: String,
    /// Of a mint that was asked for: `due`, `minted`, `failed`, `in-doubt` or `voided`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// What became of the revocation of the superseded value, where it was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub revocations: Vec<Revocation>,
    /// How it stands.
    pub refresh: Refresh,
    /// Where the write stands in the history.
    pub position: u64,
}

impl Render for One {
    fn render(&self, page: &mut Page) {
        page.line(self.done.as_str());
        self.refresh.details(page);
        self.refresh.trouble(page);
        for revocation in &self.revocations {
            revocation.tell(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, shown};
    use super::*;

    fn status() -> v1::RefreshStatus {
        v1::RefreshStatus {
            credential_key: "TOKEN".into(),
            verdict: v1::Verdict::Fresh as i32,
            since_ms: NOW - 60_000,
            strategy: "oauth2-refresh-token".into(),
            token_url: "https://idp.example/token".into(),
            replay: Some(v1::ReplayPolicy {
                kind: v1::replay_policy::Kind::Grace as i32,
                grace_ms: 30_000,
            }),
            material: vec!["client_id".into(), "refresh_token".into()],
            generation: 7,
            attempt: 8,
            issued_at_ms: Some(NOW - 60_000),
            expires_at_ms: Some(NOW + 41 * 60_000),
            due_at_ms: Some(NOW + 26 * 60_000),
            due_reason: v1::Reason::Due as i32,
            owner: Some(v1::Owner {
                replica: 2,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn many(refreshes: Vec<Refresh>) -> Many {
        Many {
            refreshes,
            server_time: At(NOW),
            staleness_ms: Some(0),
        }
    }

    #[test]
    fn refreshes_are_told_with_their_troubles() {
        let dead = v1::RefreshStatus {
            verdict: v1::Verdict::NeedsReauthorization as i32,
            cause: "the issuer refused the grant: invalid_grant".into(),
            remedy: "authorize again and reconfigure the refresh".into(),
            credential_key: "OLD".into(),
            expires_at_ms: Some(NOW - 5_000),
            due_at_ms: None,
            lost: Some(v1::LostMint {
                ticket: "0f3c".into(),
                replica: 2,
                at_ms: NOW - 600_000,
            }),
            ..status()
        };
        let many = many(vec![
            Refresh::new("idp", status()),
            Refresh::new("idp", dead),
        ]);
        assert_eq!(
            shown(&many),
            "PROVIDER  CREDENTIAL  VERDICT                GEN  EXPIRES    NEXT MINT  OWNER\n\
             idp       TOKEN       fresh                  7    in 41 min  in 26 min  2\n\
             idp       OLD         needs-reauthorization  7    5 s ago    -          2\n\
             idp/OLD: the issuer refused the grant: invalid_grant\n\
             \x20 lost: the answer to ticket 0f3c on replica 2, 10 min ago\n\
             \x20 try: authorize again and reconfigure the refresh\n"
        );
    }

    #[test]
    fn a_mint_under_way_is_shown_as_what_comes_next() {
        let minting = v1::RefreshStatus {
            ticket: Some(v1::Ticket {
                replica: 3,
                ..Default::default()
            }),
            due_at_ms: None,
            ..status()
        };
        let text = shown(&many(vec![Refresh::new("idp", minting)]));
        assert!(text.contains("minting on 3"), "{text}");
    }

    #[test]
    fn json_names_times_and_policies() {
        let json = serde_json::to_value(Refresh::new("idp", status())).unwrap();
        assert_eq!(json["provider"], "idp");
        assert_eq!(json["replay_policy"], "grace=30s");
        assert_eq!(json["expires_at"], "2026-07-16T00:41:00.000Z");
        assert_eq!(json["ticket"], serde_json::Value::Null);
        assert_eq!(json["owner"]["replica"], 2);
    }
}
