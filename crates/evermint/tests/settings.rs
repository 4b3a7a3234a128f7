//! The settings of a replica: the documented file is the defaults, and sources win in order.

use std::collections::BTreeSet;
use std::path::Path;

use evermint::settings::{NAMES, Settings};

fn example() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/evermint.toml");
    std::fs::read_to_string(path).expect("it is there")
}

/// Names of the settings in a file, also of those that are commented out.
fn names(text: &str) -> Vec<String> {
    let mut section = String::new();
    let mut names = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = format!("{name}_");
            continue;
        }
        let line = line.strip_prefix("# ").unwrap_or(line);
        let Some((key, value)) = line.split_once(" = ") else {
            continue;
        };
        let is_key = key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        if is_key && !value.is_empty() {
            names.push(format!("{section}{key}"));
        }
    }
    names
}

#[test]
fn the_example_file_is_the_defaults() {
    assert_eq!(
        Settings::from_toml(&example()).unwrap(),
        Settings::default()
    );
}

#[test]
fn the_example_file_has_every_setting_once() {
    let found = names(&example());
    let unique: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(unique.len(), found.len(), "{found:?}");
    assert_eq!(unique, NAMES.iter().copied().collect::<BTreeSet<_>>());
}

#[test]
fn what_the_example_file_comments_out_is_valid() {
    let all: String = example()
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if !names(rest).is_empty() => format!("{rest}\n"),
            Some(_) | None => format!("{line}\n"),
        })
        .collect();
    let settings = Settings::from_toml(&all).unwrap();
    assert_eq!(settings.kek_env.as_deref(), Some("EVERMINT_KEK"));
    let text = settings.check().unwrap_err().to_string();
    assert!(text.contains("exclude each other"), "{text}");
}

#[test]
fn every_setting_has_a_comment_in_the_example_file() {
    let text = example();
    let lines: Vec<&str> = text.lines().collect();
    for (i, line) in lines.iter().enumerate() {
        if names(line).is_empty() {
            continue;
        }
        // Settings that share a comment stand together under it.
        let above = lines[..i].iter().rev().find(|l| names(l).is_empty());
        assert!(above.is_some_and(|l| l.starts_with("# ")), "{line}");
    }
}

#[test]
fn what_is_unknown_is_refused_by_its_name() {
    for (text, named) in [
        ("data_dri = \"x\"", "data_dri"),
        ("[api]\nlisen = \"x\"", "lisen in [api]"),
        ("[apis]\nlisten = \"x\"", "section [apis]"),
        ("[api]\nlisten = \"nowhere\"", "api_listen"),
        ("shutdown_grace = \"5\"", "shutdown_grace"),
        ("init = \"yes\"", "init"),
        ("data_dir = ", "1"),
    ] {
        let error = format!("{:#}", Settings::from_toml(text).unwrap_err());
        assert!(error.contains(named), "{text}: {error}");
    }
}

#[test]
fn what_is_unsafe_on_a_network_is_refused_until_it_is_admitted() {
    let check = |extra: &str| {
        let text = format!("{extra}\n[kek]\nenv = \"K\"\n");
        Settings::from_toml(&text).unwrap().check()
    };
    check("").unwrap();
    let api = "api_listen = \"192.0.2.1:7443\"";
    let peer = "peer_listen = \"192.0.2.1:7444\"";
    let tls = "api_tls_cert = \"c\"\napi_tls_key = \"k\"";
    let token = "admin_token_file = \"t\"";
    for (extra, wrong) in [
        (api.to_owned(), "speaks no TLS"),
        (format!("{api}\n{tls}"), "asks for no token"),
        (format!("{api}\n{token}"), "speaks no TLS"),
        (peer.to_owned(), "no mutual TLS"),
        ("api_tls_cert = \"c\"".to_owned(), "belong together"),
        ("peer_tls_ca = \"c\"".to_owned(), "belong together"),
        ("cluster_shards = 0".to_owned(), "shards must be"),
        ("api_listen = \"0.0.0.0:1\"".to_owned(), "api_advertise"),
        ("peer_listen = \"[::]:1\"".to_owned(), "peer_advertise"),
    ] {
        let error = format!("{:#}", check(&extra).unwrap_err());
        assert!(error.contains(wrong), "{extra}: {error}");
    }
    check(&format!("{api}\n{tls}\n{token}")).unwrap();
    check(&format!("{peer}\ninsecure_network = true")).unwrap();
}
