//! `evermint.v1.Refreshes`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use evermint_core::command::Command;
use evermint_core::command::Kind;
use evermint_core::credential::{Credential, Reason, RefreshConfig, TicketEnd};
use evermint_core::id::{CredentialId, CredentialKey, Name, Workspace};
use evermint_core::port::Touched;
use evermint_core::provider::limit;
use evermint_core::record::Key;
use evermint_core::secret::Secret;
use evermint_core::state::State;
use evermint_core::strategy::{ReplayPolicy, Strategy};
use evermint_core::time::{UnixMs, millis};
use evermint_proto::v1;
use evermint_proto::v1::refreshes_server::Refreshes;
use evermint_proto::v1::replay_policy::Kind as ReplayKind;
use evermint_proto::v1::rotate_credential_response::Outcome;
use futures::StreamExt as _;
use tonic::{Request, Response, Status};

use super::{Services, changed};
use crate::rim::{Rim, entry};
use crate::{show, status};

/// The longest that a rotation is waited for.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Most scopes of one refresh.
const SCOPES_MAX: usize = 64;
/// The longest token endpoint, in bytes.
const URL_MAX: usize = 2048;
/// The longest time that a setting of a refresh may name: ten years.
const TIME_MAX_MS: u64 = 10 * 366 * 86_400_000;

#[tonic::async_trait]
impl Refreshes for Services {
    async fn configure_refresh(
        &self,
        request: Request<v1::ConfigureRefreshRequest>,
    ) -> Result<Response<v1::ConfigureRefreshResponse>, Status> {
        let asked = self.parse(request.into_inner())?;
        let provider = self.provider(&asked.workspace, &asked.provider).await?;
        let credential = CredentialId {
            provider: provider.id,
            key: asked.key,
        };
        let material = asked
            .secrets
            .iter()
            .map(|(name, secret)| {
                let sealed = self.seal_material(&credential, name, secret)?;
                Ok((name.clone(), sealed))
            })
            .collect::<Result<_, Status>>()?;
        let written = self
            .propose(Command::ConfigureRefresh {
                credential: credential.clone(),
                config: asked.config,
                material,
                expires_at: asked.expires_at,
            })
            .await?;
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
            .propose(Command::RotateCredential {
                credential: credential.clone(),
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
        let written = self.propose(Command::DeleteRefresh { credential }).await?;
        Ok(Response::new(v1::DeleteRefreshResponse {
            deleted: changed(&written.done),
            position: written.position.0,
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

/// A request to configure a refresh, checked.
struct Asked {
    workspace: Workspace,
    provider: Name,
    key: CredentialKey,
    config: RefreshConfig,
    secrets: BTreeMap<String, Secret>,
    expires_at: Option<UnixMs>,
}

impl Services {
    fn refresh_status(&self, state: &State, id: &CredentialId) -> Option<v1::RefreshStatus> {
        let credential: &Arc<Credential> = state.credentials.get(id)?;
        show::refresh(state, credential, self.ports.view.now())
    }

    fn parse(&self, request: v1::ConfigureRefreshRequest) -> Result<Asked, Status> {
        let mut rim = Rim::default();
        let workspace = rim.workspace(&request.workspace);
        let provider = rim.parse("provider", &request.provider);
        let key = rim.parse("credential_key", &request.credential_key);
        let strategy = strategy(&mut rim, &request.strategy);
        if request.token_url.len() > URL_MAX {
            rim.text("token_url", &request.token_url, URL_MAX);
        }
        rim.count("scopes", request.scopes.len(), SCOPES_MAX);
        for (i, scope) in request.scopes.iter().enumerate() {
            rim.text(format!("scopes[{i}]"), scope, limit::MAP_KEY);
        }
        let outputs = outputs(&mut rim, key.as_ref(), &request.outputs);
        let replay = replay(&mut rim, request.replay.as_ref());
        for (field, ms) in [
            ("refresh_before_ms", request.refresh_before_ms),
            ("not_before_ms", request.not_before_ms),
            ("max_lifetime_ms", request.max_lifetime_ms),
        ] {
            if ms.is_some_and(|ms| ms == 0 || ms > TIME_MAX_MS) {
                rim.problem(
                    field,
                    format_args!("must be 1 to {TIME_MAX_MS} if it is given"),
                );
            }
        }
        let (material, secrets) = self.sort(
            &mut rim,
            strategy,
            request.material,
            request.secret_material,
        );
        let ends = request.material_expires_at_ms;
        rim.count("material_expires_at_ms", ends.len(), limit::MATERIAL);
        for name in ends.keys() {
            if !material.contains_key(name) && !secrets.contains_key(name) {
                let field = entry("material_expires_at_ms", name);
                rim.problem(field, "is the end of material that is not given");
            }
        }

        let config = strategy
            .zip(replay)
            .map(|(strategy, replay)| RefreshConfig {
                strategy,
                token_url: request.token_url,
                scopes: request.scopes,
                material,
                outputs,
                material_ends: ends
                    .into_iter()
                    .map(|(name, end)| (name, UnixMs(end)))
                    .collect(),
                replay,
                refresh_before_ms: request.refresh_before_ms,
                not_before_ms: request.not_before_ms,
                max_lifetime_ms: request.max_lifetime_ms,
            });
        if let Some(config) = &config {
            rim.problems(self.ports.policy.check(config, &secrets));
        }
        rim.finish(|| {
            Some(Asked {
                workspace: workspace?,
                provider: provider?,
                key: key?,
                config: config?,
                secrets,
                expires_at: request.expires_at_ms.map(UnixMs),
            })
        })
    }

    /// Sorts material into public and secret: what the request calls secret, and what the
    /// strategy knows to be.
    fn sort(
        &self,
        rim: &mut Rim,
        strategy: Option<Strategy>,
        material: BTreeMap<String, String>,
        secret_material: BTreeMap<String, String>,
    ) -> (BTreeMap<String, String>, BTreeMap<String, Secret>) {
        rim.count(
            "material",
            material.len() + secret_material.len(),
            limit::MATERIAL,
        );
        let (mut public, mut secrets) = (BTreeMap::new(), BTreeMap::new());
        for (name, value) in secret_material {
            let field = entry("secret_material", &name);
            rim.text(field.clone(), &name, limit::MAP_KEY);
            if material.contains_key(&name) {
                rim.problem(field.clone(), "is in material as well");
            }
            secrets.insert(name, rim.secret(field, value));
        }
        for (name, value) in material {
            let field = entry("material", &name);
            rim.text(field.clone(), &name, limit::MAP_KEY);
            let is_secret = strategy.is_some_and(|s| self.ports.policy.is_secret(s, &name));
            if is_secret {
                secrets.insert(name, rim.secret(field, value));
            } else {
                if value.len() > limit::MAP_VALUE {
                    rim.too_long(field, value.len(), limit::MAP_VALUE);
                }
                public.insert(name, value);
            }
        }
        (public, secrets)
    }
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

fn strategy(rim: &mut Rim, text: &str) -> Option<Strategy> {
    // The error repeats the text; one that is no name is not repeated.
    if text.len() > limit::MAP_KEY || text.is_empty() {
        rim.text("strategy", text, limit::MAP_KEY);
        return None;
    }
    if text == "static" {
        let problem = "static needs no refresh: set the value, and its end, with UpdateProvider";
        rim.problem("strategy", problem);
        return None;
    }
    rim.parse("strategy", text)
}

/// The further outputs: each under a name of its own.
fn outputs(
    rim: &mut Rim,
    primary: Option<&CredentialKey>,
    asked: &BTreeMap<String, String>,
) -> BTreeMap<String, CredentialKey> {
    rim.count("outputs", asked.len(), limit::CREDENTIALS);
    let mut taken: BTreeSet<CredentialKey> = primary.cloned().into_iter().collect();
    let mut outputs = BTreeMap::new();
    for (output, name) in asked {
        let field = entry("outputs", output);
        rim.text(field.clone(), output, limit::MAP_KEY);
        let Some(key) = rim.parse::<CredentialKey>(field.clone(), name) else {
            continue;
        };
        if !taken.insert(key.clone()) {
            rim.problem(field, format_args!("has the name of another output, {key}"));
        }
        outputs.insert(output.clone(), key);
    }
    outputs
}

fn replay(rim: &mut Rim, policy: Option<&v1::ReplayPolicy>) -> Option<ReplayPolicy> {
    let Some(policy) = policy else {
        return Some(ReplayPolicy::default());
    };
    let grace_ms = policy.grace_ms;
    match ReplayKind::try_from(policy.kind) {
        Ok(ReplayKind::Grace) if (1..=TIME_MAX_MS).contains(&grace_ms) => {
            Some(ReplayPolicy::Grace(grace_ms))
        }
        Ok(ReplayKind::Grace) => {
            rim.problem(
                "replay.grace_ms",
                format_args!("must be 1 to {TIME_MAX_MS}"),
            );
            None
        }
        Ok(_) if grace_ms != 0 => {
            rim.problem("replay.grace_ms", "is only for KIND_GRACE");
            None
        }
        Ok(ReplayKind::Safe) => Some(ReplayPolicy::Safe),
        Ok(ReplayKind::Strict | ReplayKind::Unspecified) => Some(ReplayPolicy::Strict),
        Err(_) => {
            rim.problem("replay.kind", "is not known");
            None
        }
    }
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
    if refresh.due_reason == Reason::Rotate || credential.ticket().is_some() {
        return None;
    }
    let end = credential.settled.as_ref().map(|settled| settled.end);
    Some(match end {
        Some(TicketEnd::Committed(_)) => Outcome::Minted,
        _ => Outcome::Failed,
    })
}
