//! What must not be in a program that is released: failpoints and planted defects.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Our packages in a build with these arguments, each with its features: `name: feature,…`.
fn features(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--prefix", "none", "--edges", "normal"])
        .args(["--format", "{p}|{f}"])
        .args(args)
        .current_dir(root())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let tree = String::from_utf8(output.stdout).unwrap();
    let ours = tree.lines().filter(|line| line.starts_with("evermint"));
    let features = ours.filter_map(|line| {
        let (package, features) = line.split_once('|')?;
        // A version and a path come after the name.
        let (name, _) = package.split_once(' ')?;
        Some(format!("{name}: {features}"))
    });
    features.collect::<Vec<_>>().join("\n")
}

#[test]
fn no_build_has_failpoints_unless_it_asks_for_them() {
    // The second is what is tested, the first what is released.
    for args in [&["--package", "evermint"][..], &["--workspace"]] {
        let features = features(args);
        assert!(features.contains("evermint-failpoint: "), "{features}");
        assert!(!features.contains("failpoints"), "{args:?}: {features}");
    }
    let armed = features(&["--package", "evermint", "--features", "failpoints"]);
    assert!(armed.contains("failpoints"), "the test cannot fail");
}

#[test]
fn what_is_released_is_built_without_any_feature() {
    for file in ["deploy/Dockerfile", "deploy/compose.yaml"] {
        let text = fs::read_to_string(root().join(file)).unwrap();
        let builds = text.lines().filter(|line| line.contains("cargo build"));
        for line in builds {
            assert!(!line.contains("feature"), "{file}: {line}");
        }
        assert!(!text.to_lowercase().contains("failpoint"), "{file}");
    }
    let image = fs::read_to_string(root().join("deploy/Dockerfile")).unwrap();
    assert!(image.contains("cargo build --profile dist --locked -p evermint\n"));
    assert!(image.contains("target/dist/evermint /usr/local/bin/evermint\n"));
}
