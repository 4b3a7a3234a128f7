//! What OpenShell's command line calls when somebody follows its tutorials of providers, call by
//! call and each at another replica: as its requests are, and with the metadata that it sends.

use std::collections::BTreeMap;
use std::time::Duration;

use evermint_cluster_tests::{Cluster, Idp, Options, TTL_FOR_EVER, unix_ms};
use evermint_issuer::{Authentication, Client};
use evermint_proto::openshell::datamodel::v1::{ObjectMeta, Provider};
use evermint_proto::openshell::inference::v1 as routes;
use evermint_proto::openshell::inference::v1::inference_client::InferenceClient;
use evermint_proto::openshell::sandbox::v1 as config;
use evermint_proto::openshell::sandbox::v1::NetworkEndpoint;
use evermint_proto::openshell::v1::open_shell_client::OpenShellClient;
use evermint_proto::openshell::v1::{self, ProviderCredentialRefreshStrategy as Strategy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

/// Calls, each at the replica after that of the one before.
struct Cli<'c> {
    cluster: &'c Cluster,
    calls: usize,
}

impl Cli<'_> {
    fn channel(&mut self) -> Channel {
        self.calls += 1;
        let replica = self.cluster.replica(self.calls % self.cluster.len());
        let url = format!("http://127.0.0.1:{}", replica.api_port);
        let endpoint = Endpoint::from_shared(url).expect("a URL");
        endpoint.timeout(CALL).connect_lazy()
    }

    fn gateway(&mut self) -> OpenShellClient<Channel> {
        OpenShellClient::new(self.channel())
    }

    fn inference(&mut self) -> InferenceClient<Channel> {
        InferenceClient::new(self.channel())
    }
}

/// A request with the header that the command line sends.
fn with<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let token = MetadataValue::from_static("Bearer local-dev");
    request.metadata_mut().insert("authorization", token);
    request.metadata_mut().insert(
        "x-request-id",
        MetadataValue::from_static("6a1c9a52-0000-4000-8000-000000000001"),
    );
    request
}

/// How long one call may take; a rotation waits for its mint.
const CALL: Duration = Duration::from_secs(60);
const KEY: &str = "ACME_TOKEN";
const WORKSPACE: &str = "default";

fn profile(token_url: &str) -> v1::ProviderProfile {
    let material = |name: &str, secret| v1::ProviderCredentialRefreshMaterial {
        name: name.to_owned(),
        required: true,
        secret,
        ..Default::default()
    };
    v1::ProviderProfile {
        id: "acme".to_owned(),
        display_name: "Acme".to_owned(),
        category: v1::ProviderProfileCategory::Inference.into(),
        credentials: vec![v1::ProviderProfileCredential {
            name: "access_token".to_owned(),
            env_vars: vec![KEY.to_owned()],
            required: true,
            auth_style: "bearer".to_owned(),
            header_name: "authorization".to_owned(),
            refresh: Some(v1::ProviderCredentialRefresh {
                strategy: Strategy::Oauth2ClientCredentials.into(),
                token_url: token_url.to_owned(),
                material: vec![
                    material("client_id", false),
                    material("client_secret", true),
                ],
                ..Default::default()
            }),
            ..Default::default()
        }],
        endpoints: vec![NetworkEndpoint {
            host: "api.acme.example".to_owned(),
            port: 443,
            protocol: "rest".to_owned(),
            access: "read-write".to_owned(),
            enforcement: "enforce".to_owned(),
            ..Default::default()
        }],
        inference_capable: true,
        ..Default::default()
    }
}

fn items(token_url: &str) -> Vec<v1::ProviderProfileImportItem> {
    vec![v1::ProviderProfileImportItem {
        profile: Some(profile(token_url)),
        source: "acme.yaml".to_owned(),
    }]
}

fn named(name: &str) -> Option<ObjectMeta> {
    Some(ObjectMeta {
        name: name.to_owned(),
        ..ObjectMeta::default()
    })
}

fn strings(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    entries.iter().map(owned).collect()
}

async fn profiles(cli: &mut Cli<'_>, token_url: &str) {
    let lint = v1::LintProviderProfilesRequest {
        profiles: items(token_url),
        workspace: WORKSPACE.to_owned(),
    };
    let linted = cli.gateway().lint_provider_profiles(with(lint)).await;
    let linted = linted.expect("a lint").into_inner();
    assert!(linted.valid, "{:?}", linted.diagnostics);

    let import = v1::ImportProviderProfilesRequest {
        profiles: items(token_url),
        workspace: WORKSPACE.to_owned(),
    };
    let imported = cli.gateway().import_provider_profiles(with(import)).await;
    let imported = imported.expect("an import").into_inner();
    assert!(imported.imported, "{:?}", imported.diagnostics);

    let get = v1::GetProviderProfileRequest {
        id: "acme".to_owned(),
        workspace: WORKSPACE.to_owned(),
    };
    let got = cli.gateway().get_provider_profile(with(get)).await;
    let got = got.expect("the profile").into_inner().profile;
    assert_eq!(got.expect("it").resource_version, 1);
    let list = v1::ListProviderProfilesRequest {
        workspace: WORKSPACE.to_owned(),
        ..Default::default()
    };
    let listed = cli.gateway().list_provider_profiles(with(list)).await;
    let listed = listed.expect("the profiles").into_inner().profiles;
    let ids: Vec<_> = listed.into_iter().map(|profile| profile.id).collect();
    assert!(ids.is_sorted(), "{ids:?}");
    for id in ["acme", "openai", "anthropic", "github"] {
        assert!(ids.iter().any(|known| known == id), "{id}: {ids:?}");
    }
}

async fn create(cli: &mut Cli<'_>, provider: Provider) -> Provider {
    let create = v1::CreateProviderRequest {
        provider: Some(provider),
        workspace: WORKSPACE.to_owned(),
    };
    let created = cli.gateway().create_provider(with(create)).await;
    created
        .expect("a provider")
        .into_inner()
        .provider
        .expect("it")
}

async fn get(cli: &mut Cli<'_>, name: &str) -> Provider {
    let get = v1::GetProviderRequest {
        name: name.to_owned(),
        workspace: WORKSPACE.to_owned(),
    };
    let got = cli.gateway().get_provider(with(get)).await;
    got.expect("the provider")
        .into_inner()
        .provider
        .expect("it")
}

async fn status(cli: &mut Cli<'_>) -> v1::ProviderCredentialRefreshStatus {
    let status = v1::GetProviderRefreshStatusRequest {
        provider: "main".to_owned(),
        credential_key: KEY.to_owned(),
        workspace: WORKSPACE.to_owned(),
    };
    let got = cli
        .gateway()
        .get_provider_refresh_status(with(status))
        .await;
    let credentials = got.expect("a status").into_inner().credentials;
    credentials.into_iter().next().expect("one refresh")
}

async fn configure(cli: &mut Cli<'_>, secret: &str) {
    let configure = v1::ConfigureProviderRefreshRequest {
        provider: "main".to_owned(),
        credential_key: KEY.to_owned(),
        strategy: Strategy::Oauth2ClientCredentials.into(),
        material: strings(&[("client_id", "cli"), ("client_secret", secret)]),
        secret_material_keys: vec!["client_secret".to_owned()],
        expires_at_ms: None,
        workspace: WORKSPACE.to_owned(),
    };
    let configured = cli
        .gateway()
        .configure_provider_refresh(with(configure))
        .await;
    let status = configured.expect("a refresh").into_inner().status;
    assert_eq!(status.expect("its status").credential_key, KEY);
}

fn rotate() -> Request<v1::RotateProviderCredentialRequest> {
    with(v1::RotateProviderCredentialRequest {
        provider: "main".to_owned(),
        credential_key: KEY.to_owned(),
        workspace: WORKSPACE.to_owned(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_of_openshells_command_line_pass_at_any_replica() {
    let idp = Idp::built_in(TTL_FOR_EVER).await;
    let client = Client::new("cli").secret("cli-secret");
    // OpenShell sends the secret in the form alone.
    idp.register(&client.authentication(Authentication::Post))
        .await;
    let cluster = Cluster::start(Options::default()).await;
    let cli = &mut Cli {
        cluster: &cluster,
        calls: 0,
    };

    // openshell status
    let health = cli
        .gateway()
        .health(Request::new(v1::HealthRequest {}))
        .await;
    let health = health.expect("health").into_inner();
    assert_eq!(health.status(), v1::ServiceStatus::Healthy);
    let info = with(v1::GetGatewayInfoRequest {});
    let info = cli.gateway().get_gateway_info(info).await.expect("info");
    assert_eq!(info.into_inner().gateway_version, health.version);

    settings(cli).await;
    // openshell provider profile lint, import, list; provider create
    profiles(cli, &idp.token_url()).await;
    let main = Provider {
        metadata: named("main"),
        r#type: "acme".to_owned(),
        profile_workspace: WORKSPACE.to_owned(),
        ..Provider::default()
    };
    let created = create(cli, main).await;
    assert_eq!(created.profile_workspace, WORKSPACE);

    // openshell provider refresh configure, rotate, status: first with a wrong secret
    configure(cli, "wrong").await;
    let refused = cli.gateway().rotate_provider_credential(rotate()).await;
    let refused = refused.expect_err("a wrong secret");
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(
        refused.message().contains("token endpoint returned HTTP 4"),
        "{refused:?}"
    );
    assert_eq!(status(cli).await.status, "error");
    configure(cli, "cli-secret").await;
    let rotated = cli.gateway().rotate_provider_credential(rotate()).await;
    let rotated = rotated
        .expect("a rotation")
        .into_inner()
        .status
        .expect("it");
    assert_eq!(rotated.status, "refreshed");
    let now = i64::try_from(unix_ms()).expect("in this era");
    assert!(rotated.expires_at_ms > now + 60_000, "{rotated:?}");
    let shown = status(cli).await;
    assert_eq!(
        (shown.status.as_str(), shown.last_error.as_str()),
        ("refreshed", "")
    );
    let provider = get(cli, "main").await;
    assert_eq!(provider.credentials, strings(&[(KEY, "REDACTED")]));
    assert_eq!(provider.credential_expires_at_ms[KEY], shown.expires_at_ms);

    // openshell provider update --credential-expires-at, of one that is not minted
    let endpoint = endpoint().await;
    let plain = Provider {
        metadata: named("plain"),
        r#type: "openai".to_owned(),
        credentials: strings(&[("OPENAI_API_KEY", "sk-test")]),
        config: strings(&[("OPENAI_BASE_URL", &endpoint)]),
        ..Provider::default()
    };
    create(cli, plain).await;
    let ends = |ms| BTreeMap::from([("OPENAI_API_KEY".to_owned(), ms)]);
    let update = v1::UpdateProviderRequest {
        provider: Some(Provider {
            metadata: named("plain"),
            ..Provider::default()
        }),
        credential_expires_at_ms: ends(now + 3_600_000),
        workspace: WORKSPACE.to_owned(),
    };
    cli.gateway()
        .update_provider(with(update))
        .await
        .expect("an update");
    let provider = get(cli, "plain").await;
    assert_eq!(provider.credential_expires_at_ms, ends(now + 3_600_000));
    assert_eq!(provider.metadata.expect("it").resource_version, 2);

    inference(cli, &endpoint).await;
    sandbox(cli).await;
    delete(cli).await;

    let history = idp.history().await;
    let minted = history.records().count();
    assert!(minted >= 2, "the issuer was asked {minted} times");
    assert_eq!(idp.overlaps().await, []);
}

/// openshell settings set --global, get.
async fn settings(cli: &mut Cli<'_>) {
    let set = v1::UpdateConfigRequest {
        global: true,
        setting_key: "providers_v2_enabled".to_owned(),
        setting_value: Some(config::SettingValue {
            value: Some(config::setting_value::Value::BoolValue(true)),
        }),
        ..Default::default()
    };
    let set = cli.gateway().update_config(with(set)).await;
    assert_eq!(set.expect("a setting").into_inner().settings_revision, 1);
    let get = with(config::GetGatewayConfigRequest {});
    let got = cli.gateway().get_gateway_config(get).await;
    let got = got.expect("the settings").into_inner();
    assert_eq!((got.settings.len(), got.settings_revision), (4, 1));
    let on = Some(config::setting_value::Value::BoolValue(true));
    assert_eq!(got.settings["providers_v2_enabled"].value, on);
}

/// An inference endpoint that knows one key, and answers one call on each connection; its base URL.
async fn endpoint() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut head = String::new();
            while !head.contains("\r\n\r\n") {
                let mut part = [0; 1024];
                let n = stream.read(&mut part).await.unwrap_or(0);
                if n == 0 {
                    break;
                }
                head.push_str(&String::from_utf8_lossy(&part[..n]));
            }
            let is_known = head.starts_with("POST /v1/chat/completions ")
                && head.to_ascii_lowercase().contains("bearer sk-test\r\n");
            let status = if is_known {
                "200 OK"
            } else {
                "401 Unauthorized"
            };
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}");
            // Whoever hung up needs none.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    format!("http://{address}/v1")
}

/// openshell inference set, get, update; both routes; with a verification and without.
async fn inference(cli: &mut Cli<'_>, endpoint: &str) {
    let set = |provider: &str, route: &str, no_verify| {
        with(routes::SetInferenceRouteRequest {
            provider_name: provider.to_owned(),
            model_id: "some-model".to_owned(),
            route_name: route.to_owned(),
            no_verify,
            workspace: WORKSPACE.to_owned(),
            ..Default::default()
        })
    };
    let set_main = set("main", "", true);
    let refused = cli.inference().set_inference_route(set_main).await;
    let refused = refused.expect_err("a type without an API");
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    for (route, no_verify, version) in [("", false, 1), ("", true, 2), ("sandbox-system", false, 1)]
    {
        let set = set("plain", route, no_verify);
        let set = cli.inference().set_inference_route(set).await;
        let set = set.expect("a route").into_inner();
        assert_eq!(
            (set.version, set.provider_name.as_str()),
            (version, "plain")
        );
        assert_eq!(set.validation_performed, !no_verify);
        let urls = set.validated_endpoints.iter().map(|e| e.url.as_str());
        let expected = format!("{endpoint}/chat/completions");
        let expected = (!no_verify).then_some(expected.as_str());
        assert_eq!(urls.collect::<Vec<_>>(), Vec::from_iter(expected));
        let get = routes::GetInferenceRouteRequest {
            route_name: route.to_owned(),
            workspace: WORKSPACE.to_owned(),
        };
        let got = cli.inference().get_inference_route(with(get)).await;
        let got = got.expect("the route").into_inner();
        assert_eq!((got.version, got.route_name), (version, set.route_name));
        assert_eq!(got.model_id, "some-model");
    }
}

/// openshell sandbox create, provider attach, list, detach; sandbox delete. Each change looks at the
/// sandbox first, and names the version that it saw.
async fn sandbox(cli: &mut Cli<'_>) {
    let create = v1::CreateSandboxRequest {
        name: "box".to_owned(),
        spec: Some(v1::SandboxSpec {
            providers: vec!["main".to_owned()],
            ..Default::default()
        }),
        workspace: WORKSPACE.to_owned(),
        ..Default::default()
    };
    let created = cli.gateway().create_sandbox(with(create)).await;
    created.expect("a sandbox");
    let version = seen(cli).await;
    let attach = |version| v1::AttachSandboxProviderRequest {
        sandbox_name: "box".to_owned(),
        provider_name: "plain".to_owned(),
        expected_resource_version: version,
        workspace: WORKSPACE.to_owned(),
    };
    let again = with(attach(version));
    let attach = with(attach(version));
    let attached = cli.gateway().attach_sandbox_provider(attach).await;
    assert!(attached.expect("an answer").into_inner().attached);
    let stale = cli.gateway().attach_sandbox_provider(again).await;
    let stale = stale.expect_err("a version that passed");
    assert_eq!(stale.code(), Code::Aborted);
    assert!(
        stale.message().contains("(current resource_version: 2)"),
        "{stale:?}"
    );
    let list = v1::ListSandboxProvidersRequest {
        sandbox_name: "box".to_owned(),
        workspace: WORKSPACE.to_owned(),
    };
    let listed = cli.gateway().list_sandbox_providers(with(list)).await;
    let listed = listed.expect("a list").into_inner().providers;
    let names = listed.into_iter().filter_map(|p| Some(p.metadata?.name));
    assert_eq!(names.collect::<Vec<_>>(), ["main", "plain"]);
    for provider in ["main", "plain"] {
        let version = seen(cli).await;
        let detach = v1::DetachSandboxProviderRequest {
            sandbox_name: "box".to_owned(),
            provider_name: provider.to_owned(),
            expected_resource_version: version,
            workspace: WORKSPACE.to_owned(),
        };
        let detached = cli.gateway().detach_sandbox_provider(with(detach)).await;
        assert!(detached.expect("an answer").into_inner().detached);
    }
    let delete = v1::DeleteSandboxRequest {
        name: "box".to_owned(),
        workspace: WORKSPACE.to_owned(),
    };
    let deleted = cli.gateway().delete_sandbox(with(delete)).await;
    assert!(deleted.expect("an answer").into_inner().deleted);
}

/// The version of the sandbox, as the next replica shows it.
async fn seen(cli: &mut Cli<'_>) -> u64 {
    let get = v1::GetSandboxRequest {
        name: "box".to_owned(),
        workspace: WORKSPACE.to_owned(),
    };
    let got = cli.gateway().get_sandbox(with(get)).await;
    let got = got.expect("the sandbox").into_inner().sandbox;
    got.and_then(|s| s.metadata).expect("it").resource_version
}

/// openshell inference remove; provider refresh delete; provider delete; profile delete.
async fn delete(cli: &mut Cli<'_>) {
    let route = routes::DeleteInferenceRouteRequest {
        route_name: String::new(),
        workspace: WORKSPACE.to_owned(),
    };
    let deleted = cli.inference().delete_inference_route(with(route)).await;
    assert!(deleted.expect("an answer").into_inner().deleted);

    for deleted in [true, false] {
        let refresh = v1::DeleteProviderRefreshRequest {
            provider: "main".to_owned(),
            credential_key: KEY.to_owned(),
            workspace: WORKSPACE.to_owned(),
        };
        let answer = cli.gateway().delete_provider_refresh(with(refresh)).await;
        assert_eq!(answer.expect("an answer").into_inner().deleted, deleted);
    }
    for (name, deleted) in [("main", true), ("plain", true), ("main", false)] {
        let provider = v1::DeleteProviderRequest {
            name: name.to_owned(),
            workspace: WORKSPACE.to_owned(),
        };
        let answer = cli.gateway().delete_provider(with(provider)).await;
        assert_eq!(
            answer.expect("an answer").into_inner().deleted,
            deleted,
            "{name}"
        );
    }
    let profile = v1::DeleteProviderProfileRequest {
        id: "acme".to_owned(),
        workspace: WORKSPACE.to_owned(),
    };
    let deleted = cli.gateway().delete_provider_profile(with(profile)).await;
    assert!(deleted.expect("an answer").into_inner().deleted);
    let list = v1::ListProvidersRequest {
        workspace: WORKSPACE.to_owned(),
        ..Default::default()
    };
    let left = cli
        .gateway()
        .list_providers(with(list))
        .await
        .expect("a list");
    assert!(left.into_inner().providers.is_empty());
}
