//! `evermint agent` and the token by which the cluster knows its sandbox.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ChildStdin, Stdio};
use std::time::{Duration, Instant};

use crate::site::{BOUND, Site};

/// An agent whose command says `ready`, then its environment, and ends with its standard input.
struct Agent {
    process: Child,
    input: Option<ChildStdin>,
    environment: String,
}

impl Agent {
    fn start(site: &Site, options: &[&str], token: Option<&str>) -> Self {
        let script = "echo ready; env; echo; exec cat";
        let command = ["--", "sh", "-c", script];
        let mut command =
            site.command(&[&["agent", "run", "--sandbox", "agent-1"], options, &command].concat());
        if let Some(token) = token {
            command.env("EVERMINT_SANDBOX_TOKEN", token);
        }
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let first = lines.next().map(Result::unwrap);
        if first.as_deref() != Some("ready") {
            let mut err = String::new();
            let _ = process.stderr.take().unwrap().read_to_string(&mut err);
            panic!("{first:?}: {err}");
        }
        let environment = lines.map(Result::unwrap).take_while(|l| !l.is_empty());
        let environment = environment.collect::<Vec<_>>().join("\n");
        Self {
            input: process.stdin.take(),
            process,
            environment,
        }
    }

    fn end(mut self) {
        self.input = None;
        assert!(self.process.wait().unwrap().success());
    }
}

/// A sandbox, and its first token, which ends soon.
async fn site() -> (Site, String) {
    let site = Site::guarded().await;
    site.done(&["sandbox", "create", "agent-1"]);
    let issue = ["sandbox", "token", "agent-1", "--lifetime=5s", "--out"];
    site.done(&[&issue[..], &["token"]].concat());
    let first = fs::read_to_string(site.path().join("token")).unwrap();
    site.write("first", &first);
    (site, first)
}

/// Waits until nobody takes the first token any more.
async fn over(site: &Site) {
    let read = ["--admin-token-file=first", "sandbox", "bundle", "agent-1"];
    site.until(&read, |ran| ran.code != Some(0)).await;
}

async fn until(what: &str, test: impl Fn() -> bool) {
    let started = Instant::now();
    while !test() {
        assert!(started.elapsed() < BOUND, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_keeps_its_token_in_the_file_and_the_next_one_goes_on_from_it() {
    let (site, first) = site().await;
    let options = ["--sandbox-token-file=token", "--keep-sandbox-token"];
    let agent = Agent::start(&site, &options, None);
    let path = site.path().join("token");
    let held = || fs::read_to_string(&path).unwrap();
    until("a new token in the file", || held() != first).await;
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    over(&site).await;
    agent.end();
    Agent::start(&site, &options, None).end();
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_writes_no_token_unless_it_is_asked_to_and_its_command_is_told_none() {
    let (site, first) = site().await;
    let by_file = Agent::start(&site, &["--sandbox-token-file=token"], None);
    let by_variable = Agent::start(&site, &["--state-dir=other"], Some(&first));
    for agent in [&by_file, &by_variable] {
        assert!(!agent.environment.contains("EVERMINT_"));
        assert!(!agent.environment.contains(&first));
        assert!(agent.environment.contains("HTTPS_PROXY="));
    }
    over(&site).await;
    by_file.end();
    by_variable.end();
    assert_eq!(
        fs::read_to_string(site.path().join("token")).unwrap(),
        first
    );
    let both = site
        .command(&[
            "agent",
            "run",
            "--sandbox=agent-1",
            "--sandbox-token-file=token",
        ])
        .env("EVERMINT_SANDBOX_TOKEN", &first)
        .args(["--", "true"])
        .output()
        .unwrap();
    assert_eq!(both.status.code(), Some(2), "{both:?}");
    let alone = site.run(&[
        "agent",
        "run",
        "--sandbox=a",
        "--keep-sandbox-token",
        "--",
        "true",
    ]);
    assert_eq!(alone.code, Some(2), "{alone:?}");
    site.stop().await;
}
