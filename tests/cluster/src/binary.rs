//! The program under test: the `evermint` that this workspace builds now.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};

/// The path of the `evermint` program.
///
/// `EVERMINT_BIN` names one to test instead. Otherwise it is the one in the target directory of
/// this test, which `cargo nextest run --workspace` has just built; if it is missing or older than
/// a source that it is made of, it is built first.
///
/// # Panics
/// When it cannot be built.
pub fn evermint() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("EVERMINT_BIN") {
        Some(path) => PathBuf::from(path),
        None => built("evermint", None),
    })
}

/// The path of `evermint-failpoints`: the same program, which a test can stop at named points.
///
/// # Panics
/// When it cannot be built.
pub fn evermint_failpoints() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built("evermint-failpoints", Some("failpoints")))
}

fn built(name: &str, feature: Option<&str>) -> PathBuf {
    // target/PROFILE/deps/TEST or target/PROFILE/TOOL, and target/PROFILE/evermint beside it.
    let test = std::env::current_exe().expect("a test knows its own path");
    let dir = test.parent().expect("a program is in a directory");
    let profile_dir = match dir.parent() {
        Some(parent) if dir.file_name().is_some_and(|name| name == "deps") => parent,
        _ => dir,
    };
    let binary = profile_dir.join(name);

    // Tests are processes of their own under nextest: one builds, the others wait for it.
    let lock = profile_dir.join(".evermint-under-test.lock");
    let lock = File::create(&lock).unwrap_or_else(|e| panic!("{}: {e}", lock.display()));
    flock(&lock, FlockOperation::LockExclusive).expect("the lock of the build");
    if !is_current(&binary) {
        build(profile_dir, name, feature);
    }
    binary
}

/// Whether the program is newer than every source of it that cargo noted beside it.
fn is_current(binary: &Path) -> bool {
    let modified = |path: &Path| fs::metadata(path).and_then(|m| m.modified());
    let (Ok(made), Ok(sources)) = (
        modified(binary),
        fs::read_to_string(binary.with_extension("d")),
    ) else {
        return false;
    };
    let newer = |source: &str| {
        let source = Path::new(source);
        modified(source).unwrap_or(SystemTime::now()) > made
    };
    // `target: source source …`, with `\ ` for a blank in a path.
    let sources = sources.replace("\\ ", "\0");
    let mut sources = sources.split_ascii_whitespace().skip(1);
    !sources.any(|source| newer(&source.replace('\0', " ")))
}

fn build(profile_dir: &Path, name: &str, feature: Option<&str>) {
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let target_dir = profile_dir.parent().expect("target/PROFILE");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--package", "evermint", "--bin", name])
        .args(feature.iter().flat_map(|feature| ["--features", feature]))
        .args(["--profile", profile, "--target-dir"])
        .arg(target_dir)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .status()
        .unwrap_or_else(|e| panic!("cannot run cargo to build evermint: {e}"));
    assert!(
        status.success(),
        "{name} was not built; build it with `cargo build -p evermint`, or name one in EVERMINT_BIN"
    );
}
