//! Histories for the tests of checks, told in a line each.

use evermint_issuer::{End, Record};

use super::seen::{Seen, ms};
use super::{Check, Violation};
use crate::history::{
    Answer, AuditedMint, Call, Event, Issuer, Line, Phase, Place, Run, Served, Way,
};

/// A history in the making. Moments are in milliseconds.
#[derive(Clone, Default)]
pub(super) struct Tale {
    lines: Vec<Line>,
    calls: u64,
    contents: u64,
    faults: u64,
    requests: u64,
    positions: u64,
}

impl Tale {
    /// A run of three replicas with the usual times.
    pub(super) fn begin() -> Self {
        Self::default().note(
            0,
            Event::Run(Run {
                replicas: 3,
                ticket_ttl_ms: 4_000,
                ticket_margin_ms: 1_000,
                doubt_wait_ms: 2_000,
                max_staleness_ms: 20_000,
                access_ttl_ms: 45_000,
                ..Run::default()
            }),
        )
    }

    pub(super) fn note(mut self, at_ms: u64, event: Event) -> Self {
        self.lines.push(Line {
            at: ms(at_ms),
            unix_ms: 1_000_000 + at_ms,
            event,
        });
        self
    }

    pub(super) fn phase(self, at: u64, phase: Phase) -> Self {
        self.note(at, Event::Phase { phase })
    }

    /// A call that is acknowledged, refused (`Some("")`) or never answered (`None`).
    fn call(self, from: u64, what: Call, end: impl FnOnce(u64) -> Option<(u64, Event)>) -> Self {
        let who = format!("operator-{}", self.calls + 1);
        self.call_by(who, from, what, end)
    }

    fn call_by(
        mut self,
        who: String,
        from: u64,
        what: Call,
        end: impl FnOnce(u64) -> Option<(u64, Event)>,
    ) -> Self {
        self.calls += 1;
        let call = self.calls;
        let this = self.note(from, Event::Invoke { call, who, what });
        match end(call) {
            Some((at, event)) => this.note(at, event),
            None => this,
        }
    }

    pub(super) fn ok(self, (from, to): (u64, u64), what: Call) -> Self {
        let answer = Answer::Written { position: 1 };
        self.answered((from, to), what, answer)
    }

    /// The same, by somebody in particular.
    pub(super) fn ok_by(self, who: &str, (from, to): (u64, u64), what: Call) -> Self {
        self.call_by(who.to_owned(), from, what, |call| {
            let (replica, answer) = (0, Answer::Written { position: 1 });
            let ok = Event::Ok {
                call,
                replica,
                answer,
            };
            Some((to, ok))
        })
    }

    pub(super) fn answered(self, (from, to): (u64, u64), what: Call, answer: Answer) -> Self {
        self.call(from, what, |call| {
            let replica = 0;
            Some((
                to,
                Event::Ok {
                    call,
                    replica,
                    answer,
                },
            ))
        })
    }

    pub(super) fn refused(self, (from, to): (u64, u64), what: Call) -> Self {
        self.call(from, what, |call| {
            let why = String::new();
            Some((to, Event::Fail { call, why }))
        })
    }

    pub(super) fn unknown(self, from: u64, what: Call) -> Self {
        self.call(from, what, |call| {
            let why = String::new();
            Some((from + 1, Event::Info { call, why }))
        })
    }

    pub(super) fn fault(
        mut self,
        (from, to): (u64, u64),
        family: &str,
        name: &str,
        replicas: &[Place],
    ) -> Self {
        self.faults += 1;
        let fault = self.faults;
        let begins = Event::FaultBegins {
            fault,
            family: family.to_owned(),
            name: name.to_owned(),
            replicas: replicas.to_vec(),
            detail: String::new(),
        };
        let evidence = String::new();
        self.note(from, begins)
            .note(from, Event::FaultBites { fault, evidence })
            .note(to, Event::FaultEnds { fault })
    }

    /// A token request of `client` that shows `presented` and is given `issued`, as a success.
    pub(super) fn mint(self, times: (u64, u64), client: &str, tokens: (&str, &str)) -> Self {
        let (presented, issued) = tokens;
        self.request(times, client, |record| {
            record.presented = Some(presented.to_owned());
            record.issued = Some(issued.to_owned());
            record.access = Some(format!("access-{issued}"));
            record.status = Some(200);
        })
    }

    pub(super) fn request(
        mut self,
        (arrived, ended): (u64, u64),
        client: &str,
        more: impl FnOnce(&mut Record),
    ) -> Self {
        self.requests += 1;
        let mut record = Record {
            seq: self.requests,
            client: Some(client.to_owned()),
            end: Some(End::Answered),
            ..Record::default()
        };
        more(&mut record);
        let event = Event::Mint {
            issuer: Issuer::Strict,
            arrived: ms(arrived),
            served: (record.fault.is_none() && record.status.is_some()).then(|| ms(arrived)),
            ended: Some(ms(ended)),
            record: Box::new(record),
        };
        self.note(ended, event)
    }

    /// Says that `client` mints for `provider`.
    pub(super) fn configured(self, provider: &str, client: &str) -> Self {
        let what = Call::ConfigureRefresh {
            provider: provider.to_owned(),
            key: "K".to_owned(),
            client: client.to_owned(),
        };
        self.ok((1, 2), what)
    }

    /// A mint in the trail: its ticket, when it was granted and settled, how, and the generation.
    pub(super) fn audited(
        mut self,
        provider: &str,
        ticket: &str,
        (granted, at): (u64, u64),
        end: &str,
        generation: u64,
    ) -> Self {
        self.positions += 1;
        let audited = AuditedMint {
            position: self.positions,
            at_ms: at,
            provider: provider.to_owned(),
            provider_id: format!("id-of-{provider}"),
            key: "K".to_owned(),
            ticket: ticket.to_owned(),
            replica: 1,
            granted_at_ms: granted,
            end: end.to_owned(),
            generation,
        };
        self.note(90_000, Event::Audit(audited))
    }

    /// The trail is whole.
    pub(super) fn whole_trail(self) -> Self {
        let event = Event::AuditEnds {
            records: self.positions,
            complete: true,
        };
        self.note(90_000, event)
    }

    /// A read of `reader` at `replica`: when it asked and was answered, and what it got.
    pub(super) fn read(
        mut self,
        reader: &str,
        (asked, answered): (u64, u64),
        replica: Place,
        (after, generation): (u64, u64),
        staleness_ms: u64,
        credentials: Vec<Served>,
    ) -> Self {
        self.contents += 1;
        let content = self.contents;
        self.note(
            answered,
            Event::Content {
                content,
                credentials,
            },
        )
        .note(
            answered,
            Event::Read {
                sandbox: "s".to_owned(),
                reader: reader.to_owned(),
                way: Way::Polling,
                asked: ms(asked),
                replica: Some(replica),
                generation,
                after,
                staleness_ms: Some(staleness_ms),
                content: Some(content),
            },
        )
    }

    /// What `check` finds.
    pub(super) fn found(&self, check: Check) -> Vec<Violation> {
        check(&Seen::of(&self.lines))
    }

    /// Asserts that `check` has nothing to say.
    #[track_caller]
    pub(super) fn is_good(&self, check: Check) {
        assert_eq!(self.found(check), []);
    }

    /// Asserts that `check` finds exactly one thing, which `says` so.
    #[track_caller]
    pub(super) fn is_bad(&self, check: Check, says: &str) {
        let found = self.found(check);
        assert!(
            found.len() == 1 && found[0].what.contains(says),
            "{says}: {found:?}"
        );
    }
}

/// A value in a bundle.
pub(super) fn served(provider: &str, generation: u64, token: &str) -> Served {
    Served {
        provider: provider.to_owned(),
        key: "K".to_owned(),
        generation,
        token: Some(token.to_owned()),
        expires_at_ms: None,
        unavailable: String::new(),
    }
}
