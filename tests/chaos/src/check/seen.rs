//! A history, sorted into what checks ask for.

use std::collections::BTreeMap;

use evermint_issuer::Record;

use crate::history::{
    Answer, AuditedMint, Call, CallId, Event, FaultId, Issuer, Line, Nanos, Phase, Place, Run,
    Served,
};

/// What was seen.
pub(super) struct Seen<'a> {
    pub(super) lines: &'a [Line],
    pub(super) run: Run,
    pub(super) calls: Vec<Made<'a>>,
    pub(super) faults: Vec<Fault<'a>>,
    /// Token requests by issuer and client, in the order of their arrival.
    pub(super) requests: BTreeMap<(Issuer, &'a str), Vec<Request<'a>>>,
    /// Mints in the trail by provider id and key, in the order of the replicated history.
    pub(super) trail: BTreeMap<(&'a str, &'a str), Vec<&'a AuditedMint>>,
    /// Whether the trail covers all of the run.
    pub(super) trail_is_complete: bool,
    contents: BTreeMap<u64, &'a [Served]>,
}

/// A call of an operator.
pub(super) struct Made<'a> {
    pub(super) who: &'a str,
    pub(super) what: &'a Call,
    pub(super) invoked: Nanos,
    pub(super) outcome: Outcome<'a>,
}

/// What came of it.
#[derive(Clone, Copy)]
pub(super) enum Outcome<'a> {
    Ok(Nanos, &'a Answer),
    Fail,
    /// It may have happened, or may yet.
    Unknown,
}

impl Made<'_> {
    /// When it was acknowledged.
    pub(super) fn acknowledged(&self) -> Option<Nanos> {
        match self.outcome {
            Outcome::Ok(at, _) => Some(at),
            Outcome::Fail | Outcome::Unknown => None,
        }
    }

    /// Whether it may have had an effect.
    pub(super) fn may_count(&self) -> bool {
        !matches!(self.outcome, Outcome::Fail)
    }
}

/// An injected fault.
pub(super) struct Fault<'a> {
    pub(super) id: FaultId,
    pub(super) family: &'a str,
    pub(super) name: &'a str,
    pub(super) replicas: &'a [Place],
    pub(super) begins: Nanos,
    /// Absent if it lasted to the end.
    pub(super) ends: Option<Nanos>,
}

impl Fault<'_> {
    /// Whether it was there at some time between these.
    pub(super) fn touches(&self, from: Nanos, to: Nanos) -> bool {
        self.begins <= to && self.ends.is_none_or(|end| end >= from)
    }
}

/// A token request.
pub(super) struct Request<'a> {
    pub(super) arrived: Nanos,
    pub(super) served: Option<Nanos>,
    pub(super) ended: Option<Nanos>,
    pub(super) record: &'a Record,
}

impl Request<'_> {
    /// Whether the issuer minted.
    pub(super) fn is_success(&self) -> bool {
        self.record.status == Some(200) && self.record.access.is_some()
    }

    /// Whether it was answered without a look at what it shows.
    pub(super) fn was_turned_away(&self) -> bool {
        self.served.is_none() && self.record.status.is_some()
    }
}

impl<'a> Seen<'a> {
    pub(super) fn of(lines: &'a [Line]) -> Self {
        let mut seen = Self {
            lines,
            run: Run::default(),
            calls: Vec::new(),
            faults: Vec::new(),
            requests: BTreeMap::new(),
            trail: BTreeMap::new(),
            trail_is_complete: false,
            contents: BTreeMap::new(),
        };
        let mut by_id: BTreeMap<CallId, usize> = BTreeMap::new();
        let mut by_fault: BTreeMap<FaultId, usize> = BTreeMap::new();
        // A request that was open when it was noted first is noted again at the end.
        let mut requests: BTreeMap<(Issuer, u64), Request<'a>> = BTreeMap::new();
        for line in lines {
            match &line.event {
                Event::Run(run) => seen.run = run.clone(),
                Event::Invoke { call, who, what } => {
                    by_id.insert(*call, seen.calls.len());
                    seen.calls.push(Made {
                        who,
                        what,
                        invoked: line.at,
                        outcome: Outcome::Unknown,
                    });
                }
                Event::Ok { call, answer, .. } => {
                    if let Some(n) = by_id.get(call) {
                        seen.calls[*n].outcome = Outcome::Ok(line.at, answer);
                    }
                }
                Event::Fail { call, .. } => {
                    if let Some(n) = by_id.get(call) {
                        seen.calls[*n].outcome = Outcome::Fail;
                    }
                }
                Event::Content {
                    content,
                    credentials,
                } => {
                    seen.contents.insert(*content, credentials);
                }
                Event::FaultBegins {
                    fault,
                    family,
                    name,
                    replicas,
                    ..
                } => {
                    by_fault.insert(*fault, seen.faults.len());
                    seen.faults.push(Fault {
                        id: *fault,
                        family,
                        name,
                        replicas,
                        begins: line.at,
                        ends: None,
                    });
                }
                Event::FaultEnds { fault } => {
                    if let Some(n) = by_fault.get(fault) {
                        seen.faults[*n].ends = Some(line.at);
                    }
                }
                Event::Mint {
                    issuer,
                    arrived,
                    served,
                    ended,
                    record,
                } => {
                    let request = Request {
                        arrived: *arrived,
                        served: *served,
                        ended: *ended,
                        record,
                    };
                    requests.insert((*issuer, record.seq), request);
                }
                Event::Audit(mint) => {
                    let credential = (mint.provider_id.as_str(), mint.key.as_str());
                    seen.trail.entry(credential).or_default().push(mint);
                }
                Event::AuditEnds { complete, .. } => seen.trail_is_complete = *complete,
                _ => {}
            }
        }
        for ((issuer, _), request) in requests {
            if let Some(client) = request.record.client.as_deref() {
                let of_client = seen.requests.entry((issuer, client)).or_default();
                of_client.push(request);
            }
        }
        for requests in seen.requests.values_mut() {
            requests.sort_by_key(|request| (request.arrived, request.record.seq));
        }
        for mints in seen.trail.values_mut() {
            mints.sort_by_key(|mint| mint.position);
        }
        seen
    }

    /// What stood in a bundle.
    pub(super) fn content(&self, number: u64) -> &'a [Served] {
        self.contents.get(&number).copied().unwrap_or_default()
    }

    /// When a phase began.
    pub(super) fn phase(&self, wanted: Phase) -> Option<Nanos> {
        let begins = self
            .lines
            .iter()
            .find(|line| matches!(line.event, Event::Phase { phase } if phase == wanted));
        begins.map(|line| line.at)
    }

    /// When the last line was noted.
    pub(super) fn end(&self) -> Nanos {
        self.lines.last().map_or(0, |line| line.at)
    }

    /// The provider and key that a client mints for, if it is the same for the whole run.
    pub(super) fn credential_of(&self, client: &str) -> Option<(&'a str, &'a str)> {
        let mut found = self.calls.iter().filter_map(|made| match made.what {
            Call::ConfigureRefresh {
                provider,
                key,
                client: of,
            } if of == client => Some((provider.as_str(), key.as_str())),
            _ => None,
        });
        found.next()
    }

    /// How many mints of a client's credential ended in doubt, by the trail. It forgets the names of
    /// providers that are deleted, and knows keys.
    pub(super) fn doubts_of(&self, client: &str) -> usize {
        let Some((provider, key)) = self.credential_of(client) else {
            return 0;
        };
        let mints = self.trail.values().flatten();
        mints
            .filter(|mint| mint.key == key && [provider, ""].contains(&mint.provider.as_str()))
            .filter(|mint| mint.end == "in_doubt")
            .count()
    }
}

/// Milliseconds as nanoseconds.
pub(super) const fn ms(ms: u64) -> Nanos {
    ms * 1_000_000
}
