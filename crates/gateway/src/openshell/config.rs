//! The configuration that sandboxes poll, and what they report of it.
//!
//! Its policy and settings are the gateway's that runs the sandbox; Evermint's part is the revision
//! of the environment, by which a sandbox learns that there is another one.

use evermint_core::id::SandboxId;
use evermint_proto::openshell::sandbox::v1 as sandbox;
use evermint_proto::openshell::v1;
use evermint_proto::openshell::v1::open_shell_client::OpenShellClient;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::reader::{Call, Doubt, Poll, check_own, gone, own_pass, pass};
use super::{Face, settings};
use crate::token::{Pass, Signer};

type Asked = sandbox::GetSandboxConfigRequest;
type Config = sandbox::GetSandboxConfigResponse;

pub(super) async fn get(face: &Face, request: Request<Asked>) -> Result<Config, Status> {
    let pass = pass(&request);
    let sandbox = match pass {
        Some(pass) => {
            check_own(pass, &request.get_ref().sandbox_id)?;
            pass.sandbox
        }
        None => request.get_ref().sandbox_id.parse().map_err(|_| gone())?,
    };
    let call = Call {
        pass,
        sandbox,
        request,
    };
    face.serve(call).await
}

#[tonic::async_trait]
impl Poll for Asked {
    type Answer = Config;

    // Refused, the sandbox keeps what it has and asks again.
    const IN_DOUBT: Doubt = Doubt::Refuse;

    async fn here(face: &Face, call: &Call<Self>) -> Result<Config, Status> {
        let ready = face.bundle_of(call)?;
        let mut config = match behind(face, call.pass) {
            Some(mut behind) => {
                let theirs = behind.get_sandbox_config(same(&call.request)).await?;
                theirs.into_inner()
            }
            None => own(face, call.sandbox)?,
        };
        config.provider_env_revision = ready.openshell.environment_revision();
        Ok(config)
    }

    async fn elsewhere(other: Channel, request: Request<Self>) -> Result<Response<Config>, Status> {
        let mut other = OpenShellClient::new(other);
        other.get_sandbox_config(request).await
    }
}

pub(super) async fn report(
    face: &Face,
    request: Request<v1::ReportPolicyStatusRequest>,
) -> Result<v1::ReportPolicyStatusResponse, Status> {
    let pass = own_pass(&request)?;
    check_own(pass, &request.get_ref().sandbox_id)?;
    if let Some(mut behind) = behind(face, Some(pass)) {
        return Ok(behind.report_policy_status(request).await?.into_inner());
    }
    let report = request.get_ref();
    tracing::debug!(
        sandbox = %pass.sandbox,
        version = report.version,
        status = report.status,
        "a sandbox has reported of its policy"
    );
    Ok(v1::ReportPolicyStatusResponse {})
}

/// The gateway that runs the sandbox, if there is one and it takes the caller's token.
fn behind(face: &Face, pass: Option<Pass>) -> Option<OpenShellClient<Channel>> {
    let theirs = pass.is_none_or(|pass| pass.signer == Signer::Gateway);
    theirs.then(|| face.behind().map(OpenShellClient::new))?
}

/// The configuration of a sandbox that no gateway runs: no policy, and the settings of all.
fn own(face: &Face, id: SandboxId) -> Result<Config, Status> {
    let state = face.state();
    let known = state.sandboxes.get(&id).ok_or_else(gone)?;
    Ok(Config {
        settings: settings::effective(&state),
        config_revision: state.platform.revision + 1,
        policy_source: sandbox::PolicySource::Sandbox.into(),
        workspace: known.workspace.to_string(),
        policy_validation_failure_mode: "retain_last_valid".to_owned(),
        ..Default::default()
    })
}

/// The same call once more.
fn same<Q: Clone>(request: &Request<Q>) -> Request<Q> {
    let metadata = request.metadata().clone();
    let message = request.get_ref().clone();
    Request::from_parts(metadata, tonic::Extensions::new(), message)
}
