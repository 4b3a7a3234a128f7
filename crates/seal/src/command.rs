//! A key-encryption key that a command prints: so a KMS or a vault can be plugged in without being
//! linked.
//!
//! The key comes on standard output, and is nowhere else: not in an argument, not in a log. The
//! command is a process group of its own, which is killed when its time is up; what it prints is
//! bounded. It has the environment of the replica, since that is where the tools of clouds and
//! vaults find what they need.

use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use zeroize::Zeroizing;

/// The longest output that is read, in bytes.
const OUTPUT_MAX: usize = 4096;

/// The longest complaint that is repeated, in characters.
const COMPLAINT_MAX: usize = 200;

/// Pauses between two looks whether the command has ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Runs `program` with `arguments`, for at most `bound`, and gives what it printed.
///
/// # Errors
/// What went wrong, to follow the program's name. Never what it printed.
pub(crate) fn run(
    program: &str,
    arguments: &[String],
    bound: Duration,
) -> Result<Zeroizing<Vec<u8>>, String> {
    let deadline = Instant::now() + bound;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot be started: {error}"))?;
    let output = reader(child.stdout.take());
    let complaints = reader(child.stderr.take());
    let ended = end(&mut child, &output, &complaints, deadline);
    if ended.is_err() {
        kill(&mut child);
    }
    let (status, output, complaints) = ended?;
    if output.len() > OUTPUT_MAX {
        return Err(format!("printed more than {OUTPUT_MAX} bytes"));
    }
    if !status.success() {
        let complaint = complaint(&complaints, &output);
        return Err(format!("failed ({status}): {complaint}"));
    }
    Ok(output)
}

type Printed = Zeroizing<Vec<u8>>;
type Reader = mpsc::Receiver<std::io::Result<Printed>>;

/// Both outputs and the status, in time.
fn end(
    child: &mut Child,
    output: &Reader,
    complaints: &Reader,
    deadline: Instant,
) -> Result<(ExitStatus, Printed, Printed), String> {
    let late = || "did not end in time, and was killed".to_owned();
    let unread = |error| format!("cannot be listened to: {error}");
    let left = || deadline.saturating_duration_since(Instant::now());
    let output = output.recv_timeout(left()).map_err(|_| late())?;
    let output = output.map_err(unread)?;
    if output.len() > OUTPUT_MAX {
        return Err(format!("printed more than {OUTPUT_MAX} bytes"));
    }
    let complaints = complaints.recv_timeout(left()).map_err(|_| late())?;
    let complaints = complaints.map_err(unread)?;
    loop {
        // A program may close its output and go on.
        match child.try_wait() {
            Ok(Some(status)) => return Ok((status, output, complaints)),
            Ok(None) if left().is_zero() => return Err(late()),
            Ok(None) => thread::sleep(LOOK_EVERY),
            Err(error) => return Err(unread(error)),
        }
    }
}

/// Reads on a thread of its own, up to one byte more than is allowed.
fn reader(source: Option<impl Read + Send + 'static>) -> Reader {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut kept = Zeroizing::new(Vec::with_capacity(OUTPUT_MAX + 1));
        let read = source.map_or(Ok(0), |source| {
            source.take(OUTPUT_MAX as u64 + 1).read_to_end(&mut kept)
        });
        // Nobody may wait any more.
        let _ = tell.send(read.map(|_| kept));
    });
    told
}

fn kill(child: &mut Child) {
    let id = i32::try_from(child.id()).ok();
    if let Some(group) = id.and_then(Pid::from_raw) {
        // Its status was not taken yet, so the id is still its own.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait();
}

/// The first line of what it complained of, without what it printed.
fn complaint(complaints: &[u8], output: &[u8]) -> String {
    let text = Zeroizing::new(String::from_utf8_lossy(complaints).into_owned());
    let printed = Zeroizing::new(String::from_utf8_lossy(output).into_owned());
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    let Some(line) = line else {
        return "it says nothing".to_owned();
    };
    let printed = printed.trim();
    let line = match printed.is_empty() {
        true => line.to_owned(),
        false => line.replace(printed, "…"),
    };
    let clean = line.chars().filter(|c| !c.is_control());
    clean.take(COMPLAINT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, bound: Duration) -> Result<Printed, String> {
        run("/bin/sh", &["-c".to_owned(), script.to_owned()], bound)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_a_command_prints_is_taken() {
        assert_eq!(**shell("printf abc", LONG).unwrap(), *b"abc");
    }

    #[test]
    fn a_command_that_fails_is_told_by_its_complaint_alone() {
        for (script, told) in [
            (
                "echo hunter2; echo sealed: hunter2 >&2; exit 3",
                "sealed: …",
            ),
            ("echo hunter2; exit 3", "it says nothing"),
            ("echo hunter2; kill -9 $$", "signal: 9"),
        ] {
            let error = shell(script, LONG).unwrap_err();
            assert!(error.contains(told), "{script}: {error}");
            assert!(!error.contains("hunter2"), "{script}: {error}");
        }
        let error = run("/nonexistent/kms", &[], LONG).unwrap_err();
        assert!(error.contains("cannot be started"), "{error}");
    }

    #[test]
    fn a_command_that_hangs_or_prints_without_end_is_killed_with_its_children() {
        let short = Duration::from_millis(200);
        for script in ["sleep 600 & sleep 600", "exec >/dev/null 2>&1; sleep 600"] {
            let error = shell(script, short).unwrap_err();
            assert!(error.contains("in time"), "{script}: {error}");
        }
        let error = shell("yes hunter2", LONG).unwrap_err();
        assert_eq!(error, format!("printed more than {OUTPUT_MAX} bytes"));
    }
}
