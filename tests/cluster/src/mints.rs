//! Credentials under a refresh, each with a client and a grant of its own at the issuer.

use std::collections::BTreeMap;
use std::time::Duration;

use evermint_proto::v1::replay_policy::Kind;
use evermint_proto::v1::{
    ConfigureRefreshRequest, CreateProviderRequest, GetRefreshStatusRequest, Reason, RefreshStatus,
    ReplayPolicy, RotateCredentialRequest, Verdict,
};

use crate::admin::{Admin, providers, refreshes};
use crate::idp::{Grant, Idp};
use crate::wait::eventually;

/// How long a mint may take that nothing stands in the way of.
const MINT: Duration = Duration::from_secs(40);

/// How a credential is to be refreshed.
#[derive(Clone, Debug)]
pub struct Mints {
    /// What the issuer does with a used refresh token.
    pub replay: Kind,
    /// How long before its end a token is replaced; computed from its lifetime if absent.
    pub refresh_before: Option<Duration>,
    /// The token endpoint; the issuer's own if absent.
    pub token_url: Option<String>,
}

impl Default for Mints {
    fn default() -> Self {
        Self {
            replay: Kind::Strict,
            refresh_before: None,
            token_url: None,
        }
    }
}

/// A credential under a refresh.
#[derive(Clone)]
pub struct Refreshing {
    /// Its provider's name.
    pub provider: String,
    /// Its key.
    pub key: String,
    /// Its grant at the issuer.
    pub grant: Grant,
}

impl Refreshing {
    /// Registers a provider with one credential, and puts it under a refresh with a new grant of
    /// `client`, whose name they bear. Its first mint begins at once.
    pub async fn register(admin: &Admin, idp: &Idp, client: &str, how: &Mints) -> Self {
        let grant = idp.grant(client).await;
        Self::register_grant(admin, idp, grant, how).await
    }

    /// The same with a grant that is there already.
    pub async fn register_grant(admin: &Admin, idp: &Idp, grant: Grant, how: &Mints) -> Self {
        let this = Self {
            provider: grant.client.clone(),
            key: grant.client.to_uppercase().replace('-', "_"),
            grant,
        };
        let create = CreateProviderRequest {
            name: this.provider.clone(),
            r#type: "generic-oauth2".to_owned(),
            ..CreateProviderRequest::default()
        };
        let call = async |channel| providers(channel).create_provider(create.clone()).await;
        admin.call("create provider", call).await;

        let secret = [
            ("client_secret".to_owned(), this.grant.secret.clone()),
            ("refresh_token".to_owned(), this.grant.refresh_token.clone()),
        ];
        let public = [
            ("client_id".to_owned(), this.grant.client.clone()),
            ("client_auth".to_owned(), "client_secret_basic".to_owned()),
        ];
        let configure = ConfigureRefreshRequest {
            provider: this.provider.clone(),
            credential_key: this.key.clone(),
            strategy: "oauth2-refresh-token".to_owned(),
            token_url: how.token_url.clone().unwrap_or_else(|| idp.token_url()),
            material: BTreeMap::from(public).into_iter().collect(),
            secret_material: BTreeMap::from(secret).into_iter().collect(),
            replay: Some(ReplayPolicy {
                kind: how.replay.into(),
                grace_ms: 0,
            }),
            refresh_before_ms: how
                .refresh_before
                .map(|time| u64::try_from(time.as_millis()).expect("a short time")),
            ..ConfigureRefreshRequest::default()
        };
        let call = async |channel| {
            let mut client = refreshes(channel);
            client.configure_refresh(configure.clone()).await
        };
        admin.call("configure refresh", call).await;
        this
    }

    /// How it stands, by the leader's newest state.
    pub async fn status(&self, admin: &Admin) -> RefreshStatus {
        let call = async |channel| self.ask(channel, true).await;
        let answer = admin.call("refresh status", call).await;
        self.only(answer.refreshes)
    }

    /// How it stands, as far as one replica knows.
    pub async fn status_on(&self, admin: &Admin, replica: usize) -> Option<RefreshStatus> {
        let answer = self.ask(admin.on(replica), false).await.ok()?;
        answer.into_inner().refreshes.into_iter().next()
    }

    async fn ask(
        &self,
        channel: tonic::transport::Channel,
        consistent: bool,
    ) -> Result<tonic::Response<evermint_proto::v1::GetRefreshStatusResponse>, tonic::Status> {
        let request = GetRefreshStatusRequest {
            provider: self.provider.clone(),
            credential_key: self.key.clone(),
            consistent,
            ..GetRefreshStatusRequest::default()
        };
        refreshes(channel).get_refresh_status(request).await
    }

    fn only(&self, statuses: Vec<RefreshStatus>) -> RefreshStatus {
        let status = statuses.into_iter().next();
        status.unwrap_or_else(|| panic!("{} has no refresh", self.provider))
    }

    /// Asks for a mint now, and does not wait for it.
    pub async fn rotate(&self, admin: &Admin) {
        let call = async |channel| self.rotate_at(channel).await;
        admin.call("rotate", call).await;
    }

    /// The same, at one replica.
    ///
    /// # Errors
    /// What that replica says.
    pub async fn rotate_at(
        &self,
        channel: tonic::transport::Channel,
    ) -> Result<tonic::Response<evermint_proto::v1::RotateCredentialResponse>, tonic::Status> {
        let request = RotateCredentialRequest {
            provider: self.provider.clone(),
            credential_key: self.key.clone(),
            ..RotateCredentialRequest::default()
        };
        refreshes(channel).rotate_credential(request).await
    }

    /// Waits until `look` finds what it looks for in the credential's status.
    pub async fn until<T>(
        &self,
        admin: &Admin,
        what: &str,
        bound: Duration,
        look: impl Fn(&RefreshStatus) -> Option<T>,
    ) -> T {
        let what = format!("{}: {what}", self.provider);
        eventually(&what, bound, async || {
            let status = self.status(admin).await;
            look(&status).ok_or_else(|| format!("{status:?}"))
        })
        .await
    }

    /// Waits until a generation above `generation` is committed, and says which.
    pub async fn minted_after(&self, admin: &Admin, generation: u64) -> u64 {
        let what = format!("a generation above {generation}");
        self.until(admin, &what, MINT, |status| {
            (status.generation > generation).then_some(status.generation)
        })
        .await
    }

    /// Waits until all is well, nothing is under way, and nobody has asked for more.
    pub async fn settled(&self, admin: &Admin) -> RefreshStatus {
        self.until(admin, "fresh, with no mint under way", MINT, |status| {
            let calm = status.ticket.is_none() && status.due_reason() == Reason::Due;
            (calm && status.verdict() == Verdict::Fresh).then(|| status.clone())
        })
        .await
    }
}
