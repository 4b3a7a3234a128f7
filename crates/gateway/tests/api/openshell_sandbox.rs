//! What OpenShell's sandboxes call, and the attachments that decide what they are given: a table
//! of request, answer and status for each method.

use std::time::Duration;

use evermint_core::command::Command;
use evermint_core::credential::{RefreshConfig, Value};
use evermint_core::mint::{Failure, FailureClass};
use evermint_core::secret::Secret;
use evermint_core::strategy::Strategy;
use evermint_gateway::{AdminToken, Config};
use evermint_proto::openshell::inference::v1 as routes;
use evermint_proto::openshell::inference::v1::inference_client::InferenceClient;
use evermint_proto::openshell::sandbox::v1 as sandbox;
use evermint_proto::openshell::v1;
use evermint_proto::openshell::v1::open_shell_client::OpenShellClient;
use evermint_proto::v1 as own;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::harness::{Harness, config, credentials};

const ADMIN: &str = "the-operator";

/// A cluster with an operator, who has attached `openai` to the sandbox `box`.
struct World {
    harness: Harness,
    id: String,
    token: String,
}

impl World {
    async fn start() -> Self {
        let admin = Some(AdminToken::new(&Secret::from(ADMIN)));
        let harness = Harness::with(Config { admin, ..config() }).await;
        let world = Self {
            harness,
            id: String::new(),
            token: String::new(),
        };
        world.provider("openai", "openai", "OPENAI_API_KEY").await;
        let created = world.create("box", &["openai"]).await.unwrap();
        let id = created.metadata.unwrap().id;
        let token = world.issue("box").await;
        Self { id, token, ..world }
    }

    fn face(&self) -> OpenShellClient<Channel> {
        OpenShellClient::new(self.harness.channel.clone())
    }

    fn routes(&self) -> InferenceClient<Channel> {
        InferenceClient::new(self.harness.channel.clone())
    }

    async fn provider(&self, name: &str, kind: &str, key: &str) {
        let create = own::CreateProviderRequest {
            name: name.to_owned(),
            r#type: kind.to_owned(),
            credentials: credentials(&[(key, "s3cret")]),
            ..Default::default()
        };
        let mut providers = self.harness.providers();
        providers.create_provider(by(ADMIN, create)).await.unwrap();
    }

    async fn create(&self, name: &str, providers: &[&str]) -> Result<v1::Sandbox, Status> {
        let create = v1::CreateSandboxRequest {
            name: name.to_owned(),
            spec: Some(v1::SandboxSpec {
                providers: providers.iter().map(|p| (*p).to_owned()).collect(),
                log_level: "debug".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let created = self.face().create_sandbox(by(ADMIN, create)).await?;
        Ok(created.into_inner().sandbox.unwrap())
    }

    async fn issue(&self, name: &str) -> String {
        let issue = own::IssueSandboxTokenRequest {
            sandbox: name.to_owned(),
            ..Default::default()
        };
        let mut tokens =
            own::sandbox_tokens_client::SandboxTokensClient::new(self.harness.channel.clone());
        let issued = tokens.issue_sandbox_token(by(ADMIN, issue)).await.unwrap();
        issued.into_inner().token
    }

    async fn attach(
        &self,
        sandbox: &str,
        provider: &str,
        expected: u64,
    ) -> Result<(v1::Sandbox, bool), Status> {
        let attach = v1::AttachSandboxProviderRequest {
            sandbox_name: sandbox.to_owned(),
            provider_name: provider.to_owned(),
            expected_resource_version: expected,
            ..Default::default()
        };
        let mut face = self.face();
        let answer = face.attach_sandbox_provider(by(ADMIN, attach)).await?;
        let answer = answer.into_inner();
        Ok((answer.sandbox.unwrap(), answer.attached))
    }

    async fn detach(
        &self,
        sandbox: &str,
        provider: &str,
        expected: u64,
    ) -> Result<(v1::Sandbox, bool), Status> {
        let detach = v1::DetachSandboxProviderRequest {
            sandbox_name: sandbox.to_owned(),
            provider_name: provider.to_owned(),
            expected_resource_version: expected,
            ..Default::default()
        };
        let mut face = self.face();
        let answer = face.detach_sandbox_provider(by(ADMIN, detach)).await?;
        let answer = answer.into_inner();
        Ok((answer.sandbox.unwrap(), answer.detached))
    }

    async fn environment(&self) -> v1::GetSandboxProviderEnvironmentResponse {
        self.environment_of(&self.id, &self.token, true)
            .await
            .unwrap()
    }

    async fn environment_of(
        &self,
        id: &str,
        token: &str,
        bindings: bool,
    ) -> Result<v1::GetSandboxProviderEnvironmentResponse, Status> {
        let get = v1::GetSandboxProviderEnvironmentRequest {
            sandbox_id: id.to_owned(),
            supports_static_credential_bindings: bindings,
        };
        let mut face = self.face();
        let answer = face
            .get_sandbox_provider_environment(by(token, get))
            .await?;
        Ok(answer.into_inner())
    }

    async fn config_of(
        &self,
        id: &str,
        token: &str,
    ) -> Result<sandbox::GetSandboxConfigResponse, Status> {
        let get = sandbox::GetSandboxConfigRequest {
            sandbox_id: id.to_owned(),
        };
        let answer = self.face().get_sandbox_config(by(token, get)).await?;
        Ok(answer.into_inner())
    }

    /// The revision by which a sandbox learns that its environment has changed.
    async fn revision(&self) -> u64 {
        let config = self.config_of(&self.id, &self.token).await.unwrap();
        config.provider_env_revision
    }

    async fn bundle_by(&self, token: &str) -> Result<routes::GetInferenceBundleResponse, Status> {
        let get = routes::GetInferenceBundleRequest {};
        let answer = self.routes().get_inference_bundle(by(token, get)).await?;
        Ok(answer.into_inner())
    }

    async fn bundle(&self) -> routes::GetInferenceBundleResponse {
        self.bundle_by(&self.token).await.unwrap()
    }

    async fn route(&self, name: &str, provider: &str) {
        let set = own::SetRouteRequest {
            name: name.to_owned(),
            provider: provider.to_owned(),
            model: "gpt-9".to_owned(),
            timeout_secs: 7,
            ..Default::default()
        };
        let mut inference = self.harness.inference();
        inference.set_route(by(ADMIN, set)).await.unwrap();
    }

    /// Puts a provider's credential under a refresh, anew each time.
    fn configure(&self, provider: &str, key: &str) {
        let credential = self.harness.credential(provider, key);
        let url = "https://issuer.example/token";
        let configured = self.harness.cluster.apply(Command::ConfigureRefresh {
            credential,
            config: RefreshConfig::new(Strategy::OAuth2ClientCredentials, url),
            material: Default::default(),
            expires_at: None,
        });
        configured.outcome.unwrap();
    }

    fn mint(&self, provider: &str, key: &str, token: &str) {
        let credential = self.harness.credential(provider, key);
        let life = Duration::from_secs(3_600);
        let minted = self.harness.cluster.mint(&credential, token, life);
        minted.outcome.unwrap();
    }

    fn value(&self, provider: &str, key: &str) -> Value {
        let credential = self.harness.credential(provider, key);
        let state = self.harness.cluster.committed();
        state.credentials[&credential].value.clone().unwrap()
    }
}

fn by<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = MetadataValue::try_from(format!("Bearer {token}")).unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

/// The code and the words of a refusal.
fn refusal<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String) {
    let status = answer.expect_err("it is refused");
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn create_sandbox() {
    let world = World::start().await;
    let made = world.create("one", &["openai"]).await.unwrap();
    let meta = made.metadata.unwrap();
    assert_eq!(
        (meta.name.as_str(), meta.workspace.as_str()),
        ("one", "default")
    );
    assert_eq!(meta.resource_version, 1);
    assert!(meta.created_at_ms > 0);
    assert_eq!(meta.id.len(), 36, "{}", meta.id);
    let spec = made.spec.unwrap();
    assert_eq!(spec.providers, ["openai"]);
    assert_eq!(spec.log_level, "debug");

    let generated = world.create("", &[]).await.unwrap().metadata.unwrap().name;
    assert!((1..=19).contains(&generated.len()), "{generated}");

    let many = vec!["openai"; 33];
    for (what, name, providers, code, message) in [
        (
            "taken",
            "one",
            vec![],
            Code::AlreadyExists,
            "sandbox already exists",
        ),
        (
            "long",
            "a-name-of-20-letters",
            vec![],
            Code::InvalidArgument,
            "name must be",
        ),
        (
            "no label",
            "A_b",
            vec![],
            Code::InvalidArgument,
            "name must be",
        ),
        (
            "an unknown provider",
            "two",
            vec!["openai", "nope"],
            Code::FailedPrecondition,
            "provider 'nope' not found",
        ),
        (
            "33 providers",
            "two",
            many,
            Code::InvalidArgument,
            "at most 32",
        ),
    ] {
        let (got, said) = refusal(world.create(name, &providers).await);
        assert_eq!(got, code, "{what}: {said}");
        assert!(said.contains(message), "{what}: {said}");
    }
    let without_spec = v1::CreateSandboxRequest::default();
    let answer = world.face().create_sandbox(by(ADMIN, without_spec)).await;
    let expected = (Code::InvalidArgument, "spec is required".to_owned());
    assert_eq!(refusal(answer), expected);
}

#[tokio::test]
async fn delete_sandbox() {
    let world = World::start().await;
    let delete = |name: &str, workspace: &str| {
        let name = name.to_owned();
        let workspace = workspace.to_owned();
        by(ADMIN, v1::DeleteSandboxRequest { name, workspace })
    };
    for (name, workspace, code) in [
        ("", "", Code::InvalidArgument),
        ("nope", "", Code::NotFound),
        ("b x", "", Code::NotFound),
        ("box", "other", Code::NotFound),
    ] {
        let answer = world.face().delete_sandbox(delete(name, workspace)).await;
        assert_eq!(refusal(answer).0, code, "{workspace}/{name}");
    }
    let answer = world.face().delete_sandbox(delete("box", "default")).await;
    assert!(answer.unwrap().into_inner().deleted);
    let answer = world.face().delete_sandbox(delete("box", "")).await;
    let expected = (Code::NotFound, "sandbox not found".to_owned());
    assert_eq!(refusal(answer), expected);
    // Its token still says who it is, and there is nothing for it any more.
    let ask = v1::GetSandboxProviderEnvironmentRequest {
        sandbox_id: world.id.clone(),
        supports_static_credential_bindings: true,
    };
    let mut face = world.face();
    let given = face.get_sandbox_provider_environment(by(&world.token, ask));
    assert_eq!(refusal(given.await).0, Code::NotFound);
}

#[tokio::test]
async fn get_sandbox_and_its_providers() {
    let world = World::start().await;
    world.provider("gh", "github", "GITHUB_TOKEN").await;
    world.attach("box", "gh", 0).await.unwrap();
    let get = |name: &str, workspace: &str| v1::GetSandboxRequest {
        name: name.to_owned(),
        workspace: workspace.to_owned(),
    };
    let got = world.face().get_sandbox(by(ADMIN, get("box", ""))).await;
    let got = got.unwrap().into_inner().sandbox.unwrap();
    assert_eq!(got.spec.unwrap().providers, ["openai", "gh"]);
    assert_eq!(got.metadata.unwrap().resource_version, 2);
    for (name, workspace, code) in [
        ("", "", Code::InvalidArgument),
        ("nope", "", Code::NotFound),
        ("box", "other", Code::NotFound),
        ("b x", "", Code::NotFound),
    ] {
        let answer = world
            .face()
            .get_sandbox(by(ADMIN, get(name, workspace)))
            .await;
        assert_eq!(refusal(answer).0, code, "get {workspace}/{name}");
        let list = v1::ListSandboxProvidersRequest {
            sandbox_name: name.to_owned(),
            workspace: workspace.to_owned(),
        };
        let answer = world.face().list_sandbox_providers(by(ADMIN, list)).await;
        assert_eq!(refusal(answer).0, code, "list {workspace}/{name}");
    }
    let list = v1::ListSandboxProvidersRequest {
        sandbox_name: "box".to_owned(),
        ..Default::default()
    };
    let list = world.face().list_sandbox_providers(by(ADMIN, list)).await;
    let list = list.unwrap().into_inner().providers;
    let names: Vec<_> = list
        .iter()
        .map(|p| p.metadata.as_ref().unwrap().name.as_str())
        .collect();
    assert_eq!(names, ["openai", "gh"]);
    assert_eq!(list[0].credentials["OPENAI_API_KEY"], "REDACTED");
}

#[tokio::test]
async fn attach_and_detach() {
    let world = World::start().await;
    world.provider("gh", "github", "GITHUB_TOKEN").await;
    world.provider("twin", "openai", "OPENAI_API_KEY").await;
    let (sandbox, attached) = world.attach("box", "gh", 1).await.unwrap();
    assert!(attached);
    assert_eq!(sandbox.metadata.unwrap().resource_version, 2);
    let (sandbox, attached) = world.attach("box", "gh", 2).await.unwrap();
    assert!(!attached, "again");
    assert_eq!(sandbox.spec.unwrap().providers, ["openai", "gh"]);

    for (what, sandbox, provider, expected, code) in [
        ("no provider's name", "box", "", 0, Code::InvalidArgument),
        ("no sandbox's name", "", "gh", 0, Code::InvalidArgument),
        (
            "unknown provider",
            "box",
            "nope",
            0,
            Code::FailedPrecondition,
        ),
        ("unknown sandbox", "nope", "gh", 0, Code::NotFound),
        ("an older version", "box", "gh", 1, Code::Aborted),
    ] {
        let attached = refusal(world.attach(sandbox, provider, expected).await);
        assert_eq!(attached.0, code, "attach, {what}: {}", attached.1);
        let detached = refusal(world.detach(sandbox, provider, expected).await);
        assert_eq!(detached.0, code, "detach, {what}: {}", detached.1);
    }
    let collision = refusal(world.attach("box", "twin", 0).await);
    assert_eq!(collision.0, Code::FailedPrecondition, "{}", collision.1);

    let (sandbox, detached) = world.detach("box", "openai", 2).await.unwrap();
    assert!(detached);
    assert_eq!(sandbox.spec.unwrap().providers, ["gh"]);
    let (_, detached) = world.detach("box", "openai", 0).await.unwrap();
    assert!(!detached, "again");
    assert!(
        !world
            .environment()
            .await
            .environment
            .contains_key("OPENAI_API_KEY")
    );
}

#[tokio::test]
async fn the_environment_of_static_and_of_minted_values() {
    let mut world = World::start().await;
    world.provider("gh", "github", "GITHUB_TOKEN").await;
    world.configure("gh", "GITHUB_TOKEN");
    world.mint("gh", "GITHUB_TOKEN", "ghs_1");
    world.attach("box", "gh", 0).await.unwrap();

    let first = world.environment().await;
    assert_eq!(first.provider_env_revision, world.revision().await);
    assert_eq!(first.environment["OPENAI_API_KEY"], "s3cret");
    assert_eq!(first.environment["GITHUB_TOKEN"], "ghs_1");
    let end = world.value("gh", "GITHUB_TOKEN").expires_at.unwrap();
    let ends = &first.credential_expires_at_ms;
    assert_eq!(ends["GITHUB_TOKEN"], i64::try_from(end.0).unwrap());
    assert!(!ends.contains_key("OPENAI_API_KEY"), "it has no end");

    let bindings = &first.static_credential_bindings;
    let openai = &bindings["OPENAI_API_KEY"];
    assert_eq!(openai.workload_credential_handle, "");
    assert!(openai.credential_identity.ends_with(":OPENAI_API_KEY"));
    let endpoint = &openai.endpoints[0];
    assert_eq!(
        (endpoint.host.as_str(), endpoint.port),
        ("api.openai.com", 443)
    );
    let handle = bindings["GITHUB_TOKEN"].workload_credential_handle.clone();
    assert!(handle.len() == 64 && handle.bytes().all(|b| b.is_ascii_hexdigit()));
    assert_eq!(
        bindings["GITHUB_TOKEN"].credential_identity,
        format!("refresh:{handle}")
    );

    // The next mint has another value under the same handle; a reconfiguration another handle.
    world.mint("gh", "GITHUB_TOKEN", "ghs_2");
    let second = world.environment().await;
    assert_eq!(second.environment["GITHUB_TOKEN"], "ghs_2");
    assert_ne!(second.provider_env_revision, first.provider_env_revision);
    let kept = &second.static_credential_bindings["GITHUB_TOKEN"];
    assert_eq!(kept.workload_credential_handle, handle);
    world.configure("gh", "GITHUB_TOKEN");
    let third = world.environment().await;
    let other = &third.static_credential_bindings["GITHUB_TOKEN"];
    assert_ne!(other.workload_credential_handle, handle);

    // A sandbox that knows no bindings gets nothing that needs one.
    let old = world.environment_of(&world.id, &world.token, false).await;
    let old = old.unwrap();
    assert!(old.environment.is_empty(), "{old:?}");
    assert_eq!(old.provider_env_revision, third.provider_env_revision);

    // Past its end nothing is left of it.
    world.harness.cluster.push_clock(Duration::from_secs(3_600));
    world.token = world.issue("box").await;
    let last = world.environment().await;
    assert!(!last.environment.contains_key("GITHUB_TOKEN"));
    assert!(!last.static_credential_bindings.contains_key("GITHUB_TOKEN"));
    assert_eq!(last.environment["OPENAI_API_KEY"], "s3cret");
    assert_eq!(last.provider_env_revision, world.revision().await);
}

#[tokio::test]
async fn one_providers_trouble_is_not_the_others() {
    let world = World::start().await;
    // No profile, and no URL that says where its token may be sent.
    world.provider("odd", "my-own-thing", "ODD_TOKEN").await;
    world.attach("box", "odd", 0).await.unwrap();
    let given = world.environment().await;
    let keys: Vec<_> = given.environment.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        ["OPENAI_API_KEY"],
        "a value without a binding would spoil the rest"
    );
    let bound: Vec<_> = given.static_credential_bindings.keys().collect();
    assert_eq!(bound, ["OPENAI_API_KEY"]);

    world.route("inference.local", "odd").await;
    world.route("sandbox-system", "openai").await;
    let names: Vec<_> = world.bundle().await.routes;
    let names: Vec<_> = names.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["sandbox-system"]);
}

#[tokio::test]
async fn revisions_change_with_what_a_sandbox_sees_and_with_nothing_else() {
    let world = World::start().await;
    world.provider("gh", "github", "GITHUB_TOKEN").await;
    world.configure("gh", "GITHUB_TOKEN");
    world.mint("gh", "GITHUB_TOKEN", "ghs_1");
    world.provider("odd", "my-own-thing", "ODD_TOKEN").await;
    world.attach("box", "odd", 0).await.unwrap();
    world.route("inference.local", "openai").await;
    let seen = async || (world.revision().await, world.bundle().await.revision);
    let before = seen().await;
    assert_eq!(seen().await, before, "asked again");

    let mut last = before.clone();
    let failure = || Failure {
        class: FailureClass::Transient,
        cause: "no answer".to_owned(),
        remedy: String::new(),
        retry_after_ms: None,
    };
    // What is not attached, not bound, or did not succeed.
    world.mint("gh", "GITHUB_TOKEN", "ghs_2");
    assert_eq!(seen().await, last, "a mint of what is not attached");
    world.configure("odd", "ODD_TOKEN");
    world.mint("odd", "ODD_TOKEN", "odd_2");
    assert_eq!(seen().await, last, "a mint of what is not given");
    world.create("other", &["openai"]).await.unwrap();
    assert_eq!(seen().await, last, "another sandbox");

    world.attach("box", "gh", 0).await.unwrap();
    let attached = seen().await;
    assert_ne!(attached.0, last.0);
    assert_eq!(attached.1, last.1, "the routes are the same");
    last = attached;
    let credential = world.harness.credential("gh", "GITHUB_TOKEN");
    world.harness.cluster.fail(&credential, failure());
    assert_eq!(seen().await, last, "a mint that failed");
    world.mint("gh", "GITHUB_TOKEN", "ghs_3");
    assert_ne!(seen().await.0, last.0, "a mint of what is given");

    let update = own::UpdateProviderRequest {
        name: "openai".to_owned(),
        credentials: credentials(&[("OPENAI_API_KEY", "n3w")]),
        ..Default::default()
    };
    let routes_before = world.bundle().await.revision;
    let mut providers = world.harness.providers();
    providers.update_provider(by(ADMIN, update)).await.unwrap();
    let bundle = world.bundle().await;
    assert_ne!(bundle.revision, routes_before);
    assert_eq!(bundle.routes[0].api_key, "n3w");
}

#[tokio::test]
async fn the_inference_bundle() {
    let world = World::start().await;
    let empty = world.bundle().await;
    assert!(empty.routes.is_empty());
    world.route("sandbox-system", "openai").await;
    world.route("inference.local", "openai").await;
    world.route("mine", "openai").await;
    let bundle = world.bundle().await;
    assert_eq!(bundle.revision.len(), 16);
    assert!(bundle.revision.bytes().all(|b| b.is_ascii_hexdigit()));
    assert_ne!(bundle.revision, empty.revision);
    assert!(bundle.generated_at_ms > 0);
    let names: Vec<_> = bundle.routes.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["inference.local", "sandbox-system"]);
    let route = &bundle.routes[0];
    assert_eq!(route.base_url, "https://api.openai.com/v1");
    assert_eq!(route.api_key, "s3cret");
    assert_eq!(route.model_id, "gpt-9");
    assert_eq!(route.provider_type, "openai");
    assert_eq!(route.timeout_secs, 7);
    assert!(
        route
            .protocols
            .contains(&"openai_chat_completions".to_owned())
    );
    assert!(!route.model_in_path);
    assert_eq!(route.request_path_override, None);
}

#[tokio::test]
async fn the_configuration_and_reports_of_it() {
    let world = World::start().await;
    let config = world.config_of(&world.id, &world.token).await.unwrap();
    assert_eq!(config.workspace, "default");
    let environment = world.environment().await;
    assert_eq!(
        config.provider_env_revision,
        environment.provider_env_revision
    );
    assert_ne!(config.provider_env_revision, 0);
    assert!(!config.extension_authentication_enabled);
    // Operators may look at it, too.
    world.config_of(&world.id, ADMIN).await.unwrap();
    for id in ["", "no-uuid", "00000000-0000-4000-8000-000000000000"] {
        let answer = refusal(world.config_of(id, ADMIN).await);
        assert_eq!(answer.0, Code::NotFound, "{id}");
    }
    let report = |id: &str| v1::ReportPolicyStatusRequest {
        sandbox_id: id.to_owned(),
        version: 1,
        status: v1::PolicyStatus::Loaded.into(),
        load_error: String::new(),
    };
    let mut face = world.face();
    let reported = face
        .report_policy_status(by(&world.token, report(&world.id)))
        .await;
    reported.unwrap();
    let other = face
        .report_policy_status(by(&world.token, report("other")))
        .await;
    assert_eq!(refusal(other).0, Code::PermissionDenied);
}

#[tokio::test]
async fn a_sandbox_speaks_for_itself_alone_and_an_operator_for_no_sandbox() {
    let world = World::start().await;
    let other = world.create("other", &[]).await.unwrap();
    let other = other.metadata.unwrap().id;
    for id in [other.as_str(), "", "no-uuid"] {
        for answer in [
            refusal(world.environment_of(id, &world.token, true).await),
            refusal(world.config_of(id, &world.token).await),
        ] {
            assert_eq!(answer.0, Code::PermissionDenied, "{id}");
            assert!(
                answer.1.starts_with("cross-sandbox access denied: "),
                "{}",
                answer.1
            );
        }
    }
    let needs = (
        Code::PermissionDenied,
        "this method requires a sandbox principal".to_owned(),
    );
    assert_eq!(
        refusal(world.environment_of(&world.id, ADMIN, true).await),
        needs
    );
    assert_eq!(refusal(world.bundle_by(ADMIN).await), needs);
    let get = v1::GetSandboxRequest {
        name: "box".to_owned(),
        ..Default::default()
    };
    let answer = world.face().get_sandbox(by(&world.token, get)).await;
    let expected = "sandbox principals may not call this method".to_owned();
    assert_eq!(refusal(answer), (Code::PermissionDenied, expected));
    for token in ["a.b.c", "nonsense"] {
        let answer = refusal(world.bundle_by(token).await);
        assert_eq!(answer, (Code::Unauthenticated, "invalid token".to_owned()));
    }
    let nothing = {
        let mut routes_client = world.routes();
        routes_client
            .get_inference_bundle(routes::GetInferenceBundleRequest {})
            .await
    };
    let expected = "missing authorization header".to_owned();
    assert_eq!(refusal(nothing), (Code::Unauthenticated, expected));
}

#[tokio::test]
async fn a_deleted_sandbox_is_not_found_by_its_token() {
    let world = World::start().await;
    let delete = own::DeleteSandboxRequest {
        name: "box".to_owned(),
        ..Default::default()
    };
    let mut sandboxes = world.harness.sandboxes();
    sandboxes.delete_sandbox(by(ADMIN, delete)).await.unwrap();
    let gone = (Code::NotFound, "sandbox not found".to_owned());
    let environment = world.environment_of(&world.id, &world.token, true).await;
    assert_eq!(refusal(environment), gone);
    assert_eq!(
        refusal(world.config_of(&world.id, &world.token).await),
        gone
    );
    assert_eq!(refusal(world.bundle_by(&world.token).await), gone);
    let refresh = v1::RefreshSandboxTokenRequest::default();
    let mut face = world.face();
    let refresh = face.refresh_sandbox_token(by(&world.token, refresh));
    assert_eq!(refusal(refresh.await), gone);
}

#[tokio::test]
async fn tokens_are_refreshed_in_the_gateways_form() {
    let world = World::start().await;
    let refresh = |names: &[&str]| v1::RefreshSandboxTokenRequest {
        extension_service_names: names.iter().map(|n| (*n).to_owned()).collect(),
    };
    let mut face = world.face();
    world.harness.cluster.push_clock(Duration::from_secs(3_000));
    let next = face
        .refresh_sandbox_token(by(&world.token, refresh(&[])))
        .await;
    let next = next.unwrap().into_inner();
    assert!(next.extension_credentials.is_empty());
    world.harness.cluster.push_clock(Duration::from_secs(700));
    let old = refusal(world.bundle_by(&world.token).await);
    assert_eq!(old.0, Code::Unauthenticated, "{}", old.1);
    world.bundle_by(&next.token).await.unwrap();

    let claims = next.token.split('.').nth(1).unwrap();
    let claims = base64::Engine::decode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, claims).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["iss"], "openshell-gateway:openshell");
    assert_eq!(claims["aud"], "openshell-gateway:openshell");
    assert_eq!(claims["sandbox_id"], world.id);
    assert_eq!(
        claims["sub"],
        format!("spiffe://openshell/sandbox/{}", world.id)
    );
    assert_eq!(claims["exp"].as_i64().unwrap() * 1_000, next.expires_at_ms);

    let many: Vec<String> = (0..65).map(|n| format!("s{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (what, names) in [
        ("twice", vec!["a", "a"]),
        ("65", many),
        ("unknown", vec!["a"]),
    ] {
        let answer = face
            .refresh_sandbox_token(by(&next.token, refresh(&names)))
            .await;
        assert_eq!(refusal(answer).0, Code::InvalidArgument, "{what}");
    }
    let operator = face.refresh_sandbox_token(by(ADMIN, refresh(&[]))).await;
    assert_eq!(refusal(operator).0, Code::PermissionDenied);
    let issue = v1::IssueSandboxTokenRequest {};
    let issue = face.issue_sandbox_token(by(&next.token, issue)).await;
    assert_eq!(refusal(issue).0, Code::PermissionDenied);
}

#[tokio::test]
async fn revoked_tokens_open_nothing_here_either() {
    let world = World::start().await;
    let revoke = own::RevokeSandboxTokensRequest {
        sandbox: "box".to_owned(),
        ..Default::default()
    };
    let channel = world.harness.channel.clone();
    let mut tokens = own::sandbox_tokens_client::SandboxTokensClient::new(channel);
    tokens
        .revoke_sandbox_tokens(by(ADMIN, revoke))
        .await
        .unwrap();
    let answer = refusal(world.bundle_by(&world.token).await);
    assert_eq!(
        answer,
        (Code::Unauthenticated, "the token was revoked".to_owned())
    );
}

#[tokio::test]
async fn a_replica_that_is_behind_waits_until_it_is_not() {
    let world = World::start().await;
    let before = world.environment().await;
    world.harness.cluster.hold();
    world.change_past();
    let cluster = world.harness.cluster.clone();
    let asking = world.environment();
    let (after, ()) = tokio::join!(asking, async {
        // The call has reached the replica, which waits for what it knows to be missing.
        tokio::time::sleep(Duration::from_millis(50)).await;
        cluster.release();
    });
    assert_ne!(after.environment, before.environment);
    assert_eq!(after.environment["OPENAI_API_KEY"], "changed");
}

#[tokio::test]
async fn in_doubt_what_would_be_lost_is_served_and_what_is_kept_is_refused() {
    let world = World::start().await;
    world.route("inference.local", "openai").await;
    let before = world.environment().await;
    world.harness.cluster.cut_off();
    let config = refusal(world.config_of(&world.id, &world.token).await);
    assert_eq!(config.0, Code::Unavailable, "{}", config.1);
    assert_eq!(world.environment().await, before);
    assert_eq!(world.bundle().await.routes.len(), 1);
    world.harness.cluster.never_in_touch();
    let answer = world.environment_of(&world.id, &world.token, true).await;
    assert_eq!(refusal(answer).0, Code::Unavailable);
    world.harness.cluster.reconnect();
    world.revision().await;
}

impl World {
    /// Changes the value of `openai` at the leader, past this replica.
    fn change_past(&self) {
        let credential = self.harness.credential("openai", "OPENAI_API_KEY");
        let context = evermint_seal::Context::value(&credential, &credential.key);
        let sealed = self
            .harness
            .cluster
            .keyring()
            .seal(&context, &Secret::from("changed"));
        let changed = self.harness.cluster.apply(Command::UpdateProvider {
            id: credential.provider,
            expected_version: None,
            config: Default::default(),
            credentials: [(
                credential.key,
                Some(evermint_core::command::StaticValue {
                    sealed: sealed.unwrap(),
                    expires_at: None,
                }),
            )]
            .into(),
            expires_at: Default::default(),
        });
        changed.outcome.unwrap();
    }
}

#[tokio::test]
async fn a_token_whose_key_a_replica_does_not_know_yet_is_waited_for() {
    let admin = Some(AdminToken::new(&Secret::from(ADMIN)));
    let harness = Harness::with(Config { admin, ..config() }).await;
    let world = World {
        harness,
        id: String::new(),
        token: String::new(),
    };
    let id = world.create("box", &[]).await.unwrap().metadata.unwrap().id;
    world.harness.cluster.hold();
    // The first token brings the key; this replica has not seen it, and the answer was lost here.
    let issue = own::IssueSandboxTokenRequest {
        sandbox: "box".to_owned(),
        ..Default::default()
    };
    let channel = world.harness.channel.clone();
    let mut tokens = own::sandbox_tokens_client::SandboxTokensClient::new(channel);
    let lost = tokens.issue_sandbox_token(by(ADMIN, issue)).await;
    lost.expect_err("the key is not seen here");
    let state = world.harness.cluster.committed();
    let (kid, key) = state.signing_keys.iter().next().unwrap();
    let keyring = world.harness.cluster.keyring();
    let private = keyring.open(&evermint_seal::Context::signing_key(*kid), &key.private);
    let token = signed(*kid, private.unwrap().expose(), &id);
    let asking = world.environment_of(&id, &token, true);
    let (answer, ()) = tokio::join!(asking, async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.harness.cluster.release();
    });
    answer.unwrap();
}

/// A token as another replica gives it.
fn signed(kid: evermint_core::id::SigningKeyId, private: &[u8], id: &str) -> String {
    let header = jsonwebtoken::Header {
        kid: Some(kid.to_string()),
        ..jsonwebtoken::Header::new(jsonwebtoken::Algorithm::EdDSA)
    };
    let authority = "openshell-gateway:openshell";
    let claims = serde_json::json!({
        "iss": authority, "aud": authority, "sub": format!("spiffe://openshell/sandbox/{id}"),
        "exp": 9_999_999_999_u64, "sandbox_id": id, "epoch": 1,
    });
    let key = jsonwebtoken::EncodingKey::from_ed_der(private);
    jsonwebtoken::encode(&header, &claims, &key).unwrap()
}
