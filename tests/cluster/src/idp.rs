//! The issuer: the real OpenID provider in `real-idp/`, or the built-in one. Both are driven over
//! the same `/admin` calls, and both give the same history.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use evermint_issuer::{
    Client, Config, Fault, Handle, Held, History, Issuer, Mode, Overlap, Release,
};
use rustix::fs::{FlockOperation, flock};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ports::free_port;
use crate::process::Process;
use crate::wait::{eventually, say};

/// Set to anything by CI: then a missing node is an error, and no reason to fall back.
const REQUIRE_REAL: &str = "EVERMINT_REQUIRE_REAL_IDP";
/// How long the real provider may take to start: it makes RSA keys first.
const START: Duration = Duration::from_secs(30);
/// How long one `/admin` call may take.
const CALL: Duration = Duration::from_secs(70);

/// A lifetime that no test outlives.
pub const TTL_FOR_EVER: Duration = Duration::from_secs(3600);

/// A running issuer; stopped when dropped.
#[derive(Debug)]
pub struct Idp {
    url: String,
    http: reqwest::Client,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Real {
        _process: Process,
        /// Its keys and its output.
        dir: TempDir,
    },
    BuiltIn {
        running: evermint_issuer::Running,
    },
}

/// A grant at the issuer, with the first refresh token of its family.
#[derive(Clone)]
pub struct Grant {
    /// The client that it was granted to.
    pub client: String,
    /// The client's secret.
    pub secret: String,
    /// The refresh token, generation 0.
    pub refresh_token: String,
    /// The family.
    pub id: String,
}

/// All that descends from one grant, as the issuer counts it.
#[derive(Clone, Debug, Deserialize)]
pub struct Family {
    /// The grant.
    pub grant_id: String,
    /// Its client.
    pub client: String,
    /// Mints so far.
    pub generation: u64,
    /// How often each generation was minted.
    pub mints: BTreeMap<u64, u64>,
    /// How often a spent refresh token bore another one.
    pub forks: u64,
    /// How often a spent refresh token was shown where that is not allowed.
    pub reuse_detected: u64,
    /// When it was revoked; a text or a number.
    revoked_at: Value,
}

impl Grant {
    /// The same grant of a client that was registered with a secret of its own.
    pub fn with_secret(self, secret: &str) -> Self {
        Self {
            secret: secret.to_owned(),
            ..self
        }
    }
}

impl Family {
    /// Whether its tokens still work.
    pub fn is_alive(&self) -> bool {
        self.revoked_at.is_null()
    }
}

impl Idp {
    /// The real provider, if node is there; else the built-in issuer, which is said on standard
    /// error. Refresh tokens are for single use, with reuse detection, either way.
    ///
    /// # Panics
    /// When the issuer does not start; and when node is missing although it is required.
    pub async fn real(access_ttl: Duration) -> Self {
        let node = Command::new("node").arg("--version").output();
        let missing = match node {
            Ok(output) if output.status.success() => match fixture() {
                Ok(fixture) => return Self::start_real(&fixture, access_ttl).await,
                Err(why) => why,
            },
            Ok(output) => format!("node --version: {}", output.status),
            Err(e) => format!("node cannot be run: {e}"),
        };
        assert!(
            std::env::var_os(REQUIRE_REAL).is_none(),
            "{REQUIRE_REAL} is set, and the real OpenID provider cannot run: {missing}"
        );
        say(&format!(
            "NOT the real OpenID provider: {missing}. The built-in issuer takes its place."
        ));
        Self::built_in(access_ttl).await
    }

    /// Installs what the real provider is made of, if node is there: for whoever has no network
    /// later.
    ///
    /// # Errors
    /// Why that could not be done; [`real`](Self::real) decides what follows.
    pub fn install() -> Result<(), String> {
        fixture().map(drop)
    }

    /// The built-in issuer: strict, fast, and with faults that the real provider cannot have.
    pub async fn built_in(access_ttl: Duration) -> Self {
        let mut config = Config {
            admin: true,
            ..Config::default()
        };
        config.policy.access_ttl = access_ttl;
        let running = Issuer::start(config).await.expect("the issuer starts");
        Self {
            url: running.url().to_owned(),
            http: http(),
            kind: Kind::BuiltIn { running },
        }
    }

    async fn start_real(fixture: &Path, access_ttl: Duration) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let port = free_port();
        let log = dir.path().join("idp.log");
        let mut command = Command::new("node");
        command
            .arg("server.mjs")
            .args(["--quiet", "--port", &port.to_string()])
            .args(["--access-ttl", &access_ttl.as_secs().to_string()])
            .arg("--keys")
            .arg(dir.path().join("keys"))
            .current_dir(fixture);
        let mut process = Process::spawn(&mut command, &log);
        let url = format!("http://127.0.0.1:{port}");
        let http = http();
        eventually("the real OpenID provider is up", START, async || {
            if let Some(status) = process.exit() {
                panic!("the real provider ended with {status}:\n{}", process.tail());
            }
            let answer = http.get(format!("{url}/admin/health")).send().await;
            answer.map_err(|e| format!("{e:?}"))
        })
        .await;
        Self {
            url,
            http,
            kind: Kind::Real {
                _process: process,
                dir,
            },
        }
    }

    /// What it is, for people.
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Real { .. } => "oidc-provider (node)",
            Kind::BuiltIn { .. } => "evermint-issuer (built in)",
        }
    }

    /// The built-in issuer's own handle, which needs no call.
    ///
    /// # Panics
    /// When this is the real provider.
    pub fn handle(&self) -> &Handle {
        match &self.kind {
            Kind::BuiltIn { running } => running.handle(),
            Kind::Real { .. } => panic!("the real provider is another process"),
        }
    }

    /// The private half of a key of the real provider's clients, in PEM; `None` for the built-in
    /// issuer, which has no clients of its own.
    pub fn key(&self, name: &str) -> Option<String> {
        let Kind::Real { dir, .. } = &self.kind else {
            return None;
        };
        let path = dir.path().join("keys").join(format!("{name}.pem"));
        Some(std::fs::read_to_string(path).expect("the provider made its keys before it listened"))
    }

    /// Its token endpoint.
    pub fn token_url(&self) -> String {
        format!("{}/token", self.url)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        let address = self.url.strip_prefix("http://").map(str::parse);
        address
            .and_then(Result::ok)
            .expect("an address on loopback")
    }

    /// A grant for `client`. The real provider knows rt-000 to rt-049; the built-in one makes the
    /// client if it is new.
    pub async fn grant(&self, client: &str) -> Grant {
        #[derive(Deserialize)]
        struct Seeded {
            refresh_token: String,
            grant_id: String,
        }
        let seeded: Vec<Seeded> = self.post("seed", json!({ "client_id": client })).await;
        let seeded = seeded.into_iter().next().expect("one grant");
        Grant {
            client: client.to_owned(),
            secret: format!("{client}-secret"),
            refresh_token: seeded.refresh_token,
            id: seeded.grant_id,
        }
    }

    /// Registers a client with rules of its own. Only the built-in issuer can.
    pub async fn register(&self, client: &Client) {
        let _: Value = self.post("client", json!(client)).await;
    }

    /// Sets the lifetime of the client's next access tokens.
    pub async fn access_ttl(&self, client: &str, ttl: Duration) {
        let body = json!({ "client_id": client, "access": ttl.as_secs() });
        let _: Value = self.post("ttl", body).await;
    }

    /// Makes every token request take that long. Only the built-in issuer can.
    pub async fn latency(&self, latency: Duration) {
        let ms = u64::try_from(latency.as_millis()).expect("a short time");
        let _: Value = self.post("latency", json!({ "ms": ms })).await;
    }

    /// Ends a grant, as a person does who withdraws consent.
    pub async fn revoke(&self, grant: &Grant) {
        let _: Value = self.post("revoke", json!({ "grant_id": grant.id })).await;
    }

    /// Adds a fault to the script.
    pub async fn fault(&self, fault: Fault) {
        // What is absent is any; the real provider does not know null.
        let mut fault = json!(fault);
        if let Some(fields) = fault.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        let _: Value = self.post("fault", fault).await;
    }

    /// Holds the next request of `client` before anything is spent.
    pub async fn hold_before(&self, client: &str) {
        self.fault(Fault::once(client, Mode::HoldBefore)).await;
    }

    /// Lets the next request of `client` rotate its token, and holds the answer.
    pub async fn hold_after(&self, client: &str) {
        self.fault(Fault::once(client, Mode::HoldAfter)).await;
    }

    /// Forgets the script; what is held stays held.
    pub async fn clear_faults(&self) {
        let request = self.http.delete(format!("{}/admin/fault", self.url));
        let _: Value = read("DELETE fault", request).await;
    }

    /// The requests that are held.
    pub async fn holding(&self) -> Vec<Held> {
        self.get("held").await
    }

    /// Waits until a request of `client` is held.
    ///
    /// # Panics
    /// When none is within `bound`.
    pub async fn held(&self, client: &str, bound: Duration) -> Held {
        let path = format!("held?client={client}&wait_ms={}", bound.as_millis());
        let held: Vec<Held> = self.get(&path).await;
        let held = held.into_iter().next();
        held.unwrap_or_else(|| panic!("no request of {client} came to be held within {bound:?}"))
    }

    /// Lets the held requests of `client` go on; there has to be one.
    pub async fn release(&self, client: &str, how: Release) {
        let released: Value = self
            .post("release", json!({ "client": client, "as": how }))
            .await;
        assert!(released["released"] != 0, "nothing of {client} was held");
    }

    /// Every token request so far.
    pub async fn history(&self) -> History {
        self.get("history").await
    }

    /// Requests of one client that were open at the same time.
    pub async fn overlaps(&self) -> Vec<Overlap> {
        self.get("overlaps").await
    }

    /// Every family.
    pub async fn families(&self) -> Vec<Family> {
        self.get("families").await
    }

    /// The family of a grant.
    pub async fn family(&self, grant: &Grant) -> Family {
        let families = self.families().await;
        let family = families.into_iter().find(|f| f.grant_id == grant.id);
        family.unwrap_or_else(|| panic!("the issuer knows no grant {}", grant.id))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        let request = self.http.get(format!("{}/admin/{path}", self.url));
        read(path, request).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: Value) -> T {
        let request = self
            .http
            .post(format!("{}/admin/{path}", self.url))
            .header("content-type", "application/json")
            .body(body.to_string());
        read(path, request).await
    }
}

fn http() -> reqwest::Client {
    let client = reqwest::Client::builder().timeout(CALL).no_proxy();
    client.build().expect("an HTTP client")
}

async fn read<T: DeserializeOwned>(what: &str, request: reqwest::RequestBuilder) -> T {
    let answer = request
        .send()
        .await
        .unwrap_or_else(|e| panic!("the issuer's /admin, {what}: {e:?}"));
    let status = answer.status();
    let text = answer.text().await.unwrap_or_default();
    assert!(status.is_success(), "the issuer's {what}: {status} {text}");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("the issuer's {what}: {e}: {text}"))
}

/// The fixture's directory, with its packages installed.
fn fixture() -> Result<PathBuf, String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("real-idp");
    let lock = std::fs::File::open(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|e| e.to_string())?;
    if !dir.join("node_modules/oidc-provider").is_dir() {
        let npm = Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund"])
            .current_dir(&dir)
            .output()
            .map_err(|e| format!("npm cannot be run: {e}"))?;
        if !npm.status.success() {
            let why = String::from_utf8_lossy(&npm.stderr);
            return Err(format!("npm ci: {}: {why}", npm.status));
        }
    }
    Ok(dir)
}
