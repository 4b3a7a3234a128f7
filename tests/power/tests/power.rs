//! Power cuts on a real file system: what was acknowledged is there afterwards.
//!
//! ext4 on a loop device is told to forget everything that is not on the disk (its shutdown
//! ioctl), in the middle of writing; then it is mounted again and the store is opened. The same
//! with the sync taken out has to lose something: otherwise the test proves nothing.
//!
//! Needs root, a loop device and python3 (for the ioctl: this project has no unsafe code). Where
//! they are missing the test says so and passes, unless `EVERMINT_REQUIRE_POWER=1`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const WRITER: &str = env!("CARGO_BIN_EXE_power-writer");

/// Cuts with the sync, unless `EVERMINT_POWER_CUTS` says how many, and without it.
const CUTS: usize = 30;
const FAULTY_CUTS: usize = 6;

/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`, once it is told to.
const CUT: &str = "import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
print('ready', flush=True)
sys.stdin.readline()
fcntl.ioctl(fd, 0x8004587d, struct.pack('I', 2))
print('cut', flush=True)";

/// Entries and term.
type Contents = (u64, u64);

#[test]
fn no_acknowledged_entry_or_vote_is_lost_in_a_power_cut() {
    if !available() {
        return;
    }
    let cuts = match std::env::var("EVERMINT_POWER_CUTS") {
        Ok(cuts) => cuts.parse().unwrap(),
        Err(_) => CUTS,
    };
    let mut random = StdRng::seed_from_u64(1);
    let mut entries = 0;
    for cut in 0..cuts {
        let (acknowledged, found) = trial("durable", &mut random);
        let found = found.unwrap_or_else(|damage| panic!("cut {cut}: {damage}"));
        entries += acknowledged.0;
        assert!(
            found.0 >= acknowledged.0 && found.1 >= acknowledged.1,
            "cut {cut}: acknowledged {acknowledged:?}, found {found:?}"
        );
    }
    println!("{cuts} power cuts: none of {entries} acknowledged entries was lost");
}

#[test]
fn without_the_sync_a_power_cut_loses_acknowledged_entries() {
    if !available() {
        return;
    }
    let mut random = StdRng::seed_from_u64(2);
    let lost = (0..FAULTY_CUTS)
        .filter(|_| {
            let (acknowledged, found) = trial("flush-only", &mut random);
            found.is_err() || found.is_ok_and(|f| f.0 < acknowledged.0 || f.1 < acknowledged.1)
        })
        .count();
    println!("{FAULTY_CUTS} power cuts without the sync: {lost} lost acknowledged entries");
    assert!(lost > 0, "the test cannot fail");
}

/// Writes until the power is cut. Gives what was acknowledged before, and what was found after.
fn trial(policy: &str, random: &mut StdRng) -> (Contents, Result<Contents, String>) {
    let disk = Disk::new().unwrap();
    let mut cut = Tool::start(Command::new("python3").args(["-c", CUT]).arg(&disk.mount));
    assert_eq!(cut.line(), "ready");

    let data = disk.mount.join("data");
    std::fs::create_dir(&data).unwrap();
    let mut writer = Command::new(WRITER)
        .args(["write", policy])
        .arg(&data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let newest = Arc::new(Mutex::new(parse(&first).unwrap()));
    let reader = {
        let newest = newest.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // The last line may be torn: the process is killed.
                if let Some(contents) = parse(&line) {
                    *newest.lock().unwrap() = contents;
                }
            }
        })
    };
    // The moment of the cut is what the test is about; no event tells it.
    std::thread::sleep(Duration::from_millis(random.random_range(100..900)));
    let acknowledged = *newest.lock().unwrap();
    cut.stdin.write_all(b"now\n").unwrap();
    assert_eq!(cut.line(), "cut");
    assert!(
        std::fs::write(disk.mount.join("probe"), b"x").is_err(),
        "the cut did not take effect"
    );
    // It may have died of the cut already.
    let _ = writer.kill();
    writer.wait().unwrap();
    reader.join().unwrap();
    cut.child.wait().unwrap();

    disk.unmount();
    disk.mount().unwrap();
    let check = Command::new(WRITER)
        .arg("check")
        .arg(&data)
        .output()
        .unwrap();
    let line = String::from_utf8_lossy(&check.stdout).trim().to_owned();
    let errors = String::from_utf8_lossy(&check.stderr).into_owned();
    (acknowledged, parse(&line).ok_or(format!("{line}{errors}")))
}

fn parse(line: &str) -> Option<Contents> {
    let (entries, term) = line.split_once(' ')?;
    Some((entries.parse().ok()?, term.parse().ok()?))
}

/// A child that is talked to line by line.
struct Tool {
    child: Child,
    stdin: std::process::ChildStdin,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Tool {
    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        Self {
            stdin: child.stdin.take().unwrap(),
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
        }
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }
}

/// An ext4 file system in a file, mounted.
struct Disk {
    _dir: tempfile::TempDir,
    image: PathBuf,
    mount: PathBuf,
}

impl Disk {
    fn new() -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let (image, mount) = (dir.path().join("image"), dir.path().join("mount"));
        let sized = std::fs::File::create(&image).and_then(|file| file.set_len(256 << 20));
        sized.map_err(|e| e.to_string())?;
        std::fs::create_dir(&mount).map_err(|e| e.to_string())?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        let disk = Self {
            _dir: dir,
            image,
            mount,
        };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<(), String> {
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&self.image)
            .arg(&self.mount))
    }

    fn unmount(&self) {
        // A process that was killed may take a moment to let go of its files.
        for _ in 0..100 {
            if run(Command::new("umount").arg(&self.mount)).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.unmount();
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = Path::new(command.get_program()).display().to_string();
    let output = command.output().map_err(|e| format!("{name}: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

/// Whether this machine can cut its own power. Says so if not; fails if it must.
fn available() -> bool {
    let problem = match rustix::process::geteuid().is_root() {
        false => Err("not root".to_owned()),
        true => run(Command::new("python3").arg("--version"))
            .and_then(|()| Disk::new())
            .map(drop),
    };
    let Err(problem) = problem else {
        return true;
    };
    assert!(
        std::env::var("EVERMINT_REQUIRE_POWER").as_deref() != Ok("1"),
        "the power-loss test cannot run here: {problem}"
    );
    println!("SKIPPED: the power-loss test cannot run here: {problem}");
    false
}
