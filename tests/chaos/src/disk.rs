//! Disks that can lose their power: an ext4 file system in a file for each place, mounted where its
//! replica keeps its data.
//!
//! The mounts live in a mount namespace of the harness's own (`chaos power` enters one before it does
//! anything else), so they are gone, and their loop devices free, when its last process is, however
//! that ends.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::tool::run;

/// How large a disk is: a store and its garbage fit, and a filler does not take long.
const BYTES: u64 = 192 << 20;
/// How often a disk that is in use is tried to be unmounted, and the pause between.
const TRIES: u32 = 200;
const AGAIN: Duration = Duration::from_millis(20);
/// Tells a process that it lives in a mount namespace of its own.
const ENTERED: &str = "CHAOS_MOUNT_NAMESPACE";

/// Takes a line of mount points, and then cuts their power: `EXT4_IOC_SHUTDOWN` with
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`, what is not on the disk is gone.
const CUTTER: &str = "import fcntl, os, struct, sys
for line in sys.stdin:
    fds = [os.open(path, os.O_RDONLY) for path in line.split()]
    for fd in fds:
        fcntl.ioctl(fd, 0x8004587d, struct.pack('I', 2))
    for fd in fds:
        os.close(fd)
    print('cut', flush=True)";

/// Enters a mount namespace, by starting this program again in one. Returns in the second life.
///
/// # Errors
/// What the system said.
pub fn enter_namespace() -> Result<(), String> {
    if std::env::var_os(ENTERED).is_some() {
        return Ok(());
    }
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let error = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--"])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(ENTERED, "1")
        .exec();
    Err(format!("unshare --mount: {error}"))
}

/// A file system in a file.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    /// Where it is mounted.
    pub mount: PathBuf,
}

impl Disk {
    /// Makes one, and mounts it.
    ///
    /// # Errors
    /// What the system said.
    pub async fn make(image: PathBuf, mount: PathBuf) -> Result<Self, String> {
        let sized = std::fs::File::create(&image).and_then(|file| file.set_len(BYTES));
        sized.map_err(|e| format!("{}: {e}", image.display()))?;
        std::fs::create_dir_all(&mount).map_err(|e| format!("{}: {e}", mount.display()))?;
        let options = [
            "mkfs.ext4",
            "-q",
            "-F",
            "-m",
            "0",
            "-E",
            "lazy_itable_init=0,lazy_journal_init=0",
        ];
        tool(&options, &[&image]).await?;
        let disk = Self { image, mount };
        disk.mount().await?;
        Ok(disk)
    }

    /// Mounts it; what its journal holds is replayed.
    ///
    /// # Errors
    /// What the system said.
    pub async fn mount(&self) -> Result<(), String> {
        tool(&["mount", "-o", "loop"], &[&self.image, &self.mount]).await?;
        Ok(())
    }

    /// Unmounts it, as soon as nobody uses it.
    ///
    /// # Errors
    /// What the system said last.
    pub async fn unmount(&self) -> Result<(), String> {
        let mut last = String::new();
        for _ in 0..TRIES {
            match tool(&["umount"], &[&self.mount]).await {
                Ok(()) => return Ok(()),
                // A process that was killed may take a moment to let go of its files.
                Err(why) => last = why,
            }
            tokio::time::sleep(AGAIN).await;
        }
        Err(last)
    }

    /// Mounts it anew, to be read alone or to be written again. Nobody may use it.
    ///
    /// # Errors
    /// What the system said.
    pub async fn remount(&self, how: &str) -> Result<(), String> {
        let how = format!("remount,{how}");
        tool(&["mount", "-o", &how], &[&self.mount]).await
    }

    /// Whether it can be written to.
    pub fn is_writable(&self) -> bool {
        let probe = self.mount.join("probe");
        let written = std::fs::write(&probe, b"x").is_ok();
        written && std::fs::remove_file(&probe).is_ok()
    }

    /// Removes everything that is on it.
    ///
    /// # Errors
    /// What the system said.
    pub fn wipe(&self) -> std::io::Result<()> {
        for entry in std::fs::read_dir(&self.mount)? {
            let path = entry?.path();
            match path.is_dir() {
                true => std::fs::remove_dir_all(path)?,
                false => std::fs::remove_file(path)?,
            }
        }
        Ok(())
    }
}

/// Runs a command with paths at its end.
async fn tool(words: &[&str], paths: &[&Path]) -> Result<(), String> {
    let paths: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
    let mut line = words.to_vec();
    line.extend(paths.iter().map(String::as_str));
    run(&line).await.map(drop)
}

/// Cuts the power of disks: a small program, since this one has no unsafe code.
#[derive(Debug)]
pub struct Cutter {
    child: Child,
    stdin: ChildStdin,
    lines: BufReader<ChildStdout>,
}

impl Cutter {
    /// Starts it.
    ///
    /// # Errors
    /// What the system said.
    pub fn start() -> Result<Self, String> {
        let mut child = Command::new("python3")
            .args(["-c", CUTTER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("python3: {e}"))?;
        let stdin = child.stdin.take().ok_or("no way to python3")?;
        let lines = child.stdout.take().ok_or("no way from python3")?;
        Ok(Self {
            child,
            stdin,
            lines: BufReader::new(lines),
        })
    }

    /// Cuts the power of all of them at once. Blocks for some milliseconds.
    ///
    /// # Errors
    /// When it had no effect.
    pub fn cut(&mut self, disks: &[&Disk]) -> Result<(), String> {
        let mounts: Vec<_> = disks
            .iter()
            .map(|disk| disk.mount.display().to_string())
            .collect();
        writeln!(self.stdin, "{}", mounts.join(" ")).map_err(|e| e.to_string())?;
        let mut line = String::new();
        self.lines.read_line(&mut line).map_err(|e| e.to_string())?;
        if line.trim() != "cut" {
            return Err("the power could not be cut".to_owned());
        }
        match disks.iter().find(|disk| disk.is_writable()) {
            None => Ok(()),
            Some(disk) => Err(format!("{} still works", disk.mount.display())),
        }
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        // It has ended already if the harness is being taken down.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
