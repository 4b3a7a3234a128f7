//! `evermint.v1.Providers`.

use std::collections::BTreeMap;

use evermint_core::command::{Command, Kind, StaticValue};
use evermint_core::id::{CredentialId, CredentialKey, Name, ProviderId, ProviderType, Workspace};
use evermint_core::provider::limit;
use evermint_core::secret::Secret;
use evermint_core::state::State;
use evermint_core::time::UnixMs;
use evermint_proto::v1;
use evermint_proto::v1::providers_server::Providers;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{Services, changed, page};
use crate::rim::{Rim, entry};
use crate::{show, status};

#[tonic::async_trait]
impl Providers for Services {
    async fn create_provider(
        &self,
        request: Request<v1::CreateProviderRequest>,
    ) -> Result<Response<v1::CreateProviderResponse>, Status> {
        let request = request.into_inner();
        let mut rim = Rim::default();
        let workspace = rim.workspace(&request.workspace);
        let name = rim.parse("name", &request.name);
        let kind = rim.parse("type", &request.r#type);
        rim.map("config", &request.config, limit::CONFIG);
        rim.count("credentials", request.credentials.len(), limit::CREDENTIALS);
        let values = values(&mut rim, request.credentials);
        let kind = workspace.as_ref().zip(kind).map(|(workspace, written)| {
            let kind = self
                .ports
                .catalog
                .canonical(&self.state(), workspace, &written);
            self.check_config(&mut rim, workspace, &kind, &request.config);
            kind
        });
        let (workspace, name, kind) = rim.finish(|| Some((workspace?, name?, kind?)))?;

        let id = ProviderId(Uuid::new_v4().as_u128());
        let written = self
            .propose(Command::CreateProvider {
                id,
                workspace,
                name,
                kind,
                config: request.config,
                notes: Default::default(),
                credentials: self.seal_all(id, values)?,
            })
            .await?;
        Ok(Response::new(v1::CreateProviderResponse {
            provider: self.shown(&written.state, id),
            position: written.position.0,
        }))
    }

    async fn get_provider(
        &self,
        request: Request<v1::GetProviderRequest>,
    ) -> Result<Response<v1::GetProviderResponse>, Status> {
        let request = request.into_inner();
        let (workspace, name) = named(&request.workspace, &request.name)?;
        let state = self.read(request.consistent).await?;
        let provider = state
            .provider_named(&workspace, &name)
            .ok_or_else(|| status::not_found(Kind::Provider, &name))?;
        Ok(Response::new(v1::GetProviderResponse {
            provider: self.shown(&state, provider.id),
            position: state.meta.position.0,
        }))
    }

    async fn list_providers(
        &self,
        request: Request<v1::ListProvidersRequest>,
    ) -> Result<Response<v1::ListProvidersResponse>, Status> {
        let request = request.into_inner();
        let mut rim = Rim::default();
        let workspace = rim.scope(&request.workspace, request.all_workspaces);
        let after = page::parse_age(&mut rim, &request.page_token);
        let (workspace, after) = rim.finish(|| Some((workspace?, after?)))?;

        let (state, now) = (self.state(), self.ports.view.now());
        let providers = state
            .providers
            .values()
            .filter(|p| workspace.as_ref().is_none_or(|w| *w == p.workspace))
            .map(|p| ((p.created_at, p.id.0), p));
        let (page, next_page_token) = page::by_age(providers, after, page::size(request.page_size));
        Ok(Response::new(v1::ListProvidersResponse {
            providers: page
                .into_iter()
                .map(|p| show::provider(&state, p, now))
                .collect(),
            next_page_token,
        }))
    }

    async fn update_provider(
        &self,
        request: Request<v1::UpdateProviderRequest>,
    ) -> Result<Response<v1::UpdateProviderResponse>, Status> {
        let request = request.into_inner();
        let mut rim = Rim::default();
        let workspace = rim.workspace(&request.workspace);
        let name = rim.parse("name", &request.name);
        rim.map("config", &request.config, limit::CONFIG);
        rim.count("credentials", request.credentials.len(), limit::CREDENTIALS);
        let values = values(&mut rim, request.credentials);
        let config = config_changes(&mut rim, request.config, &request.delete_config);
        let deleted = rim.keys("delete_credentials", request.delete_credentials.iter());
        for key in deleted.iter().filter(|key| values.contains_key(*key)) {
            rim.problem(
                entry("delete_credentials", key.as_str()),
                "is set by the same request",
            );
        }
        let expires_at = ends(&mut rim, &request.expires_at_ms);
        let (workspace, name) = rim.finish(|| Some((workspace?, name?)))?;

        let provider = self.provider(&workspace, &name).await?;
        let mut rim = Rim::default();
        let mut merged = provider.config.clone();
        for (key, value) in &config {
            match value {
                Some(value) => merged.insert(key.clone(), value.clone()),
                None => merged.remove(key),
            };
        }
        // What was there before is no reason to refuse other changes.
        if merged != provider.config {
            self.check_config(&mut rim, &workspace, &provider.kind, &merged);
        }
        rim.finish(|| Some(()))?;
        let id = provider.id;
        let mut credentials: BTreeMap<_, _> = deleted.into_iter().map(|key| (key, None)).collect();
        let sealed = self.seal_all(id, values)?;
        credentials.extend(sealed.into_iter().map(|(key, value)| (key, Some(value))));
        let written = self
            .propose(Command::UpdateProvider {
                id,
                expected_version: request.expected_version,
                config,
                credentials,
                expires_at,
            })
            .await?;
        Ok(Response::new(v1::UpdateProviderResponse {
            provider: self.shown(&written.state, id),
            position: written.position.0,
        }))
    }

    async fn delete_provider(
        &self,
        request: Request<v1::DeleteProviderRequest>,
    ) -> Result<Response<v1::DeleteProviderResponse>, Status> {
        let request = request.into_inner();
        let (workspace, name) = named(&request.workspace, &request.name)?;
        let id = self
            .find(|state| state.provider_named(&workspace, &name).map(|p| p.id))
            .await?;
        let Some(id) = id else {
            return Ok(Response::new(v1::DeleteProviderResponse {
                deleted: false,
                position: self.state().meta.position.0,
            }));
        };
        let written = self
            .propose(match request.revoke {
                false => Command::DeleteProvider { id },
                true => Command::RevokeProvider { id },
            })
            .await?;
        Ok(Response::new(v1::DeleteProviderResponse {
            deleted: changed(&written.done),
            position: written.position.0,
        }))
    }
}

impl Services {
    /// Notes what the profile of a type does not allow in a provider's settings.
    fn check_config(
        &self,
        rim: &mut Rim,
        workspace: &Workspace,
        kind: &ProviderType,
        config: &BTreeMap<String, String>,
    ) {
        let found = self.ports.catalog.of(&self.state(), workspace, kind);
        for (key, problem) in found.iter().flat_map(|f| f.profile().check_config(config)) {
            rim.problem(entry("config", &key), problem);
        }
    }

    /// The provider as it is in `state`; `None` if it was deleted meanwhile.
    fn shown(&self, state: &State, id: ProviderId) -> Option<v1::Provider> {
        let provider = state.providers.get(&id)?;
        Some(show::provider(state, provider, self.ports.view.now()))
    }

    fn seal_all(
        &self,
        provider: ProviderId,
        values: BTreeMap<CredentialKey, (Secret, Option<UnixMs>)>,
    ) -> Result<BTreeMap<CredentialKey, StaticValue>, Status> {
        values
            .into_iter()
            .map(|(key, (secret, expires_at))| {
                let id = CredentialId {
                    provider,
                    key: key.clone(),
                };
                let sealed = self.seal_value(&id, &secret)?;
                Ok((key, StaticValue { sealed, expires_at }))
            })
            .collect()
    }
}

/// The name of an object, for requests that hold nothing else to be parsed.
pub(super) fn named(workspace: &str, name: &str) -> Result<(Workspace, Name), Status> {
    let mut rim = Rim::default();
    let workspace = rim.workspace(workspace);
    let name = rim.parse("name", name);
    rim.finish(|| Some((workspace?, name?)))
}

fn values(
    rim: &mut Rim,
    credentials: BTreeMap<String, v1::StaticCredential>,
) -> BTreeMap<CredentialKey, (Secret, Option<UnixMs>)> {
    let mut values = BTreeMap::new();
    for (key, credential) in credentials {
        let field = entry("credentials", &key);
        let secret = rim.secret(format!("{field}.value"), credential.value);
        if let Some(key) = rim.parse::<CredentialKey>(field, &key) {
            values.insert(key, (secret, end(credential.expires_at_ms.unwrap_or(0))));
        }
    }
    values
}

fn config_changes(
    rim: &mut Rim,
    set: BTreeMap<String, String>,
    deleted: &[String],
) -> BTreeMap<String, Option<String>> {
    rim.count("delete_config", deleted.len(), limit::CONFIG);
    let mut changes: BTreeMap<_, _> = set
        .into_iter()
        .map(|(key, value)| (key, Some(value)))
        .collect();
    for key in deleted {
        if changes.get(key).is_some_and(Option::is_some) {
            rim.problem(entry("delete_config", key), "is set by the same request");
        } else {
            changes.insert(key.clone(), None);
        }
    }
    changes
}

fn ends(
    rim: &mut Rim,
    expires_at_ms: &BTreeMap<String, u64>,
) -> BTreeMap<CredentialKey, Option<UnixMs>> {
    rim.count("expires_at_ms", expires_at_ms.len(), limit::CREDENTIALS);
    expires_at_ms
        .iter()
        .filter_map(|(key, at)| {
            let key = rim.parse(entry("expires_at_ms", key), key)?;
            Some((key, end(*at)))
        })
        .collect()
}

/// 0 stands for no end.
pub(super) fn end(at: u64) -> Option<UnixMs> {
    (at != 0).then_some(UnixMs(at))
}
