//! `evermint.v1.Sandboxes`.

use std::sync::Arc;

use evermint_core::command::{Command, Kind};
use evermint_core::id::{Name, ProviderId, SandboxId, Workspace};
use evermint_core::provider::{Sandbox, limit};
use evermint_core::state::State;
use evermint_proto::v1;
use evermint_proto::v1::sandboxes_server::Sandboxes;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::providers::named;
use super::{Services, changed, page};
use crate::rim::Rim;
use crate::{show, status};

#[tonic::async_trait]
impl Sandboxes for Services {
    async fn create_sandbox(
        &self,
        request: Request<v1::CreateSandboxRequest>,
    ) -> Result<Response<v1::CreateSandboxResponse>, Status> {
        let request = request.into_inner();
        let mut rim = Rim::default();
        let workspace = rim.workspace(&request.workspace);
        let name = rim.parse("name", &request.name);
        rim.count("providers", request.providers.len(), limit::ATTACHED);
        let names: Vec<Name> = request
            .providers
            .iter()
            .enumerate()
            .filter_map(|(i, name)| rim.parse(format!("providers[{i}]"), name))
            .collect();
        let (workspace, name) = rim.finish(|| Some((workspace?, name?)))?;

        let mut providers = Vec::with_capacity(names.len());
        for name in &names {
            providers.push(self.provider(&workspace, name).await?.id);
        }
        let id = SandboxId(Uuid::new_v4().as_u128());
        let written = self
            .propose(Command::CreateSandbox {
                id,
                workspace,
                name,
                providers,
            })
            .await?;
        Ok(Response::new(v1::CreateSandboxResponse {
            sandbox: shown(&written.state, id),
            position: written.position.0,
        }))
    }

    async fn get_sandbox(
        &self,
        request: Request<v1::GetSandboxRequest>,
    ) -> Result<Response<v1::GetSandboxResponse>, Status> {
        let request = request.into_inner();
        let (workspace, name) = named(&request.workspace, &request.name)?;
        let state = self.read(request.consistent).await?;
        let sandbox = state
            .sandbox_named(&workspace, &name)
            .ok_or_else(|| status::not_found(Kind::Sandbox, &name))?;
        Ok(Response::new(v1::GetSandboxResponse {
            sandbox: Some(show::sandbox(&state, sandbox)),
            position: state.meta.position.0,
        }))
    }

    async fn list_sandboxes(
        &self,
        request: Request<v1::ListSandboxesRequest>,
    ) -> Result<Response<v1::ListSandboxesResponse>, Status> {
        let request = request.into_inner();
        let mut rim = Rim::default();
        let workspace = rim.scope(&request.workspace, request.all_workspaces);
        let after = page::parse_age(&mut rim, &request.page_token);
        let (workspace, after) = rim.finish(|| Some((workspace?, after?)))?;

        let state = self.state();
        let sandboxes = state
            .sandboxes
            .values()
            .filter(|s| workspace.as_ref().is_none_or(|w| *w == s.workspace))
            .map(|s| ((s.created_at, s.id.0), s));
        let (page, next_page_token) = page::by_age(sandboxes, after, page::size(request.page_size));
        Ok(Response::new(v1::ListSandboxesResponse {
            sandboxes: page.into_iter().map(|s| show::sandbox(&state, s)).collect(),
            next_page_token,
        }))
    }

    async fn delete_sandbox(
        &self,
        request: Request<v1::DeleteSandboxRequest>,
    ) -> Result<Response<v1::DeleteSandboxResponse>, Status> {
        let request = request.into_inner();
        let (workspace, name) = named(&request.workspace, &request.name)?;
        let id = self
            .find(|state| state.sandbox_named(&workspace, &name).map(|s| s.id))
            .await?;
        let Some(id) = id else {
            return Ok(Response::new(v1::DeleteSandboxResponse {
                deleted: false,
                position: self.state().meta.position.0,
            }));
        };
        let written = self.propose(Command::DeleteSandbox { id }).await?;
        Ok(Response::new(v1::DeleteSandboxResponse {
            deleted: changed(&written.done),
            position: written.position.0,
        }))
    }

    async fn attach_provider(
        &self,
        request: Request<v1::AttachProviderRequest>,
    ) -> Result<Response<v1::AttachProviderResponse>, Status> {
        let request = request.into_inner();
        let (sandbox, provider) = self
            .pair(&request.workspace, &request.sandbox, &request.provider)
            .await?;
        let written = self
            .propose(Command::AttachProvider {
                sandbox: sandbox.id,
                provider,
                expected_version: request.expected_version,
            })
            .await?;
        Ok(Response::new(v1::AttachProviderResponse {
            sandbox: shown(&written.state, sandbox.id),
            attached: changed(&written.done),
            position: written.position.0,
        }))
    }

    async fn detach_provider(
        &self,
        request: Request<v1::DetachProviderRequest>,
    ) -> Result<Response<v1::DetachProviderResponse>, Status> {
        let request = request.into_inner();
        let (sandbox, provider) = self
            .pair(&request.workspace, &request.sandbox, &request.provider)
            .await?;
        let written = self
            .propose(Command::DetachProvider {
                sandbox: sandbox.id,
                provider,
                expected_version: request.expected_version,
            })
            .await?;
        Ok(Response::new(v1::DetachProviderResponse {
            sandbox: shown(&written.state, sandbox.id),
            detached: changed(&written.done),
            position: written.position.0,
        }))
    }
}

impl Services {
    /// The sandbox and the provider that are to be joined or parted.
    async fn pair(
        &self,
        workspace: &str,
        sandbox: &str,
        provider: &str,
    ) -> Result<(Arc<Sandbox>, ProviderId), Status> {
        let mut rim = Rim::default();
        let workspace = rim.workspace(workspace);
        let sandbox = rim.parse::<Name>("sandbox", sandbox);
        let provider = rim.parse::<Name>("provider", provider);
        let (workspace, sandbox, provider) =
            rim.finish(|| Some((workspace?, sandbox?, provider?)))?;
        Ok((
            self.sandbox(&workspace, &sandbox).await?,
            self.provider(&workspace, &provider).await?.id,
        ))
    }
}

impl Rim {
    /// Parses the workspace of a list; `None` stands for all of them.
    pub(super) fn scope(&mut self, workspace: &str, all: bool) -> Option<Option<Workspace>> {
        if !all {
            return self.workspace(workspace).map(Some);
        }
        if !workspace.is_empty() {
            self.problem("workspace", "must be empty with all_workspaces");
        }
        Some(None)
    }
}

/// The sandbox as it is in `state`; `None` if it was deleted meanwhile.
fn shown(state: &State, id: SandboxId) -> Option<v1::Sandbox> {
    let sandbox = state.sandboxes.get(&id)?;
    Some(show::sandbox(state, sandbox))
}
