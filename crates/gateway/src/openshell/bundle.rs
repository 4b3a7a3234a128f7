//! The inference bundle that sandboxes poll.

use evermint_proto::openshell::inference::v1;
use evermint_proto::openshell::inference::v1::inference_client::InferenceClient;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::Face;
use super::meta::millis;
use super::reader::{Call, Doubt, Poll, own_pass};

type Asked = v1::GetInferenceBundleRequest;
type Routes = v1::GetInferenceBundleResponse;

pub(super) async fn get(face: &Face, request: Request<Asked>) -> Result<Routes, Status> {
    let pass = own_pass(&request)?;
    let call = Call {
        pass: Some(pass),
        sandbox: pass.sandbox,
        request,
    };
    face.serve(call).await
}

#[tonic::async_trait]
impl Poll for Asked {
    type Answer = Routes;

    // An error of the first call leaves the sandbox without inference for all its life, and nothing
    // tells the first call from a later one.
    const IN_DOUBT: Doubt = Doubt::Serve;

    async fn here(face: &Face, call: &Call<Self>) -> Result<Routes, Status> {
        let ready = face.bundle_of(call)?;
        Ok(Routes {
            routes: ready.openshell.routes(&ready.bundle()?),
            revision: ready.openshell.routes_revision(),
            generated_at_ms: millis(face.ports.view.now()),
        })
    }

    async fn elsewhere(other: Channel, request: Request<Self>) -> Result<Response<Routes>, Status> {
        let mut other = InferenceClient::new(other);
        other.get_inference_bundle(request).await
    }
}
