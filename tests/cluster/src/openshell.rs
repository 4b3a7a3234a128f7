//! Sandboxes with the habits of OpenShell's client: they say nothing of what they have seen, poll
//! the revision of their environment, open a connection for each other call, and drop every
//! credential at one error.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use evermint_proto::openshell::inference::v1::inference_client::InferenceClient;
use evermint_proto::openshell::inference::v1::{
    GetInferenceBundleRequest, GetInferenceBundleResponse,
};
use evermint_proto::openshell::sandbox::v1::GetSandboxConfigRequest;
use evermint_proto::openshell::v1::open_shell_client::OpenShellClient;
use evermint_proto::openshell::v1::{
    CreateSandboxRequest, GetSandboxProviderEnvironmentRequest,
    GetSandboxProviderEnvironmentResponse, SandboxSpec,
};
use evermint_proto::v1::{
    CreateProviderRequest, IssueSandboxTokenRequest, SetRouteRequest, StaticCredential,
    UpdateProviderRequest,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::admin::{Admin, providers};

/// The pause between two polls: ten seconds and five in production.
const PACE: Duration = Duration::from_millis(60);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(2);
/// The variable that holds a counted value.
const KEY: &str = "OPENAI_API_KEY";
/// What stands before the count.
const PREFIX: &str = "value-";

/// A static credential whose value counts up, and what is known of it.
#[derive(Clone, Debug)]
pub struct Counted {
    admin: Admin,
    /// The newest value that was acknowledged.
    acknowledged: Arc<AtomicU64>,
}

impl Counted {
    /// Registers the provider `openai`, and beside it `odd`, which gives nothing that can be used;
    /// a route leads to each.
    pub async fn register(admin: &Admin) -> Self {
        for (name, kind, key) in [("openai", "openai", KEY), ("odd", "my-own", "ODD_TOKEN")] {
            let create = CreateProviderRequest {
                name: name.to_owned(),
                r#type: kind.to_owned(),
                credentials: [(key.to_owned(), value(0))].into(),
                ..CreateProviderRequest::default()
            };
            let call = async |channel| providers(channel).create_provider(create.clone()).await;
            admin.call("create provider", call).await;
        }
        for (name, provider) in [("inference.local", "openai"), ("sandbox-system", "odd")] {
            let set = SetRouteRequest {
                name: name.to_owned(),
                provider: provider.to_owned(),
                model: "gpt".to_owned(),
                ..SetRouteRequest::default()
            };
            let call = async |channel| {
                let mut client =
                    evermint_proto::v1::inference_client::InferenceClient::new(channel);
                client.set_route(set.clone()).await
            };
            admin.call("set route", call).await;
        }
        Self {
            admin: admin.clone(),
            acknowledged: Arc::default(),
        }
    }

    /// The newest value that was acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Sets the next value; any replica takes it.
    pub async fn count_up(&self) -> u64 {
        let next = self.acknowledged() + 1;
        let update = UpdateProviderRequest {
            name: "openai".to_owned(),
            credentials: [(KEY.to_owned(), value(next))].into(),
            ..UpdateProviderRequest::default()
        };
        let call = async |channel| providers(channel).update_provider(update.clone()).await;
        self.admin.call("update provider", call).await;
        self.acknowledged.store(next, Ordering::SeqCst);
        next
    }
}

fn value(count: u64) -> StaticCredential {
    StaticCredential {
        value: format!("{PREFIX}{count}"),
        expires_at_ms: None,
    }
}

/// A sandbox with its token.
#[derive(Clone, Debug)]
pub struct OpenShellSandbox {
    /// Its name.
    pub name: String,
    id: String,
    token: String,
    urls: Vec<String>,
    admin: Admin,
    counted: Counted,
}

/// What it has seen and lost.
#[derive(Clone, Debug, Default)]
pub struct OpenShellFindings {
    /// Environments installed.
    pub installed: u64,
    /// Bundles read.
    pub bundles: u64,
    /// The newest count that it was given.
    pub newest: u64,
    /// Polls of the configuration that were refused: nothing is lost by these.
    pub refused: u64,
    /// Calls that ended with the replica that they were made at.
    pub cut: u64,
    /// Every broken promise, in words.
    pub broken: Vec<String>,
}

impl OpenShellSandbox {
    /// Creates a sandbox on OpenShell's face, with both providers, and gives it its token.
    pub async fn create(admin: &Admin, urls: Vec<String>, counted: &Counted, name: &str) -> Self {
        let create = CreateSandboxRequest {
            name: name.to_owned(),
            spec: Some(SandboxSpec {
                providers: vec!["openai".to_owned(), "odd".to_owned()],
                ..SandboxSpec::default()
            }),
            ..CreateSandboxRequest::default()
        };
        let call = async |channel| {
            OpenShellClient::new(channel)
                .create_sandbox(create.clone())
                .await
        };
        let created = admin.call("create sandbox", call).await.sandbox;
        let id = created.and_then(|s| s.metadata).expect("its metadata").id;
        let issue = IssueSandboxTokenRequest {
            sandbox: name.to_owned(),
            ..IssueSandboxTokenRequest::default()
        };
        let call = async |channel| {
            let mut client =
                evermint_proto::v1::sandbox_tokens_client::SandboxTokensClient::new(channel);
            client.issue_sandbox_token(issue.clone()).await
        };
        let token = admin.call("issue token", call).await.token;
        Self {
            name: name.to_owned(),
            id,
            token,
            urls,
            admin: admin.clone(),
            counted: counted.clone(),
        }
    }

    fn by<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let value = MetadataValue::try_from(format!("Bearer {}", self.token));
        let value = value.expect("tokens are ASCII");
        request.metadata_mut().insert("authorization", value);
        request
    }

    async fn connect(&self, replica: usize) -> Result<Channel, Status> {
        let endpoint = Endpoint::from_shared(self.urls[replica].clone()).expect("a URL");
        let connected = endpoint.connect_timeout(CONNECT).connect().await;
        connected.map_err(|error| Status::unavailable(error.to_string()))
    }

    /// The revision of its environment, as one replica says it.
    ///
    /// # Errors
    /// What the replica says.
    pub async fn revision(&self, replica: usize) -> Result<u64, Status> {
        let request = self.by(GetSandboxConfigRequest {
            sandbox_id: self.id.clone(),
        });
        let mut client = OpenShellClient::new(self.connect(replica).await?);
        let config = client.get_sandbox_config(request).await?.into_inner();
        Ok(config.provider_env_revision)
    }

    /// Its environment, as one replica says it.
    ///
    /// # Errors
    /// What the replica says.
    pub async fn environment(
        &self,
        replica: usize,
    ) -> Result<GetSandboxProviderEnvironmentResponse, Status> {
        let request = self.by(GetSandboxProviderEnvironmentRequest {
            sandbox_id: self.id.clone(),
            supports_static_credential_bindings: true,
        });
        let mut client = OpenShellClient::new(self.connect(replica).await?);
        let answer = client.get_sandbox_provider_environment(request).await?;
        Ok(answer.into_inner())
    }

    /// Its routes, as one replica says them.
    ///
    /// # Errors
    /// What the replica says.
    pub async fn bundle(&self, replica: usize) -> Result<GetInferenceBundleResponse, Status> {
        let request = self.by(GetInferenceBundleRequest {});
        let mut client = InferenceClient::new(self.connect(replica).await?);
        Ok(client.get_inference_bundle(request).await?.into_inner())
    }

    /// The count in an environment, which has to be whole.
    ///
    /// # Errors
    /// What OpenShell's client would throw it away for.
    pub fn count(environment: &GetSandboxProviderEnvironmentResponse) -> Result<u64, String> {
        let mut bound: Vec<_> = environment.static_credential_bindings.keys().collect();
        bound.extend(&environment.non_secret_environment_keys);
        bound.sort();
        let keys: Vec<_> = environment.environment.keys().collect();
        if bound != keys {
            return Err(format!("{keys:?} are given, {bound:?} are bound"));
        }
        read_count(environment.environment.get(KEY))
    }

    /// Polls, each time at the next replica that is up, until it is told to stop.
    pub fn poll(self, mut stop: watch::Receiver<bool>) -> JoinHandle<OpenShellFindings> {
        tokio::spawn(async move {
            let mut polling = Polling {
                sandbox: self,
                turn: 0,
                installed: 0,
                findings: OpenShellFindings::default(),
            };
            while !*stop.borrow() {
                polling.poll_environment().await;
                polling.poll_bundle().await;
                let _ = tokio::time::timeout(PACE, stop.changed()).await;
            }
            polling.findings
        })
    }
}

fn read_count(value: Option<&String>) -> Result<u64, String> {
    let count = value.and_then(|value| value.strip_prefix(PREFIX)?.parse().ok());
    count.ok_or_else(|| format!("{KEY} is not given"))
}

/// A sandbox that polls.
struct Polling {
    sandbox: OpenShellSandbox,
    turn: usize,
    /// The revision of the environment that is installed.
    installed: u64,
    findings: OpenShellFindings,
}

impl Polling {
    /// The next replica, as a load balancer picks it: one that is up, and listens.
    async fn replica(&mut self) -> usize {
        loop {
            self.turn += 1;
            let replica = self.turn % self.sandbox.urls.len();
            let up = self.sandbox.admin.is_up(replica);
            if up && self.sandbox.connect(replica).await.is_ok() {
                return replica;
            }
        }
    }

    async fn poll_environment(&mut self) {
        let replica = self.replica().await;
        let revision = match self.sandbox.revision(replica).await {
            Ok(revision) => revision,
            Err(status) if !self.was_cut(replica) && status.code() == Code::Unavailable => {
                self.findings.refused += 1;
                return;
            }
            Err(status) => return self.failed(replica, "the configuration", &status),
        };
        if revision == self.installed {
            return;
        }
        let replica = self.replica().await;
        let known = self.sandbox.counted.acknowledged();
        match self.sandbox.environment(replica).await {
            Ok(environment) => match OpenShellSandbox::count(&environment) {
                Ok(count) => {
                    self.installed = environment.provider_env_revision;
                    self.findings.installed += 1;
                    self.saw(replica, "the environment", count, known);
                }
                Err(problem) => self.note(replica, &format!("a bad environment: {problem}")),
            },
            Err(status) => self.failed(replica, "the environment", &status),
        }
    }

    async fn poll_bundle(&mut self) {
        let replica = self.replica().await;
        let known = self.sandbox.counted.acknowledged();
        match self.sandbox.bundle(replica).await {
            Ok(bundle) => {
                let names: Vec<_> = bundle.routes.iter().map(|r| r.name.as_str()).collect();
                if names != ["inference.local"] {
                    return self.note(replica, &format!("the routes are {names:?}"));
                }
                self.findings.bundles += 1;
                match read_count(Some(&bundle.routes[0].api_key)) {
                    Ok(count) => self.saw(replica, "the bundle", count, known),
                    Err(problem) => self.note(replica, &problem),
                }
            }
            Err(status) => self.failed(replica, "the bundle", &status),
        }
    }

    /// Takes note of a count in an answer to a question that was asked when `known` was
    /// acknowledged.
    fn saw(&mut self, replica: usize, what: &str, count: u64, known: u64) {
        let least = self.findings.newest.max(known);
        if count < least {
            let problem = format!("{what} has {count}, after {least}");
            self.note(replica, &problem);
        }
        self.findings.newest = self.findings.newest.max(count);
    }

    fn was_cut(&self, replica: usize) -> bool {
        !self.sandbox.admin.is_up(replica)
    }

    fn failed(&mut self, replica: usize, what: &str, status: &Status) {
        if self.was_cut(replica) {
            self.findings.cut += 1;
        } else {
            let problem = format!("{what} failed: {:?}: {}", status.code(), status.message());
            self.note(replica, &problem);
        }
    }

    fn note(&mut self, replica: usize, problem: &str) {
        let problem = format!("{}: replica {replica}: {problem}", self.sandbox.name);
        self.findings.broken.push(problem);
    }
}
