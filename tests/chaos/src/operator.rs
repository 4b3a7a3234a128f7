//! Calls as operators make them, each noted with how it ended.

use std::sync::Arc;
use std::time::Duration;

use evermint_cluster_tests::Grant;
use evermint_proto::v1::providers_client::ProvidersClient;
use evermint_proto::v1::refreshes_client::RefreshesClient;
use evermint_proto::v1::replay_policy::Kind;
use evermint_proto::v1::sandboxes_client::SandboxesClient;
use evermint_proto::v1::{
    AttachProviderRequest, ConfigureRefreshRequest, CreateProviderRequest, CreateSandboxRequest,
    DeleteProviderRequest, DeleteRefreshRequest, DetachProviderRequest, GetProviderRequest,
    GetRefreshStatusRequest, RefreshStatus, ReplayPolicy, RotateCredentialRequest,
    UpdateProviderRequest,
};
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::dice::Dice;
use crate::history::{Answer, Call, Event, Issuer, Place};
use crate::world::{Credential, World};

/// How long an operator waits for an answer.
const PATIENCE: Duration = Duration::from_secs(8);
/// The pause before a call that has to succeed is made again.
const AGAIN: Duration = Duration::from_millis(200);
/// How long a look of the harness may take.
const LOOK: Duration = Duration::from_secs(3);
/// The setting that registers and counters live in.
pub(crate) const SETTING: &str = "n";
/// The metadata key of a gateway's own word for an error.
const REASON: &str = "evermint-reason";

/// How a call ended.
#[derive(Clone, Debug)]
pub enum Ended {
    /// Acknowledged.
    Ok(Answer),
    /// Refused, without any effect.
    Fail(Code),
    /// Nobody can say.
    Info,
}

impl Ended {
    /// Whether what was asked for is so now, as far as an operator knows.
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Ok(_))
    }
}

/// One operator, who makes one call at a time.
pub struct Operator {
    who: String,
    world: Arc<World>,
    /// For whatever an operator decides.
    pub dice: Dice,
}

/// How a credential is minted.
pub struct Minting<'a> {
    /// The provider.
    pub provider: &'a str,
    /// The credential.
    pub key: &'a str,
    /// Its grant.
    pub grant: &'a Grant,
    /// By whom.
    pub issuer: Issuer,
    /// Whether a used refresh token goes on working.
    pub replay_safe: bool,
    /// How long before its end a token is replaced.
    pub refresh_before: Duration,
}

impl Operator {
    /// An operator of that name.
    pub fn new(world: &Arc<World>, who: impl Into<String>) -> Self {
        let who = who.into();
        Self {
            dice: Dice::new(world.settings.seed, &who),
            world: Arc::clone(world),
            who,
        }
    }

    /// The world that this operator is in.
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// Makes a call until it is acknowledged, or refused because it was carried out before.
    ///
    /// # Errors
    /// When that has not happened within `bound`.
    pub async fn insist(
        &mut self,
        what: Call,
        bound: Duration,
        grant: Option<&Minting<'_>>,
    ) -> Result<(), String> {
        let started = tokio::time::Instant::now();
        loop {
            let ended = self.call(what.clone(), grant).await;
            match ended {
                Ended::Ok(_) | Ended::Fail(Code::AlreadyExists) => return Ok(()),
                _ if started.elapsed() > bound => {
                    return Err(format!("{what:?}: not within {bound:?}: {ended:?}"));
                }
                Ended::Fail(_) | Ended::Info => sleep(AGAIN).await,
            }
        }
    }

    /// Makes a call once, at a replica that is up; of a refresh, with `minting`.
    pub async fn call(&mut self, what: Call, minting: Option<&Minting<'_>>) -> Ended {
        let up = self.world.up();
        let Some(place) = self.dice.pick(&up) else {
            sleep(AGAIN).await;
            return Ended::Fail(Code::Unavailable);
        };
        let call = self.world.recorder.number();
        let note = |event| self.world.recorder.note(event);
        note(Event::Invoke {
            call,
            who: self.who.clone(),
            what: what.clone(),
        });
        let sent = timeout(PATIENCE, send(&self.world, place, &what, minting)).await;
        match sent {
            Ok(Ok(answer)) => {
                note(Event::Ok {
                    call,
                    replica: place,
                    answer: answer.clone(),
                });
                Ended::Ok(answer)
            }
            Ok(Err(status)) if had_no_effect(&status) => {
                note(Event::Fail {
                    call,
                    why: said(&status),
                });
                Ended::Fail(status.code())
            }
            Ok(Err(status)) => {
                note(Event::Info {
                    call,
                    why: said(&status),
                });
                Ended::Info
            }
            Err(_) => {
                let why = format!("no answer within {PATIENCE:?}");
                note(Event::Info { call, why });
                Ended::Info
            }
        }
    }
}

async fn send(
    world: &World,
    place: Place,
    what: &Call,
    minting: Option<&Minting<'_>>,
) -> Result<Answer, Status> {
    let channel = world.channel(place);
    let mut providers = ProvidersClient::new(channel.clone());
    let mut sandboxes = SandboxesClient::new(channel.clone());
    let mut refreshes = RefreshesClient::new(channel.clone());
    let position = match what.clone() {
        Call::WriteRegister { register, value } => {
            let request = set(register, value);
            position(providers.update_provider(request).await, |a| a.position)?
        }
        Call::UpdateProvider { provider, n } => {
            position(providers.update_provider(set(provider, n)).await, |a| {
                a.position
            })?
        }
        Call::ReadRegister { register } => {
            let request = GetProviderRequest {
                name: register,
                consistent: true,
                ..GetProviderRequest::default()
            };
            let answer = providers.get_provider(request).await?.into_inner();
            let config = answer.provider.unwrap_or_default().config;
            let value = config.get(SETTING).and_then(|n| n.parse().ok());
            return Ok(Answer::Value {
                value,
                position: answer.position,
            });
        }
        Call::CreateProvider { provider } => {
            let request = CreateProviderRequest {
                name: provider,
                r#type: "generic-oauth2".to_owned(),
                // OpenShell's sandboxes are given what may be used somewhere.
                config: [("API_HOST".to_owned(), "api.example".to_owned())].into(),
                ..CreateProviderRequest::default()
            };
            position(providers.create_provider(request).await, |a| a.position)?
        }
        Call::DeleteProvider { provider } => {
            let request = DeleteProviderRequest {
                name: provider,
                ..DeleteProviderRequest::default()
            };
            position(providers.delete_provider(request).await, |a| a.position)?
        }
        Call::ConfigureRefresh { .. } => {
            let minting = minting.ok_or(Status::internal("the harness gave no grant"))?;
            let request = configure(world, minting);
            position(refreshes.configure_refresh(request).await, |a| a.position)?
        }
        Call::DeleteRefresh { provider, key } => {
            let request = DeleteRefreshRequest {
                provider,
                credential_key: key,
                ..DeleteRefreshRequest::default()
            };
            position(refreshes.delete_refresh(request).await, |a| a.position)?
        }
        Call::Rotate { provider, key } => {
            let request = RotateCredentialRequest {
                provider,
                credential_key: key,
                ..RotateCredentialRequest::default()
            };
            position(refreshes.rotate_credential(request).await, |a| a.position)?
        }
        Call::CreateSandbox { sandbox, providers } => {
            let request = CreateSandboxRequest {
                name: sandbox,
                providers,
                ..CreateSandboxRequest::default()
            };
            position(sandboxes.create_sandbox(request).await, |a| a.position)?
        }
        Call::Attach { sandbox, provider } => {
            let request = AttachProviderRequest {
                sandbox,
                provider,
                ..AttachProviderRequest::default()
            };
            position(sandboxes.attach_provider(request).await, |a| a.position)?
        }
        Call::Detach { sandbox, provider } => {
            let request = DetachProviderRequest {
                sandbox,
                provider,
                ..DetachProviderRequest::default()
            };
            position(sandboxes.detach_provider(request).await, |a| a.position)?
        }
        Call::RemoveReplica { id } => {
            use evermint_proto::v1::RemoveReplicaRequest;
            use evermint_proto::v1::cluster_client::ClusterClient;
            let request = RemoveReplicaRequest { replica: id };
            let mut cluster = ClusterClient::new(channel);
            cluster.remove_replica(request).await?;
            0
        }
    };
    Ok(Answer::Written { position })
}

fn position<T>(
    answer: Result<Response<T>, Status>,
    position: impl Fn(&T) -> u64,
) -> Result<u64, Status> {
    answer.map(|answer| position(answer.get_ref()))
}

fn set(provider: String, n: u64) -> UpdateProviderRequest {
    UpdateProviderRequest {
        name: provider,
        config: [(SETTING.to_owned(), n.to_string())].into(),
        ..UpdateProviderRequest::default()
    }
}

fn configure(world: &World, minting: &Minting<'_>) -> ConfigureRefreshRequest {
    let grant = minting.grant;
    let material = [
        ("client_id".to_owned(), grant.client.clone()),
        ("client_auth".to_owned(), "client_secret_basic".to_owned()),
    ];
    let secret_material = [
        ("client_secret".to_owned(), grant.secret.clone()),
        ("refresh_token".to_owned(), grant.refresh_token.clone()),
    ];
    let kind = match minting.replay_safe {
        true => Kind::Safe,
        false => Kind::Strict,
    };
    ConfigureRefreshRequest {
        provider: minting.provider.to_owned(),
        credential_key: minting.key.to_owned(),
        strategy: "oauth2-refresh-token".to_owned(),
        token_url: world.doors(minting.issuer).token_url(),
        material: material.into(),
        secret_material: secret_material.into(),
        replay: Some(ReplayPolicy {
            kind: kind.into(),
            grace_ms: 0,
        }),
        refresh_before_ms: u64::try_from(minting.refresh_before.as_millis()).ok(),
        ..ConfigureRefreshRequest::default()
    }
}

/// Whether a call that ended so was certainly not carried out, and will not be.
fn had_no_effect(status: &Status) -> bool {
    // The gateway itself says so, unless it could not know.
    let spoken = status.metadata().contains_key(REASON);
    let unknown = matches!(
        status.code(),
        Code::DeadlineExceeded | Code::Unknown | Code::Internal | Code::Cancelled
    );
    (spoken && !unknown) || was_refused_a_connection(status)
}

/// Whether the call never left: nobody listens there.
fn was_refused_a_connection(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::ConnectionRefused;
        }
        cause = error.source();
    }
    false
}

pub(crate) fn said(status: &Status) -> String {
    let reason = status.metadata().get(REASON);
    let reason = reason
        .and_then(|reason| reason.to_str().ok())
        .unwrap_or("-");
    format!("{:?} ({reason}): {}", status.code(), status.message())
}

/// Calls of the harness itself, of which no note is taken.
impl World {
    /// How a credential stands by the leader's newest state; `None` if nobody says.
    pub async fn refresh_status(&self, credential: &Credential) -> Option<RefreshStatus> {
        let request = GetRefreshStatusRequest {
            provider: credential.provider.clone(),
            credential_key: credential.key.clone(),
            consistent: true,
            ..GetRefreshStatusRequest::default()
        };
        let ask = |channel| {
            let (mut client, request) = (RefreshesClient::new(channel), request.clone());
            async move { client.get_refresh_status(request).await }
        };
        let answer = self.anywhere(ask).await?;
        answer.refreshes.into_iter().next()
    }

    /// Makes a mint due now. Whether that was acknowledged.
    pub async fn rotate(&self, credential: &Credential) -> bool {
        let request = RotateCredentialRequest {
            provider: credential.provider.clone(),
            credential_key: credential.key.clone(),
            ..RotateCredentialRequest::default()
        };
        let ask = |channel| {
            let (mut client, request) = (RefreshesClient::new(channel), request.clone());
            async move { client.rotate_credential(request).await }
        };
        self.anywhere(ask).await.is_some()
    }

    /// Writes something that nobody reads. Whether that was acknowledged.
    pub async fn touch(&self, provider: &str) -> bool {
        let request = UpdateProviderRequest {
            name: provider.to_owned(),
            config: [("touched".to_owned(), self.recorder.now().to_string())].into(),
            ..UpdateProviderRequest::default()
        };
        let ask = |channel| {
            let (mut client, request) = (ProvidersClient::new(channel), request.clone());
            async move { client.update_provider(request).await }
        };
        self.anywhere(ask).await.is_some()
    }

    /// Asks every replica that is up, the leader first, until one answers.
    pub(crate) async fn anywhere<T, Asked>(&self, ask: impl Fn(Channel) -> Asked) -> Option<T>
    where
        Asked: Future<Output = Result<Response<T>, Status>>,
    {
        let mut places = self.up();
        let leader = self.leader();
        places.sort_by_key(|place| Some(*place) != leader);
        for place in places {
            if let Ok(Ok(answer)) = timeout(LOOK, ask(self.channel(place))).await {
                return Some(answer.into_inner());
            }
        }
        None
    }
}
