//! A server on a port of its own, over a cluster in memory.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use evermint_core::id::{CredentialId, CredentialKey, Name, Workspace};
use evermint_gateway::testing::{FakeCluster, WantMaterial};
use evermint_gateway::{Bounds, Config, Error, Limits, Ports, TokenRules, Web, serve};
use evermint_proto::v1;
use evermint_proto::v1::audit_client::AuditClient;
use evermint_proto::v1::bundles_client::BundlesClient;
use evermint_proto::v1::cluster_client::ClusterClient;
use evermint_proto::v1::inference_client::InferenceClient;
use evermint_proto::v1::profiles_client::ProfilesClient;
use evermint_proto::v1::providers_client::ProvidersClient;
use evermint_proto::v1::refreshes_client::RefreshesClient;
use evermint_proto::v1::sandboxes_client::SandboxesClient;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

pub(crate) struct Harness {
    pub(crate) cluster: FakeCluster,
    pub(crate) address: SocketAddr,
    pub(crate) channel: Channel,
    pub(crate) shutdown: CancellationToken,
    pub(crate) server: JoinHandle<Result<(), Error>>,
}

impl Harness {
    pub(crate) async fn start() -> Self {
        Self::with(config()).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        let cluster = FakeCluster::new();
        let ports = cluster.ports_with(Arc::new(WantMaterial));
        Self::over(cluster, ports, config).await
    }

    /// With a web that is not empty.
    pub(crate) async fn with_web(config: Config, web: Arc<dyn Web>) -> Self {
        let cluster = FakeCluster::new();
        let ports = Ports {
            web,
            ..cluster.ports_with(Arc::new(WantMaterial))
        };
        Self::over(cluster, ports, config).await
    }

    async fn over(cluster: FakeCluster, ports: Ports, config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve(listener, ports, config, shutdown.clone()));
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .unwrap()
            .connect_lazy();
        Self {
            cluster,
            address,
            channel,
            shutdown,
            server,
        }
    }

    pub(crate) fn providers(&self) -> ProvidersClient<Channel> {
        ProvidersClient::new(self.channel.clone())
    }

    pub(crate) fn profiles(&self) -> ProfilesClient<Channel> {
        ProfilesClient::new(self.channel.clone())
    }

    pub(crate) fn refreshes(&self) -> RefreshesClient<Channel> {
        RefreshesClient::new(self.channel.clone())
    }

    pub(crate) fn inference(&self) -> InferenceClient<Channel> {
        InferenceClient::new(self.channel.clone())
    }

    pub(crate) fn sandboxes(&self) -> SandboxesClient<Channel> {
        SandboxesClient::new(self.channel.clone())
    }

    pub(crate) fn bundles(&self) -> BundlesClient<Channel> {
        BundlesClient::new(self.channel.clone())
    }

    pub(crate) fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone())
    }

    pub(crate) fn audit(&self) -> AuditClient<Channel> {
        AuditClient::new(self.channel.clone())
    }

    /// A provider with one static credential.
    pub(crate) async fn provider(&self, name: &str, key: &str, value: &str) -> v1::Provider {
        let response = self
            .providers()
            .create_provider(v1::CreateProviderRequest {
                name: name.to_owned(),
                r#type: "generic".to_owned(),
                credentials: credentials(&[(key, value)]),
                ..Default::default()
            })
            .await
            .unwrap();
        response.into_inner().provider.unwrap()
    }

    /// Puts a credential of a provider under a refresh by client credentials.
    pub(crate) async fn refresh(&self, provider: &str, key: &str) -> v1::RefreshStatus {
        let response = self
            .refreshes()
            .configure_refresh(client_credentials(provider, key))
            .await
            .unwrap();
        response.into_inner().status.unwrap()
    }

    /// The id of a credential.
    pub(crate) fn credential(&self, provider: &str, key: &str) -> CredentialId {
        let state = self.cluster.committed();
        let name = Name::new(provider).unwrap();
        let provider = state
            .provider_named(&Workspace::default_workspace(), &name)
            .unwrap();
        CredentialId {
            provider: provider.id,
            key: CredentialKey::new(key).unwrap(),
        }
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Plain, without a token, and with short waits.
pub(crate) fn config() -> Config {
    Config {
        limits: Limits {
            catch_up: Duration::from_millis(200),
            version: "9.9.9-test",
            ..Limits::default()
        },
        bounds: Bounds::default(),
        admin: None,
        oidc: None,
        certificates: None,
        tls: None,
        upstream_gateway: None,
        tokens: TokenRules::default(),
    }
}

pub(crate) fn client_credentials(provider: &str, key: &str) -> v1::ConfigureRefreshRequest {
    v1::ConfigureRefreshRequest {
        provider: provider.to_owned(),
        credential_key: key.to_owned(),
        strategy: "oauth2-client-credentials".to_owned(),
        token_url: "https://issuer.example/token".to_owned(),
        material: strings(&[("client_id", "me")]),
        secret_material: strings(&[("client_secret", "s3cret")]),
        ..Default::default()
    }
}

pub(crate) fn strings(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

pub(crate) fn credentials(entries: &[(&str, &str)]) -> BTreeMap<String, v1::StaticCredential> {
    let value = |text: &str| v1::StaticCredential {
        value: text.to_owned(),
        expires_at_ms: None,
    };
    entries
        .iter()
        .map(|(key, text)| ((*key).to_owned(), value(text)))
        .collect()
}
