//! The command line: every spelling parses, help teaches, and what `deploy/` says exists.

use std::collections::BTreeSet;
use std::path::Path;

use evermint::cli;
use evermint::settings::{FILE_ONLY, NAMES};

#[track_caller]
fn parses(line: &str) {
    let words = std::iter::once("evermint").chain(line.split_whitespace());
    if let Err(error) = cli::parse(words) {
        panic!("{line}: {error}");
    }
}

#[track_caller]
fn refused(line: &str, named: &str) {
    let words = std::iter::once("evermint").chain(line.split_whitespace());
    let error = cli::parse(words).err().map(|e| e.to_string());
    assert!(
        error.as_ref().is_some_and(|e| e.contains(named)),
        "{line}: {error:?}"
    );
}

/// The help of a command, given by its path.
fn help(path: &[&str]) -> String {
    let mut command = cli::command();
    command.build();
    let mut command = &mut command;
    for name in path {
        command = command.find_subcommand_mut(name).expect(name);
    }
    command.render_long_help().to_string()
}

#[test]
fn the_command_line_is_sound() {
    cli::command().debug_assert();
}

#[test]
fn both_spellings_of_a_command_are_understood() {
    let configure = "idp --credential-key T --strategy oauth2-refresh-token --token-url https://i/t \
                     --scope a --scope b --material client_id=x --material refresh_token=y \
                     --secret-material-key refresh_token --secret-material-env client_secret=S \
                     --credential-expires-at 2026-07-16T00:00:00Z --replay-policy grace=30s \
                     --refresh-before 5m --not-before 1m --max-lifetime 2h";
    parses(&format!("provider refresh configure {configure}"));
    parses(&format!("provider refresh-config {configure}"));
    for line in [
        "provider create vertex --type google-vertex --config a=b --credential K=env:V",
        "provider add --name vertex --type google-vertex --credential K",
        "provider get vertex --consistent",
        "provider list -A",
        "provider update vertex --config a=b --delete-config c --expires-at K=never --if-version 3",
        "provider delete a b c",
        "provider refresh status",
        "provider refresh-status vertex --credential-key K --watch",
        "provider refresh status --watch=500ms",
        "provider refresh rotate vertex --wait",
        "provider rotate vertex --credential-key K --wait=10s",
        "provider refresh delete vertex --credential-key K",
        "inference set --provider p --model m --timeout 60s",
        "inference get",
        "inference list",
        "inference delete inference.local",
        "sandbox create s --provider p --provider q",
        "sandbox attach s p --if-version 2",
        "sandbox detach s p",
        "sandbox bundle s --reveal --min-ttl 5m --min-generation 7",
        "sandbox watch s --count 2",
        "sandbox list",
        "sandbox delete s",
        "cluster status --consistent",
        "cluster remove 3 --yes",
        "audit --provider p --credential-key K --limit 10",
        "health --service evermint.v1.Bundles",
        "keygen --out kek",
        "completions bash",
        "man --dir /tmp/man1",
        "provider test vertex --credential-key K --timeout 5s",
        "provider create v --type t --from-service-account k.json --credential-key K --scope s",
        "provider create v --type t --from-gcloud-adc --credential-key K",
        "provider create v --type t --credential K --credential-expires-at K=+1h",
        "provider update v --credential-expires-at K=2026-07-16T00:00:00Z",
        "provider refresh-config v --credential-key K --from-gcloud-adc --wait",
        "provider refresh-config v --credential-key K --from-service-account k.json --wait=5s",
        "provider refresh-config NAME --credential-key KEY --strategy S --material K=V \
         --secret-material-key K --credential-expires-at 1784160000000",
    ] {
        parses(line);
        parses(&format!(
            "--gateway http://a:1,http://b:2 --workspace w -o json {line} --deadline 5s"
        ));
    }
}

#[test]
fn what_is_asked_wrongly_is_refused_with_what_is_expected() {
    for (line, named) in [
        ("provider create --type t", "NAME"),
        ("provider create a --name b --type t", "cannot be used with"),
        (
            "provider refresh configure p --strategy s",
            "--credential-key",
        ),
        ("provider refresh status --credential-key K", "PROVIDER"),
        (
            "provider refresh configure p --credential-key K --strategy s --refresh-before 5",
            "1h30m",
        ),
        (
            "provider refresh configure p --credential-key K --strategy s --replay-policy lax",
            "grace=30s",
        ),
        ("provider update p --expires-at K=soon", "milliseconds"),
        (
            "provider update p --credential-expires-at K=1784160000",
            "not seconds",
        ),
        (
            "provider create v --type t --from-gcloud-adc",
            "--credential-key",
        ),
        (
            "provider refresh configure p --credential-key K --strategy s --from-gcloud-adc",
            "cannot be used with",
        ),
        ("audit --limit 5000", "1..=1000"),
        ("serve --api-listen nowhere", "socket address"),
        ("serve --issuers-allow-networks 10.0.0.1/8", "CIDR"),
        ("-o xml cluster status", "yaml"),
        ("prvider list", "provider"),
    ] {
        refused(line, named);
    }
}

#[test]
fn a_misplaced_secret_is_not_repeated() {
    let words = ["evermint", "provider", "refresh", "configure", "p"];
    let secret = [
        "--credential-key",
        "K",
        "--strategy",
        "s",
        "--secret-material",
        "=hunter2",
    ];
    let error = cli::parse(words.into_iter().chain(secret)).unwrap_err();
    let told = error.to_string();
    assert!(told.contains("KEY=@FILE"), "{told}");
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn help_teaches_every_setting_with_its_variable_and_default() {
    let help = help(&["serve"]);
    for name in NAMES.iter().filter(|name| !FILE_ONLY.contains(name)) {
        let flag = format!("--{}", name.replace('_', "-"));
        let variable = format!("EVERMINT_{}", name.to_ascii_uppercase());
        assert!(help.contains(&flag), "{flag}");
        assert!(help.contains(&variable), "{variable}");
    }
    for default in [
        "127.0.0.1:7443",
        "5m",
        "1h",
        "[default: 256]",
        "[default: false]",
    ] {
        assert!(help.contains(default), "{default}");
    }
    assert!(help.contains("Examples:"));
}

#[test]
fn every_command_says_what_it_does() {
    fn walk(command: &clap::Command, path: &str) {
        let name = format!("{path} {}", command.get_name());
        assert!(command.get_about().is_some(), "{name}");
        for arg in command.get_arguments() {
            let help = arg.get_help().map(ToString::to_string);
            assert!(
                help.is_some_and(|h| !h.is_empty()),
                "{name}: {}",
                arg.get_id()
            );
        }
        for command in command.get_subcommands() {
            walk(command, &name);
        }
    }
    walk(&cli::command(), "");
}

fn deployed(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy")
        .join(file);
    std::fs::read_to_string(path).expect("it is there")
}

/// Checks a command line that starts with `evermint` or is what follows it.
#[track_caller]
fn runs(words: &[String]) {
    let words = words.iter().filter(|w| *w != "evermint" && *w != "CMD");
    let line = std::iter::once("evermint".to_owned()).chain(words.cloned());
    if let Err(error) = cli::parse(line) {
        panic!("{error}");
    }
}

/// The JSON list that follows `key` on a line, for each line that has one.
fn lists(text: &str, key: &str) -> Vec<Vec<String>> {
    let lists = text.lines().filter_map(|line| {
        let (_, list) = line.split_once(key)?;
        list.starts_with('[')
            .then(|| serde_json::from_str(list).expect("a list"))
    });
    lists.collect()
}

#[test]
fn deployed_command_lines_parse() {
    let compose = deployed("compose.yaml");
    let commands = lists(&compose, "command: ");
    assert_eq!(commands.len(), 3);
    commands.iter().for_each(|c| runs(c));
    assert_eq!(
        commands
            .iter()
            .filter(|c| c.contains(&"--init".to_owned()))
            .count(),
        1
    );
    let probes = lists(&compose, "test: ");
    assert_eq!(probes.len(), 1);
    probes.iter().for_each(|c| runs(c));
    let image = lists(&deployed("Dockerfile"), "CMD ");
    assert_eq!(image.len(), 2);
    image.iter().for_each(|c| runs(c));
    let unit = deployed("evermint.service");
    let (_, line) = unit
        .split_once("ExecStart=/usr/local/bin/evermint ")
        .unwrap();
    parses(line.lines().next().unwrap());
}

#[test]
fn deployed_variables_are_settings() {
    let known: BTreeSet<String> = NAMES
        .iter()
        .map(|name| format!("EVERMINT_{}", name.to_ascii_uppercase()))
        // The health check's, which is a command like any other.
        .chain(["EVERMINT_GATEWAY".to_owned()])
        .collect();
    let mut found = 0;
    for file in ["compose.yaml", "Dockerfile"] {
        for word in
            deployed(file).split(|c: char| !(c.is_ascii_uppercase() || c == '_' || c == '*'))
        {
            // A group of settings, named in a comment.
            let is_known = match word.strip_suffix('*') {
                Some(start) => known.iter().any(|k| k.starts_with(start)),
                None => known.contains(word),
            };
            if word.starts_with("EVERMINT_") {
                assert!(is_known, "{file}: {word}");
                found += 1;
            }
        }
    }
    assert!(found >= 10, "{found}");
}
