//! The recorded history of a run: what clients, issuers and the harness itself saw, in the order in
//! which they saw it. Checks read it and nothing else, so that a kept directory can be checked again.
//!
//! One JSON object a line, in the file [`FILE`] of the run's directory. Times are of the harness: its
//! monotonic clock, in nanoseconds since the run began, and its wall clock; replicas may have their
//! own idea of the time. Tokens and secrets appear as the first 12 hex digits of their SHA-256, as in
//! the issuers' own records, and never in the clear.
//!
//! Replicas are named by their *place* (0, 1, 2 …): an address and a directory. A place that was wiped
//! bears another Raft id afterwards; [`Event::ReplicaUp`] says which.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The history's file in the directory of a run.
pub const FILE: &str = "history.jsonl";

/// Nanoseconds on the harness's monotonic clock since the run began.
pub type Nanos = u64;
/// A replica's place.
pub type Place = usize;
/// Numbers the calls of operators.
pub type CallId = u64;
/// Numbers the faults.
pub type FaultId = u64;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// When it was noted.
    pub at: Nanos,
    /// The same on the wall clock, in milliseconds since 1970.
    pub unix_ms: u64,
    /// What was seen.
    #[serde(flatten)]
    pub event: Event,
}

/// What can be seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The first line: what was started, and with which settings.
    Run(Run),
    /// A part of the run begins.
    Phase {
        /// Which.
        phase: Phase,
    },

    /// An operator calls. Each invocation is followed by one `Ok`, `Fail` or `Info` of the same
    /// `call`; by none only if the run was cut off.
    Invoke {
        /// Its number.
        call: CallId,
        /// Which operator; each has one call open at a time.
        who: String,
        /// What is asked for.
        what: Call,
    },
    /// It was carried out, and acknowledged.
    Ok {
        /// Which.
        call: CallId,
        /// By whom.
        replica: Place,
        /// What came back.
        answer: Answer,
    },
    /// It was refused: it certainly had no effect.
    Fail {
        /// Which.
        call: CallId,
        /// Why.
        why: String,
    },
    /// Nobody can say: it may have had its effect, or may have it later.
    Info {
        /// Which.
        call: CallId,
        /// Why.
        why: String,
    },

    /// What a bundle contained, noted once for each different content; reads refer to it.
    Content {
        /// Its number in this history.
        content: u64,
        /// Each credential of it.
        credentials: Vec<Served>,
    },
    /// A sandbox was given its bundle, or a sign of life on its stream.
    Read {
        /// The sandbox.
        sandbox: String,
        /// Which reader of it; each has a memory of its own.
        reader: String,
        /// How it reads.
        way: Way,
        /// When it asked the replica that answered; the content was valid at some time since then.
        /// Of messages on a stream, when the message before it came.
        asked: Nanos,
        /// Who answered. Absent for the client library, which does not tell.
        replica: Option<Place>,
        /// The bundle's generation.
        generation: u64,
        /// The newest generation that this reader had been given before.
        after: u64,
        /// How stale the replica said that it was.
        staleness_ms: Option<u64>,
        /// What it got; absent for a sign of life.
        content: Option<u64>,
    },
    /// A read failed: every replica that the reader may ask was asked, within its bound.
    ReadFailed {
        /// The sandbox.
        sandbox: String,
        /// Which reader.
        reader: String,
        /// How it reads.
        way: Way,
        /// When it began to ask.
        asked: Nanos,
        /// Whom it asked, and what each said.
        said: Vec<(Place, String)>,
    },

    /// A sandbox with the habits of OpenShell's was given its environment.
    Installed {
        /// The sandbox.
        sandbox: String,
        /// When it asked.
        asked: Nanos,
        /// Who answered.
        replica: Place,
        /// The environment's revision.
        revision: u64,
        /// What it got. Credentials of it bear their identity for the provider's name, and no
        /// generation, which this sandbox is not told.
        content: u64,
    },
    /// Such a sandbox asked for its environment, was refused or left alone, and has none any more.
    Stripped {
        /// The sandbox.
        sandbox: String,
        /// When it asked.
        asked: Nanos,
        /// Whom.
        replica: Place,
        /// What it was told.
        why: String,
    },

    /// A grant was made at an issuer, for one credential.
    Granted {
        /// The issuer.
        issuer: Issuer,
        /// The client, whose only grant it is.
        client: String,
        /// The issuer's name of the family.
        grant: String,
        /// Its first refresh token.
        refresh_token: String,
    },
    /// A token request, as its issuer recorded it. Noted when it is over, and at the end of the run.
    Mint {
        /// The issuer.
        issuer: Issuer,
        /// When its head arrived, on the harness's clock.
        arrived: Nanos,
        /// When it was served, after which a single-use token is spent.
        served: Option<Nanos>,
        /// When it ended; absent if it is still open.
        ended: Option<Nanos>,
        /// The issuer's record.
        record: Box<evermint_issuer::Record>,
    },
    /// The harness ended a grant at the issuer, as a person does who withdraws consent.
    Revoked {
        /// The issuer.
        issuer: Issuer,
        /// The client.
        client: String,
    },

    /// A fault is about to be injected.
    FaultBegins {
        /// Its number.
        fault: FaultId,
        /// What does it, such as `process` or `network`.
        family: String,
        /// What is done, such as `kill leader`.
        name: String,
        /// To whom, at first; empty if to nobody in particular.
        replicas: Vec<Place>,
        /// More, for people.
        detail: String,
    },
    /// The harness saw that it took effect.
    FaultBites {
        /// Which.
        fault: FaultId,
        /// How that was seen.
        evidence: String,
    },
    /// It did not take effect: the run has failed.
    FaultMissed {
        /// Which.
        fault: FaultId,
        /// What was seen instead.
        why: String,
    },
    /// It is over: whatever was broken is whole again. Of a kill, that the process was started again.
    FaultEnds {
        /// Which.
        fault: FaultId,
    },

    /// A replica's process was started.
    ReplicaStarts {
        /// Where.
        replica: Place,
        /// Its process id.
        pid: u32,
    },
    /// A replica told its identity, for the first time or another one than before.
    ReplicaUp {
        /// Where.
        replica: Place,
        /// Its Raft id.
        id: u64,
        /// The id of this life.
        session: String,
    },
    /// A replica's process ended.
    ReplicaEnds {
        /// Where.
        replica: Place,
        /// Whether the harness meant it to.
        expected: bool,
        /// How.
        how: String,
    },
    /// Another replica leads, as most of them see it.
    Leads {
        /// Who; absent if nobody does.
        replica: Option<Place>,
        /// Its term.
        term: u64,
    },
    /// How soon the cluster went on after a leader with a mint in flight was killed.
    Failover(Failover),

    /// At the end: how far one replica is, and the hash of its state there.
    FinalState {
        /// Who.
        replica: Place,
        /// How far it has applied the history.
        position: u64,
        /// 16 hex digits, over every record of its state.
        state_hash: String,
    },
    /// At the end: a provider as one replica knows it; absent fields if it knows none of that name.
    FinalProvider {
        /// Who.
        replica: Place,
        /// Its name.
        provider: String,
        /// Its settings and version.
        found: Option<Provider>,
    },
    /// At the end: the providers attached to a sandbox as one replica knows it, in order.
    FinalSandbox {
        /// Who.
        replica: Place,
        /// Its name.
        sandbox: String,
        /// Names of the providers; absent if there is no such sandbox.
        providers: Option<Vec<String>>,
    },
    /// At the end, while nothing is minted: how a credential stands by the leader's state.
    FinalCredential {
        /// Its provider.
        provider: String,
        /// Its key.
        key: String,
        /// Its client at the issuer.
        client: String,
        /// Values committed.
        generation: u64,
        /// Tickets granted.
        attempt: u64,
        /// In kebab case, such as `fresh` or `in-doubt`.
        verdict: String,
        /// Why.
        cause: String,
        /// Whether an earlier mint of it is known to be lost.
        lost: bool,
    },
    /// At the end: a family as its issuer counts it.
    FinalFamily {
        /// The issuer.
        issuer: Issuer,
        /// The client.
        client: String,
        /// Its name.
        grant: String,
        /// Mints of it.
        generation: u64,
        /// How often a spent token bore another one.
        forks: u64,
        /// How often a spent token was shown where that is not allowed.
        reuse_detected: u64,
        /// Whether its tokens still work.
        alive: bool,
    },
    /// At the end: one mint in the audit trail, by the leader's state.
    Audit(AuditedMint),
    /// At the end: how many audit records there were, and whether the trail reaches back to the
    /// beginning of the run. If it does not, it explains only what it covers.
    AuditEnds {
        /// Records read.
        records: u64,
        /// Whether none was dropped for age.
        complete: bool,
    },
    /// A planted secret, a panic or another thing was found where it must not be.
    Leak {
        /// The file.
        file: String,
        /// What was found, without the secret.
        what: String,
    },
}

/// What was started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Every choice follows from it.
    pub seed: u64,
    /// How long faults are injected, in seconds.
    pub seconds: u64,
    /// How many replicas.
    pub replicas: usize,
    /// How they are connected: `namespaces` or `proxies`.
    pub network: String,
    /// How long a mint ticket is valid.
    pub ticket_ttl_ms: u64,
    /// How much earlier than its ticket a mint stops.
    pub ticket_margin_ms: u64,
    /// How long a doubt waits at least.
    pub doubt_wait_ms: u64,
    /// For how long a replica that is out of touch serves.
    pub max_staleness_ms: u64,
    /// Lifetime of access tokens.
    pub access_ttl_ms: u64,
    /// The command that repeats it.
    pub command: String,
}

/// The parts of a run, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The cluster starts, and what is needed is registered.
    SetUp,
    /// Load, and faults.
    Faults,
    /// Everything is healed, and the load goes on: all has to be well again within the bound.
    Healed,
    /// The load has stopped: what is there is looked at.
    Final,
}

/// An issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Issuer {
    /// The built-in one, strict, with scripted faults.
    Strict,
    /// oidc-provider, written by others.
    Real,
}

/// How a sandbox reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// It asks again and again.
    Polling,
    /// It follows a stream.
    Watching,
    /// Through the client library.
    Library,
}

/// A credential in a bundle.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Served {
    /// Its provider's name.
    pub provider: String,
    /// Its key.
    pub key: String,
    /// The generation of its value; 0 without one.
    pub generation: u64,
    /// The value; absent if it was not served.
    pub token: Option<String>,
    /// Its end by the cluster clock.
    pub expires_at_ms: Option<u64>,
    /// Why there is no value; empty if there is one.
    pub unavailable: String,
}

/// What operators ask for. Names are never used again after a deletion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Call {
    /// Sets a register: one setting of a provider that has no other use.
    WriteRegister {
        /// Which.
        register: String,
        /// The new value; no two writes of a run set the same one.
        value: u64,
    },
    /// Reads a register, linearizably.
    ReadRegister {
        /// Which.
        register: String,
    },
    /// Registers a provider.
    CreateProvider {
        /// Its name.
        provider: String,
    },
    /// Sets the setting `n` of a provider to a number that grows with each call.
    UpdateProvider {
        /// Its name.
        provider: String,
        /// The number.
        n: u64,
    },
    /// Deletes a provider.
    DeleteProvider {
        /// Its name.
        provider: String,
    },
    /// Puts a credential under a refresh with a new grant, or replaces the refresh that it has.
    ConfigureRefresh {
        /// The provider.
        provider: String,
        /// The credential.
        key: String,
        /// The client at the issuer.
        client: String,
    },
    /// Ends a refresh; its value is served until its end.
    DeleteRefresh {
        /// The provider.
        provider: String,
        /// The credential.
        key: String,
    },
    /// Makes a mint due now.
    Rotate {
        /// The provider.
        provider: String,
        /// The credential.
        key: String,
    },
    /// Registers a sandbox.
    CreateSandbox {
        /// Its name.
        sandbox: String,
        /// What it may use.
        providers: Vec<String>,
    },
    /// Gives a sandbox a provider.
    Attach {
        /// The sandbox.
        sandbox: String,
        /// The provider.
        provider: String,
    },
    /// Takes it away.
    Detach {
        /// The sandbox.
        sandbox: String,
        /// The provider.
        provider: String,
    },
    /// Takes a replica out of the cluster.
    RemoveReplica {
        /// Its Raft id.
        id: u64,
    },
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Answer {
    /// A write took effect, or had before.
    Written {
        /// Its place in the replicated history.
        position: u64,
    },
    /// The value of a register; absent if it was never set.
    Value {
        /// The number.
        value: Option<u64>,
        /// How far the replica was.
        position: u64,
    },
}

/// A provider at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provider {
    /// Its version.
    pub version: u64,
    /// The register's value, or the number last set.
    pub n: Option<u64>,
}

/// The way back from a kill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failover {
    /// The fault.
    pub fault: FaultId,
    /// Who was killed.
    pub replica: Place,
    /// The client at the issuer whose mint was in flight.
    pub client: String,
    /// From the kill to the next acknowledged write, in milliseconds.
    pub write_ms: Option<u64>,
    /// From the kill to the next committed generation of that credential.
    pub mint_ms: Option<u64>,
    /// Reads that failed in between.
    pub failed_reads: u64,
}

/// A mint in the audit trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditedMint {
    /// Its place in the replicated history.
    pub position: u64,
    /// When, on the cluster clock.
    pub at_ms: u64,
    /// The provider's name; empty if it was deleted since.
    pub provider: String,
    /// The provider's id.
    pub provider_id: String,
    /// The credential.
    pub key: String,
    /// The ticket.
    pub ticket: String,
    /// The Raft id of who minted.
    pub replica: u64,
    /// When the ticket was granted, on the cluster clock.
    pub granted_at_ms: u64,
    /// `committed`, `failed`, `in_doubt`, `abandoned` or `voided`.
    pub end: String,
    /// The generation that was committed; 0 otherwise.
    pub generation: u64,
}

/// Writes a history while it happens. Shared by all who see something.
#[derive(Debug)]
pub struct Recorder {
    began: Instant,
    began_unix_ms: u64,
    next: AtomicU64,
    file: Mutex<BufWriter<File>>,
}

impl Recorder {
    /// Begins a history in the directory of a run.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(dir: &Path) -> io::Result<Self> {
        Ok(Self {
            began: Instant::now(),
            began_unix_ms: unix_ms(),
            next: AtomicU64::new(1),
            file: Mutex::new(BufWriter::new(File::create(dir.join(FILE))?)),
        })
    }

    /// Now.
    pub fn now(&self) -> Nanos {
        self.nanos(Instant::now())
    }

    /// A moment of this process; 0 if it was before the run.
    pub fn nanos(&self, at: Instant) -> Nanos {
        let since = at.saturating_duration_since(self.began);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// A moment that an issuer on this machine took from the wall clock, which nobody moves while a
    /// run lasts; exact to about a millisecond.
    pub fn nanos_of_unix_ms(&self, unix_ms: f64) -> Nanos {
        #[allow(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit")]
        let since_ms = unix_ms - self.began_unix_ms as f64;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a run is short, and not before itself"
        )]
        let nanos = (since_ms * 1e6).max(0.0) as u64;
        nanos
    }

    /// A number that nothing else in this history has: for calls, faults and values.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Notes what was seen just now.
    ///
    /// # Panics
    /// When it cannot be written: a run without its history proves nothing.
    pub fn note(&self, event: Event) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, so that lines stand in the order of their times.
        let line = Line {
            at: self.now(),
            unix_ms: unix_ms(),
            event,
        };
        serde_json::to_writer(&mut *file, &line).expect("the history can be written");
        file.write_all(b"\n").expect("the history can be written");
    }

    /// Makes sure that everything noted so far is in the file.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn flush(&self) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.flush().expect("the history can be written");
    }
}

/// Reads the history in the directory of a run. A last line that was cut off is left out.
///
/// # Errors
/// When the file cannot be read, or another line is not one of a history.
pub fn read(dir: &Path) -> io::Result<Vec<Line>> {
    let mut lines = Vec::new();
    let mut reader = BufReader::new(File::open(dir.join(FILE))?);
    let mut text = String::new();
    while reader.read_line(&mut text)? > 0 {
        if text.ends_with('\n') {
            lines.push(serde_json::from_str(&text)?);
        }
        text.clear();
    }
    Ok(lines)
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::fs::OpenOptions;

    use super::*;

    fn events() -> Vec<Event> {
        let served = Served {
            provider: "p".to_owned(),
            key: "K".to_owned(),
            generation: 2,
            token: Some("0a1b2c3d4e5f".to_owned()),
            expires_at_ms: Some(7),
            unavailable: String::new(),
        };
        vec![
            Event::Run(Run {
                seed: 7,
                ..Run::default()
            }),
            Event::Phase {
                phase: Phase::Faults,
            },
            Event::Invoke {
                call: 1,
                who: "a".to_owned(),
                what: Call::WriteRegister {
                    register: "r".to_owned(),
                    value: 3,
                },
            },
            Event::Ok {
                call: 1,
                replica: 0,
                answer: Answer::Written { position: 9 },
            },
            Event::Content {
                content: 1,
                credentials: vec![served],
            },
            Event::Mint {
                issuer: Issuer::Real,
                arrived: 1,
                served: None,
                ended: Some(2),
                record: Box::default(),
            },
            Event::Failover(Failover {
                fault: 1,
                replica: 2,
                client: "c".to_owned(),
                write_ms: Some(3),
                mint_ms: None,
                failed_reads: 0,
            }),
        ]
    }

    #[test]
    fn a_history_reads_as_it_was_written_without_a_line_that_was_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::create(dir.path()).unwrap();
        events().into_iter().for_each(|event| recorder.note(event));
        recorder.flush();
        let mut file = OpenOptions::new()
            .append(true)
            .open(dir.path().join(FILE))
            .unwrap();
        file.write_all(br#"{"at":1,"unix"#).unwrap();

        let lines = read(dir.path()).unwrap();
        let seen: Vec<_> = lines.iter().map(|line| line.event.clone()).collect();
        assert_eq!(seen, events());
        assert!(lines.is_sorted_by_key(|line| line.at));
    }

    #[test]
    fn moments_of_the_wall_clock_and_of_this_process_are_on_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::create(dir.path()).unwrap();
        #[allow(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit")]
        let by_wall = recorder.nanos_of_unix_ms(unix_ms() as f64 + 1000.0);
        let by_process = recorder.nanos(Instant::now()) + 1_000_000_000;
        assert!(by_wall.abs_diff(by_process) < 500_000_000);
    }
}
