//! Sandboxes that an OpenShell gateway behind the replica runs: it gives them their ids and tokens,
//! and is never told of providers; what is attached is Evermint's.

use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use axum::Router;
use axum::body::Body;
use axum::extract::Request as HttpRequest;
use axum::http::{HeaderMap, HeaderValue, Response as HttpResponse};
use axum::routing::post;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use evermint_core::secret::Secret;
use evermint_gateway::{AdminToken, Config, GatewayKey, TokenRules, UpstreamGateway};
use evermint_proto::openshell::datamodel::v1::ObjectMeta;
use evermint_proto::openshell::sandbox::v1 as sandbox;
use evermint_proto::openshell::v1;
use evermint_proto::openshell::v1::open_shell_client::OpenShellClient;
use evermint_proto::v1 as own;
use http_body_util::BodyExt as _;
use prost::Message;
use tokio::net::TcpListener;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::harness::{Harness, config, credentials};

const ADMIN: &str = "the-operator";
/// The sandbox that was created through Evermint, and the one that was there before.
const NEW: &str = "11111111-1111-4111-8111-111111111111";
/// A policy with a field that the commit of the protos does not know.
const POLICY: &[u8] = b"\x08\x01\xda\x3e\x0aa new rule";
const OLD: &str = "22222222-2222-4222-8222-222222222222";

/// What the gateway behind was asked: method, token, and what providers a request named.
pub(crate) type Asked = Arc<Mutex<Vec<(&'static str, String, Vec<String>)>>>;

/// Answers one method.
fn unary<Q, A>(
    router: Router,
    asked: &Asked,
    method: &'static str,
    answer: impl Fn(Q) -> (A, Vec<String>) + Clone + Send + Sync + 'static,
) -> Router
where
    Q: Message + Default + 'static,
    A: Message + 'static,
{
    let asked = Arc::clone(asked);
    let handler = move |request: HttpRequest| {
        let (asked, answer) = (Arc::clone(&asked), answer.clone());
        async move {
            let token = request.headers().get("authorization").cloned();
            let token = token.map(|t| t.to_str().unwrap().replace("Bearer ", ""));
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let (answer, providers) = answer(Q::decode(&body[5..]).unwrap());
            asked
                .lock()
                .unwrap()
                .push((method, token.unwrap_or_default(), providers));
            let message = answer.encode_to_vec();
            let mut frame = vec![0];
            frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
            frame.extend(message);
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let body = Body::from(frame).with_trailers(std::future::ready(Some(Ok(trailers))));
            HttpResponse::builder()
                .header("content-type", "application/grpc")
                .body(Body::new(body))
                .unwrap()
        }
    };
    router.route(&format!("/openshell.v1.OpenShell/{method}"), post(handler))
}

/// The sandbox of a name, as the gateway behind shows it.
fn theirs(id: &str, name: &str, spec: Option<v1::SandboxSpec>) -> v1::Sandbox {
    v1::Sandbox {
        metadata: Some(ObjectMeta {
            id: id.to_owned(),
            name: name.to_owned(),
            resource_version: 40,
            workspace: "default".to_owned(),
            ..Default::default()
        }),
        spec,
        status: Some(v1::SandboxStatus {
            phase: v1::SandboxPhase::Ready.into(),
            ..Default::default()
        }),
    }
}

pub(crate) async fn gateway_behind(asked: &Asked) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = router(asked);
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// What a gateway behind answers.
pub(crate) fn router(asked: &Asked) -> Router {
    let router = Router::new();
    let router = unary(
        router,
        asked,
        "CreateSandbox",
        |q: v1::CreateSandboxRequest| {
            let providers = q.spec.clone().unwrap_or_default().providers;
            let sandbox = Some(theirs(NEW, &q.name, q.spec));
            (v1::SandboxResponse { sandbox }, providers)
        },
    );
    let router = unary(router, asked, "GetSandbox", |q: v1::GetSandboxRequest| {
        let sandbox = Some(theirs(OLD, &q.name, None));
        (v1::SandboxResponse { sandbox }, vec![])
    });
    let router = unary(
        router,
        asked,
        "DeleteSandbox",
        |q: v1::DeleteSandboxRequest| {
            let deleted = q.name != "away";
            (v1::DeleteSandboxResponse { deleted }, vec![])
        },
    );
    let router = unary(
        router,
        asked,
        "GetSandboxConfig",
        |_: sandbox::GetSandboxConfigRequest| {
            let config = sandbox::GetSandboxConfigResponse {
                policy: Some(POLICY.into()),
                policy_hash: "theirs".to_owned(),
                provider_env_revision: 4,
                ..Default::default()
            };
            (config, vec![])
        },
    );
    let token = |text: &str| (text.to_owned(), vec![]);
    let router = unary(
        router,
        asked,
        "RefreshSandboxToken",
        move |_: v1::RefreshSandboxTokenRequest| {
            let (token, none) = token("their next");
            let answer = v1::RefreshSandboxTokenResponse {
                token,
                ..Default::default()
            };
            (answer, none)
        },
    );
    let router = unary(
        router,
        asked,
        "IssueSandboxToken",
        move |_: v1::IssueSandboxTokenRequest| {
            let (token, none) = token("their first");
            let answer = v1::IssueSandboxTokenResponse {
                token,
                ..Default::default()
            };
            (answer, none)
        },
    );
    unary(
        router,
        asked,
        "GetSandboxProviderEnvironment",
        |_: v1::GetSandboxProviderEnvironmentRequest| {
            let environment = v1::GetSandboxProviderEnvironmentResponse {
                provider_env_revision: 4,
                ..Default::default()
            };
            (environment, vec![])
        },
    )
}

/// A replica in front of a gateway, whose key it knows.
struct World {
    harness: Harness,
    asked: Asked,
    key: Ed25519KeyPair,
}

impl World {
    async fn start() -> Self {
        let key = Ed25519KeyPair::generate().unwrap();
        // SubjectPublicKeyInfo of Ed25519, RFC 8410 §4.
        let mut der = vec![
            0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
        ];
        der.extend(key.public_key().as_ref());
        let text = BASE64_STANDARD.encode(der);
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n");
        let asked = Asked::default();
        let harness = Harness::with(Config {
            admin: Some(AdminToken::new(&Secret::from(ADMIN))),
            upstream_gateway: Some(UpstreamGateway {
                url: gateway_behind(&asked).await,
                ca: None,
            }),
            tokens: TokenRules {
                gateway_id: "lab".to_owned(),
                gateway_key: Some(GatewayKey::from_pem("k1", pem.as_bytes()).unwrap()),
            },
            ..config()
        })
        .await;
        let world = Self {
            harness,
            asked,
            key,
        };
        let create = own::CreateProviderRequest {
            name: "openai".to_owned(),
            r#type: "openai".to_owned(),
            credentials: credentials(&[("OPENAI_API_KEY", "s3cret")]),
            ..Default::default()
        };
        let mut providers = world.harness.providers();
        providers.create_provider(by(ADMIN, create)).await.unwrap();
        world
    }

    fn face(&self) -> OpenShellClient<Channel> {
        OpenShellClient::new(self.harness.channel.clone())
    }

    /// A token as the gateway behind gives it.
    fn token(&self, sandbox: &str) -> String {
        let part = |json: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
        let head = part(serde_json::json!({"alg": "EdDSA", "typ": "JWT", "kid": "k1"}));
        let claims = part(serde_json::json!({
            "iss": "openshell-gateway:lab", "aud": "openshell-gateway:lab",
            "sub": format!("spiffe://openshell/sandbox/{sandbox}"),
            "iat": 1, "exp": 0, "sandbox_id": sandbox,
        }));
        let text = format!("{head}.{claims}");
        let signature = self.key.sign(text.as_bytes());
        format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    /// What the gateway behind was asked since this was looked at last.
    fn asked(&self) -> Vec<(&'static str, String, Vec<String>)> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    async fn create(&self) -> v1::Sandbox {
        let create = v1::CreateSandboxRequest {
            name: "box".to_owned(),
            spec: Some(v1::SandboxSpec {
                providers: vec!["openai".to_owned()],
                log_level: "debug".to_owned(),
                policy: Some(POLICY.into()),
                ..Default::default()
            }),
            ..Default::default()
        };
        let created = self.face().create_sandbox(by(ADMIN, create)).await;
        created.unwrap().into_inner().sandbox.unwrap()
    }
}

fn by<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = MetadataValue::try_from(format!("Bearer {token}")).unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

fn environment(id: &str) -> v1::GetSandboxProviderEnvironmentRequest {
    v1::GetSandboxProviderEnvironmentRequest {
        sandbox_id: id.to_owned(),
        supports_static_credential_bindings: true,
    }
}

#[tokio::test]
async fn a_sandbox_is_created_behind_without_its_providers_and_known_here_with_them() {
    let world = World::start().await;
    let sandbox = world.create().await;
    let expected = ("CreateSandbox", ADMIN.to_owned(), vec![]);
    assert_eq!(world.asked(), [expected]);
    let meta = sandbox.metadata.unwrap();
    assert_eq!((meta.id.as_str(), meta.resource_version), (NEW, 1));
    let spec = sandbox.spec.unwrap();
    assert_eq!(spec.providers, ["openai"]);
    assert_eq!(spec.log_level, "debug");
    assert_eq!(spec.policy.unwrap(), POLICY, "as it came, and went there");
    let status = sandbox.status.unwrap();
    assert_eq!(status.phase(), v1::SandboxPhase::Ready, "as it is behind");

    // With a token of the gateway behind, it gets what is attached here.
    let token = world.token(NEW);
    let mut face = world.face();
    let given = face.get_sandbox_provider_environment(by(&token, environment(NEW)));
    let given = given.await.unwrap().into_inner();
    assert_eq!(given.environment["OPENAI_API_KEY"], "s3cret");
    assert_eq!(world.asked(), []);
    // Its policy is theirs, the revision of its environment ours.
    let config = sandbox::GetSandboxConfigRequest {
        sandbox_id: NEW.to_owned(),
    };
    let config = face.get_sandbox_config(by(&token, config)).await;
    let config = config.unwrap().into_inner();
    assert_eq!(config.policy_hash, "theirs");
    assert_eq!(config.policy.unwrap(), POLICY);
    assert_eq!(config.provider_env_revision, given.provider_env_revision);
    assert_eq!(world.asked(), [("GetSandboxConfig", token.clone(), vec![])]);
    // Its next token has to be one that both take.
    let refresh = v1::RefreshSandboxTokenRequest::default();
    let next = face.refresh_sandbox_token(by(&token, refresh)).await;
    assert_eq!(next.unwrap().into_inner().token, "their next");
}

#[tokio::test]
async fn a_name_that_is_used_again_behind_is_another_sandbox_here() {
    let world = World::start().await;
    let create = own::CreateSandboxRequest {
        name: "box".to_owned(),
        ..Default::default()
    };
    let mut sandboxes = world.harness.sandboxes();
    let before = sandboxes.create_sandbox(by(ADMIN, create)).await.unwrap();
    let before = before.into_inner().sandbox.unwrap().id;
    let now = world.create().await.metadata.unwrap();
    assert_eq!(now.id, NEW);
    let state = world.harness.cluster.committed();
    let known: Vec<_> = state.sandboxes.keys().map(ToString::to_string).collect();
    assert_eq!(known, [NEW], "{before} is gone");
}

#[tokio::test]
async fn a_sandbox_that_is_deleted_behind_is_forgotten_here() {
    let world = World::start().await;
    world.create().await;
    world.asked();
    let mut face = world.face();
    let delete = |name: &str| {
        let name = name.to_owned();
        let workspace = String::new();
        by(ADMIN, v1::DeleteSandboxRequest { name, workspace })
    };
    let deleted = face.delete_sandbox(delete("box")).await.unwrap();
    assert!(deleted.into_inner().deleted);
    assert_eq!(world.asked(), [("DeleteSandbox", ADMIN.to_owned(), vec![])]);
    assert!(world.harness.cluster.committed().sandboxes.is_empty());
    // What is not known here is theirs to answer for.
    for (name, there) in [("old", true), ("away", false)] {
        let deleted = face.delete_sandbox(delete(name)).await.unwrap();
        assert_eq!(deleted.into_inner().deleted, there, "{name}");
    }
    // Its provider is free again.
    let delete = own::DeleteProviderRequest {
        name: "openai".to_owned(),
        ..Default::default()
    };
    let mut providers = world.harness.providers();
    providers.delete_provider(by(ADMIN, delete)).await.unwrap();
}

#[tokio::test]
async fn a_sandbox_from_before_is_theirs_until_a_provider_is_attached_to_it() {
    let world = World::start().await;
    let token = world.token(OLD);
    let mut face = world.face();
    let given = face.get_sandbox_provider_environment(by(&token, environment(OLD)));
    assert_eq!(given.await.unwrap().into_inner().provider_env_revision, 4);
    let expected = ("GetSandboxProviderEnvironment", token.clone(), vec![]);
    assert_eq!(world.asked(), [expected]);

    let attach = |expected| v1::AttachSandboxProviderRequest {
        sandbox_name: "old".to_owned(),
        provider_name: "openai".to_owned(),
        expected_resource_version: expected,
        ..Default::default()
    };
    let stale = face.attach_sandbox_provider(by(ADMIN, attach(39))).await;
    assert_eq!(stale.unwrap_err().code(), Code::Aborted);
    let attached = face.attach_sandbox_provider(by(ADMIN, attach(40))).await;
    let attached = attached.unwrap().into_inner();
    assert!(attached.attached);
    assert_eq!(attached.sandbox.unwrap().metadata.unwrap().id, OLD);
    world.asked();
    let given = face.get_sandbox_provider_environment(by(&token, environment(OLD)));
    let given = given.await.unwrap().into_inner();
    assert_eq!(given.environment["OPENAI_API_KEY"], "s3cret");
    assert_eq!(world.asked(), []);
}

#[tokio::test]
async fn whoever_is_not_known_here_may_be_known_to_the_gateway_that_runs_sandboxes() {
    let world = World::start().await;
    let mut face = world.face();
    let issue = v1::IssueSandboxTokenRequest {};
    let first = face
        .issue_sandbox_token(by("a.service.account", issue))
        .await;
    assert_eq!(first.unwrap().into_inner().token, "their first");
    let expected = ("IssueSandboxToken", "a.service.account".to_owned(), vec![]);
    assert_eq!(world.asked(), [expected]);
    // But operators' methods are ours to guard, and a token that is spent stays so.
    let get = v1::GetSandboxRequest {
        name: "box".to_owned(),
        ..Default::default()
    };
    let stranger = face.get_sandbox(by("a.b.c", get)).await.unwrap_err();
    assert_eq!(stranger.code(), Code::Unauthenticated);
    world.create().await;
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
    world.asked();
    let revoked = face.get_sandbox_provider_environment(by(&world.token(NEW), environment(NEW)));
    assert_eq!(revoked.await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(world.asked(), []);
}
