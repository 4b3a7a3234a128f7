//! Marked secrets go through every command, in every form that a value can be given in; then all
//! that was written is searched for them: what commands say, their command lines, the log at trace
//! level, and the data directory. Profiles, the tokens of sandboxes and what they report, and
//! revocation at the issuer are on the way.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use evermint_cluster_tests::{Canary, Process, eventually, evermint, free_port};
use evermint_issuer::{Client, Config, Issuer, Running};
use evermint_proto::v1::bundles_client::BundlesClient;
use evermint_proto::v1::{GetBundleRequest, ReportTokenRequest};

const BOUND: Duration = Duration::from_secs(60);

/// Where the secrets lie that commands are given, and where all that they leave is gathered.
struct Site {
    dir: tempfile::TempDir,
    api: u16,
    issuer: Running,
    canary: Canary,
    said: usize,
}

impl Site {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file that an operator keeps a secret in; it is not searched.
    fn keep(&self, name: &str, content: &str) -> String {
        let path = self.path("kept").join(name);
        fs::write(&path, content).expect("a file");
        path.display().to_string()
    }

    /// A new marked secret.
    fn mark(&mut self, name: &str) -> String {
        let secret = format!("marked/{name}+9d1f0b5e7a=&?{name}");
        self.canary.plant(name, &secret);
        secret
    }

    /// A command whose output is gathered; its standard input is to be written.
    fn start(&mut self, args: &[&str]) -> Child {
        self.said += 1;
        let said = File::create(self.path("said").join(format!("{}.txt", self.said)));
        let said = said.expect("a file");
        let mut command = Command::new(evermint());
        command
            .args(["--gateway", &format!("http://127.0.0.1:{}", self.api)])
            .args([
                "--admin-token-file",
                &self.path("kept/admin").display().to_string(),
            ])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(said.try_clone().expect("a second handle"))
            .stderr(said);
        if let Ok(marked) = fs::read_to_string(self.path("kept/env")) {
            command.env("MARKED", marked);
        }
        command.spawn().expect("evermint runs")
    }

    /// Runs a command to its end with `stdin`; whether it was done.
    fn run_with(&mut self, args: &[&str], stdin: &str) -> bool {
        let mut child = self.start(args);
        let mut input = child.stdin.take().expect("piped");
        // One that fails early reads nothing.
        let _ = input.write_all(stdin.as_bytes());
        drop(input);
        child.wait().expect("it ends").success()
    }

    fn run(&mut self, args: &[&str]) -> bool {
        self.run_with(args, "")
    }

    #[track_caller]
    fn done(&mut self, args: &[&str]) {
        assert!(self.run(args), "{args:?}: {}", self.last());
    }

    /// What the last command said.
    fn last(&self) -> String {
        let said = self.path("said").join(format!("{}.txt", self.said));
        fs::read_to_string(said).unwrap_or_default()
    }

    /// Runs a command that reads standard input last, and looks at its command line while it
    /// waits for that.
    async fn run_watched(&mut self, args: &[&str], stdin: &str) -> Vec<String> {
        let mut child = self.start(args);
        let line = PathBuf::from(format!("/proc/{}/cmdline", child.id()));
        let line = eventually("the command line", BOUND, async || {
            let line = fs::read(&line).map_err(|e| e.to_string())?;
            // Before its exec, a child has its parent's.
            let is_it = line.windows(7).any(|w| w == b"--gatew");
            if is_it {
                Ok(line)
            } else {
                Err("not yet".to_owned())
            }
        })
        .await;
        let mut input = child.stdin.take().expect("piped");
        input.write_all(stdin.as_bytes()).expect("it reads it");
        drop(input);
        let ended = child.wait().expect("it ends");
        assert!(ended.success(), "{args:?}: {}", self.last());
        self.canary.find_in(&line)
    }

    /// A service account that the issuer trusts, as a key file; its key is marked.
    fn service_account(&mut self) -> String {
        let account = self.issuer.handle().service_account("robot@example.test");
        let account = account.expect("a key pair");
        let pem = account.private_key_pem.expose();
        let line = pem.lines().nth(3).expect("a PEM of many lines");
        self.canary.plant("private key", line);
        let key = account
            .key_file("https://oauth2.googleapis.com")
            .to_string();
        self.keep("key.json", &key)
    }
}

/// One replica that logs everything, asks for a token and takes snapshots often.
fn serve(site: &Site) -> Process {
    let mut command = Command::new(evermint());
    command
        .args([
            "serve",
            "--init",
            "--log-filter=trace",
            "--store-snapshot-after=20",
        ])
        .arg("--store-snapshot-keep=2")
        .arg(format!("--kek-file={}", site.path("kept/kek").display()))
        .arg(format!("--data-dir={}", site.path("data").display()))
        .arg(format!("--api-listen=127.0.0.1:{}", site.api))
        .arg(format!("--peer-listen=127.0.0.1:{}", free_port()))
        .arg(format!(
            "--admin-token-file={}",
            site.path("kept/admin").display()
        ))
        .args(["--insecure-loopback", "--issuers-allow-loopback"])
        .arg(format!(
            "--issuers-stand-ins=https://oauth2.googleapis.com/token={}",
            site.issuer.token_url()
        ));
    Process::spawn(&mut command, &site.path("logs").join("serve.log"))
}

async fn site() -> (Site, Process) {
    let dir = tempfile::tempdir().expect("a directory");
    for name in ["kept", "said", "logs"] {
        fs::create_dir(dir.path().join(name)).expect("a directory");
    }
    let mut site = Site {
        dir,
        api: free_port(),
        issuer: Issuer::start(Config::default())
            .await
            .expect("the issuer starts"),
        canary: Canary::default(),
        said: 0,
    };
    let kek = site.path("kept/kek");
    let made = Command::new(evermint())
        .args(["keygen", "--out"])
        .arg(&kek)
        .output();
    assert!(made.expect("evermint runs").status.success());
    let kek = fs::read_to_string(kek).expect("the key");
    site.canary.plant("key-encryption key, as text", kek.trim());
    let admin = "marked-admin-token-4c2ae81f63";
    site.canary.plant("admin token", admin);
    site.keep("admin", admin);
    let process = serve(&site);
    eventually("the replica serves", BOUND, async || {
        match site.run(&["provider", "list"]) {
            true => Ok(()),
            false => Err(site.last()),
        }
    })
    .await;
    (site, process)
}

async fn static_values(site: &mut Site) {
    let (file, env) = (site.mark("file"), site.mark("env"));
    let (stdin, plain) = (site.mark("stdin"), site.mark("plain"));
    let from_file = format!("--credential=A_KEY=@{}", site.keep("file", &file));
    site.keep("env", &env);
    let create = [
        "provider",
        "create",
        "static",
        "--type=generic",
        &from_file,
        "--credential=B_KEY=env:MARKED",
        "--credential=C_KEY=-",
    ];
    let seen = site.run_watched(&create, &stdin).await;
    assert!(seen.is_empty(), "{seen:?} on the command line");
    // What is given in the clear is seen there: so the look is one.
    let in_the_clear = format!("--credential=D_KEY={plain}");
    let update = [
        "provider",
        "update",
        "static",
        &in_the_clear,
        "--credential=C_KEY=-",
    ];
    let seen = site.run_watched(&update, &stdin).await;
    assert_eq!(seen, ["plain (clear)"]);
    assert!(site.last().contains("warning: D_KEY"), "{}", site.last());
}

async fn refreshes(site: &mut Site) {
    let secret = site.mark("client-secret");
    let client = Client::new("crm").secret(secret.as_str()).scopes(&["a"]);
    site.issuer.handle().register(client);
    let url = format!("--token-url={}", site.issuer.token_url());
    site.done(&["provider", "create", "crm", "--type=generic-oauth2"]);
    let configure = [
        "provider",
        "refresh-config",
        "crm",
        "--credential-key=CRM_TOKEN",
        "--strategy=oauth2-client-credentials",
        "--material=client_id=crm",
        "--scope=a",
        &url,
        "--material=client_secret=-",
        "--secret-material-key=client_secret",
        "--wait",
    ];
    let seen = site.run_watched(&configure, &secret).await;
    assert!(seen.is_empty(), "{seen:?} on the command line");

    let seeded = site.issuer.handle().seed(Client::new("user"));
    let token = seeded.refresh_token.expose().to_owned();
    site.canary.plant("refresh token", &token);
    site.keep("env", &token);
    site.done(&["provider", "create", "user", "--type=generic-oauth2"]);
    site.done(&[
        "provider",
        "refresh-config",
        "user",
        "--credential-key=USER_TOKEN",
        "--strategy=oauth2-refresh-token",
        "--material=client_id=user",
        &url,
        "--secret-material=refresh_token=env:MARKED",
        "--wait",
    ]);

    let key = site.service_account();
    site.done(&[
        "provider",
        "create",
        "vertex",
        "--type=google-vertex-ai",
        "--config=project=p",
        "--credential-key=VERTEX_AI_TOKEN",
        "--from-service-account",
        &key,
    ]);
    site.done(&["provider", "rotate", "vertex", "--wait"]);
}

/// Commands that are refused, each with a secret in it.
fn refusals(site: &mut Site) {
    let secret = site.mark("misplaced");
    let url = format!("--token-url={}", site.issuer.token_url());
    let json = site.keep(
        "broken.json",
        &format!("{{\"type\":\"service_account\",{secret}"),
    );
    let lines = site.keep("lines", &format!("{secret}\n{secret}\n"));
    let nul = site.keep("nul", &format!("{secret}\0"));
    let long = site.keep("long", &secret.repeat(9000 / secret.len()));
    let configure = [
        "provider",
        "refresh-config",
        "crm",
        "--credential-key=CRM_TOKEN",
    ];
    let by_client = "--strategy=oauth2-client-credentials";
    for rest in [
        vec![by_client, &url, &format!("--material=client_idd={secret}")],
        vec![
            by_client,
            &url,
            "--material=client_id=x",
            &format!("--secret-material=client_secret=@{lines}"),
        ],
        vec![
            by_client,
            &url,
            "--material=client_id=x",
            &format!("--secret-material=client_secret=@{nul}"),
        ],
        vec![
            by_client,
            &url,
            "--material=client_id=x",
            &format!("--secret-material=client_secret=@{long}"),
        ],
        vec![
            by_client,
            &format!("--token-url=https://user:{secret}@idp.example/"),
        ],
        vec![by_client, &url, &format!("--secret-material=={secret}")],
        vec![
            "--strategy=google-service-account-jwt",
            &format!("--secret-material=service_account_json=@{json}"),
        ],
        vec!["--from-service-account", &json],
    ] {
        assert!(
            !site.run(&[&configure[..], &rest].concat()),
            "{rest:?} was done"
        );
    }
    let expiring = format!("--credential-expires-at=A_KEY={secret}");
    assert!(!site.run(&["provider", "update", "static", &expiring]));
    let wrong = site.mark("wrong-admin-token");
    let wrong = site.keep("wrong", &wrong);
    assert!(!site.run(&["--admin-token-file", &wrong, "provider", "list"]));

    // A wrong secret reaches the issuer, which says so.
    let wrong = site.mark("wrong-client-secret");
    let wrong = format!(
        "--secret-material=client_secret=@{}",
        site.keep("wrong", &wrong)
    );
    site.done(&["provider", "create", "bad", "--type=generic-oauth2"]);
    assert!(!site.run(&[
        "provider",
        "refresh-config",
        "bad",
        "--credential-key=BAD_TOKEN",
        by_client,
        &url,
        "--material=client_id=crm",
        &wrong,
        "--wait",
    ]));
    assert!(!site.run(&["provider", "test", "bad"]));
}

/// Profiles in which somebody has written a secret: where it does not matter, and where it must not
/// stand.
fn profiles(site: &mut Site) {
    let secret = site.mark("in-a-profile");
    let token_url = site.issuer.token_url();
    let good = format!(
        "# {secret}\nid: house\ndescription: a house # {secret}\ncredentials:\n  - name: key\n    \
         env_vars: [HOUSE_KEY]\n    refresh:\n      strategy: oauth2-client-credentials\n      \
         token_url: {token_url}\n      material:\n        - {{name: client_id, required: true}}\n"
    );
    let good = site.keep("good.yaml", &good);
    site.done(&["provider", "profile", "import", &good]);
    site.done(&["provider", "profile", "lint", &good]);
    for (name, line) in [
        (
            "a-default",
            format!("client_secret, secret: true, default: \"{secret}\""),
        ),
        (
            "a-format",
            format!("client_secret, secret: true, format: \"{secret}\""),
        ),
    ] {
        let bad = format!(
            "id: {name}\ncredentials:\n  - name: key\n    env_vars: [K]\n    refresh:\n      \
             strategy: oauth2-client-credentials\n      token_url: https://user:{name}@idp.example\n      \
             material:\n        - {{name: {line}}}\n"
        );
        let bad = site.keep(name, &bad);
        assert!(!site.run(&["provider", "profile", "lint", &bad]), "{name}");
        assert!(
            !site.run(&["provider", "profile", "import", &bad]),
            "{name}"
        );
    }
    let torn = site.keep("torn.yaml", &format!("id: [\"{secret}\n  }}: {secret}\n"));
    assert!(!site.run(&["provider", "profile", "import", &torn]));
}

/// A sandbox has a token of its own, reports one that was refused, and loses its own.
async fn sandbox_tokens(site: &mut Site) {
    let path = site.path("kept").join("box-token").display().to_string();
    site.done(&["sandbox", "token", "box", "--out", &path]);
    let token = fs::read_to_string(&path).expect("the token");
    site.canary.plant("sandbox token", token.trim());
    let url = format!("http://127.0.0.1:{}", site.api);
    let channel = tonic::transport::Endpoint::from_shared(url).expect("a URL");
    let channel = channel.connect_lazy();
    let bearer = format!("Bearer {}", token.trim())
        .parse()
        .expect("a header");
    let mut bundles =
        BundlesClient::with_interceptor(channel, move |mut call: tonic::Request<()>| {
            call.metadata_mut().insert(
                "authorization",
                tonic::metadata::MetadataValue::clone(&bearer),
            );
            Ok(call)
        });
    let report = ReportTokenRequest {
        sandbox: "box".to_owned(),
        provider: "crm".to_owned(),
        credential_key: "CRM_TOKEN".to_owned(),
        generation: 1,
        ..ReportTokenRequest::default()
    };
    bundles.report_token(report).await.expect("it is heard");
    let bundle = || GetBundleRequest {
        sandbox: "box".to_owned(),
        ..GetBundleRequest::default()
    };
    bundles.get_bundle(bundle()).await.expect("its own");
    site.done(&["sandbox", "revoke", "box"]);
    let refused = bundles.get_bundle(bundle()).await;
    assert!(refused.is_err(), "its tokens are revoked");
}

/// A grant that is revoked at the issuer, and one of whose issuer nothing is heard but the echo of
/// what it was sent.
fn revocation(site: &mut Site) {
    let url = format!("--token-url={}", site.issuer.token_url());
    let nowhere = format!("{}/nowhere", site.issuer.url());
    for (name, revoke_url, is_told) in [
        ("ann", site.issuer.revoke_url(), true),
        ("bob", nowhere, false),
    ] {
        let secret = site.mark(name);
        let client = Client::new(name).secret(secret.as_str());
        let seeded = site.issuer.handle().seed(client);
        let token = seeded.refresh_token.expose().to_owned();
        site.canary.plant("refresh token", &token);
        let secret = format!(
            "--secret-material=client_secret=@{}",
            site.keep("s", &secret)
        );
        let token = format!(
            "--secret-material=refresh_token=@{}",
            site.keep("rt", &token)
        );
        site.done(&["provider", "create", name, "--type=generic-oauth2"]);
        site.done(&[
            "provider",
            "refresh-config",
            name,
            "--credential-key=USER_TOKEN",
            "--strategy=oauth2-refresh-token",
            &format!("--material=client_id={name}"),
            &format!("--revoke-url={revoke_url}"),
            &url,
            &secret,
            &token,
            "--wait",
        ]);
        let told = site.run(&["provider", "delete", name, "--revoke", "--wait", "-o=json"]);
        assert_eq!(told, is_told, "{}", site.last());
    }
    site.done(&["provider", "refresh", "revocations"]);
    site.done(&["audit"]);
}

/// Everything that can be shown, in every format.
fn shown(site: &mut Site) {
    site.done(&[
        "sandbox",
        "create",
        "box",
        "--provider=static",
        "--provider=crm",
        "--provider=user",
        "--provider=vertex",
    ]);
    site.done(&["inference", "set", "--provider=vertex", "--model=m"]);
    for format in ["table", "json", "yaml"] {
        for args in [
            &["provider", "list"][..],
            &["provider", "get", "static"],
            &["provider", "get", "vertex"],
            &["provider", "refresh", "status"],
            &["provider", "test", "crm"],
            &["provider", "test", "user"],
            &["provider", "test", "vertex"],
            &["provider", "rotate", "user", "--wait"],
            &["provider", "refresh", "revocations"],
            &["provider", "profile", "list"],
            &["provider", "profile", "show", "house"],
            &["provider", "profile", "export", "house"],
            &["inference", "list"],
            &["sandbox", "list"],
            &["sandbox", "get", "box"],
            &["sandbox", "bundle", "box"],
            &["sandbox", "environment", "box"],
            &["cluster", "status"],
            &["audit"],
        ] {
            site.done(&[args, &["-o", format]].concat());
        }
    }
}

/// The tokens that a sandbox is given now.
fn plant_tokens(site: &mut Site) {
    let output = Command::new(evermint())
        .args(["--gateway", &format!("http://127.0.0.1:{}", site.api)])
        .args([
            "--admin-token-file",
            &site.path("kept/admin").display().to_string(),
        ])
        .args(["sandbox", "bundle", "box", "--reveal", "-o=json"])
        .output();
    let output = output.expect("evermint runs").stdout;
    let bundle: serde_json::Value = serde_json::from_slice(&output).expect("JSON");
    let mut planted = 0;
    for credential in bundle["credentials"].as_array().expect("credentials") {
        let values = credential["token"]["values"].as_object();
        for (key, value) in values.into_iter().flatten() {
            let value = value.as_str().expect("a text");
            if !value.starts_with("marked") {
                site.canary.plant(key, value);
                planted += 1;
            }
        }
    }
    assert!(planted >= 3, "{bundle}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_leaves_a_secret_behind() {
    let (mut site, process) = site().await;
    static_values(&mut site).await;
    refreshes(&mut site).await;
    refusals(&mut site);
    profiles(&mut site);
    shown(&mut site);
    plant_tokens(&mut site);
    sandbox_tokens(&mut site).await;
    revocation(&mut site);
    site.done(&[
        "provider",
        "refresh",
        "delete",
        "crm",
        "--credential-key=CRM_TOKEN",
    ]);
    assert!(process.terminate(BOUND).success());

    let mut found = Vec::new();
    for dir in ["said", "logs", "data"] {
        found.extend(site.canary.search(&site.path(dir)));
    }
    assert!(found.is_empty(), "{found:#?}");
    // The search does find what is there, and is no secret.
    let mut control = Canary::default();
    control.plant("key", "VERTEX_AI_TOKEN");
    for dir in ["said", "logs", "data"] {
        assert!(!control.search(&site.path(dir)).is_empty(), "{dir}");
    }
    assert!(!site.canary.search(&site.path("kept")).is_empty());
    site.issuer.shutdown().await;
}
