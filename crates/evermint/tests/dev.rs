//! `evermint dev` as a process: a cluster on loopback that keeps its credentials fresh.

use std::process::{Command, Output};

fn evermint(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evermint"));
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"EVERMINT_") {
            command.env_remove(name);
        }
    }
    command.args(args).output().expect("evermint runs")
}

#[test]
fn dev_refreshes_every_credential_by_one_mint_each() {
    let output = evermint(&["dev", "--once", "--token-ttl", "5s"]);
    let text = String::from_utf8_lossy(&output.stdout);
    let told = format!("{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}");
    for words in [
        "demo-user/USER_TOKEN: generation 3, minted by replica",
        "demo-service/SERVICE_TOKEN: generation 3, minted by replica",
        "exactly one mint for each generation",
        "export EVERMINT_GATEWAY=http://127.0.0.1:",
    ] {
        assert!(text.contains(words), "{words}: {told}");
    }
    // The test issuer's tokens begin so, and are long.
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    for word in told.split(|c| !is_part(c)) {
        let is_token = word.starts_with("at-") || word.starts_with("rt-");
        assert!(!is_token || word.len() < 16, "{word} is told: {told}");
    }
}

#[test]
fn a_failed_command_says_what_to_do() {
    for (args, code, words) in [
        (
            &["--gateway", "http://127.0.0.1:1", "provider", "list"][..],
            1,
            "evermint dev",
        ),
        (&["serve"], 1, "evermint keygen --out"),
        (
            &[
                "serve",
                "--insecure-loopback",
                "--kek-file",
                "/nonexistent/kek",
            ],
            1,
            "evermint keygen --out",
        ),
        (
            &["serve", "--kek-file", "/nonexistent/kek"],
            1,
            "--insecure-loopback",
        ),
        (
            &["serve", "--config", "/nonexistent/evermint.toml"],
            2,
            "cannot read",
        ),
        (&["provider", "update", "p"], 2, "nothing to change"),
        (&["nonsense"], 2, "--help"),
    ] {
        let output = evermint(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        assert!(error.contains(words), "{args:?}: {error}");
    }
}
