//! Real clients, unmodified: curl, and the SDKs of `clients/requirements.txt`.
//!
//! The SDKs are looked for in `clients/venv` (`python3 -m venv venv && venv/bin/pip install -r
//! requirements.txt`). Without them their tests say so and show nothing, unless
//! `EVERMINT_REQUIRE_SDKS` is set: then they fail.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use evermint_agent_tests::{Api, Gateway, bundle, credential, route, token, within};
use evermint_cluster_tests::{evermint, say};
use evermint_proto::v1;
use tempfile::TempDir;
use tokio::process::Command;

const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients");

/// The Python that has the SDKs; `None` if it is not there, which was said.
fn python() -> Option<PathBuf> {
    let python = Path::new(CLIENTS).join("venv/bin/python");
    if python.exists() {
        return Some(python);
    }
    assert!(
        std::env::var_os("EVERMINT_REQUIRE_SDKS").is_none(),
        "{} is missing: `python3 -m venv {CLIENTS}/venv && {CLIENTS}/venv/bin/pip install -r {CLIENTS}/requirements.txt`",
        python.display()
    );
    say("SKIPPED: the SDKs are not installed; this test has shown nothing");
    None
}

/// What every provider of the sandbox gives, until in ten minutes.
fn sandbox(api: &Api) -> v1::Bundle {
    let live = |name: &str, value: &str| token(name, value, 1, Some(600_000));
    let mut session = live("AWS_ACCESS_KEY_ID", "AKIA");
    session
        .values
        .insert("AWS_SECRET_ACCESS_KEY".to_owned(), "aws-secret".to_owned());
    session
        .values
        .insert("AWS_SESSION_TOKEN".to_owned(), "aws-session".to_owned());
    let plain = |key: &str, value: &str| v1::PlainVariable {
        provider: "vertex".to_owned(),
        key: key.to_owned(),
        value: value.to_owned(),
    };
    v1::Bundle {
        plain: vec![
            plain("GOOGLE_CLOUD_PROJECT_ID", "project-7"),
            plain("GOOGLE_CLIENT_EMAIL", "robot@project-7.example"),
        ],
        ..bundle(
            1,
            vec![route(
                "inference.local",
                &api.url(),
                live("API_TOKEN", "live-secret"),
            )],
            vec![
                credential(
                    "vertex",
                    "VERTEX_AI_TOKEN",
                    live("VERTEX_AI_TOKEN", "google-secret"),
                ),
                credential("prod", "AWS_ACCESS_KEY_ID", session),
                credential("entra", "AZURE_TOKEN", live("AZURE_TOKEN", "azure-secret")),
            ],
        )
    }
}

/// Runs a command under an agent of its own; the API takes the route's token alone.
async fn run(options: &[&str], command: &[&str]) -> (Output, Api) {
    let (gateway, api) = (Gateway::start().await, Api::start().await);
    api.accept(&["live-secret"]);
    gateway.serve(sandbox(&api));
    let state = TempDir::new().unwrap();
    let mut agent = Command::new(evermint());
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy().to_ascii_uppercase();
        if [
            "EVERMINT_",
            "AWS_",
            "GOOGLE_",
            "AZURE_",
            "OPENAI_",
            "ANTHROPIC_",
        ]
        .iter()
        .any(|p| name_text.starts_with(p))
            || name_text.ends_with("_PROXY")
        {
            agent.env_remove(name);
        }
    }
    let output = agent
        .args([
            "agent",
            "run",
            "--gateway",
            &gateway.url(),
            "--sandbox",
            "agent-7",
        ])
        .arg("--state-dir")
        .arg(state.path())
        .args(options)
        .arg("--")
        .args(command)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within("the client ends", output).await.unwrap();
    (output, api)
}

/// Runs a script of `clients/`, and gives what it found, by name.
async fn script(options: &[&str], name: &str) -> Option<(BTreeMap<String, String>, Api)> {
    let (python, script) = (python()?, Path::new(CLIENTS).join(name));
    let (output, api) = run(options, &[python.to_str()?, script.to_str()?]).await;
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{name}: {out}{err}");
    let found = out.lines().filter_map(|line| line.split_once(": "));
    Some((
        found.map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
        api,
    ))
}

fn check(found: &BTreeMap<String, String>, expected: &[(&str, &str)]) {
    let found: Vec<_> = found
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    assert_eq!(found, expected);
}

/// Every call bore the route's token, and nothing of the caller's.
fn bore_the_routes_token(api: &Api, calls: usize) {
    let seen = api.seen();
    assert_eq!(seen.len(), calls, "{seen:?}");
    for seen in seen {
        assert_eq!(
            (seen.token.as_str(), &seen.body["model"]),
            ("live-secret", &"routed".into()),
            "{seen:?}"
        );
        assert!(!seen.headers.contains_key("x-api-key"), "{seen:?}");
    }
}

#[tokio::test]
async fn curl_calls_by_address_and_by_name() {
    for (url, options) in [
        ("$OPENAI_BASE_URL/chat/completions", ""),
        ("http://inference.local/v1/chat/completions", ""),
        ("https://inference.local/v1/chat/completions", ""),
        ("https://inference.local/v1/chat/completions", "--http2"),
    ] {
        let script = format!(
            "curl -sS {options} -N -H 'Authorization: Bearer mine' -d '{{\"stream\":true}}' \"{url}\""
        );
        let (output, api) = run(&[], &["sh", "-c", &script]).await;
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            text.ends_with("data: [DONE]\n\n"),
            "{url}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        bore_the_routes_token(&api, 1);
    }
}

#[tokio::test]
async fn openais_sdk_calls_and_streams() {
    let Some((found, api)) = script(&[], "openai_sdk.py").await else {
        return;
    };
    check(
        &found,
        &[
            ("models", "routed"),
            ("refused", "no-such-call"),
            ("streamed", "hello there"),
            ("whole", "hello"),
        ],
    );
    bore_the_routes_token(&api, 2);
}

#[tokio::test]
async fn anthropics_sdk_calls_and_streams() {
    let Some((found, api)) = script(&[], "anthropic_sdk.py").await else {
        return;
    };
    check(
        &found,
        &[
            ("counted", "7"),
            ("refused", "not_found_error"),
            ("streamed", "hello there"),
            ("whole", "hello"),
        ],
    );
    bore_the_routes_token(&api, 3);
}

#[tokio::test]
async fn google_auth_takes_the_token_of_the_metadata_endpoint() {
    let Some((found, _api)) = script(&["--metadata", "google"], "google_auth.py").await else {
        return;
    };
    check(
        &found,
        &[
            ("account", "robot@project-7.example"),
            ("project", "project-7"),
            ("token", "google-secret"),
            ("valid", "True"),
        ],
    );
}

#[tokio::test]
async fn boto3_takes_the_session_of_the_container_endpoint() {
    let Some((found, _api)) = script(&["--metadata", "aws"], "aws_boto3.py").await else {
        return;
    };
    check(
        &found,
        &[
            ("key", "AKIA"),
            ("method", "container-role"),
            ("refreshes", "False"),
            ("secret", "aws-secret"),
            ("session", "aws-session"),
        ],
    );
}

#[tokio::test]
async fn azure_identity_takes_the_token_of_the_managed_identity_endpoint() {
    let Some((found, _api)) = script(&["--metadata", "azure"], "azure_identity.py").await else {
        return;
    };
    check(&found, &[("ends", "True"), ("token", "azure-secret")]);
}
