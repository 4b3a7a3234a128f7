//! The settings of a replica: the documented file is the defaults, and sources win in order.

use std::collections::BTreeSet;
use std::path::Path;

use evermint::settings::{NAMES, Settings, TEST_BUILD};

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

fn check(text: &str) -> Result<(), String> {
    let text = format!("{text}\n[kek]\nenv = \"K\"\n");
    let checked = Settings::from_toml(&text).expect("it parses").check();
    checked.map_err(|error| format!("{error:#}"))
}

const TLS: &str = "api_tls_cert = \"c\"\napi_tls_key = \"k\"\n";
const TOKEN: &str = "admin_token_file = \"t\"\n";
const LOOPBACK: &str = "insecure_loopback = true\n";

#[test]
fn plain_text_and_calls_without_a_token_are_for_loopback_and_only_if_asked_for() {
    let api = "api_listen = \"192.0.2.1:7443\"\n";
    let peer = "peer_listen = \"192.0.2.1:7444\"\n";
    let off = "peer_tls = \"off\"\n";
    let network: &[&str] = match TEST_BUILD {
        true => &[],
        false => &["speaks no TLS", "asks for no token", "no mutual TLS"],
    };
    for (given, wrong) in [
        (vec![], &["speaks no TLS", "asks for no token"][..]),
        (vec![TLS], &["asks for no token"]),
        (vec![TOKEN], &["speaks no TLS"]),
        (vec![TLS, TOKEN], &[]),
        (vec![TLS, TOKEN, off], &["no mutual TLS"]),
        (vec![TLS, TOKEN, api, peer], &[]),
        (vec![LOOPBACK], &[]),
        (vec![LOOPBACK, TLS, TOKEN], &[]),
        (
            vec![LOOPBACK, api],
            &["192.0.2.1:7443 speaks no TLS", "asks for no token"],
        ),
        (vec![LOOPBACK, api, TLS, TOKEN], &[]),
        (
            vec![LOOPBACK, peer],
            &["192.0.2.1:7444 speaks no mutual TLS"],
        ),
        (vec![LOOPBACK, peer, "peer_tls = \"built-in\"\n"], &[]),
        // In test builds alone.
        (vec!["insecure_network = true\n", api, peer], network),
    ] {
        let checked = check(&given.concat());
        assert_eq!(checked.is_ok(), wrong.is_empty(), "{given:?}: {checked:?}");
        for word in wrong {
            let error = checked.as_ref().unwrap_err();
            assert!(error.contains(word), "{given:?}: {error}");
        }
    }
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    let files = "peer_tls_ca = \"a\"\npeer_tls_cert = \"c\"\npeer_tls_key = \"k\"\n";
    for (extra, wrong) in [
        ("api_tls_cert = \"c\"", "belong together"),
        ("peer_tls_ca = \"c\"", "belong together"),
        ("peer_tls = \"files\"", "peer_tls is files"),
        (
            &format!("{files}peer_tls = \"built-in\""),
            "are for peer_tls",
        ),
        (&format!("{files}peer_tls = \"off\""), "are for peer_tls"),
        ("cluster_shards = 0", "shards must be"),
        ("api_listen = \"0.0.0.0:1\"", "api_advertise"),
        ("peer_listen = \"[::]:1\"", "peer_advertise"),
    ] {
        let error = check(&format!("{LOOPBACK}{extra}")).unwrap_err();
        assert!(error.contains(wrong), "{extra}: {error}");
    }
    check(&format!("{TLS}{TOKEN}{files}")).unwrap();
}

#[test]
fn the_page_of_limits_has_every_limit_with_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/limits.md");
    let page = std::fs::read_to_string(path).unwrap();
    let told: Vec<(String, String)> = page
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `limit_")?.split(" | ");
            let name = cells.next()?.trim_end_matches('`');
            Some((format!("limit_{name}"), cells.next()?.to_owned()))
        })
        .collect();
    let defaults = toml::Table::try_from(Settings::default()).unwrap();
    let limits = NAMES.iter().filter(|name| name.starts_with("limit_"));
    let expected: Vec<(String, String)> = limits
        .map(|name| {
            let default = match &defaults[*name] {
                toml::Value::String(text) => text.clone(),
                value => value.to_string(),
            };
            ((*name).to_owned(), default)
        })
        .collect();
    assert_eq!(told, expected);
}
