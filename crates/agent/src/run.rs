//! A command under the agent: its signals and its end are those of whoever asked for it.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, getpgrp, getpid, kill_process, set_child_subreaper, wait,
};
use rustix::termios::tcgetpgrp;
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::mpsc;

use crate::environment::OWN_PREFIX;
use crate::error::Error;
use crate::names;

/// The signals that are passed on to the command.
const PASSED_ON: [(Signal, bool); 7] = [
    (Signal::TERM, false),
    (Signal::HUP, false),
    (Signal::USR1, false),
    (Signal::USR2, false),
    // A terminal gives these to the command itself, which is in the same group.
    (Signal::INT, true),
    (Signal::QUIT, true),
    (Signal::WINCH, true),
];

/// What is added to the number of the signal that ended a command, as shells do.
const SIGNALLED: i32 = 128;

/// The signals that came for a command, from before it is started.
pub struct Signals {
    received: mpsc::Receiver<(Signal, bool)>,
    child: unix::Signal,
}

impl Signals {
    /// Listens for them from now on. They no longer end this process.
    ///
    /// # Errors
    /// When the system does not let it.
    pub fn listen() -> std::io::Result<Self> {
        let (sender, received) = mpsc::channel(16);
        for (signal, by_terminal) in PASSED_ON {
            let mut stream = unix::signal(SignalKind::from_raw(signal.as_raw()))?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while stream.recv().await.is_some() {
                    if sender.send((signal, by_terminal)).await.is_err() {
                        return;
                    }
                }
            });
        }
        let child = unix::signal(SignalKind::child())?;
        Ok(Self { received, child })
    }

    /// Waits for a signal that would end a command, before there is one; gives the exit status that
    /// it stands for.
    pub async fn ended(&mut self) -> i32 {
        while let Some((signal, _)) = self.received.recv().await {
            if ![Signal::WINCH, Signal::USR1, Signal::USR2].contains(&signal) {
                return SIGNALLED + signal.as_raw();
            }
        }
        std::future::pending().await
    }
}

/// Runs a command with `variables` in its environment, and without those of the agent itself, to its
/// end. Gives its exit status, or 128 and the number of the signal that ended it.
///
/// This process becomes the parent of whatever the command leaves behind, and reaps it; it must have
/// no other children.
///
/// # Errors
/// [`Error::Command`] if it cannot be started.
pub async fn run(
    command: &[String],
    variables: &BTreeMap<String, String>,
    signals: &mut Signals,
) -> Result<i32, Error> {
    let [program, arguments @ ..] = command else {
        return Err(Error::setting("command", "must not be empty"));
    };
    // Where that is not possible, orphans go to the system's own reaper.
    let _ = set_child_subreaper(Some(getpid()));
    let mut child = Command::new(program);
    child.args(arguments).arg0(program);
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(OWN_PREFIX.as_bytes()) {
            child.env_remove(name);
        }
    }
    child.envs(variables);
    let child = child.spawn().map_err(|source| Error::Command {
        command: program.clone(),
        source,
    })?;
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .expect("a child has an id");
    loop {
        // The signal tells that some have ended, not how many.
        if let Some(status) = reap(pid) {
            return Ok(status);
        }
        tokio::select! {
            _ = signals.child.recv() => {}
            Some((signal, by_terminal)) = signals.received.recv() => {
                if !(by_terminal && is_in_foreground()) {
                    tracing::debug!({ names::SIGNAL } = ?signal, "passed on");
                    // It may have ended just now.
                    let _ = kill_process(pid, signal);
                }
            }
        }
    }
}

/// Reaps every child that has ended; gives the exit status of the one that is waited for.
fn reap(awaited: Pid) -> Option<i32> {
    let mut found = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == awaited => {
                let signalled = || status.terminating_signal().map(|signal| SIGNALLED + signal);
                found = status.exit_status().or_else(signalled);
            }
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(_) => return found,
        }
    }
}

/// Whether a terminal gives its signals to this process, and so to the command.
fn is_in_foreground() -> bool {
    let terminal = std::fs::File::open("/dev/tty");
    terminal.is_ok_and(|tty| tcgetpgrp(tty).is_ok_and(|group| group == getpgrp()))
}
