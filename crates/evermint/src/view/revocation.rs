//! Revocations: what issuers were told.

use evermint_proto::v1;
use serde::Serialize;

use super::word;
use crate::out::{At, Render};
use crate::page::{Cell, Page, Tone};

/// One revocation.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Revocation {
    pub provider: String,
    pub credential_key: String,
    pub position: u64,
    pub state: String,
    pub grant: bool,
    pub asked_at: At,
    pub tries: u32,
    pub cause: String,
    pub due_at: Option<At>,
    pub ended_at: Option<At>,
    pub ended_position: u64,
}

impl From<v1::Revocation> for Revocation {
    fn from(r: v1::Revocation) -> Self {
        Self {
            state: word(r.state().as_str_name(), "STATE_"),
            provider: r.provider,
            credential_key: r.credential_key,
            position: r.position,
            grant: r.grant,
            asked_at: At(r.asked_at_ms),
            tries: r.tries,
            cause: r.cause,
            due_at: r.due_at_ms.map(At),
            ended_at: r.ended_at_ms.map(At),
            ended_position: r.ended_position,
        }
    }
}

impl Revocation {
    /// Whether the issuer is still to be told.
    pub fn is_open(&self) -> bool {
        self.state == "open"
    }

    /// Whether the issuer was not told, and will not be.
    pub fn is_failed(&self) -> bool {
        self.state == "not-revoked"
    }

    fn state(&self) -> Cell {
        let tone = match self.state.as_str() {
            "revoked" | "ended-by-itself" => Tone::Good,
            "open" => Tone::Plain,
            _ => Tone::Bad,
        };
        Cell::new(self.state.as_str(), tone)
    }

    /// What became of it, in a line.
    pub(super) fn tell(&self, page: &mut Page) {
        let what = if self.grant { "grant" } else { "value" };
        let name = format!("{} of {}/{}", what, self.provider, self.credential_key);
        let tries = match self.tries {
            1 => "1 try".to_owned(),
            tries => format!("{tries} tries"),
        };
        let told = match self.state.as_str() {
            "revoked" => format!("{name} is revoked at the issuer"),
            "ended-by-itself" => format!("{name} ended by itself; the issuer needs no word"),
            "open" => {
                let when = self.due_at.map_or_else(String::new, |at| page.when(at.0));
                format!("{name} is still to be revoked, {when}; {tries} so far")
            }
            _ => format!("{name} was not revoked: {} ({tries})", self.cause),
        };
        let tone = match self.is_failed() {
            true => Tone::Bad,
            false => Tone::Plain,
        };
        page.line(Cell::new(told, tone));
        if self.is_failed() {
            page.line("  try: revoke it at the issuer yourself; evermint has destroyed its copy");
        }
    }
}

/// Revocations, as `provider refresh revocations` shows them.
#[derive(Debug, Serialize)]
pub struct Many {
    /// By provider and key, oldest first.
    pub revocations: Vec<Revocation>,
    /// The cluster clock, to compare the times with.
    pub server_time: At,
}

impl Render for Many {
    fn render(&self, page: &mut Page) {
        page.set_now(self.server_time.0);
        let rows: Vec<Vec<Cell>> = self
            .revocations
            .iter()
            .map(|r| {
                let kind = if r.grant { "grant" } else { "value" };
                let next = r.due_at.or(r.ended_at);
                vec![
                    r.provider.as_str().into(),
                    r.credential_key.as_str().into(),
                    kind.into(),
                    r.state(),
                    u64::from(r.tries).into(),
                    page.when_any(next.map(|at| at.0)),
                ]
            })
            .collect();
        page.table(
            &["PROVIDER", "CREDENTIAL", "WHAT", "STATE", "TRIES", "WHEN"],
            &rows,
            "no revocations: `--revoke` of `provider delete`, `refresh delete` and `rotate` asks for one",
        );
        for failed in self.revocations.iter().filter(|r| r.is_failed()) {
            failed.tell(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, shown};
    use super::*;
    use v1::revocation::State;

    fn given(state: State, cause: &str) -> v1::Revocation {
        v1::Revocation {
            provider: "idp".to_owned(),
            credential_key: "TOKEN".to_owned(),
            position: 9,
            state: state.into(),
            grant: true,
            asked_at_ms: NOW - 5_000,
            tries: 2,
            cause: cause.to_owned(),
            due_at_ms: (state == State::Open).then_some(NOW + 60_000),
            ended_at_ms: (state != State::Open).then_some(NOW - 1_000),
            ended_position: 12,
        }
    }

    #[test]
    fn an_issuer_that_was_not_told_is_named_with_the_cause() {
        let many = Many {
            revocations: vec![
                given(State::Open, "").into(),
                given(State::NotRevoked, "503").into(),
            ],
            server_time: At(NOW),
        };
        assert_eq!(
            shown(&many),
            "PROVIDER  CREDENTIAL  WHAT   STATE        TRIES  WHEN\n\
             idp       TOKEN       grant  open         2      in 60 s\n\
             idp       TOKEN       grant  not-revoked  2      1 s ago\n\
             grant of idp/TOKEN was not revoked: 503 (2 tries)\n\
             \x20 try: revoke it at the issuer yourself; evermint has destroyed its copy\n"
        );
    }
}
