//! The walk-through of the README, run exactly as it is written. Only the ports are others, and
//! Google's token endpoint has a stand-in: both are said in the environment.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};

use evermint_issuer::{Config, Issuer};

use crate::site::{program, ran};

const README: &str = include_str!("../../../../README.md");

/// The shell blocks of a section.
fn blocks(section: &str) -> Vec<&'static str> {
    let (_, rest) = README
        .split_once(&format!("\n## {section}\n"))
        .expect("the README has the section");
    let rest = rest.split("\n## ").next().unwrap();
    let blocks = rest.split("```sh\n").skip(1);
    blocks.map(|b| b.split("```").next().unwrap()).collect()
}

/// A shell where `evermint` is the program under test.
fn shell(dir: &std::path::Path, environment: &[(&str, String)]) -> Command {
    let program = program();
    let bin = std::path::Path::new(program.get_program())
        .parent()
        .unwrap();
    let mut path = bin.as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    let mut shell = Command::new("sh");
    for (name, _) in program.get_envs() {
        shell.env_remove(name);
    }
    shell
        .env("PATH", path)
        .envs(environment.iter().map(|(k, v)| (*k, v)))
        .current_dir(dir);
    shell
}

/// Stops the replica when the test ends, however it ends.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has then told.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_walk_through_leads_to_a_bundle_with_a_live_token() {
    let issuer = Issuer::start(Config::default()).await.unwrap();
    let account = issuer
        .handle()
        .service_account("robot@example.test")
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let key = account
        .key_file("https://oauth2.googleapis.com")
        .to_string();
    std::fs::write(dir.path().join("key.json"), key).unwrap();
    let api = format!("127.0.0.1:{}", free_port());
    let environment = [
        ("EVERMINT_API_LISTEN", api.clone()),
        ("EVERMINT_PEER_LISTEN", "127.0.0.1:0".to_owned()),
        ("EVERMINT_GATEWAY", format!("http://{api}")),
        ("EVERMINT_ISSUERS_ALLOW_LOOPBACK", "true".to_owned()),
        (
            "EVERMINT_ISSUERS_STAND_INS",
            format!("https://oauth2.googleapis.com/token={}", issuer.token_url()),
        ),
    ];

    let blocks = blocks("First steps with a real provider");
    let [start, walk, ..] = blocks.as_slice() else {
        panic!("{blocks:?}");
    };
    let (keygen, serve) = start.trim().split_once('\n').expect("two commands");
    assert!(serve.starts_with("evermint serve "), "{serve}");
    let made = ran(shell(dir.path(), &environment).args(["-ec", keygen]), "");
    assert_eq!(made.code, Some(0), "{made:#?}");
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let serving = shell(dir.path(), &environment)
        // The shell becomes the replica, so that it can be stopped.
        .args(["-ec", &format!("exec {serve}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    let _serving = Serving(serving.unwrap());
    let up = "until evermint cluster status && evermint provider list; do sleep 0.2; done";
    let up = ran(
        shell(dir.path(), &environment).args(["-c", &format!("timeout 60 sh -c '{up}'")]),
        "",
    );
    assert_eq!(up.code, Some(0), "{up:#?}");

    let walked = ran(shell(dir.path(), &environment).args(["-exc", walk]), "");
    let mut told = format!("{}\n{}", walked.out, walked.err);
    let _ = write!(
        told,
        "{}",
        std::fs::read_to_string(dir.path().join("log")).unwrap()
    );
    assert_eq!(walked.code, Some(0), "{told}");
    for words in ["vertex/VERTEX_AI_TOKEN minted", "46 bytes"] {
        assert!(walked.out.contains(words), "{words}: {told}");
    }

    let reveal = "evermint sandbox bundle agent-1 --reveal -o json";
    let bundle = ran(shell(dir.path(), &environment).args(["-ec", reveal]), "");
    let bundle: serde_json::Value = serde_json::from_str(&bundle.out).expect(&told);
    let token = &bundle["credentials"][0]["token"]["values"]["VERTEX_AI_TOKEN"];
    let token = token.as_str().expect(&told);
    assert!(
        issuer.handle().is_live(token),
        "the issuer does not know {token}"
    );
    issuer.shutdown().await;
}
