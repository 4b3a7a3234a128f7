//! `evermint.v1.Refreshes`.

use std::sync::Arc;
use std::time::Duration;

use evermint_core::command::Command;
use evermint_core::command::Kind;
use evermint_core::credential::{Credential, Reason, TicketEnd};
use evermint_core::id::{CredentialId, CredentialKey, Name, Workspace};
use evermint_core::port::Touched;
use evermint_core::record::Key;
use evermint_core::secret::Secret;
use evermint_core::state::State;
use evermint_core::time::millis;
use evermint_proto::v1;
use evermint_proto::v1::refreshes_server::Refreshes;
use evermint_proto::v1::rotate_credential_response::Outcome;
use futures::StreamExt as _;
use tonic::{Request, Response, Status};

use super::configure::Asked;
use super::{Services, changed, configure};
use crate::rim::Rim;
use crate::{show, status};

/// The longest that a rotation is waited for.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// The longest time until a superseded value is revoked: a day.
const REVOKE_AFTER_MAX_MS: u64 = 86_400_000;

#[tonic::async_trait]
impl Refreshes for Services {
    async fn configure_refresh(
        &self,
        request: Request<v1::ConfigureRefreshRequest>,
    ) -> Result<Response<v1::ConfigureRefreshResponse>, Status> {
        let request = request.into_inner();
        let (workspace, name) = named_provider(&request)?;
        let provider = self.provider(&workspace, &name).await?;
        let asked = self.asked(&provider, request)?;
        let credential = CredentialId {
            provider: provider.id,
            key: asked.key.clone(),
        };
        let written = self.propose(self.configure(&credential, asked)?).await?;
        Ok(Response::new(v1::ConfigureRefreshResponse {
            status: self.refresh_status(&written.state, &credential),
            position: written.position.0,
        }))
    }

    async fn get_refresh_status(
        &self,
        request: Request<v1::GetRefreshStatusRequest>,
    ) -> Result<Response<v1::GetRefreshStatusResponse>, Status> {
        let request = request.into_inner();
        let mut rim = Rim::default();
        let workspace = rim.workspace(&request.workspace);
        let provider = rim.parse::<Name>("provider", &request.provider);
        let key = rim.optional::<CredentialKey>("credential_key", &request.credential_key);
        let (workspace, name, key) = rim.finish(|| Some((workspace?, provider?, key?)))?;

        let state = self.read(request.consistent).await?;
        let view = &self.ports.view;
        let now = view.now();
        let provider = state
            .provider_named(&workspace, &name)
            .ok_or_else(|| status::not_found(Kind::Provider, &name))?;
        let refreshes = state
            .credentials_of(provider)
            .filter(|c| key.as_ref().is_none_or(|key| c.id.key == *key))
            .filter_map(|c| show::refresh(&state, c, now))
            .collect();
        Ok(Response::new(v1::GetRefreshStatusResponse {
            refreshes,
            position: state.meta.position.0,
            staleness_ms: view.staleness().map(millis),
            server_time_ms: now.0,
        }))
    }

    async fn rotate_credential(
        &self,
        request: Request<v1::RotateCredentialRequest>,
    ) -> Result<Response<v1::RotateCredentialResponse>, Status> {
        let request = request.into_inner();
        let (workspace, provider, key) = credential(
            &request.workspace,
            &request.provider,
            &request.credential_key,
        )?;
        let provider = self.provider(&workspace, &provider).await?;
        let credential = CredentialId {
            provider: provider.id,
            key,
        };
        // Subscribed to before the wish is proposed, so that no change after it is missed.
        let mut changes = self.ports.view.changes();
        let written = self
            .propose(match request.revoke_after_ms {
                None => Command::RotateCredential {
                    credential: credential.clone(),
                },
                Some(grace_ms) => Command::RevokeValue {
                    credential: credential.clone(),
                    grace_ms: grace_ms.min(REVOKE_AFTER_MAX_MS),
                },
            })
            .await?;
        let wait = Duration::from_millis(request.wait_ms).min(WAIT_MAX);
        let mut state = written.state;
        let outcome = async {
            loop {
                if let Some(outcome) = rotated(&state, &credential) {
                    return outcome;
                }
                let Some(change) = changes.next().await else {
                    return Outcome::Due;
                };
                let concerns = match &change.touched {
                    Touched::Keys(keys) => keys.contains(&Key::Credential(credential.clone())),
                    Touched::Everything => true,
                };
                if concerns && change.state.meta.position > state.meta.position {
                    state = change.state;
                }
            }
        };
        let outcome = tokio::select! {
            outcome = outcome => outcome,
            () = tokio::time::sleep(wait) => Outcome::Due,
            () = self.shutdown.cancelled() => Outcome::Due,
        };
        Ok(Response::new(v1::RotateCredentialResponse {
            outcome: outcome.into(),
            status: self.refresh_status(&self.state(), &credential),
            position: written.position.0,
        }))
    }

    async fn delete_refresh(
        &self,
        request: Request<v1::DeleteRefreshRequest>,
    ) -> Result<Response<v1::DeleteRefreshResponse>, Status> {
        let request = request.into_inner();
        let (workspace, provider, key) = credential(
            &request.workspace,
            &request.provider,
            &request.credential_key,
        )?;
        let provider = self.provider(&workspace, &provider).await?;
        let credential = CredentialId {
            provider: provider.id,
            key,
        };
        let written = self
            .propose(match request.revoke {
                false => Command::DeleteRefresh { credential },
                true => Command::RevokeRefresh { credential },
            })
            .await?;
        Ok(Response::new(v1::DeleteRefreshResponse {
            deleted: changed(&written.done),
            position: written.position.0,
        }))
    }

    async fn list_revocations(
        &self,
        request: Request<v1::ListRevocationsRequest>,
    ) -> Result<Response<v1::ListRevocationsResponse>, Status> {
        let request = request.into_inner();
        let mut rim = Rim::default();
        let workspace = rim.workspace(&request.workspace);
        let provider = rim.optional::<Name>("provider", &request.provider);
        let (workspace, provider) = rim.finish(|| Some((workspace?, provider?)))?;
        let state = self.state();
        let asked = state.revocations.values().filter(|r| {
            r.workspace == workspace
                && provider.as_ref().is_none_or(|name| r.provider == *name)
                && (request.position == 0 || r.id.asked.0 == request.position)
        });
        let mut revocations: Vec<_> = asked.map(|r| show::revocation(r)).collect();
        revocations.sort_by(|a, b| {
            let by =
                |r: &v1::Revocation| (r.provider.clone(), r.credential_key.clone(), r.position);
            by(a).cmp(&by(b))
        });
        Ok(Response::new(v1::ListRevocationsResponse {
            revocations,
            applied: state.meta.position.0,
            server_time_ms: self.ports.view.now().0,
        }))
    }

    async fn test_credential(
        &self,
        request: Request<v1::TestCredentialRequest>,
    ) -> Result<Response<v1::TestCredentialResponse>, Status> {
        let request = request.into_inner();
        let (workspace, provider, key) = credential(
            &request.workspace,
            &request.provider,
            &request.credential_key,
        )?;
        let provider = self.provider(&workspace, &provider).await?;
        let id = CredentialId {
            provider: provider.id,
            key,
        };
        let found = self.find(|state| state.credentials.get(&id).cloned());
        let found = found.await?;
        let found = found.ok_or_else(|| status::not_found(Kind::Credential, &id.key))?;
        self.test(&found, request.timeout_ms)
            .await
            .map(Response::new)
    }
}

impl Services {
    /// The command that configures a refresh as it was asked for.
    pub(crate) fn configure(
        &self,
        credential: &CredentialId,
        asked: Asked,
    ) -> Result<Command, Status> {
        let sealed = |(name, secret): (&String, &Secret)| {
            let sealed = self.seal_material(credential, name, secret)?;
            Ok((name.clone(), sealed))
        };
        let material = asked.secrets.iter().map(sealed);
        Ok(Command::ConfigureRefresh {
            credential: credential.clone(),
            material: material.collect::<Result<_, Status>>()?,
            config: asked.config,
            expires_at: asked.expires_at,
        })
    }

    fn refresh_status(&self, state: &State, id: &CredentialId) -> Option<v1::RefreshStatus> {
        let credential: &Arc<Credential> = state.credentials.get(id)?;
        show::refresh(state, credential, self.ports.view.now())
    }
}

/// The provider that a request is about, with what can be wrong with the request's other names: a
/// caller learns of all of them at once.
fn named_provider(request: &v1::ConfigureRefreshRequest) -> Result<(Workspace, Name), Status> {
    let mut rim = Rim::default();
    let workspace = rim.workspace(&request.workspace);
    let Some(provider) = rim.parse::<Name>("provider", &request.provider) else {
        rim.parse::<CredentialKey>("credential_key", &request.credential_key);
        if !request.strategy.is_empty() {
            configure::strategy(&mut rim, &request.strategy);
        }
        return rim.finish(|| None);
    };
    rim.finish(|| Some((workspace?, provider)))
}

fn credential(
    workspace: &str,
    provider: &str,
    key: &str,
) -> Result<(Workspace, Name, CredentialKey), Status> {
    let mut rim = Rim::default();
    let workspace = rim.workspace(workspace);
    let provider = rim.parse("provider", provider);
    let key = rim.parse("credential_key", key);
    rim.finish(|| Some((workspace?, provider?, key?)))
}

/// What became of the wish to rotate; `None` while it stands. The wish is met by the first ticket
/// that is granted after it, and that has come to its end.
fn rotated(state: &State, id: &CredentialId) -> Option<Outcome> {
    let Some(credential) = state.credentials.get(id) else {
        return Some(Outcome::Failed);
    };
    let Some(refresh) = &credential.refresh else {
        return Some(Outcome::Failed);
    };
    if credential.ticket().is_some() {
        return None;
    }
    // A mint that ran when the wish came has ended so that no other one is tried.
    if refresh.health.verdict.is_final() {
        return Some(Outcome::Failed);
    }
    if refresh.due_reason == Reason::Rotate {
        return None;
    }
    let end = credential.settled.as_ref().map(|settled| settled.end);
    Some(match end {
        Some(TicketEnd::Committed(_)) => Outcome::Minted,
        _ => Outcome::Failed,
    })
}
