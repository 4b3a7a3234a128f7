//! What the demonstration refreshes: a test issuer, two providers and a sandbox, registered
//! through a gateway as an operator would.

use std::time::Duration;

use anyhow::{Context, Result};
use evermint_core::strategy::Strategy;
use evermint_issuer::{Client, Config, Issuer, Policy, Running};
use evermint_proto::v1;
use evermint_proto::v1::inference_client::InferenceClient;
use evermint_proto::v1::providers_client::ProvidersClient;
use evermint_proto::v1::refreshes_client::RefreshesClient;
use evermint_proto::v1::sandboxes_client::SandboxesClient;
use tonic::{Code, Response, Status};

use crate::gateways::{Access, Gateways};

/// A credential of the demonstration. Its client id at the issuer is its provider's name.
pub(super) struct Account {
    /// The provider's name.
    pub(super) provider: &'static str,
    /// The credential.
    pub(super) key: &'static str,
    strategy: Strategy,
}

/// A user's grant: single-use refresh tokens with reuse detection.
pub(super) const USER: Account = Account {
    provider: "demo-user",
    key: "USER_TOKEN",
    strategy: Strategy::OAuth2RefreshToken,
};

/// A service's own credentials.
pub(super) const SERVICE: Account = Account {
    provider: "demo-service",
    key: "SERVICE_TOKEN",
    strategy: Strategy::OAuth2ClientCredentials,
};

/// All of them.
pub(super) const ACCOUNTS: [Account; 2] = [USER, SERVICE];

/// The sandbox that may use both.
pub(super) const SANDBOX: &str = "demo";

/// The secret of both clients at the test issuer, which serves loopback alone.
const CLIENT_SECRET: &str = "dev-only-client-secret";

/// The test issuer, and what is registered with it.
pub(super) struct Demo {
    issuer: Running,
}

impl Demo {
    /// Starts the issuer and registers everything.
    pub(super) async fn start(urls: &[String], token_ttl: Duration) -> Result<Self> {
        let issuer = Issuer::start(Config {
            policy: Policy {
                access_ttl: token_ttl,
                ..Policy::default()
            },
            latency: Duration::from_millis(50),
            ..Config::default()
        })
        .await?;
        let demo = Self { issuer };
        let gateways = Gateways::new(&Access {
            urls: urls.to_vec(),
            admin_token_file: None,
            tls_ca: None,
            client_certificate: None,
            timeout: Duration::from_secs(30),
        })?;
        for account in &ACCOUNTS {
            demo.register(&gateways, account)
                .await
                .with_context(|| format!("cannot register {}", account.provider))?;
        }
        create_sandbox(&gateways).await?;
        set_route(&gateways).await?;
        Ok(demo)
    }

    /// Where the issuer is.
    pub(super) fn issuer_url(&self) -> &str {
        self.issuer.url()
    }

    /// What the issuer saw.
    pub(super) fn history(&self) -> evermint_issuer::History {
        self.issuer.handle().history()
    }

    /// Stops the issuer.
    pub(super) async fn shutdown(self) {
        self.issuer.shutdown().await;
    }

    /// A provider and its refresh. The issuer forgets its grants when it stops, so that a kept
    /// provider is configured anew.
    async fn register(&self, gateways: &Gateways, account: &Account) -> Result<()> {
        let client = Client::new(account.provider).secret(CLIENT_SECRET);
        let mut secret_material = std::collections::BTreeMap::from([(
            "client_secret".to_owned(),
            CLIENT_SECRET.to_owned(),
        )]);
        if account.strategy == Strategy::OAuth2RefreshToken {
            let grant = self.issuer.handle().seed(client);
            let token = grant.refresh_token.expose().to_owned();
            secret_material.insert("refresh_token".to_owned(), token);
        } else {
            self.issuer.handle().register(client);
        }
        let create = v1::CreateProviderRequest {
            name: account.provider.to_owned(),
            r#type: "generic-oauth2".to_owned(),
            ..Default::default()
        };
        gateways
            .write(async |wire| {
                let mut client = ProvidersClient::new(wire);
                known(client.create_provider(create.clone()).await)
            })
            .await?;
        let configure = v1::ConfigureRefreshRequest {
            provider: account.provider.to_owned(),
            credential_key: account.key.to_owned(),
            strategy: account.strategy.as_str().to_owned(),
            token_url: self.issuer.token_url(),
            material: [("client_id".to_owned(), account.provider.to_owned())].into(),
            secret_material,
            ..Default::default()
        };
        gateways
            .write(async |wire| {
                RefreshesClient::new(wire)
                    .configure_refresh(configure.clone())
                    .await
            })
            .await?;
        Ok(())
    }
}

async fn create_sandbox(gateways: &Gateways) -> Result<()> {
    let request = v1::CreateSandboxRequest {
        name: SANDBOX.to_owned(),
        providers: ACCOUNTS.iter().map(|a| a.provider.to_owned()).collect(),
        ..Default::default()
    };
    gateways
        .write(async |wire| {
            let mut client = SandboxesClient::new(wire);
            known(client.create_sandbox(request.clone()).await)
        })
        .await
        .context("cannot create the sandbox")?;
    Ok(())
}

async fn set_route(gateways: &Gateways) -> Result<()> {
    let request = v1::SetRouteRequest {
        provider: USER.provider.to_owned(),
        model: "demo-model".to_owned(),
        ..Default::default()
    };
    gateways
        .write(async |wire| InferenceClient::new(wire).set_route(request.clone()).await)
        .await
        .context("cannot set the route")?;
    Ok(())
}

/// What was kept from an earlier run need not be created again.
fn known<T: Default>(created: Result<Response<T>, Status>) -> Result<Response<T>, Status> {
    match created {
        Err(status) if status.code() == Code::AlreadyExists => Ok(Response::new(T::default())),
        created => created,
    }
}
