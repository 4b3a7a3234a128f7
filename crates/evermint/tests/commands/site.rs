//! A replica, an issuer, a directory, and the program.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use evermint::settings::Settings;
use evermint::wire::Replica;
use evermint_issuer::{Client, Config, Handle, Issuer, Running};
use serde_json::Value;
use tempfile::TempDir;

/// No test waits longer than this for an event.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// Where an operator works.
pub(crate) struct Site {
    pub(crate) dir: TempDir,
    pub(crate) issuer: Running,
    pub(crate) url: String,
    /// Where the admin token is, if calls need one.
    admin: Option<PathBuf>,
    replica: Replica,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Site {
    /// With a client `crm` of the secret `crm-secret` and the scopes `a` and `b` at the issuer.
    pub(crate) async fn start() -> Self {
        Self::start_with(None, |_, _| ()).await
    }

    /// The same, with a replica that lets nobody in who shows no token.
    pub(crate) async fn guarded() -> Self {
        Self::start_with(Some("an-admin-token-that-is-long-enough"), |_, _| ()).await
    }

    /// With a replica whose settings are changed; one with TLS need not serve yet.
    pub(crate) async fn start_by(change: impl FnOnce(&Path, &mut Settings)) -> Self {
        Self::start_with(None, change).await
    }

    async fn start_with(admin: Option<&str>, change: impl FnOnce(&Path, &mut Settings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let admin = admin.map(|token| {
            let path = dir.path().join("admin");
            std::fs::write(&path, token).unwrap();
            path
        });
        let kek = dir.path().join("kek");
        let made = program().args(["keygen", "--out"]).arg(&kek).output();
        assert!(made.unwrap().status.success());
        let mut config = Config::default();
        config.policy.access_ttl = Duration::from_secs(3600);
        let issuer = Issuer::start(config).await.unwrap();
        let client = Client::new("crm").secret("crm-secret").scopes(&["a", "b"]);
        issuer.handle().register(client);
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let google = format!("https://oauth2.googleapis.com/token={}", issuer.token_url());
        let mut settings = Settings {
            data_dir: dir.path().join("data"),
            init: true,
            kek_file: Some(kek),
            admin_token_file: admin.clone(),
            api_listen: free,
            peer_listen: free,
            issuers_allow_loopback: true,
            issuers_stand_ins: vec![google.parse().unwrap()],
            insecure_loopback: true,
            ..Settings::default()
        };
        change(dir.path(), &mut settings);
        let is_plain = settings.api_tls_cert.is_none();
        let starting = Box::pin(Replica::start(settings));
        let replica = tokio::time::timeout(BOUND, starting)
            .await
            .unwrap()
            .unwrap();
        let site = Self {
            url: format!("http://{}", replica.api_addr),
            dir,
            issuer,
            admin,
            replica,
        };
        if is_plain {
            site.until(&["cluster", "status"], |ran| ran.code == Some(0))
                .await;
            site.until(&["provider", "list", "-o=json"], |ran| ran.code == Some(0))
                .await;
        }
        site
    }

    pub(crate) async fn stop(self) {
        self.replica.kill().await;
        self.issuer.shutdown().await;
    }

    pub(crate) fn handle(&self) -> &Handle {
        self.issuer.handle()
    }

    pub(crate) fn write(&self, name: &str, content: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A command of the program, in the directory.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = program();
        command
            .args(args)
            .env("EVERMINT_GATEWAY", &self.url)
            .current_dir(self.dir.path());
        if let Some(admin) = &self.admin {
            command.env("EVERMINT_ADMIN_TOKEN_FILE", admin);
        }
        command
    }

    /// Runs it, with nothing on standard input.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        ran(&mut self.command(args), "")
    }

    /// Runs it, and expects that it is done.
    #[track_caller]
    pub(crate) fn done(&self, args: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "{args:?}: {ran:#?}");
        ran
    }

    /// The JSON that it answers.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let ran = self.done(&[args, &["-o=json"]].concat());
        serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{args:?}: {e}: {ran:#?}"))
    }

    /// Runs it again and again until `test` likes what it did.
    pub(crate) async fn until(&self, args: &[&str], test: impl Fn(&Ran) -> bool) -> Ran {
        let started = Instant::now();
        loop {
            let ran = self.run(args);
            if test(&ran) {
                return ran;
            }
            assert!(started.elapsed() < BOUND, "{args:?}: {ran:#?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Registers a provider `crm`, whose credential is minted by client credentials.
    pub(crate) fn crm(&self, secret: &str) -> Ran {
        self.done(&["provider", "create", "crm", "--type=generic-oauth2"]);
        let url = format!("--token-url={}", self.issuer.token_url());
        let secret = self.write("secret", secret);
        let secret = format!("--secret-material=client_secret=@{secret}");
        self.run(&[
            "provider",
            "refresh-config",
            "crm",
            "--credential-key=CRM_TOKEN",
            "--strategy=oauth2-client-credentials",
            "--material=client_id=crm",
            "--scope=a",
            &url,
            &secret,
            "--wait",
        ])
    }
}

/// The program, with nothing of this test's environment that it would heed.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evermint"));
    for (name, _) in std::env::vars_os() {
        let bytes = name.as_encoded_bytes();
        if bytes.starts_with(b"EVERMINT_") || bytes.starts_with(b"GOOGLE_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command with `stdin` on its standard input.
pub(crate) fn ran(command: &mut Command, stdin: &str) -> Ran {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that has failed already reads nothing.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}
