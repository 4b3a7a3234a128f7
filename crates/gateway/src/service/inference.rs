//! `evermint.v1.Inference`.

use evermint_core::command::{Command, Kind};
use evermint_core::id::{CredentialKey, Name};
use evermint_core::provider::limit;
use evermint_proto::v1;
use evermint_proto::v1::inference_server::Inference;
use tonic::{Request, Response, Status};

use super::{Services, changed, page};
use crate::rim::Rim;
use crate::{show, status};

/// The route of requests that name none.
const DEFAULT_ROUTE: &str = "inference.local";
/// The longest time limit of a call: a day.
const TIMEOUT_MAX_SECS: u64 = 86_400;

#[tonic::async_trait]
impl Inference for Services {
    async fn set_route(
        &self,
        request: Request<v1::SetRouteRequest>,
    ) -> Result<Response<v1::SetRouteResponse>, Status> {
        let request = request.into_inner();
        let mut rim = Rim::default();
        let workspace = rim.workspace(&request.workspace);
        let name = rim.route(&request.name);
        let provider = rim.parse::<Name>("provider", &request.provider);
        let credential = rim.optional::<CredentialKey>("credential_key", &request.credential_key);
        rim.text("model", &request.model, limit::MODEL);
        if request.timeout_secs > TIMEOUT_MAX_SECS {
            rim.problem(
                "timeout_secs",
                format_args!("must be at most {TIMEOUT_MAX_SECS}"),
            );
        }
        let (workspace, name, provider, credential) =
            rim.finish(|| Some((workspace?, name?, provider?, credential?)))?;

        let provider = self.provider(&workspace, &provider).await?.id;
        let written = self
            .propose(Command::SetRoute {
                workspace: workspace.clone(),
                name: name.clone(),
                provider,
                credential,
                model: request.model,
                timeout_secs: request.timeout_secs,
            })
            .await?;
        let state = &written.state;
        let route = state.routes.get(&(workspace, name));
        Ok(Response::new(v1::SetRouteResponse {
            route: route.map(|route| show::route(state, route)),
            position: written.position.0,
        }))
    }

    async fn get_route(
        &self,
        request: Request<v1::GetRouteRequest>,
    ) -> Result<Response<v1::GetRouteResponse>, Status> {
        let request = request.into_inner();
        let mut rim = Rim::default();
        let workspace = rim.workspace(&request.workspace);
        let name = rim.route(&request.name);
        let (workspace, name) = rim.finish(|| Some((workspace?, name?)))?;

        let state = self.read(request.consistent).await?;
        let route = state
            .routes
            .get(&(workspace, name.clone()))
            .ok_or_else(|| status::not_found(Kind::Route, &name))?;
        Ok(Response::new(v1::GetRouteResponse {
            route: Some(show::route(&state, route)),
            position: state.meta.position.0,
        }))
    }

    async fn list_routes(
        &self,
        request: Request<v1::ListRoutesRequest>,
    ) -> Result<Response<v1::ListRoutesResponse>, Status> {
        let request = request.into_inner();
        let mut rim = Rim::default();
        let workspace = rim.workspace(&request.workspace);
        let after = rim.optional::<Name>("page_token", &request.page_token);
        let (workspace, after) = rim.finish(|| Some((workspace?, after?)))?;

        let state = self.state();
        let size = page::size(request.page_size);
        let mut rest = state
            .routes
            .iter()
            .filter(|((w, name), _)| {
                *w == workspace && after.as_ref().is_none_or(|after| name > after)
            })
            .map(|(_, route)| route);
        let routes: Vec<_> = rest
            .by_ref()
            .take(size)
            .map(|route| show::route(&state, route))
            .collect();
        let next_page_token = match (rest.next(), routes.last()) {
            (Some(_), Some(last)) => last.name.clone(),
            _ => String::new(),
        };
        Ok(Response::new(v1::ListRoutesResponse {
            routes,
            next_page_token,
        }))
    }

    async fn delete_route(
        &self,
        request: Request<v1::DeleteRouteRequest>,
    ) -> Result<Response<v1::DeleteRouteResponse>, Status> {
        let request = request.into_inner();
        let mut rim = Rim::default();
        let workspace = rim.workspace(&request.workspace);
        let name = rim.route(&request.name);
        let (workspace, name) = rim.finish(|| Some((workspace?, name?)))?;
        let written = self
            .propose(Command::DeleteRoute { workspace, name })
            .await?;
        Ok(Response::new(v1::DeleteRouteResponse {
            deleted: changed(&written.done),
            position: written.position.0,
        }))
    }
}

impl Rim {
    /// Parses the name of a route; an empty one is the default.
    fn route(&mut self, text: &str) -> Option<Name> {
        self.parse("name", if text.is_empty() { DEFAULT_ROUTE } else { text })
    }
}
