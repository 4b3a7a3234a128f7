//! OpenShell's services, method by method: request, answer, status code.

mod gateway;
mod inference;
mod profiles;
mod providers;
mod refresh;

use std::collections::BTreeMap;

use evermint_proto::openshell::datamodel::v1 as datamodel;
use evermint_proto::openshell::inference::v1::inference_client::InferenceClient;
use evermint_proto::openshell::v1;
use evermint_proto::openshell::v1::open_shell_client::OpenShellClient;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use crate::harness::Harness;

impl Harness {
    fn openshell(&self) -> OpenShellClient<Channel> {
        OpenShellClient::new(self.channel.clone())
    }

    fn routes(&self) -> InferenceClient<Channel> {
        InferenceClient::new(self.channel.clone())
    }

    /// One row of a table: this method answers this request with this code and these words.
    async fn refuses<R>(&self, method: &str, request: R, code: Code, words: &str)
    where
        R: prost::Message + std::fmt::Debug + Send + Sync + 'static,
    {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await.unwrap();
        let service = match method.contains("Inference") {
            true => "openshell.inference.v1.Inference",
            false => "openshell.v1.OpenShell",
        };
        let shown = format!("{method} {request:?}");
        let path = format!("/{service}/{method}").parse().unwrap();
        let codec = ProstCodec::<R, ()>::default();
        let status = client
            .unary(Request::new(request), path, codec)
            .await
            .expect_err(&shown);
        assert_eq!(status.code(), code, "{shown}: {status:?}");
        assert!(status.message().contains(words), "{shown}: {status:?}");
    }

    /// Creates a provider, as the command line does.
    async fn create(&self, name: &str, kind: &str, values: &[(&str, &str)]) -> datamodel::Provider {
        let request = v1::CreateProviderRequest {
            provider: Some(provider(name, kind, values)),
            workspace: String::new(),
        };
        let created = self.openshell().create_provider(request).await.unwrap();
        created.into_inner().provider.unwrap()
    }
}

fn provider(name: &str, kind: &str, values: &[(&str, &str)]) -> datamodel::Provider {
    datamodel::Provider {
        metadata: Some(datamodel::ObjectMeta {
            name: name.to_owned(),
            ..Default::default()
        }),
        r#type: kind.to_owned(),
        credentials: strings(values),
        ..Default::default()
    }
}

fn strings(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    crate::harness::strings(entries)
}
