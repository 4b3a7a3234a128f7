//! The metadata endpoints, as their references describe them. Real SDKs are in `clients`.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use evermint_agent::{Cloud, Config, Metadata};
use evermint_agent_tests::{Gateway, Running, bundle, credential, token};
use evermint_proto::v1;
use serde_json::Value;

const TOKEN: &str = "/computeMetadata/v1/instance/service-accounts/default/token";

fn serving(cloud: Cloud, provider: Option<&str>) -> Config {
    let provider = provider.map(str::to_owned);
    Config {
        metadata: vec![Metadata { cloud, provider }],
        ..Config::default()
    }
}

fn session(generation: u64, ends_in_ms: Option<u64>) -> v1::Token {
    let mut session = token("AWS_ACCESS_KEY_ID", "AKIA", generation, ends_in_ms);
    session
        .values
        .insert("AWS_SECRET_ACCESS_KEY".to_owned(), "aws-secret".to_owned());
    session
        .values
        .insert("AWS_SESSION_TOKEN".to_owned(), "aws-session".to_owned());
    session
}

/// A bundle with something for everyone.
fn all(generation: u64, ends_in_ms: Option<u64>) -> v1::Bundle {
    let live = |name: &str, value: &str| token(name, value, generation, ends_in_ms);
    let credentials = vec![
        credential(
            "vertex",
            "VERTEX_AI_TOKEN",
            live("VERTEX_AI_TOKEN", "google-token"),
        ),
        credential("prod", "AWS_ACCESS_KEY_ID", session(generation, ends_in_ms)),
        credential("entra", "AZURE_TOKEN", live("AZURE_TOKEN", "azure-token")),
        credential("other", "API_TOKEN", live("API_TOKEN", "other-token")),
    ];
    let plain = |key: &str, value: &str| v1::PlainVariable {
        provider: "vertex".to_owned(),
        key: key.to_owned(),
        value: value.to_owned(),
    };
    v1::Bundle {
        plain: vec![
            plain("GOOGLE_CLOUD_PROJECT", "project-7"),
            plain("GOOGLE_CLIENT_EMAIL", "robot@project-7.example"),
        ],
        ..bundle(generation, Vec::new(), credentials)
    }
}

async fn get(running: &Running, path: &str, headers: &[(&str, &str)]) -> (u16, Value) {
    let mut request = reqwest::Client::new().get(running.local_url(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (
        status,
        serde_json::from_str(&text).unwrap_or(Value::String(text)),
    )
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

#[tokio::test]
async fn google_is_told_what_its_metadata_server_tells() {
    let gateway = Gateway::start().await;
    gateway.serve(all(1, Some(600_000)));
    let running = Running::start(&gateway, serving(Cloud::Google, None)).await;
    let flavor = [("metadata-flavor", "Google")];
    let accounts = "/computeMetadata/v1/instance/service-accounts";
    for (path, expected) in [
        (
            "/computeMetadata/v1/project/project-id".to_owned(),
            "project-7".to_owned(),
        ),
        (
            format!("{accounts}/default/email"),
            "robot@project-7.example".to_owned(),
        ),
        (
            format!("{accounts}/default/scopes"),
            "https://www.googleapis.com/auth/cloud-platform\n".to_owned(),
        ),
        (
            format!("{accounts}/"),
            "default/\nrobot@project-7.example/\n".to_owned(),
        ),
    ] {
        assert_eq!(
            get(&running, &path, &flavor).await,
            (200, Value::String(expected)),
            "{path}"
        );
    }
    let (status, account) = get(
        &running,
        &format!("{accounts}/default/?recursive=true"),
        &flavor,
    )
    .await;
    assert_eq!(
        (status, &account["email"]),
        (200, &Value::from("robot@project-7.example"))
    );
    let (status, token) = get(&running, TOKEN, &flavor).await;
    assert_eq!(status, 200);
    assert_eq!(token["access_token"], "google-token");
    let left = token["expires_in"].as_u64().unwrap();
    assert!((500..600).contains(&left), "{left}");
    assert_eq!(get(&running, TOKEN, &[]).await.0, 403, "without the header");
    let forwarded = [
        ("metadata-flavor", "Google"),
        ("x-forwarded-for", "1.2.3.4"),
    ];
    assert_eq!(get(&running, TOKEN, &forwarded).await.0, 403);
    let other = format!("{accounts}/other@example/token");
    assert_eq!(get(&running, &other, &flavor).await.0, 404);
    let identity = format!("{accounts}/default/identity?audience=a");
    assert_eq!(
        get(&running, &identity, &flavor).await.0,
        503,
        "it has none"
    );
}

#[tokio::test]
async fn a_token_that_ended_is_not_given() {
    let gateway = Gateway::start().await;
    gateway.serve(all(1, Some(0)));
    let running = Running::start(&gateway, serving(Cloud::Google, None)).await;
    let flavor = [("metadata-flavor", "Google")];
    let (status, text) = get(&running, TOKEN, &flavor).await;
    assert_eq!(status, 503);
    assert!(!text.to_string().contains("google-token"));
    gateway.serve(all(2, Some(60_000)));
    running.has(2).await;
    assert_eq!(get(&running, TOKEN, &flavor).await.0, 200);
}

/// The variables of a command, which lead SDKs to the endpoints.
fn environment(running: &Running) -> BTreeMap<String, String> {
    running.agent.environment().unwrap()
}

#[tokio::test]
async fn aws_is_given_a_session_against_the_key_in_a_file() {
    let gateway = Gateway::start().await;
    gateway.serve(all(1, Some(600_000)));
    let running = Running::start(&gateway, serving(Cloud::Aws, None)).await;
    let variables = environment(&running);
    let url = &variables["AWS_CONTAINER_CREDENTIALS_FULL_URI"];
    let path = url.strip_prefix(&running.local_url("")).unwrap();
    let key =
        std::fs::read_to_string(&variables["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]).unwrap();
    let (status, session) = get(&running, path, &[("authorization", &key)]).await;
    assert_eq!(status, 200);
    for (name, value) in [
        ("AccessKeyId", "AKIA"),
        ("SecretAccessKey", "aws-secret"),
        ("Token", "aws-session"),
    ] {
        assert_eq!(session[name], value);
    }
    assert!(session["Expiration"].as_str().unwrap().ends_with('Z'));
    for headers in [&[][..], &[("authorization", "wrong")]] {
        assert_eq!(get(&running, path, headers).await.0, 401);
    }
}

#[tokio::test]
async fn azure_is_given_a_token_against_the_key_in_the_environment() {
    let gateway = Gateway::start().await;
    gateway.serve(all(1, Some(600_000)));
    let running = Running::start(&gateway, serving(Cloud::Azure, None)).await;
    let variables = environment(&running);
    let path = variables["IDENTITY_ENDPOINT"]
        .strip_prefix(&running.local_url(""))
        .unwrap();
    let path = format!("{path}?api-version=2019-08-01&resource=https://vault.example");
    let key = [("x-identity-header", variables["IDENTITY_HEADER"].as_str())];
    let (status, token) = get(&running, &path, &key).await;
    assert_eq!(
        (status, &token["access_token"]),
        (200, &Value::from("azure-token"))
    );
    assert_eq!(token["resource"], "https://vault.example");
    let end: u64 = token["expires_on"].as_str().unwrap().parse().unwrap();
    assert!(end.abs_diff(now() + 600) < 60, "{end}");
    assert_eq!(get(&running, &path, &[]).await.0, 401);
}

#[tokio::test]
async fn a_provider_is_named_where_several_fit() {
    let gateway = Gateway::start().await;
    let two = |generation| {
        let google = |provider: &str, value: &str| {
            let live = token("GOOGLE_TOKEN", value, generation, None);
            credential(provider, "GOOGLE_TOKEN", live)
        };
        bundle(
            generation,
            Vec::new(),
            vec![google("a", "of-a"), google("b", "of-b")],
        )
    };
    gateway.serve(two(1));
    let flavor = [("metadata-flavor", "Google")];
    for (named, status, value) in [
        (None, 404, None),
        (Some("b"), 200, Some("of-b")),
        (Some("c"), 404, None),
    ] {
        let running = Running::start(&gateway, serving(Cloud::Google, named)).await;
        let (found, token) = get(&running, TOKEN, &flavor).await;
        let given = token.get("access_token").and_then(Value::as_str);
        assert_eq!((found, given), (status, value), "{named:?}");
        // A value without an end is to be asked for again within the hour.
        let expires_in = token.get("expires_in").and_then(Value::as_u64);
        assert_eq!(
            expires_in,
            value.map(|_| Duration::from_secs(3600).as_secs())
        );
    }
}
