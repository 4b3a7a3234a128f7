//! The face that OpenShell's clients know: `openshell.v1.OpenShell` and
//! `openshell.inference.v1.Inference`, as of its commit
//! `2f7fb65591ee5746217ace154afc0aa6bf1afc6d` (2026-08-21).
//!
//! Everything here is translation: the same state and the same commands as behind `evermint.v1`,
//! in the words, codes and defaults of that version. A later version gets a module of its own
//! beside this one. `status` says how errors read, `meta` how objects are named and paged; there
//! is a file for each subject. Who may call what stands in the table of both faces.

mod bundle;
mod config;
mod environment;
mod gateway;
mod inference;
mod meta;
mod offer;
mod profile_text;
mod profiles;
mod providers;
mod reader;
mod refresh;
mod registry;
mod settings;
mod status;
mod tokens;
mod verify;
mod workspaces;

use std::sync::Arc;

use evermint_proto::openshell::inference::v1 as routes;
use evermint_proto::openshell::inference::v1::inference_server::Inference;
use evermint_proto::openshell::sandbox::v1 as sandbox;
use evermint_proto::openshell::v1;
use evermint_proto::openshell::v1::open_shell_server::OpenShell;
use tonic::{Request, Response, Status};

use crate::service::Services;
use crate::shared::Shared;

pub(crate) use offer::Offer;
pub(crate) use reader::gone;

/// The largest request that this face reads, in bytes.
pub(crate) const REQUEST_MAX: usize = 1 << 20;

/// Implements both services.
#[derive(Clone)]
pub(crate) struct Face(pub(crate) Arc<Shared>);

impl std::ops::Deref for Face {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Face {
    /// The other face, where both do the same.
    fn services(&self) -> Services {
        Services(Arc::clone(&self.0))
    }
}

/// One line for each method: what it takes, what it gives, and the function that does it.
macro_rules! service {
    ($service:ident { $($method:ident($request:ty) -> $response:ty = $subject:ident::$function:ident;)+ }) => {
        #[tonic::async_trait]
        impl $service for Face {
            $(async fn $method(
                &self,
                request: Request<$request>,
            ) -> Result<Response<$response>, Status> {
                $subject::$function(self, request).await.map(Response::new)
            })+
        }
    };
}

service!(OpenShell {
    health(v1::HealthRequest) -> v1::HealthResponse = gateway::health;
    get_current_user(v1::GetCurrentUserRequest) -> v1::GetCurrentUserResponse = gateway::current_user;
    get_gateway_info(v1::GetGatewayInfoRequest) -> v1::GetGatewayInfoResponse = gateway::info;

    create_provider(v1::CreateProviderRequest) -> v1::ProviderResponse = providers::create;
    get_provider(v1::GetProviderRequest) -> v1::ProviderResponse = providers::get;
    list_providers(v1::ListProvidersRequest) -> v1::ListProvidersResponse = providers::list;
    update_provider(v1::UpdateProviderRequest) -> v1::ProviderResponse = providers::update;
    delete_provider(v1::DeleteProviderRequest) -> v1::DeleteProviderResponse = providers::delete;

    list_provider_profiles(v1::ListProviderProfilesRequest) -> v1::ListProviderProfilesResponse = profiles::list;
    get_provider_profile(v1::GetProviderProfileRequest) -> v1::ProviderProfileResponse = profiles::get;
    import_provider_profiles(v1::ImportProviderProfilesRequest) -> v1::ImportProviderProfilesResponse = profiles::import;
    update_provider_profiles(v1::UpdateProviderProfilesRequest) -> v1::UpdateProviderProfilesResponse = profiles::update;
    lint_provider_profiles(v1::LintProviderProfilesRequest) -> v1::LintProviderProfilesResponse = profiles::lint;
    delete_provider_profile(v1::DeleteProviderProfileRequest) -> v1::DeleteProviderProfileResponse = profiles::delete;

    get_provider_refresh_status(v1::GetProviderRefreshStatusRequest) -> v1::GetProviderRefreshStatusResponse = refresh::status;
    configure_provider_refresh(v1::ConfigureProviderRefreshRequest) -> v1::ConfigureProviderRefreshResponse = refresh::configure;
    rotate_provider_credential(v1::RotateProviderCredentialRequest) -> v1::RotateProviderCredentialResponse = refresh::rotate;
    delete_provider_refresh(v1::DeleteProviderRefreshRequest) -> v1::DeleteProviderRefreshResponse = refresh::delete;

    create_workspace(v1::CreateWorkspaceRequest) -> v1::CreateWorkspaceResponse = workspaces::create;
    get_workspace(v1::GetWorkspaceRequest) -> v1::GetWorkspaceResponse = workspaces::get;
    list_workspaces(v1::ListWorkspacesRequest) -> v1::ListWorkspacesResponse = workspaces::list;

    get_gateway_config(sandbox::GetGatewayConfigRequest) -> sandbox::GetGatewayConfigResponse = settings::get;
    update_config(v1::UpdateConfigRequest) -> v1::UpdateConfigResponse = settings::update;
    get_sandbox_config(sandbox::GetSandboxConfigRequest) -> sandbox::GetSandboxConfigResponse = config::get;
    report_policy_status(v1::ReportPolicyStatusRequest) -> v1::ReportPolicyStatusResponse = config::report;

    create_sandbox(v1::CreateSandboxRequest) -> v1::SandboxResponse = registry::create;
    get_sandbox(v1::GetSandboxRequest) -> v1::SandboxResponse = registry::get;
    delete_sandbox(v1::DeleteSandboxRequest) -> v1::DeleteSandboxResponse = registry::delete;
    list_sandbox_providers(v1::ListSandboxProvidersRequest) -> v1::ListSandboxProvidersResponse = registry::providers;
    attach_sandbox_provider(v1::AttachSandboxProviderRequest) -> v1::AttachSandboxProviderResponse = registry::attach;
    detach_sandbox_provider(v1::DetachSandboxProviderRequest) -> v1::DetachSandboxProviderResponse = registry::detach;

    get_sandbox_provider_environment(v1::GetSandboxProviderEnvironmentRequest) -> v1::GetSandboxProviderEnvironmentResponse = environment::get;
    issue_sandbox_token(v1::IssueSandboxTokenRequest) -> v1::IssueSandboxTokenResponse = tokens::issue;
    refresh_sandbox_token(v1::RefreshSandboxTokenRequest) -> v1::RefreshSandboxTokenResponse = tokens::refresh;
});

service!(Inference {
    set_inference_route(routes::SetInferenceRouteRequest) -> routes::SetInferenceRouteResponse = inference::set;
    get_inference_route(routes::GetInferenceRouteRequest) -> routes::GetInferenceRouteResponse = inference::get;
    delete_inference_route(routes::DeleteInferenceRouteRequest) -> routes::DeleteInferenceRouteResponse = inference::delete;
    get_inference_bundle(routes::GetInferenceBundleRequest) -> routes::GetInferenceBundleResponse = bundle::get;
});
