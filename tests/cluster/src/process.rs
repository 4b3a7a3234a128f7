//! A child process that can be killed, paused and resumed, with its output in a file.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How much of a log is printed when a test fails, in bytes.
const TAIL: u64 = 6_000;
/// How long a signal may take to show its effect.
const EFFECT: Duration = Duration::from_secs(5);

/// A running child process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output appended to the file `log`.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn spawn(command: &mut Command, log: &Path) -> Self {
        let open = || {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(log)
                .unwrap_or_else(|e| panic!("{}: {e}", log.display()))
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(open())
            .stderr(open())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        Self {
            child,
            log: log.to_owned(),
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn exit(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child can be waited for")
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// When it has not within `bound`.
    pub fn ended(mut self, bound: Duration) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.exit() {
                return status;
            }
            let id = self.id();
            assert!(started.elapsed() < bound, "process {id} has not ended");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills it with SIGKILL: it can do nothing about it. Returns when it is gone.
    pub fn kill(mut self) {
        self.reap();
    }

    /// Asks it to end with SIGTERM.
    ///
    /// # Panics
    /// When it has not ended within `bound`.
    pub fn terminate(mut self, bound: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        let started = Instant::now();
        loop {
            if let Some(status) = self.exit() {
                return status;
            }
            assert!(
                started.elapsed() < bound,
                "process {} did not end within {bound:?} of SIGTERM",
                self.id()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops it with SIGSTOP: it does nothing until it is resumed, and its clocks run on. Returns
    /// when it stands still.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        self.until(|state| state == 'T', "stopped");
    }

    /// Lets it go on with SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
        self.until(|state| state != 'T', "resumed");
    }

    /// Sends it a signal, and does not wait for the effect.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a child has an id"), signal)
            .unwrap_or_else(|e| panic!("{signal:?} to process {}: {e}", self.id()));
    }

    /// Waits until every thread is in a state that `fits`.
    fn until(&self, fits: impl Fn(char) -> bool, what: &str) {
        let started = Instant::now();
        while !self.states().into_iter().all(&fits) {
            assert!(
                started.elapsed() < EFFECT,
                "process {} was not {what} within {EFFECT:?}",
                self.id()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The state of every thread, as the kernel shows it.
    fn states(&self) -> Vec<char> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id())).expect("the child lives");
        tasks
            .flatten()
            .filter_map(|task| fs::read_to_string(task.path().join("stat")).ok())
            // The name, in parentheses before the state, may hold anything.
            .filter_map(|stat| stat.rsplit_once(") ")?.1.chars().next())
            .collect()
    }

    fn reap(&mut self) {
        // It fails only for a child that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The end of its output.
    pub fn tail(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.reap();
    }
}

/// The end of a file.
pub(crate) fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_else(|e| format!("{}: {e}", path.display()))
}
