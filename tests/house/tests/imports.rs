//! The table of ARCHITECTURE.md: which crate may import which.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The resolved dependency graph: package name to the names of what it imports, without
/// development dependencies.
fn graph() -> BTreeMap<String, BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline"])
        // What other platforms would need was never downloaded.
        .args(["--filter-platform", env!("HOST_TRIPLE")])
        .current_dir(root)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p["id"].as_str().unwrap(), p["name"].as_str().unwrap()))
        .collect();
    metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| {
            let imports = node["deps"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|dep| {
                    let kinds = dep["dep_kinds"].as_array().unwrap();
                    kinds.iter().any(|k| k["kind"] != "dev")
                })
                .map(|dep| names[dep["pkg"].as_str().unwrap()].to_owned())
                .collect();
            (names[node["id"].as_str().unwrap()].to_owned(), imports)
        })
        .collect()
}

/// Our crates that import `what` directly.
fn importers(graph: &BTreeMap<String, BTreeSet<String>>, what: &str) -> Vec<String> {
    graph
        .iter()
        .filter(|(name, imports)| name.starts_with("evermint") && imports.contains(what))
        .map(|(name, _)| name.clone())
        .collect()
}

#[test]
fn each_pillar_has_one_room() {
    let graph = graph();
    for (what, rooms) in [
        ("openraft", &["evermint-replica"][..]),
        ("sled", &["evermint-replica"]),
        ("ractor", &["evermint-actors"]),
        ("saphyr-parser", &["evermint-profiles"]),
        ("aws-sigv4", &["evermint-minter"]),
        // The tests talk to the admin APIs of issuers.
        ("reqwest", &["evermint-cluster-tests", "evermint-minter"]),
    ] {
        let importers = importers(&graph, what);
        assert!(
            !importers.is_empty() && importers.iter().all(|i| rooms.contains(&i.as_str())),
            "{what} is imported by {importers:?}"
        );
    }
}

#[test]
fn the_domain_knows_nobody_and_no_machine_knows_io() {
    let graph = graph();
    let ours = |name: &str| -> Vec<String> {
        graph[name]
            .iter()
            .filter(|i| i.starts_with("evermint"))
            .cloned()
            .collect()
    };
    assert!(ours("evermint-core").is_empty());
    assert_eq!(ours("evermint-protocol"), ["evermint-core"]);
    assert!(ours("evermint-proto").is_empty());
    assert!(ours("evermint-issuer").is_empty());
    assert!(ours("evermint-failpoint").is_empty());
    assert_eq!(ours("evermint-seal"), ["evermint-core"]);
    assert_eq!(ours("evermint-profiles"), ["evermint-core"]);
    assert!(ours("evermint-tls").is_empty());
    assert_eq!(
        ours("evermint-client"),
        ["evermint-core", "evermint-proto", "evermint-tls"]
    );
    assert_eq!(ours("evermint-agent"), ["evermint-client", "evermint-core"]);
    for pure in ["evermint-core", "evermint-protocol"] {
        for impure in [
            "tokio",
            "rand",
            "uuid",
            "getrandom",
            "rustix",
            "reqwest",
            "tonic",
        ] {
            assert!(!graph[pure].contains(impure), "{pure} imports {impure}");
        }
    }
}

#[test]
fn nobody_reaches_around_the_ports() {
    let graph = graph();
    for (who, never) in [
        (
            "evermint-minter",
            &["replica", "actors", "gateway", "proto"][..],
        ),
        ("evermint-replica", &["actors", "minter", "gateway"]),
        (
            "evermint-actors",
            &["replica", "minter", "gateway", "proto"],
        ),
        ("evermint-gateway", &["replica", "minter", "actors"]),
    ] {
        for other in never {
            let other = format!("evermint-{other}");
            assert!(!graph[who].contains(&other), "{who} imports {other}");
        }
    }
}

#[test]
fn only_shells_have_failpoints() {
    let rooms = [
        "evermint",
        "evermint-actors",
        "evermint-chaos",
        "evermint-gateway",
        "evermint-replica",
    ];
    for importer in importers(&graph(), "evermint-failpoint") {
        assert!(rooms.contains(&importer.as_str()), "{importer}");
    }
}

#[test]
fn there_is_one_crypto_provider() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--offline", "--prefix", "none"])
        .args(["--edges", "normal,build", "--format", "{p}"])
        .current_dir(root)
        .output()
        .unwrap();
    let tree = String::from_utf8(output.stdout).unwrap();
    let has = |name: &str| {
        tree.lines()
            .any(|line| line.starts_with(&format!("{name} v")))
    };
    assert!(
        has("aws-lc-rs"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for banned in ["ring", "openssl-sys", "native-tls", "rsa"] {
        assert!(
            !has(banned),
            "{banned} is in the tree: `cargo tree -i {banned}`"
        );
    }
}
