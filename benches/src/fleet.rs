//! Three replicas on loopback in this process, with one sandbox that has a bundle to read.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use evermint::command::keygen;
use evermint::settings::Settings;
use evermint::wire::Replica;
use evermint_core::bundle;
use evermint_core::command::{Command, StaticValue};
use evermint_core::id::{
    CredentialId, CredentialKey, Name, ProviderId, ProviderType, SandboxId, Workspace,
};
use evermint_core::port::{Proposer, StateView};
use evermint_core::secret::Secret;
use evermint_proto::v1::GetBundleRequest;
use evermint_proto::v1::bundles_client::BundlesClient;
use evermint_seal::Context;
use prost::Message as _;
use tempfile::TempDir;

/// The sandbox that reads.
pub(crate) const SANDBOX: &str = "bench";
/// Credentials in its bundle, of [`VALUE_BYTES`] each: about what real tokens weigh.
const CREDENTIALS: usize = 1;
const VALUE_BYTES: usize = 900;
/// How long the cluster may take to form.
const FORM: Duration = Duration::from_secs(60);

/// The replicas and their data.
pub(crate) struct Fleet {
    dir: TempDir,
    replicas: Vec<Replica>,
    urls: Vec<String>,
    provider: ProviderId,
    elsewhere: (Workspace, ProviderId),
}

impl Fleet {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let kek = dir.path().join("kek");
        keygen::create(&kek)?;
        let mut replicas: Vec<Replica> = Vec::new();
        for n in 0..3 {
            let settings = Settings {
                data_dir: dir.path().join(format!("replica-{n}")),
                init: n == 0,
                peers: replicas.iter().map(|r| r.peer_addr.to_string()).collect(),
                kek_file: Some(kek.clone()),
                api_listen: free()?,
                peer_listen: free()?,
                insecure_loopback: true,
                ..Settings::default()
            };
            replicas.push(Box::pin(Replica::start(settings)).await?);
        }
        let formed = async {
            for replica in &replicas {
                let mut changes = replica.node.changes();
                let shards = |r: &Replica| r.node.state().shards.len();
                let members = |r: &Replica| r.node.state().replicas.len();
                while shards(replica) == 0 || members(replica) < 3 {
                    futures::StreamExt::next(&mut changes).await;
                }
            }
        };
        tokio::time::timeout(FORM, formed)
            .await
            .context("the replicas did not form a cluster")?;
        let urls = replicas
            .iter()
            .map(|r| format!("http://{}", r.api_addr))
            .collect();
        let fleet = Self {
            dir,
            replicas,
            urls,
            provider: id(),
            elsewhere: (Workspace::new("elsewhere")?, id()),
        };
        fleet.furnish().await?;
        Ok(fleet)
    }

    /// One sandbox with credentials, and a provider in another workspace for writes that no
    /// sandbox sees.
    async fn furnish(&self) -> anyhow::Result<()> {
        let workspace = Workspace::default_workspace();
        self.create_provider(&workspace, self.provider).await?;
        self.create_provider(&self.elsewhere.0, self.elsewhere.1)
            .await?;
        self.write(Command::CreateSandbox {
            id: SandboxId(uuid::Uuid::new_v4().as_u128()),
            workspace,
            name: Name::new(SANDBOX)?,
            providers: vec![self.provider],
        })
        .await?;
        Ok(())
    }

    async fn create_provider(
        &self,
        workspace: &Workspace,
        provider: ProviderId,
    ) -> anyhow::Result<()> {
        let mut credentials = BTreeMap::new();
        for n in 0..CREDENTIALS {
            let key = CredentialKey::new(format!("TOKEN_{n}"))?;
            credentials.insert(key.clone(), self.value(provider, &key)?);
        }
        self.write(Command::CreateProvider {
            id: provider,
            workspace: workspace.clone(),
            name: Name::new("bench")?,
            kind: ProviderType::new("generic")?,
            config: BTreeMap::new(),
            notes: Default::default(),
            credentials,
        })
        .await?;
        Ok(())
    }

    fn value(&self, provider: ProviderId, key: &CredentialKey) -> anyhow::Result<StaticValue> {
        let id = CredentialId {
            provider,
            key: key.clone(),
        };
        let secret = Secret::new(vec![b'x'; VALUE_BYTES]);
        Ok(StaticValue {
            sealed: self.replicas[0]
                .keyring
                .seal(&Context::value(&id, key), &secret)?,
            expires_at: None,
        })
    }

    async fn write(&self, command: Command) -> anyhow::Result<u64> {
        let answer = self.replicas[0].node.propose(command).await?;
        answer.outcome?;
        Ok(answer.position.0)
    }

    /// Sets the credential anew, and gives the generation of the bundle that has it.
    pub(crate) async fn change_bundle(&self) -> anyhow::Result<u64> {
        let key = CredentialKey::new("TOKEN_0")?;
        let value = self.value(self.provider, &key)?;
        self.write(Command::UpdateProvider {
            id: self.provider,
            expected_version: None,
            config: BTreeMap::new(),
            credentials: BTreeMap::from([(key, Some(value))]),
            expires_at: BTreeMap::new(),
        })
        .await
    }

    /// The bundle of the sandbox as it is sent, once replica 0 has it.
    pub(crate) async fn bundle(&self) -> anyhow::Result<Bytes> {
        let mut client = BundlesClient::connect(self.urls[0].clone()).await?;
        let state = self.replicas[0].node.state();
        let sandbox = state
            .sandbox_named(&Workspace::default_workspace(), &Name::new(SANDBOX)?)
            .context("the sandbox is there")?;
        let inputs = bundle::inputs(&state, sandbox.id).context("it has a bundle")?;
        let request = GetBundleRequest {
            sandbox: SANDBOX.to_owned(),
            min_generation: inputs.generation.0,
            ..GetBundleRequest::default()
        };
        let answer = client.get_bundle(request).await?.into_inner();
        let bundle = answer.bundle.context("the answer has a bundle")?;
        Ok(bundle.encode_to_vec().into())
    }

    /// A replica's URL.
    pub(crate) fn api(&self, n: usize) -> &str {
        &self.urls[n]
    }

    /// Every replica's URL.
    pub(crate) fn apis(&self) -> Vec<String> {
        self.urls.clone()
    }

    /// Every replica's way into the log.
    pub(crate) fn proposers(&self) -> Vec<Arc<dyn Proposer>> {
        let proposer = |r: &Replica| -> Arc<dyn Proposer> { Arc::new(r.node.clone()) };
        self.replicas.iter().map(proposer).collect()
    }

    /// A workspace without sandboxes, and a provider in it.
    pub(crate) fn target(&self) -> (Workspace, ProviderId) {
        self.elsewhere.clone()
    }

    /// A directory on the disk that the replicas write to.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) async fn stop(self) {
        for replica in self.replicas {
            replica.shutdown().await;
        }
    }
}

fn id() -> ProviderId {
    ProviderId(uuid::Uuid::new_v4().as_u128())
}

fn free() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?)
}
