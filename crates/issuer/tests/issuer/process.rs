//! The issuer as a process of its own.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use crate::support::*;

#[tokio::test]
async fn the_binary_says_where_it_listens_and_serves_there() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_evermint-issuer"))
        .args(["--port", "0", "--access-ttl", "9", "--client", "app"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut ready)
        .unwrap();
    let url = ready
        .trim()
        .strip_prefix("evermint-issuer ready ")
        .unwrap()
        .to_owned();
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", "app"),
        ("client_secret", "app-secret"),
    ];
    let answer = post(&url, &form).await;
    let health = reply(http().get(format!("{url}/admin/health"))).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(answer.unwrap().body["expires_in"], 9);
    assert_eq!(health.unwrap().body["ok"], true);
}
