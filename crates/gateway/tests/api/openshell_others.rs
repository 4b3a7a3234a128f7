//! A replica that cannot tell whether it is up to date asks the others for their answer, once.

use evermint_core::command::Command;
use evermint_core::id::InstallationId;
use evermint_gateway::Config;
use evermint_proto::openshell::sandbox::v1 as sandbox;
use evermint_proto::openshell::v1;
use evermint_proto::openshell::v1::open_shell_client::OpenShellClient;
use evermint_proto::v1 as own;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

use crate::harness::{Harness, config};
use crate::openshell_behind::{Asked, gateway_behind, router};
use crate::secure;

#[tokio::test]
async fn in_doubt_another_replicas_answer_counts() {
    // It answers like a replica, with what no other one would say.
    let asked = Asked::default();
    let other = gateway_behind(&asked).await;
    check(Harness::start().await, other, &asked).await;
}

#[tokio::test]
async fn replicas_that_are_served_over_tls_ask_each_other_over_tls() {
    let mut harness = Harness::with(Config {
        tls: Some(secure::tls_files()),
        ..config()
    })
    .await;
    harness.channel = secure::endpoint(harness.address).connect_lazy();
    let asked = Asked::default();
    let other = secure::serve(router(&asked)).await;
    check(harness, other, &asked).await;
}

async fn check(harness: Harness, other: String, asked: &Asked) {
    let create = own::CreateSandboxRequest {
        name: "box".to_owned(),
        ..Default::default()
    };
    let created = harness.sandboxes().create_sandbox(create).await.unwrap();
    let id = created.into_inner().sandbox.unwrap().id;
    let issue = own::IssueSandboxTokenRequest {
        sandbox: "box".to_owned(),
        ..Default::default()
    };
    let channel = harness.channel.clone();
    let mut tokens = own::sandbox_tokens_client::SandboxTokensClient::new(channel);
    let token = tokens.issue_sandbox_token(issue).await.unwrap();
    let token = token.into_inner().token;
    harness.cluster.apply(Command::RegisterReplica {
        installation: InstallationId(2),
        peer_address: "127.0.0.1:1".to_owned(),
        api_address: other,
    });
    let mut face = OpenShellClient::new(harness.channel.clone());
    let environment = |passed_on: bool| {
        let mut request = Request::new(v1::GetSandboxProviderEnvironmentRequest {
            sandbox_id: id.clone(),
            supports_static_credential_bindings: true,
        });
        let bearer = MetadataValue::try_from(format!("Bearer {token}")).unwrap();
        request.metadata_mut().insert("authorization", bearer);
        if passed_on {
            let once = MetadataValue::from_static("1");
            request.metadata_mut().insert("evermint-passed-on", once);
        }
        request
    };
    let answer = face.get_sandbox_provider_environment(environment(false));
    assert_ne!(answer.await.unwrap().into_inner().provider_env_revision, 4);
    assert!(asked.lock().unwrap().is_empty(), "nobody was in doubt");

    harness.cluster.cut_off();
    let answer = face.get_sandbox_provider_environment(environment(false));
    assert_eq!(answer.await.unwrap().into_inner().provider_env_revision, 4);
    let expected = ("GetSandboxProviderEnvironment", token.clone(), vec![]);
    assert_eq!(
        *asked.lock().unwrap(),
        [expected],
        "with the sandbox's own token"
    );
    let mut config = Request::new(sandbox::GetSandboxConfigRequest {
        sandbox_id: id.clone(),
    });
    let bearer = MetadataValue::try_from(format!("Bearer {token}")).unwrap();
    config.metadata_mut().insert("authorization", bearer);
    let config = face.get_sandbox_config(config).await.unwrap();
    assert_eq!(config.into_inner().policy_hash, "theirs");
    // What was passed on once is not passed on again.
    let refused = face.get_sandbox_provider_environment(environment(true));
    assert_eq!(refused.await.unwrap_err().code(), Code::Unavailable);
}
