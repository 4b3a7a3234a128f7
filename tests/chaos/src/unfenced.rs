//! Sandboxes with the habits of OpenShell's client: they say nothing of what they have seen, poll the
//! revision of their environment, open a connection for each call, and do not try again elsewhere.
//! They note what they install, and judge nothing.

use std::sync::Arc;
use std::time::Duration;

use evermint_cluster_tests::digest12;
use evermint_proto::openshell::sandbox::v1::GetSandboxConfigRequest;
use evermint_proto::openshell::v1::open_shell_client::OpenShellClient;
use evermint_proto::openshell::v1::{
    GetSandboxProviderEnvironmentRequest, GetSandboxProviderEnvironmentResponse,
};
use evermint_proto::v1::sandbox_tokens_client::SandboxTokensClient;
use evermint_proto::v1::sandboxes_client::SandboxesClient;
use evermint_proto::v1::{GetSandboxRequest, IssueSandboxTokenRequest};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::dice::Dice;
use crate::history::{Event, Place, Served};
use crate::operator::said;
use crate::world::World;

/// The pause between two polls: ten seconds in production.
const PACE: Duration = Duration::from_millis(500);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a call may take: longer than a replica waits and asks others.
const CALL: Duration = Duration::from_secs(10);

/// One of them.
pub struct Unfenced {
    world: Arc<World>,
    sandbox: String,
    dice: Dice,
    stop: watch::Receiver<bool>,
    /// The revision of the environment that is installed.
    installed: Option<u64>,
}

/// Who it is, and how it shows that.
struct Identity {
    id: String,
    token: String,
}

impl Unfenced {
    /// A reader of a sandbox that is registered.
    pub fn new(world: &Arc<World>, sandbox: &str, stop: &watch::Receiver<bool>) -> Self {
        Self {
            dice: Dice::new(world.settings.seed, &format!("{sandbox}/unfenced")),
            world: Arc::clone(world),
            sandbox: sandbox.to_owned(),
            stop: stop.clone(),
            installed: None,
        }
    }

    /// Polls until it is told to stop.
    pub async fn run(mut self) {
        let mut identity = None;
        while !*self.stop.borrow() {
            identity = match identity {
                None => self.identify().await,
                Some(identity) => self.poll(&identity).await.then_some(identity),
            };
            sleep(PACE).await;
        }
    }

    /// A replica, as a load balancer picks it: one that runs, and takes connections.
    async fn pick(&mut self) -> Option<(Place, Channel)> {
        let mut up = self.world.up();
        up.retain(|place| self.world.members().contains(place));
        self.dice.shuffle(&mut up);
        for place in up {
            let url = format!("http://{}", self.world.net.api(place));
            let endpoint = Endpoint::from_shared(url).expect("a URL");
            let endpoint = endpoint.connect_timeout(CONNECT);
            if let Ok(channel) = endpoint.connect().await {
                return Some((place, channel));
            }
        }
        None
    }

    async fn identify(&mut self) -> Option<Identity> {
        let (_, channel) = self.pick().await?;
        let get = GetSandboxRequest {
            name: self.sandbox.clone(),
            ..GetSandboxRequest::default()
        };
        let issue = IssueSandboxTokenRequest {
            sandbox: self.sandbox.clone(),
            ..IssueSandboxTokenRequest::default()
        };
        let known = async {
            let mut sandboxes = SandboxesClient::new(channel.clone());
            let got = sandboxes.get_sandbox(get).await?.into_inner();
            let mut tokens = SandboxTokensClient::new(channel);
            let issued = tokens.issue_sandbox_token(issue).await?.into_inner();
            Ok::<_, Status>(Identity {
                id: got.sandbox.unwrap_or_default().id,
                token: issued.token,
            })
        };
        timeout(CALL, known).await.ok()?.ok()
    }

    /// One poll; whether its token is still good.
    async fn poll(&mut self, identity: &Identity) -> bool {
        let Some((_, channel)) = self.pick().await else {
            return true;
        };
        let config = by(
            identity,
            GetSandboxConfigRequest {
                sandbox_id: identity.id.clone(),
            },
        );
        let mut face = OpenShellClient::new(channel);
        let revision = match timeout(CALL, face.get_sandbox_config(config)).await {
            Ok(Ok(config)) => config.into_inner().provider_env_revision,
            Ok(Err(status)) => return status.code() != Code::Unauthenticated,
            // It keeps what it has, and asks again.
            Err(_) => return true,
        };
        if self.installed == Some(revision) {
            return true;
        }
        let Some((place, channel)) = self.pick().await else {
            return true;
        };
        let asked = self.world.recorder.now();
        let environment = by(
            identity,
            GetSandboxProviderEnvironmentRequest {
                sandbox_id: identity.id.clone(),
                supports_static_credential_bindings: true,
            },
        );
        let mut face = OpenShellClient::new(channel);
        let given = timeout(CALL, face.get_sandbox_provider_environment(environment)).await;
        let why = match given {
            Ok(Ok(given)) => {
                let given = given.into_inner();
                self.installed = Some(given.provider_env_revision);
                let revision = given.provider_env_revision;
                let content = self.world.contents.number(&self.world, served(given));
                self.world.recorder.note(Event::Installed {
                    sandbox: self.sandbox.clone(),
                    asked,
                    replica: place,
                    revision,
                    content,
                });
                return true;
            }
            Ok(Err(status)) if status.code() == Code::Unauthenticated => return false,
            Ok(Err(status)) => said(&status),
            Err(_) => format!("no answer within {CALL:?}"),
        };
        // It has lost all that it had.
        self.installed = None;
        self.world.recorder.note(Event::Stripped {
            sandbox: self.sandbox.clone(),
            asked,
            replica: place,
            why,
        });
        true
    }
}

fn by<T>(identity: &Identity, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let bearer = MetadataValue::try_from(format!("Bearer {}", identity.token));
    let bearer = bearer.expect("tokens are ASCII");
    request.metadata_mut().insert("authorization", bearer);
    request
}

/// What an environment gives, by variable. Its identity says which life of which credential it is.
fn served(given: GetSandboxProviderEnvironmentResponse) -> Vec<Served> {
    let bindings = given.static_credential_bindings;
    let ends = given.credential_expires_at_ms;
    let variables = given.environment.into_iter();
    variables
        .map(|(key, value)| Served {
            provider: bindings
                .get(&key)
                .map(|b| b.credential_identity.clone())
                .unwrap_or_default(),
            generation: 0,
            token: Some(digest12(&value)),
            expires_at_ms: ends.get(&key).and_then(|end| u64::try_from(*end).ok()),
            unavailable: String::new(),
            key,
        })
        .collect()
}
