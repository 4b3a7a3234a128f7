//! What must not stand in a source file.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let name = path.file_name().unwrap();
            if name != "target" && name != "node_modules" {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn all() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = Vec::new();
    for dir in ["crates", "tests", "benches"] {
        sources(&root.join(dir), &mut found);
    }
    assert!(found.len() > 50, "only {} sources were found", found.len());
    let read = |path: PathBuf| (path.clone(), fs::read_to_string(path).unwrap());
    found.into_iter().map(read).collect()
}

#[test]
fn no_test_is_ignored_and_no_code_is_left_for_later() {
    // Put together, so that this file does not find itself.
    let banned = [
        ["#[ig", "nore"].concat(),
        ["tod", "o!("].concat(),
        ["unimple", "mented!("].concat(),
    ];
    for (path, text) in all() {
        for word in &banned {
            assert!(!text.contains(word), "{} has {word}", path.display());
        }
    }
}

#[test]
fn every_module_says_what_it_is_for() {
    for (path, text) in all() {
        let documented = text
            .lines()
            .find(|line| !line.is_empty())
            .is_some_and(|line| line.starts_with("//!"));
        assert!(documented, "{} does not begin with //!", path.display());
    }
}

#[test]
fn the_machines_read_no_clock() {
    let machines = ["crates/core/src", "crates/protocol/src"];
    for (path, text) in all() {
        if !machines.iter().any(|m| path.to_string_lossy().contains(m)) {
            continue;
        }
        for word in ["SystemTime", "Instant::now", "HashMap", "thread_rng"] {
            assert!(!text.contains(word), "{} has {word}", path.display());
        }
    }
}

#[test]
fn every_test_that_security_md_names_is_there() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../SECURITY.md");
    let page = fs::read_to_string(page).unwrap();
    // The tests are the longest words in code style; settings and commands are shorter.
    let words = page.split('`').skip(1).step_by(2);
    let named: Vec<&str> = words.filter(|w| w.matches('_').count() > 2).collect();
    assert!(named.len() > 20, "only {named:?}");
    let sources = all();
    for name in named {
        let definition = format!("fn {name}(");
        let is_there = sources.iter().any(|(_, text)| text.contains(&definition));
        assert!(is_there, "there is no test {name}");
    }
}
