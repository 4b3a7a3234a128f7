//! A place for a replica: its addresses, its directory, and the process that lives there at times.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evermint_cluster_tests::Process;
use rustix::process::Signal;

use crate::history::{Event, Place, Recorder};
use crate::net::Network;
use crate::settings::{Settings, times};
use crate::spawn::spawn;

/// Audit records kept: more than any run makes.
pub const AUDIT_RETENTION: u64 = 1_000_000;

/// One place.
#[derive(Debug)]
pub struct Residence {
    /// Its number.
    pub place: Place,
    /// What its replica keeps. Another file system may be mounted there.
    pub data_dir: PathBuf,
    config: PathBuf,
    log: PathBuf,
    binary: PathBuf,
    process: Mutex<Option<Process>>,
    /// What the next process finds in its environment, beside what the harness has in its own.
    env: Mutex<BTreeMap<OsString, OsString>>,
    /// Libraries that it is started with.
    preload: Mutex<Vec<PathBuf>>,
    /// Whether clients may expect an answer: it runs, and is not paused.
    up: AtomicBool,
    /// Whether its process may end by itself: something is done to it that it need not survive.
    may_end: AtomicBool,
    /// Whether it was told to die, and has not been started since.
    doomed: AtomicBool,
    /// Its Raft id, as it told last; 0 if it never did.
    id: AtomicU64,
    /// The id of its newest process.
    pid: AtomicU32,
    recorder: Arc<Recorder>,
}

impl Residence {
    /// A place in the directory of a run; nobody lives there yet.
    pub fn new(settings: &Settings, place: Place, recorder: &Arc<Recorder>) -> Self {
        let dir = &settings.dir;
        Self {
            place,
            data_dir: dir.join(format!("replica-{place}")),
            config: dir.join(format!("replica-{place}.toml")),
            log: dir.join("logs").join(format!("replica-{place}.log")),
            binary: settings.binary.clone(),
            process: Mutex::default(),
            env: Mutex::default(),
            preload: Mutex::default(),
            up: AtomicBool::new(false),
            may_end: AtomicBool::new(false),
            doomed: AtomicBool::new(false),
            id: AtomicU64::new(0),
            pid: AtomicU32::new(0),
            recorder: Arc::clone(recorder),
        }
    }

    /// Writes its configuration: of a founding member, or of one that joins `peers`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn configure(&self, net: &Network, peers: &[Place], founds: bool) -> std::io::Result<()> {
        let peers: Vec<String> = peers
            .iter()
            .filter(|other| **other != self.place)
            .map(|other| format!("\"{}\"", net.peer(*other)))
            .collect();
        let ms = |time: std::time::Duration| format!("\"{}ms\"", time.as_millis());
        let root = self.config.parent().unwrap_or(Path::new("."));
        let text = format!(
            r#"data_dir = "{data_dir}"
init = {founds}
peers = [{peers}]
insecure_network = true
max_staleness = {max_staleness}
shutdown_grace = "3s"

[api]
listen = "{api}"

[peer]
listen = "{peer_listen}"
advertise = "{peer}"

[kek]
file = "{kek}"

[raft]
heartbeat = "100ms"
election_min = "500ms"
election_max = "1s"
beat = "200ms"
lost_after = "2s"
propose = "5s"

[store]
snapshot_after = 1000
snapshot_keep = 200
cache_mib = 16

[cluster]
shards = 64
ticket_ttl = {ticket_ttl}
ticket_margin = {ticket_margin}
doubt_wait = {doubt_wait}
backoff_base = "200ms"
backoff_cap = "3s"
audit_retention = {audit_retention}

[issuers]
allow_loopback = true

[log]
filter = "info,openraft=off,ractor=warn"
"#,
            data_dir = self.data_dir.display(),
            peers = peers.join(", "),
            max_staleness = ms(times::MAX_STALENESS),
            api = net.api(self.place),
            peer_listen = net.peer_listen(self.place),
            peer = net.peer(self.place),
            kek = root.join("kek").display(),
            ticket_ttl = ms(times::TICKET_TTL),
            ticket_margin = ms(times::TICKET_MARGIN),
            doubt_wait = ms(times::DOUBT_WAIT),
            audit_retention = AUDIT_RETENTION,
        );
        std::fs::write(&self.config, text)
    }

    /// Starts its process, with whatever its directory holds. Does nothing if it runs.
    pub fn start(&self, net: &Network) {
        let mut process = self.process();
        if process.is_some() {
            return;
        }
        // Should the harness be killed, its replicas do not outlive it.
        let mut words: Vec<OsString> = ["setpriv", "--pdeathsig", "KILL"].map(Into::into).into();
        words.extend(net.enter(self.place));
        words.push("env".into());
        for (name, value) in &*lock(&self.env) {
            let mut word = name.clone();
            word.push("=");
            word.push(value);
            words.push(word);
        }
        let preload = lock(&self.preload);
        if !preload.is_empty() {
            let paths: Vec<_> = preload.iter().map(|p| p.display().to_string()).collect();
            words.push(format!("LD_PRELOAD={}", paths.join(":")).into());
        }
        words.push(self.binary.clone().into());
        words.extend([
            "serve".into(),
            "--config".into(),
            self.config.clone().into(),
        ]);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        // Settings of whoever runs the harness are none of the replica's.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"EVERMINT_") {
                command.env_remove(name);
            }
        }
        let started = spawn(command, self.log.clone());
        let pid = started.id();
        self.pid.store(pid, Ordering::Relaxed);
        if let Network::Proxies(net) = net {
            net.runs(self.place, pid);
        }
        *process = Some(started);
        self.doomed.store(false, Ordering::Relaxed);
        self.up.store(true, Ordering::Relaxed);
        self.recorder.note(Event::ReplicaStarts {
            replica: self.place,
            pid,
        });
    }

    /// Kills its process with SIGKILL. Whether there was one.
    pub fn kill(&self) -> bool {
        self.up.store(false, Ordering::Relaxed);
        let Some(mut process) = self.process().take() else {
            return false;
        };
        let doomed = self.doomed.load(Ordering::Relaxed);
        let by_itself = process.exit().filter(|_| !doomed);
        process.kill();
        self.ended(by_itself, "SIGKILL");
        by_itself.is_none()
    }

    /// Asks its process to end with SIGTERM, and waits until it has. Blocks.
    pub fn terminate(&self, bound: std::time::Duration) -> bool {
        self.up.store(false, Ordering::Relaxed);
        let Some(mut process) = self.process().take() else {
            return false;
        };
        let by_itself = process.exit();
        if by_itself.is_none() {
            let status = process.terminate(bound);
            self.ended(None, &format!("SIGTERM: {status}"));
        } else {
            self.ended(by_itself, "");
        }
        by_itself.is_none()
    }

    /// Stops its process with SIGSTOP; its sockets stay open.
    pub fn pause(&self) -> bool {
        self.up.store(false, Ordering::Relaxed);
        self.process().as_ref().map(Process::pause).is_some()
    }

    /// Lets it go on.
    pub fn resume(&self) {
        let process = self.process();
        if let Some(process) = process.as_ref() {
            process.resume();
            self.up.store(true, Ordering::Relaxed);
        }
    }

    /// Sends its process SIGKILL, and does not wait for the effect; [`kill`](Self::kill) does.
    pub fn doom(&self) {
        if let Some(process) = self.process().as_ref() {
            self.doomed.store(true, Ordering::Relaxed);
            process.signal(Signal::KILL);
        }
    }

    /// Looks whether its process has ended by itself, and forgets it then: says how.
    pub fn reap(&self) -> Option<String> {
        let mut slot = self.process();
        if self.doomed.load(Ordering::Relaxed) {
            return None;
        }
        let status = slot.as_mut()?.exit()?;
        *slot = None;
        drop(slot);
        self.up.store(false, Ordering::Relaxed);
        self.ended(Some(status), "");
        Some(status.to_string())
    }

    fn ended(&self, by_itself: Option<std::process::ExitStatus>, how: &str) {
        crate::nemesis::clock::tidy(self.pid.load(Ordering::Relaxed));
        self.recorder.note(Event::ReplicaEnds {
            replica: self.place,
            expected: by_itself.is_none() || self.may_end.load(Ordering::Relaxed),
            how: by_itself.map_or(how.to_owned(), |status| status.to_string()),
        });
    }

    /// Says whether its process may end by itself from now on, without that being a failure.
    pub fn may_end(&self, may: bool) {
        self.may_end.store(may, Ordering::Relaxed);
    }

    /// Its process id, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process().as_ref().map(Process::id)
    }

    /// Whether clients may expect an answer.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Its Raft id, as it told last.
    pub fn id(&self) -> Option<u64> {
        Some(self.id.load(Ordering::Relaxed)).filter(|id| *id != 0)
    }

    pub(crate) fn identified(&self, id: u64) {
        self.id.store(id, Ordering::Relaxed);
    }

    /// Sets a variable for its next process; `None` takes it away.
    pub fn env(&self, name: &str, value: Option<&str>) {
        let mut env = lock(&self.env);
        match value {
            Some(value) => env.insert(name.into(), value.into()),
            None => env.remove(std::ffi::OsStr::new(name)),
        };
    }

    /// Starts its next processes with a library in front of the system's.
    pub fn preload(&self, library: &Path) {
        let mut preload = lock(&self.preload);
        if !preload.iter().any(|path| path == library) {
            preload.push(library.to_owned());
        }
    }

    /// Its log so far.
    pub fn log(&self) -> &Path {
        &self.log
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        lock(&self.process)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
