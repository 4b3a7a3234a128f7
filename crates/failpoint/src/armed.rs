//! The build of the chaos tests: points do as their files say.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;
use std::{env, fs, io};

use rustix::process::{Signal, getpid, kill_process};

use crate::{Action, Bug, DIRECTORY, HIT, PLANTED, Point};

/// A text that stands in every program with armed failpoints, and in no other: the log of a replica
/// begins with it.
pub const MARK: &str = "evermint-failpoints-are-armed: never run this build in production";

/// How often a held place looks whether it may go on.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How long a signal may take to reach all threads.
const REACHES_ALL: Duration = Duration::from_millis(50);

/// The process is killed or stopped here if `point` is armed for `subject` (empty: of none).
pub fn reach(point: Point, subject: &str) {
    if let Some(action) = directory().and_then(|dir| take(dir, point, subject)) {
        act(action);
    }
}

/// As [`reach`]; what was tried can also be made to fail, and its thread to wait until the file is
/// removed.
///
/// # Errors
/// When the point is armed to fail.
pub fn check(point: Point, subject: &str) -> io::Result<()> {
    let Some(dir) = directory() else {
        return Ok(());
    };
    while armed(dir, point, subject) == Some(Action::Hold) {
        std::thread::sleep(LOOK_EVERY);
    }
    match take(dir, point, subject) {
        Some(Action::Fail) => Err(io::Error::other(format!("failpoint {point}"))),
        Some(action) => {
            act(action);
            Ok(())
        }
        None => Ok(()),
    }
}

/// As [`reach`]; this place alone can also be made to wait, until the file is removed.
pub async fn hold(point: Point) {
    let Some(dir) = directory() else {
        return;
    };
    while armed(dir, point, "") == Some(Action::Hold) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    reach(point, "");
}

/// Whether this process was started with `bug`.
pub fn planted(bug: Bug) -> bool {
    static NAME: OnceLock<Option<String>> = OnceLock::new();
    let name = NAME.get_or_init(|| env::var(PLANTED).ok());
    name.as_deref() == Some(bug.name())
}

fn directory() -> Option<&'static Path> {
    static DIR: OnceLock<Option<PathBuf>> = OnceLock::new();
    DIR.get_or_init(|| env::var_os(DIRECTORY).map(PathBuf::from))
        .as_deref()
}

/// What `point` is armed with for `subject`.
fn armed(dir: &Path, point: Point, subject: &str) -> Option<Action> {
    let text = fs::read_to_string(dir.join(point.name())).ok()?;
    let mut words = text.split_ascii_whitespace();
    let action = words.next()?.parse().ok()?;
    words.next().is_none_or(|s| s == subject).then_some(action)
}

/// The same, and takes note of it: of several threads that come here, one acts.
fn take(dir: &Path, point: Point, subject: &str) -> Option<Action> {
    let action = armed(dir, point, subject).filter(|action| *action != Action::Hold)?;
    let file = dir.join(point.name());
    fs::rename(&file, file.with_extension(HIT)).ok()?;
    Some(action)
}

fn act(action: Action) {
    let signal = match action {
        Action::Kill => Signal::KILL,
        Action::Stop => Signal::STOP,
        Action::Fail | Action::Hold => return,
    };
    kill_process(getpid(), signal).expect("a process may signal itself");
    // The signal may reach another thread first; nothing is done here until it has reached all.
    std::thread::sleep(REACHES_ALL);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arm(dir: &Path, point: Point, text: &str) {
        fs::write(dir.join(point.name()), text).unwrap();
    }

    #[test]
    fn a_point_acts_once_for_its_subject_and_leaves_a_trace() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert_eq!(take(dir, Point::BeforeSend, "A"), None, "it is not armed");
        arm(dir, Point::BeforeSend, "kill A\n");
        assert_eq!(take(dir, Point::BeforeSend, "B"), None);
        assert_eq!(take(dir, Point::AfterAnswer, "A"), None);
        assert!(!dir.join("before-send.hit").exists());
        assert_eq!(take(dir, Point::BeforeSend, "A"), Some(Action::Kill));
        assert!(dir.join("before-send.hit").exists());
        assert_eq!(take(dir, Point::BeforeSend, "A"), None, "it has acted");
    }

    #[test]
    fn an_arming_without_a_subject_is_for_all_and_nonsense_is_for_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        for (text, expected) in [
            ("fail", Some(Action::Fail)),
            ("stop\n", Some(Action::Stop)),
            ("explode", None),
            ("", None),
        ] {
            arm(dir, Point::BeforeSync, text);
            assert_eq!(take(dir, Point::BeforeSync, "X"), expected, "{text:?}");
        }
    }

    #[test]
    fn a_held_place_is_not_used_up() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        arm(dir, Point::BeforeApply, "hold");
        assert_eq!(take(dir, Point::BeforeApply, ""), None);
        assert_eq!(armed(dir, Point::BeforeApply, ""), Some(Action::Hold));
    }
}
