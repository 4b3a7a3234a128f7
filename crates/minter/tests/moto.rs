//! AWS STS as moto plays it, with authentication on: a signature that is not right is refused.
//!
//! moto is installed by `crates/minter/tests/moto/install`; `EVERMINT_REQUIRE_MOTO=1` makes its
//! absence a failure, without it these tests say that they were skipped.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests fail like the tests themselves, and say what was skipped"
)]

mod support;

use std::net::TcpListener as Std;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use evermint_core::id::CredentialKey;
use evermint_core::mint::{FailureClass, MintOrder};
use evermint_core::port::Minter;
use evermint_core::strategy::Strategy;
use support::{minter, order};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

const ROLE: &str = "arn:aws:iam::123456789012:role/agent";

/// The program, if it is installed.
fn program() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/moto/.venv/bin/moto_server");
    if path.exists() {
        return Some(path);
    }
    let is_required = std::env::var_os("EVERMINT_REQUIRE_MOTO").is_some();
    assert!(
        !is_required,
        "EVERMINT_REQUIRE_MOTO is set, and {} is missing",
        path.display()
    );
    eprintln!("SKIPPED: no moto; crates/minter/tests/moto/install puts it in place");
    None
}

/// A moto of its own for each test; killed when it is dropped.
struct Moto {
    address: String,
    _server: Child,
}

impl Moto {
    /// Starts it; after `free` calls, every other one has to be signed.
    async fn start(program: &Path, free: Option<u32>) -> Self {
        let port = Std::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let address = format!("127.0.0.1:{port}");
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        if let Some(free) = free {
            command.env("INITIAL_NO_AUTH_ACTION_COUNT", free.to_string());
        }
        let server = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let listens = async {
            while TcpStream::connect(&address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let bound = Duration::from_secs(120);
        tokio::time::timeout(bound, listens)
            .await
            .expect("moto listens");
        Self {
            address,
            _server: server,
        }
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// A call of IAM that is free of a signature.
    async fn iam(&self, fields: &[(&str, &str)]) -> String {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        let body = form
            .append_pair("Version", "2010-05-08")
            .extend_pairs(fields)
            .finish();
        let request = format!(
            "POST / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=setup/20200101/us-east-1/iam/aws4_request, \
             SignedHeaders=host, Signature=0\r\n\r\n{body}",
            self.address,
            body.len()
        );
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer
    }
}

fn element<'a>(xml: &'a str, name: &str) -> &'a str {
    let (_, rest) = xml.split_once(&format!("<{name}>")).unwrap();
    rest.split_once("</").unwrap().0
}

fn session(
    strategy: Strategy,
    url: &str,
    public: &[(&str, &str)],
    secret: &[(&str, &str)],
) -> MintOrder {
    let public = [&[("role_arn", ROLE), ("region", "us-east-1")][..], public].concat();
    let mut order = order(strategy, url, &public, secret);
    order.config.outputs = ["secret_access_key", "session_token"]
        .map(|output| {
            let key = CredentialKey::new(output.to_uppercase()).unwrap();
            (output.to_owned(), key)
        })
        .into();
    order
}

#[tokio::test]
async fn a_role_is_assumed_where_signatures_are_checked() {
    let Some(program) = program() else {
        return;
    };
    let moto = Moto::start(&program, Some(4)).await;
    moto.iam(&[("Action", "CreateUser"), ("UserName", "evermint")])
        .await;
    let keys = moto
        .iam(&[("Action", "CreateAccessKey"), ("UserName", "evermint")])
        .await;
    let allow = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:*","Resource":"*"}]}"#;
    moto.iam(&[
        ("Action", "PutUserPolicy"),
        ("UserName", "evermint"),
        ("PolicyName", "p"),
        ("PolicyDocument", allow),
    ])
    .await;
    let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}]}"#;
    moto.iam(&[
        ("Action", "CreateRole"),
        ("RoleName", "agent"),
        ("AssumeRolePolicyDocument", trust),
    ])
    .await;
    let id = element(&keys, "AccessKeyId");
    let public = [
        ("access_key_id", id),
        ("duration_seconds", "900"),
        ("external_id", "a:b/c=d"),
    ];
    let secret = [("secret_access_key", element(&keys, "SecretAccessKey"))];
    let strategy = Strategy::AwsStsAssumeRole;
    let minter = minter(|_| ());
    let good = session(strategy, &moto.url(), &public, &secret);
    assert_eq!(minter.validate(&good.config, &good.secrets), []);
    let minted = minter.mint(good).await.unwrap();
    assert!(minted.token.expose().starts_with(b"ASIA"));
    assert_eq!(minted.extra_outputs.len(), 2);
    let lifetime = minted.lifetime.unwrap().as_secs();
    assert!((840..=901).contains(&lifetime), "{lifetime}");

    let wrong = [("secret_access_key", "of-somebody-else")];
    let bad = session(strategy, &moto.url(), &public, &wrong);
    let failure = minter.mint(bad).await.unwrap_err();
    assert_eq!(failure.class, FailureClass::ConfigRefused);
    assert!(
        failure.cause.contains("SignatureDoesNotMatch"),
        "{}",
        failure.cause
    );
    assert!(
        failure.remedy.contains("secret_access_key"),
        "{}",
        failure.remedy
    );
}

#[tokio::test]
async fn a_role_is_assumed_with_a_web_identity() {
    let Some(program) = program() else {
        return;
    };
    let moto = Moto::start(&program, None).await;
    let token = [("web_identity_token", "a.b.c")];
    let order = session(Strategy::AwsStsWebIdentity, &moto.url(), &[], &token);
    let minter = minter(|_| ());
    assert_eq!(minter.validate(&order.config, &order.secrets), []);
    let minted = minter.mint(order).await.unwrap();
    assert!(minted.token.expose().starts_with(b"ASIA"));
    let lifetime = minted.lifetime.unwrap().as_secs();
    assert!((3_540..=3_601).contains(&lifetime), "{lifetime}");
}
