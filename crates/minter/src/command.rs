//! Commands on the replica that print a token. What may be run stands in the replicas'
//! configuration, never in a request; material says only which.
//!
//! A command is a process group of its own, with the environment that is configured and nothing
//! else. It ends with the ticket: at the fence the whole group is killed. What it prints is bounded.

use std::collections::BTreeMap;
use std::process::{ExitStatus, Stdio};

use evermint_core::mint::Fence;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

use crate::fence::fenced;

/// The longest output that is read, in bytes.
const OUTPUT_MAX: usize = 256 * 1024;

/// The most of its complaints that is read, in bytes.
const COMPLAINT_MAX: usize = 4 * 1024;

/// A command, as the configuration names it: `[exec.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandLine {
    /// The program, by its absolute path, and its arguments. No shell reads it.
    pub command: Vec<String>,
    /// Its whole environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

impl CommandLine {
    /// Checks what can be told without running it.
    ///
    /// # Errors
    /// What is wrong, to follow its name.
    pub fn check(&self) -> Result<(), String> {
        match self.command.first() {
            None => Err("has no command".to_owned()),
            Some(program) if !program.starts_with('/') => Err(format!(
                "begins with {program:?}, which is no absolute path"
            )),
            Some(_) => Ok(()),
        }
    }
}

/// What a command left behind.
pub(crate) struct Printed {
    pub(crate) status: ExitStatus,
    /// What it printed; `None` if that was longer than [`OUTPUT_MAX`].
    pub(crate) output: Option<Zeroizing<Vec<u8>>>,
    /// The first line of its complaints.
    pub(crate) complaint: String,
}

/// Why a command left nothing.
pub(crate) enum NotRun {
    /// It never ran: the program cannot be started.
    Unstarted(std::io::Error),
    /// It did not end before the ticket did, and was killed.
    TooLate,
    /// Its output could not be read.
    Broken(std::io::Error),
}

/// Runs a command until the fence passes.
pub(crate) async fn run(line: &CommandLine, fence: &dyn Fence) -> Result<Printed, NotRun> {
    if fence.passed() {
        return Err(NotRun::TooLate);
    }
    let (program, arguments) = line
        .command
        .split_first()
        .ok_or_else(|| NotRun::Unstarted(std::io::Error::other("no command is configured")))?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(&line.env)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(NotRun::Unstarted)?;
    let (output, complaints) = (child.stdout.take(), child.stderr.take());
    // Until its status is taken, the leader's id stays its own, and with it the group's.
    let group = Group::of(&child);
    let reading = async {
        tokio::join!(
            bounded(output, OUTPUT_MAX),
            bounded(complaints, COMPLAINT_MAX)
        )
    };
    let (output, complaints) = fenced(fence, reading).await.ok_or(NotRun::TooLate)?;
    // A program may close its output and go on.
    let status = fenced(fence, child.wait()).await.ok_or(NotRun::TooLate)?;
    let status = status.map_err(NotRun::Broken)?;
    group.has_ended();
    let output = output.map_err(NotRun::Broken)?;
    let complaints = complaints.map_err(NotRun::Broken)?.0;
    let text = String::from_utf8_lossy(&complaints);
    Ok(Printed {
        status,
        output: (!output.1).then_some(output.0),
        complaint: text
            .lines()
            .find(|l| !l.trim().is_empty())
            .unwrap_or("")
            .to_owned(),
    })
}

/// Kills what is left of a command's process group when it is dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    /// Its leader's status was taken: the id may be somebody else's from now on.
    fn has_ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may be gone already.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Reads to the end and keeps the first `max` bytes; whether there was more.
async fn bounded(
    source: Option<impl AsyncRead + Unpin>,
    max: usize,
) -> std::io::Result<(Zeroizing<Vec<u8>>, bool)> {
    let mut kept = Zeroizing::new(Vec::with_capacity(max));
    let mut chunk = Zeroizing::new([0; 4096]);
    let mut is_cut = false;
    let Some(mut source) = source else {
        return Ok((kept, is_cut));
    };
    loop {
        let read = source.read(&mut *chunk).await?;
        if read == 0 {
            return Ok((kept, is_cut));
        }
        let room = (max - kept.len()).min(read);
        kept.extend_from_slice(&chunk[..room]);
        is_cut |= room < read;
    }
}
