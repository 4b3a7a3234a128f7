//! The environment that sandboxes poll.

use evermint_proto::openshell::v1;
use evermint_proto::openshell::v1::open_shell_client::OpenShellClient;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::Face;
use super::reader::{Call, Doubt, Poll, check_own, own_pass};

type Asked = v1::GetSandboxProviderEnvironmentRequest;
type Environment = v1::GetSandboxProviderEnvironmentResponse;

pub(super) async fn get(face: &Face, request: Request<Asked>) -> Result<Environment, Status> {
    let pass = own_pass(&request)?;
    check_own(pass, &request.get_ref().sandbox_id)?;
    let call = Call {
        pass: Some(pass),
        sandbox: pass.sandbox,
        request,
    };
    face.serve(call).await
}

#[tonic::async_trait]
impl Poll for Asked {
    type Answer = Environment;

    // One error, and the sandbox drops every credential that it has.
    const IN_DOUBT: Doubt = Doubt::Serve;

    async fn here(face: &Face, call: &Call<Self>) -> Result<Environment, Status> {
        let ready = face.bundle_of(call)?;
        let mut environment = ready.openshell.environment(ready.bundle()?);
        if !call.request.get_ref().supports_static_credential_bindings {
            strip(&mut environment);
        }
        Ok(environment)
    }

    async fn elsewhere(
        other: Channel,
        request: Request<Self>,
    ) -> Result<Response<Environment>, Status> {
        let mut other = OpenShellClient::new(other);
        other.get_sandbox_provider_environment(request).await
    }
}

/// Takes out what a sandbox that knows no bindings would use anywhere.
fn strip(environment: &mut Environment) {
    for key in std::mem::take(&mut environment.static_credential_bindings).into_keys() {
        environment.environment.remove(&key);
        environment.credential_expires_at_ms.remove(&key);
    }
}
