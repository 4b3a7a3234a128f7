//! `evermint agent run`: a command's environment, signals and end.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use evermint_agent_tests::{Api, BOUND, Gateway, bundle, credential, route, token, within};
use evermint_cluster_tests::{Canary, evermint};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

/// An agent with a sandbox that has one route and one credential.
async fn start() -> (Gateway, Api, TempDir) {
    let (gateway, api) = (Gateway::start().await, Api::start().await);
    api.accept(&["live-secret"]);
    let live = || token("API_TOKEN", "live-secret", 1, None);
    let routes = vec![route("inference.local", &api.url(), live())];
    gateway.serve(bundle(
        1,
        routes,
        vec![credential("test", "API_TOKEN", live())],
    ));
    (gateway, api, TempDir::new().unwrap())
}

fn agent(gateway: &Gateway, state: &Path, options: &[&str], command: &[&str]) -> Command {
    let mut agent = Command::new(evermint());
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"EVERMINT_") {
            agent.env_remove(name);
        }
    }
    agent
        .args([
            "agent",
            "run",
            "--gateway",
            &gateway.url(),
            "--sandbox",
            "agent-7",
        ])
        .arg("--state-dir")
        .arg(state)
        .args(options)
        .arg("--")
        .args(command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    agent
}

async fn shell(gateway: &Gateway, state: &Path, script: &str) -> (Option<i32>, String) {
    let output = agent(gateway, state, &[], &["sh", "-c", script]).output();
    let output = within("the command ends", output).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (
        output.status.code(),
        text + &String::from_utf8_lossy(&output.stderr),
    )
}

#[tokio::test]
async fn a_command_finds_the_agent_in_its_environment_and_no_secret() {
    let (gateway, api, state) = start().await;
    let script = r#"env; tr '\0' '\n' </proc/$PPID/environ; curl -sS "$OPENAI_BASE_URL/chat/completions" -d '{}'"#;
    let (status, text) = shell(&gateway, state.path(), script).await;
    assert_eq!(status, Some(0), "{text}");
    for name in [
        "HTTPS_PROXY=http://127.0.0.1:",
        "NO_PROXY=localhost",
        "SSL_CERT_FILE=/",
        "NODE_EXTRA_CA_CERTS=/",
        "ANTHROPIC_BASE_URL=http://",
    ] {
        assert!(text.contains(name), "{name} is not in {text}");
    }
    assert!(
        !text.contains("live-secret") && !text.contains("EVERMINT_"),
        "{text}"
    );
    assert!(text.contains("hello"), "{text}");
    assert_eq!(api.last().token, "live-secret");
}

/// At the level of `trace` every library under the agent tells what it does.
#[tokio::test]
async fn an_agent_that_logs_everything_tells_no_secret() {
    const LIVE: &str = "marked-live-value-9d1f0b5e7a";
    const SANDBOX: &str = "marked-sandbox-token-4c2ae81f63";
    let (gateway, api) = (Gateway::start().await, Api::start().await);
    api.accept(&[LIVE]);
    let live = || token("API_TOKEN", LIVE, 1, None);
    let routes = vec![route("inference.local", &api.url(), live())];
    gateway.serve(bundle(
        1,
        routes,
        vec![credential("test", "API_TOKEN", live())],
    ));
    let state = TempDir::new().unwrap();
    let script = r#"curl -sS "$OPENAI_BASE_URL/chat/completions" -d '{}'
        curl -sS -x "$HTTP_PROXY" "http://elsewhere.test/" -H "Authorization: Bearer $API_TOKEN""#;
    let options = ["--log-filter=trace"];
    let mut agent = agent(&gateway, state.path(), &options, &["sh", "-c", script]);
    agent.env("EVERMINT_SANDBOX_TOKEN", SANDBOX);
    let output = within("the command ends", agent.output()).await.unwrap();
    let told = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&told);
    assert_eq!(api.last().token, LIVE);
    assert!(text.contains("hello") && text.contains("TRACE"), "{text}");
    let mut canary = Canary::default();
    canary.plant("live value", LIVE);
    canary.plant("sandbox token", SANDBOX);
    let found = canary.find_in(&told);
    assert!(found.is_empty(), "{found:?} in {text}");
}

#[tokio::test]
async fn its_exit_status_is_the_commands() {
    let (gateway, _api, state) = start().await;
    for (script, expected) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -TERM $$", 128 + 15),
        ("kill -KILL $$", 128 + 9),
    ] {
        let (status, text) = shell(&gateway, state.path(), script).await;
        assert_eq!(status, Some(expected), "{script}: {text}");
    }
    let missing = agent(&gateway, state.path(), &[], &["/no/such/program"]).output();
    let missing = within("its end", missing).await.unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/no/such/program"));
}

/// A command that has said something, and the rest of what it says.
async fn speaking(mut command: Command) -> (Child, BufReader<tokio::process::ChildStdout>, String) {
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    within("its first line", lines.read_line(&mut line))
        .await
        .unwrap();
    (child, lines, line.trim().to_owned())
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[tokio::test]
async fn signals_are_passed_on() {
    let (gateway, _api, state) = start().await;
    for (name, number) in [
        ("TERM", Signal::TERM),
        ("INT", Signal::INT),
        ("HUP", Signal::HUP),
        ("USR1", Signal::USR1),
        ("USR2", Signal::USR2),
        ("WINCH", Signal::WINCH),
    ] {
        let script = format!(
            "trap 'echo got {name}; exit 3' {name}; echo ready; while :; do sleep 0.05; done"
        );
        let command = agent(&gateway, state.path(), &[], &["sh", "-c", &script]);
        let (mut child, mut lines, line) = speaking(command).await;
        assert_eq!(line, "ready");
        signal(&child, number);
        let mut rest = String::new();
        within("the rest", lines.read_to_string(&mut rest))
            .await
            .unwrap();
        let status = within("its end", child.wait()).await.unwrap();
        assert_eq!(
            (rest.trim(), status.code()),
            (&*format!("got {name}"), Some(3))
        );
    }
}

#[tokio::test]
async fn what_a_command_leaves_behind_is_reaped() {
    let (gateway, _api, state) = start().await;
    // The grandchild's parent ends at once, and it itself soon after: whose zombie is it?
    let script = "(sleep 0.1 & echo $!) ; while :; do sleep 0.05; done";
    let command = agent(&gateway, state.path(), &[], &["sh", "-c", script]);
    let (mut child, _lines, grandchild) = speaking(command).await;
    let gone = async {
        while Path::new(&format!("/proc/{grandchild}")).exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("it is reaped", gone).await;
    assert!(child.try_wait().unwrap().is_none(), "the command goes on");
}

#[tokio::test]
async fn a_command_is_not_started_before_there_is_a_bundle() {
    let gateway = Gateway::start().await;
    let state = TempDir::new().unwrap();
    let late = agent(
        &gateway,
        state.path(),
        &["--ready-timeout", "300ms"],
        &["echo", "started"],
    );
    let output = within("it gives up", { late }.output()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        (output.status.code(), &*output.stdout),
        (Some(1), &b""[..]),
        "{text}"
    );
    assert!(text.contains("not ready"), "{text}");

    let mut waiting = agent(&gateway, state.path(), &[], &["echo", "started"])
        .spawn()
        .unwrap();
    let mut out = waiting.stdout.take().unwrap();
    gateway.serve(bundle(1, Vec::new(), Vec::new()));
    let mut text = String::new();
    within("it starts", out.read_to_string(&mut text))
        .await
        .unwrap();
    assert_eq!(text, "started\n");
    assert!(
        tokio::time::timeout(BOUND, waiting.wait())
            .await
            .unwrap()
            .unwrap()
            .success()
    );
}
